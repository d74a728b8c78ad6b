'''What the author of a bridge imports. Standard library only; a bridge imports its framework in `preload` or `setup`.

A complete bridge::

    from manybridge.bridge import Bridge, BridgeError, Context, command, resource


    class GreetBridge(Bridge):
        """Says hello."""

        name = "greet"
        capabilities = ("greeting",)

        def setup(self, options):
            self.greeting = options.get("greeting", "Hello")

        @command
        def hello(self, name: str, times: int = 1, *, ctx: Context) -> dict:
            """Greet somebody, slowly."""
            for n in range(times):
                ctx.check()                                    # stops here when the call was cancelled
                ctx.progress(n + 1, times, "greeting")
            return {"text": ", ".join([f"{self.greeting} {name}"] * times)}

        @resource("greeter")
        class Greeter:
            """Remembers whom to greet."""

            def create(self, name: str):
                self.name = name

            def execute(self, mood: str = "fine"):
                if mood == "angry":
                    raise BridgeError("not_supported", "An angry greeter does not greet")
                return {"text": f"{self.bridge.greeting} {self.name}, I am {mood}"}

Save it as `greet.py`; `manybridge worker greet.py` serves it. Clients call `greet:hello` with
`{"name": "Ada", "times": 2}` and create resources of type `greeter` with the config `{"name": "Ada"}`. Arguments are
validated from the annotations before a handler runs, and the same annotations make the schemas that
`common:capabilities` returns.
'''

from __future__ import annotations

from manybridge.bridge.base import Bridge
from manybridge.bridge.compiling import compile_bridge
from manybridge.bridge.context import (
    AsyncCallChannel,
    CallChannel,
    Context,
    DetachedContext,
    Result,
    V1Context,
    WorkerInfo,
)
from manybridge.bridge.declarations import Policy, command, resource
from manybridge.bridge.errors import BridgeDeclarationError, BridgeError, Cancelled
from manybridge.bridge.specs import BridgeSpec, CommandSpec, ResourceSpec
from manybridge.protocol.errors import ErrorCode

__all__ = [
    "AsyncCallChannel",
    "Bridge",
    "BridgeDeclarationError",
    "BridgeError",
    "BridgeSpec",
    "CallChannel",
    "Cancelled",
    "CommandSpec",
    "Context",
    "DetachedContext",
    "ErrorCode",
    "Policy",
    "ResourceSpec",
    "Result",
    "V1Context",
    "WorkerInfo",
    "command",
    "compile_bridge",
    "resource",
]

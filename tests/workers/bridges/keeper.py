"""Resource types of every policy, and tools of the client."""

from __future__ import annotations

import asyncio
from typing import Any

from manybridge.bridge import Bridge, BridgeError, Context, command, resource


class KeeperBridge(Bridge):
    name = "k"

    def setup(self, options: dict[str, Any]) -> None:
        if "concurrency" in options:
            type(self).max_concurrency = options["concurrency"]
        self.closed: list[str] = []
        self.cleaned: list[str | None] = []

    def cleanup(self, session_id: str | None) -> dict[str, Any]:
        self.cleaned.append(session_id)
        return {"bridge": "cleaned"}

    @resource("echo")
    class Echo:
        bridge: KeeperBridge
        id: str

        def create(self, size: int = 1) -> None:
            if size < 0:
                raise BridgeError("invalid_argument", "size: must not be negative")
            self.size = size

        def execute(self, text: str, *, ctx: Context) -> dict[str, Any]:
            ctx.emit(text)
            return {"text": text * self.size}

        def close(self) -> None:
            self.bridge.closed.append(self.id)
            if self.size == 13:
                raise RuntimeError("can't be closed")

    @resource("counter")
    class Counter:
        bridge: KeeperBridge
        id: str

        def create(self, start: int = 0) -> None:
            self.count = start

        def execute(self) -> dict[str, Any]:
            self.count += 1
            return {"count": self.count}

        def snapshot(self) -> dict[str, Any]:
            return {"count": self.count}

        def restore(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

        def close(self) -> None:
            self.bridge.closed.append(self.id)

    @resource("pin", policy="pinned")
    class Pin:
        def create(self, config: dict[str, Any]) -> None:
            self.config = config

        def execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return {"config": self.config, "inputs": inputs}

    @resource("slow")
    class Slow:
        """Made once the client said so."""

        bridge: KeeperBridge
        id: str

        def create(self, *, ctx: Context) -> None:
            ctx.call_host("gate")

        def execute(self) -> dict[str, Any]:
            return {}

        def close(self) -> None:
            self.bridge.closed.append(self.id)

    @command("log")
    def show_log(self) -> dict[str, Any]:
        return {"closed": self.closed, "cleaned": self.cleaned}

    # -- tools of the client

    @command
    def tool(self, tool: str, args: dict[str, Any], timeout: float | None = None, *, ctx: Context) -> dict[str, Any]:
        try:
            return {"answer": ctx.call_host(tool, args, timeout)}
        except BridgeError as error:
            return {"failed": error.code, "message": error.message, "details": error.details, "type": error.type}

    @command
    async def atool(self, tool: str, calls: int, timeout: float | None = None, *, ctx: Context) -> dict[str, Any]:
        try:
            answers = await asyncio.gather(*(ctx.acall_host(tool, {"n": n}, timeout) for n in range(calls)))
        except BridgeError as error:
            return {"failed": error.code}
        return {"answers": answers}

    @command
    def type_for_now(self, name: str) -> dict[str, Any]:
        class Passing:
            def create(self) -> None: ...

            def execute(self) -> dict[str, Any]:
                return {"type": name}

        self.register_resource(name, Passing)
        return {}

    @command
    def forget_type(self, name: str) -> dict[str, Any]:
        self.unregister_resource(name)
        return {}

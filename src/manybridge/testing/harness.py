"""Runs a bridge inside the test's own process: no worker, no wire, no timing.

Arguments are validated, handlers of every kind run, and events are recorded, as in a worker. What only a worker has
(interrupting code that does not ask, crash isolation, markers for results that JSON can't carry) is not imitated.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, NamedTuple, Self

from manybridge.bridge import Bridge, BridgeError, CommandSpec, Context, ErrorCode, ResourceSpec, Result, WorkerInfo
from manybridge.testing.problems import demand_bridge_class


class Outcome(NamedTuple):
    """Everything that a call gave."""

    result: Any
    chunks: list[Any]
    progress: list[dict[str, Any]]
    logs: list[dict[str, Any]]


class _Channel:
    """The `CallChannel` of one call: records events, and raises the cancel flag after a number of them."""

    def __init__(self, tools: Mapping[str, Callable[..., Any]], cancel_after: int | None) -> None:
        self.events: list[tuple[str, Any]] = []
        self._tools = tools
        self._cancel_after = cancel_after

    @property
    def cancelled(self) -> bool:
        return self._cancel_after is not None and len(self.events) >= self._cancel_after

    def emit_event(self, event: str, data: Any) -> None:
        self.events.append((event, data))

    def call_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Any:  # noqa: ARG002  # the protocol
        function = self._tools.get(tool)
        if function is None:
            raise BridgeError(ErrorCode.UNKNOWN_TOOL, f"No tool {tool!r}; this harness has {sorted(self._tools)}")
        return function(**args)

    def outcome(self, result: Any) -> Outcome:
        by_kind: dict[str, list[Any]] = {"chunk": [], "progress": [], "log": []}
        for event, data in self.events:
            by_kind[event].append(data)
        return Outcome(result, by_kind["chunk"], by_kind["progress"], by_kind["log"])


class BridgeHarness:
    """A bridge that is set up, ready to be called. Owns the bridge object and its event loop.

    Use it as a context manager::

        with BridgeHarness(WordBridge) as words:
            assert words.call("count", text="a b a") == {"a": 2, "b": 1}

    Args:
        bridge: the class.
        options: as in the configuration.
        tools: what `ctx.call_host` finds: name -> function, called with the arguments as keywords.
        session_id: the session of calls that name none.
    """

    def __init__(
        self,
        bridge: type[Bridge],
        options: dict[str, Any] | None = None,
        *,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        session_id: str | None = None,
    ) -> None:
        demand_bridge_class(bridge, "bridge")
        self._tools = tools or {}
        self._session_id = session_id
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.bridge = bridge()
        self.bridge.worker = WorkerInfo(id="harness", started_at=0.0)
        bridge.preload()
        self.bridge.setup(dict(options or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the bridge and the event loop."""
        try:
            self.bridge.close()
        finally:
            if self._loop is not None:
                self._loop.close()
                self._loop = None

    def call(self, command: str, /, **arguments: Any) -> Any:
        """The result of a command, without its events."""
        return self.run(command, arguments).result

    def run(
        self,
        command: str,
        arguments: dict[str, Any] | None = None,
        *,
        session_id: str | None = None,
        timeout: float | None = None,
        cancel_after: int | None = None,
    ) -> Outcome:
        """Runs a command and returns its result and events.

        Args:
            command: the operation, with or without the namespace.
            arguments: as they would arrive, JSON values.
            session_id: the caller's session; None takes the harness's.
            timeout: seconds until `ctx.deadline`; nothing is stopped by it.
            cancel_after: the cancel flag is up from this number of events on; 0 means from the start.

        Raises:
            BridgeError: `unknown_command`, `invalid_argument`, or what the handler raised.
            Cancelled: the handler noticed the flag.
        """
        name = command.removeprefix(f"{self.bridge.name}:")
        spec = self.bridge.spec.commands.get(name)
        if spec is None:
            raise BridgeError(ErrorCode.UNKNOWN_COMMAND, f"Unknown command: {command}")
        return self._invoke(spec, arguments or {}, session_id, timeout, cancel_after)

    def create(
        self, type_name: str, config: dict[str, Any] | None = None, *, session_id: str | None = None
    ) -> HarnessResource:
        """Makes a resource.

        Raises:
            BridgeError: `unknown_resource_type`, `invalid_argument`, or what `create` raised.
        """
        session = session_id or self._session_id
        spec, instance = self._new(type_name, config or {}, session)
        created = self._invoke(spec.create.bind(instance), config or {}, session, None, None)
        return HarnessResource(self, spec, instance, created)

    def restore(self, type_name: str, config: dict[str, Any], state: Any) -> HarnessResource:
        """Makes a resource as a worker does after the death of another: `restore` takes the place of `create`."""
        spec, instance = self._new(type_name, config, self._session_id)
        instance.restore(state)
        return HarnessResource(self, spec, instance, Outcome(None, [], [], []))

    def _new(self, type_name: str, config: dict[str, Any], session_id: str | None) -> tuple[ResourceSpec, Any]:
        spec = self.bridge.spec.resources.get(type_name)
        if spec is None:
            raise BridgeError(ErrorCode.UNKNOWN_RESOURCE_TYPE, f"Unknown resource type: {type_name}")
        return spec, spec.new(self.bridge, f"{type_name}-{next(self._numbers)}", session_id, config)

    def _invoke(
        self,
        spec: CommandSpec,
        arguments: dict[str, Any],
        session_id: str | None,
        timeout: float | None,
        cancel_after: int | None,
    ) -> Outcome:
        channel = _Channel(self._tools, cancel_after)
        kwargs = spec.validate(arguments)
        if spec.wants_context is not None:
            kwargs[spec.wants_context] = Context(
                channel,
                call_id=next(self._numbers),
                command=f"{self.bridge.name}:{spec.name}",
                session_id=session_id or self._session_id,
                deadline=None if timeout is None else monotonic() + timeout,
                streaming=True,
            )
        answer = spec.function(**kwargs)
        if spec.kind == "generator":
            return channel.outcome(_drain(answer, channel))
        if spec.kind == "coroutine":
            return channel.outcome(self._event_loop().run_until_complete(answer))
        if spec.kind == "async_generator":
            return channel.outcome(self._event_loop().run_until_complete(_adrain(answer, channel)))
        return channel.outcome(answer)

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        """One loop for the harness's life, as in a worker: clients of frameworks cache the loop that they met."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop


class HarnessResource:
    """A resource of a harness. `instance` is the bridge's own object."""

    def __init__(self, harness: BridgeHarness, spec: ResourceSpec, instance: Any, created: Outcome) -> None:
        self._harness = harness
        self.spec = spec
        self.instance = instance
        self.created = created
        """What `create` reported on its way."""

    @property
    def id(self) -> str:
        """Its id."""
        found: str = self.instance.id
        return found

    def execute(self, /, **inputs: Any) -> Any:
        """The result of executing it."""
        return self.run(inputs).result

    def run(
        self, inputs: dict[str, Any] | None = None, *, session_id: str | None = None, cancel_after: int | None = None
    ) -> Outcome:
        """Executes it and returns result and events. Arguments and errors as in `BridgeHarness.run`."""
        session = session_id or self.instance.session_id
        return self._harness._invoke(  # the two are one
            self.spec.execute.bind(self.instance), inputs or {}, session, None, cancel_after
        )

    def snapshot(self) -> Any:
        """Its state, as it would be stored."""
        return self.instance.snapshot()

    def close(self) -> None:
        """Closes it, if it can be closed."""
        close = getattr(self.instance, "close", None)
        if close is not None:
            close()


def _drain(generator: Any, channel: _Channel) -> Any:
    while True:
        try:
            chunk = next(generator)
        except StopIteration as end:
            return {} if end.value is None else end.value
        channel.emit_event("chunk", chunk)


async def _adrain(generator: Any, channel: _Channel) -> Any:
    result: Any = {}
    async for chunk in generator:
        if isinstance(chunk, Result):
            result = chunk.value
        else:
            channel.emit_event("chunk", chunk)
    return result

"""What a handler may know about its call and do during it, without any I/O of its own.

`Context` turns into effects only through a `CallChannel`, which the worker runtime implements; `Context.detached()`
has one that records, for unit tests of a bridge.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from time import monotonic, time
from types import MappingProxyType
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar, runtime_checkable

from manybridge.bridge.errors import BridgeError, Cancelled
from manybridge.protocol.errors import ErrorCode

T = TypeVar("T")

NO_SETTINGS: Final[Mapping[str, Any]] = MappingProxyType({})

WorkerMode = Literal["standalone", "pool-worker", "host"]
SandboxMode = Literal["required", "none"]


class WorkerInfo(NamedTuple):
    """The worker that a bridge runs in. The runtime sets it as `bridge.worker` before `setup`."""

    id: str | None = None
    """The id given by whoever started the worker; None when nobody gave one."""
    mode: WorkerMode = "standalone"
    """Who started it: a person or a port, a DSPex pool, or a manybridge host."""
    generation: int = 0
    """How many workers held this slot before."""
    started_at: float = 0.0
    """Epoch seconds."""
    sandbox: SandboxMode = "required"
    """Whether code that callers send needs a sandbox; who started the worker says so, and no caller can."""


class V1Context:
    """What a bridge of dialect "dspex" may know when it answers a version 1 command. One per worker.

    The runtime owns it: it counts every command that reaches dispatch in `command_count` before `handle_v1` is called,
    and every error reply in `error_count`. The bridge adds to `error_count` what it counts as an error although the
    reply is a success (a failed `configure_lm`). Version 1 calls are served one at a time, so nothing is locked.
    """

    __slots__ = ("command_count", "error_count", "mode", "started_at", "worker_id")

    def __init__(
        self,
        mode: WorkerMode = "standalone",
        worker_id: str | None = None,
        started_at: float | None = None,
        command_count: int = 0,
        error_count: int = 0,
    ) -> None:
        self.mode = mode
        self.worker_id = worker_id
        self.started_at = time() if started_at is None else started_at
        self.command_count = command_count
        self.error_count = error_count

    @property
    def uptime(self) -> float:
        """Seconds since the worker started."""
        return max(0.0, time() - self.started_at)

    def reset_counters(self) -> tuple[int, int]:
        """Set both counters to zero and return what `(command_count, error_count)` were."""
        before = (self.command_count, self.error_count)
        self.command_count = self.error_count = 0
        return before


class Result(Generic[T]):
    """The final result of an async generator, which can't `return` one: `yield Result(value)` last."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"Result({type(self.value).__name__})"


class CallChannel(Protocol):
    """How a `Context` reaches the outside. Implemented by the worker runtime, one per call; must be thread-safe."""

    @property
    def cancelled(self) -> bool:
        """Whether somebody wants this call to stop. Asked often, so it must be cheap."""
        ...

    def emit_event(self, event: str, data: Any) -> None:
        """Send one event of kind `chunk`, `progress` or `log`; dropped in silence if the caller takes no events."""
        ...

    def call_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Any:
        """Call a tool of the client and wait for its result, `timeout` seconds at most (None: the call's deadline).

        Raises:
            BridgeError: `unknown_tool`, `timeout`, or whatever the tool failed with.
            Cancelled: the call was cancelled meanwhile.
        """
        ...


@runtime_checkable
class AsyncCallChannel(Protocol):
    """What a channel may have in addition. Without it, `Context.acall_host` waits on a thread."""

    def acall_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Awaitable[Any]:
        """Like `CallChannel.call_host`, awaitable on the worker's event loop."""
        ...


class Context:
    """The call that a handler serves. Ask for it with a parameter `ctx: Context`; callers never see that parameter.

    All methods may be called from any thread of the call.

    Attributes:
        call_id: the caller's number for the call; None in a detached context.
        command: full name, `framework:operation`.
        session_id: the caller's session, or None.
        traceparent: W3C trace context, or None.
        deadline: on the clock of `time.monotonic`, in seconds; None if the call may take for ever.
        streaming: whether the caller takes events. Emitting is always allowed; ask before you pay for a stream.
    """

    __slots__ = ("_channel", "call_id", "command", "deadline", "session_id", "streaming", "traceparent")

    def __init__(
        self,
        channel: CallChannel,
        *,
        call_id: str | float | None = None,
        command: str = "",
        session_id: str | None = None,
        traceparent: str | None = None,
        deadline: float | None = None,
        streaming: bool = False,
    ) -> None:
        self._channel = channel
        self.call_id = call_id
        self.command = command
        self.session_id = session_id
        self.traceparent = traceparent
        self.deadline = deadline
        self.streaming = streaming

    @staticmethod
    def detached(
        *,
        tools: Mapping[str, Callable[..., Any]] | None = None,
        session_id: str | None = None,
        timeout: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> DetachedContext:
        """Return a context without a worker, for unit tests of a bridge.

        Args:
            tools: what `call_host` finds: name -> function, called with the arguments as keywords.
            session_id: as in `Context`.
            timeout: seconds until the deadline.
            settings: as in `Context`.
        """
        deadline = None if timeout is None else monotonic() + timeout
        return DetachedContext(tools or {}, session_id, deadline, settings or NO_SETTINGS)

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the caller's session was configured with for this bridge; empty where there is none."""
        # Not a part of CallChannel: a channel of a call without a session need not know of settings.
        found: Mapping[str, Any] = getattr(self._channel, "settings", NO_SETTINGS)
        return found

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop. Cheap: ask as often as you like."""
        return self._channel.cancelled

    def check(self) -> None:
        """Stop here if the call was cancelled.

        Raises:
            Cancelled: let it pass; the runtime turns it into the reply.
        """
        if self._channel.cancelled:
            raise Cancelled

    def time_left(self) -> float | None:
        """Seconds until the deadline, never below 0; None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - monotonic())

    def progress(self, current: float, total: float | None = None, message: str = "") -> None:
        """Tell the caller how far the work is, in any unit; `total` None means unknown."""
        self._channel.emit_event("progress", {"current": current, "total": total, "message": message})

    def emit(self, chunk: Any) -> None:
        """Send one piece of the answer, any JSON value, before the result."""
        self._channel.emit_event("chunk", chunk)

    def log(self, message: str, level: str = "info") -> None:
        """Send one log line to the caller; `level` is debug, info, warning or error."""
        self._channel.emit_event("log", {"level": level, "message": message})

    def call_host(self, tool: str, args: dict[str, Any] | None = None, timeout: float | None = None) -> Any:
        """Call a tool that the client registered and wait for its result.

        Args:
            tool: its name.
            args: its arguments, a JSON object.
            timeout: seconds; by default what is left of the call's own time.

        Raises:
            BridgeError: `unknown_tool`, `timeout`, or whatever the tool failed with.
            Cancelled: the call was cancelled meanwhile.
            TypeError: `tool` is no string, or `args` no mapping.
        """
        return self._channel.call_host(*_tool_and_args(tool, args), self._within(timeout))

    async def acall_host(self, tool: str, args: dict[str, Any] | None = None, timeout: float | None = None) -> Any:
        """Like `call_host`, without blocking the event loop; several may run at once."""
        tool, arguments = _tool_and_args(tool, args)
        if isinstance(self._channel, AsyncCallChannel):
            return await self._channel.acall_host(tool, arguments, self._within(timeout))
        from asyncio import to_thread

        return await to_thread(self._channel.call_host, tool, arguments, self._within(timeout))

    def _within(self, timeout: float | None) -> float | None:
        left = self.time_left()
        if timeout is None or left is None:
            return left if timeout is None else timeout
        return min(timeout, left)


def _tool_and_args(tool: Any, args: Any) -> tuple[str, dict[str, Any]]:
    """Check here what the client would take for a breach of the protocol, for which it would end the worker."""
    if not isinstance(tool, str):
        raise TypeError(f"tool: expected the name of a tool, a string, found {type(tool).__name__}")
    arguments = {} if args is None else args
    if not isinstance(arguments, Mapping):
        raise TypeError(f"args of tool {tool!r}: expected a mapping, found {type(args).__name__}")
    return tool, dict(arguments)


class DetachedContext(Context):
    """A context without a worker: records events, answers host calls from a mapping, is cancelled by hand.

    Attributes:
        events: `(kind, data)` in the order of emission.
    """

    __slots__ = ("_channel_state", "events")

    def __init__(
        self,
        tools: Mapping[str, Callable[..., Any]],
        session_id: str | None,
        deadline: float | None,
        settings: Mapping[str, Any] = NO_SETTINGS,
    ) -> None:
        self._channel_state = _RecordingChannel(tools, settings)
        self.events = self._channel_state.events
        super().__init__(self._channel_state, session_id=session_id, deadline=deadline, streaming=True)

    def cancel(self) -> None:
        """Make `cancelled` true from now on."""
        self._channel_state.cancelled = True


class _RecordingChannel:
    """The channel of a detached context."""

    def __init__(self, tools: Mapping[str, Callable[..., Any]], settings: Mapping[str, Any]) -> None:
        self.tools = tools
        self.settings = settings
        self.events: list[tuple[str, Any]] = []
        self.cancelled = False

    def emit_event(self, event: str, data: Any) -> None:
        self.events.append((event, data))

    def call_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Any:  # noqa: ARG002  # the protocol
        function = self.tools.get(tool)
        if function is None:
            raise BridgeError(ErrorCode.UNKNOWN_TOOL, f"No tool {tool!r}; this context has {sorted(self.tools)}")
        return function(**args)

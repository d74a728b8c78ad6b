"""One call as the host sees it, from the moment when a caller wants something to the moment when it has its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias

from manybridge.errors import CallCancelledError, CallTimeoutError, ManybridgeError
from manybridge.protocol.messages import Event, MessageId, Request

if TYPE_CHECKING:
    from manybridge.host.session_settings import HandedSettings
    from manybridge.host.worker import WorkerHandle

StopReason: TypeAlias = Literal["cancelled", "timeout"]

ToolRunner: TypeAlias = Callable[[str, dict[str, Any], float | None], Awaitable[Any]]
"""Runs a tool of the caller: its name, its arguments and the seconds that it has (None: as long as it takes)."""


class CallStage(StrEnum):
    """Where a call is. It only moves forward, but for a call that its dead worker had not begun."""

    QUEUED = "queued"
    SENT = "sent"
    DONE = "done"


QUEUED, SENT, DONE = CallStage
"""For the path of every call: looking a member up in its enum takes ten times as long as looking up a name."""


class Outcome(Protocol):
    """Where the answer goes: `asyncio.Future` or `concurrent.futures.Future`."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """It succeeded."""
        ...

    def set_exception(self, exception: Any, /) -> None:
        """It failed."""
        ...


class Call:
    """State of one call. The pool that it was given to is the only one that changes it.

    Args:
        command: with its namespace, unless the worker is meant to read it as version 1.
        args: its arguments; not changed.
        future: where the answer goes.
        timeout: seconds, `inf` for no limit.
    """

    # Class attributes are the defaults: building a call sets only what every call has.
    session_id: str | None = None
    settings: HandedSettings | None = None
    """Of its session, for the bridge; the worker is told them ahead of it."""
    traceparent: str | None = None
    stream = False
    """Whether events are asked for; a call whose worker may call tools needs them too."""
    on_event: Callable[[Event], None] | None = None
    """Gets `chunk`, `progress` and `log` events, in order, on the event loop."""
    on_sent: Callable[[], None] | None = None
    """Called right after it was written to a worker; again where it was taken back from a dead one."""
    tools: ToolRunner | None = None
    """Answers `call` events."""
    target: WorkerHandle | None = None
    """The one worker that may run it."""
    worker: WorkerHandle | None = None
    """The worker that has it."""
    id: MessageId = 0
    """Its number on that worker's connection."""
    stage = QUEUED
    sequence = 0
    """Its place in the order in which calls came to wait."""
    sent_at: float | None = None
    stop_reason: StopReason | None = None
    recalled = False
    """Whether its worker was asked to give it back, because another one is free."""
    stopped_by: str = "queue"
    """The last rung of the ladder that was tried."""
    of_host = False
    """Whether it is the host's own housekeeping: then it is never refused for want of room, nor for having waited."""
    queue_expires = inf
    """When it has waited for too long, monotonic."""

    def __init__(self, command: str, args: dict[str, Any], future: Outcome, timeout: float = inf) -> None:
        self.command = command
        self.args = args
        self.future = future
        self.timeout = timeout
        self.created_at = now = monotonic()
        self.deadline = now + timeout
        """Monotonic; inf for none."""

    def __repr__(self) -> str:
        return f"Call({self.command!r}, {self.stage})"

    @property
    def due(self) -> float:
        """When something must happen to it, monotonic."""
        return min(self.deadline, self.queue_expires) if self.stage is QUEUED else self.deadline

    def request(self, id: MessageId, deadline_ms: int | None) -> Request:
        """The message to a worker, of a call that has more than a command, arguments and a deadline."""
        return Request(
            id,
            self.command,
            self.args,
            stream=self.stream,
            session_id=self.session_id,
            deadline_ms=deadline_ms,
            traceparent=self.traceparent,
        )

    def succeed(self, result: Any) -> None:
        """Give the caller the result."""
        self.stage = DONE
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Give the caller the error."""
        self.stage = DONE
        if not self.future.done():
            self.future.set_exception(error)

    def stopped_error(self, **facts: Any) -> ManybridgeError:
        """The error of a call that the ladder has stopped."""
        details = {"stopped_by": self.stopped_by, "command": self.command, **facts}
        how = _HOW_STOPPED.get(self.stopped_by, f"it was stopped by {self.stopped_by}")
        if self.stop_reason == "timeout":
            details["timeout"] = self.timeout
            return CallTimeoutError(f"{self.command} took longer than {self.timeout:g} s; {how}", details=details)
        return CallCancelledError(f"{self.command} was cancelled; {how}", details=details)


_HOW_STOPPED: Final = {
    "queue": "it had not begun",
    "cooperative": "its code stopped by itself",
    "exception": "its code was interrupted",
    "sigterm": "its code did not stop, so its worker was ended with SIGTERM",
    "sigkill": "its code did not stop, so its worker was killed with SIGKILL",
    "drain": "its code did not stop; its worker takes no more calls and is killed when its other calls have ended",
}


def loop_future() -> asyncio.Future[Any]:
    """Return a future of the running loop."""
    return asyncio.get_running_loop().create_future()

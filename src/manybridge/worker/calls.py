"""One call as the worker sees it, from the request to the reply."""

from __future__ import annotations

import threading
from collections.abc import Awaitable
from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, Any

from manybridge.bridge import Context
from manybridge.protocol.messages import Request

if TYPE_CHECKING:
    import asyncio

    from manybridge.worker.host_calls import HostCalls
    from manybridge.worker.outbox import Outbox


class Stage(StrEnum):
    """Where a call is. It only moves forward."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


_stage_lock = threading.Lock()
"""Guards the step from QUEUED: the executor takes a call or a cancel takes it, never both."""


class WorkerCall:
    """State of one call; also the `CallChannel` behind its `Context`.

    Owned by the executor once it is running. The stop ladder (`stopping.py`) writes `stop_reason` and the times of
    its rungs; nothing else does.
    """

    __slots__ = (
        "_host_calls", "_outbox", "deadline", "extended", "interrupted", "last_interrupt", "received_at", "request",
        "stage", "started_at", "stop_reason", "stop_requested_at", "task", "thread_id",
    )  # fmt: skip

    def __init__(self, request: Request, *, extended: bool, outbox: Outbox, host_calls: HostCalls) -> None:
        self.request = request
        self.extended = extended
        """Whether the caller speaks version 2 for this call."""
        self.received_at = monotonic()
        deadline_ms = request.deadline_ms
        self.deadline = None if deadline_ms is None else self.received_at + deadline_ms / 1000
        self.stage = Stage.QUEUED
        self.started_at: float | None = None
        self.stop_reason: str | None = None
        """Why the call must stop, `cancelled` or `timeout`; None while it may go on."""
        self.stop_requested_at: float | None = None
        self.last_interrupt: float | None = None
        self.interrupted = False
        """Whether the exception of the second rung was really raised in its code."""
        self.thread_id: int | None = None
        self.task: asyncio.Task[Any] | None = None
        """Set while a coroutine of this call runs on the event loop."""
        self._outbox = outbox
        self._host_calls = host_calls

    def __repr__(self) -> str:
        return f"WorkerCall({self.request.id!r}, {self.request.command!r}, {self.stage})"

    def claim(self, following: Stage) -> bool:
        """Leave QUEUED for `following`. False if somebody else took the call first."""
        with _stage_lock:
            if self.stage is not Stage.QUEUED:
                return False
            self.stage = following
            return True

    def context(self) -> Context:
        """What the handler gets."""
        request = self.request
        return Context(
            self,
            call_id=request.id,
            command=request.command,
            session_id=request.session_id,
            traceparent=request.traceparent,
            deadline=self.deadline,
        )

    @property
    def stopped_by(self) -> str:
        """The rung of the ladder that ended the call."""
        if self.started_at is None:
            return "queue"
        return "exception" if self.interrupted else "cooperative"

    # CallChannel

    @property
    def cancelled(self) -> bool:
        """Whether the handler should stop."""
        return self.stop_reason is not None

    def emit_event(self, event: str, data: Any) -> None:
        """Send an event; dropped if the caller did not ask for a stream, or the call is over."""
        if self.request.stream and self.stage is Stage.RUNNING:
            self._outbox.send_event(self.request.id, event, data)

    def call_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Any:
        """Call a tool of the client and wait."""
        return self._host_calls.call(self, tool, args, timeout)

    def acall_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Awaitable[Any]:
        """Call a tool of the client from the event loop."""
        return self._host_calls.acall(self, tool, args, timeout)

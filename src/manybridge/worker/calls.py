"""One call as the worker sees it, from the request to the reply; and the table of those that are open."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Awaitable, Mapping
from enum import StrEnum
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from manybridge.bridge import Context
from manybridge.bridge.context import NO_SETTINGS
from manybridge.protocol.messages import EVENT_PROGRESS, MessageId, Request

if TYPE_CHECKING:
    import asyncio

    from manybridge.bridge.progress import ProgressSource
    from manybridge.worker.host_calls import HostCalls
    from manybridge.worker.outbox import Outbox


class Stage(StrEnum):
    """Where a call is. It only moves forward."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


QUEUED, RUNNING, DONE = Stage
"""For the path of every call: looking a member up in its enum takes ten times as long as looking up a name."""


_stage_lock = threading.Lock()
"""Guards two steps: the executor takes a call or a cancel takes it, and one of them answers it; never both."""


class WorkerCall:
    """State of one call; also the `CallChannel` behind its `Context`.

    Owned by the executor once it is running. The stop ladder (`stopping.py`) writes `stop_reason` and the times of
    its rungs; nothing else does.
    """

    # Class attributes are the defaults: making a call sets only what differs from call to call.
    plain = False
    """Whether it is a version 1 command in the dialect of DSPex (`version1.py`)."""
    stage: Stage = QUEUED
    started_at: float | None = None
    stop_reason: str | None = None
    """Why the call must stop, `cancelled` or `timeout`; None while it may go on."""
    stop_requested_at: float | None = None
    last_interrupt: float | None = None
    interrupted = False
    """Whether the exception of the second rung was really raised in its code."""
    thread_id: int | None = None
    loop: asyncio.AbstractEventLoop | None = None
    """Set while the call's own thread runs the event loop; then only the code of a task may be interrupted."""
    task: asyncio.Task[Any] | None = None
    """Set while a coroutine of this call runs on the event loop."""
    settings: Mapping[str, Any] = NO_SETTINGS
    """Of the caller's session, for this bridge."""
    progress_sources: list[ProgressSource] | None = None
    """Bars and the like that report without the handler's doing, oldest first."""
    _answered = False
    _reports_itself = False

    def __init__(self, request: Request, extended: bool, outbox: Outbox, host_calls: HostCalls) -> None:
        self.request = request
        self.extended = extended
        """Whether the caller speaks version 2 for this call."""
        deadline_ms = request.deadline_ms
        self.deadline = None if deadline_ms is None else monotonic() + deadline_ms / 1000
        self._outbox = outbox
        self._host_calls = host_calls

    def __repr__(self) -> str:
        return f"WorkerCall({self.request.id!r}, {self.request.command!r}, {self.stage})"

    def claim(self, following: Stage) -> bool:
        """Leave QUEUED for `following`. False if somebody else took the call first."""
        with _stage_lock:
            if self.stage is not QUEUED:
                return False
            self.stage = following
            return True

    def take_answer(self) -> bool:
        """Claim the right to send the call's one reply; the call is over. False if somebody else has it."""
        with _stage_lock:
            if self._answered:
                return False
            self._answered = True
            self.stage = DONE
            return True

    def cancel_task(self) -> bool:
        """Cancel the call's coroutine: raised where it awaits. False if it has none. Any thread."""
        task = self.task  # once: the thread that runs it takes it away when it is done
        if task is None:
            return False
        with contextlib.suppress(RuntimeError):  # the user's code closed the loop
            task.get_loop().call_soon_threadsafe(task.cancel)
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
            streaming=request.stream,
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
        if self.request.stream and self.stage is RUNNING:
            if event == EVENT_PROGRESS:
                self._reports_itself = True
            self._outbox.send_event(self.request.id, event, data)

    def report_automatically(self, data: dict[str, Any]) -> None:
        """Send progress of a bar or the like, unless the handler has sent its own."""
        if self.request.stream and self.stage is RUNNING and not self._reports_itself:
            self._outbox.send_event(self.request.id, EVENT_PROGRESS, data)

    def call_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Any:
        """Call a tool of the client and wait."""
        return self._host_calls.call(self, tool, args, timeout)

    def acall_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Awaitable[Any]:
        """Call a tool of the client from the event loop."""
        return self._host_calls.acall(self, tool, args, timeout)


class CallTable:
    """The calls that have no reply yet, by id. Owner of that mapping; any thread may use it."""

    def __init__(self) -> None:
        self._open: dict[MessageId, WorkerCall] = {}
        self._somebody_waits = False
        self._changed: SimpleQueue[None] = SimpleQueue()  # not a semaphore, see Lane

    def __len__(self) -> int:
        return len(self._open)

    # try, not contextlib.suppress, which takes longer than all the rest of what happens here.

    def add(self, call: WorkerCall) -> None:
        """Remember a call. One with an id that only version 1 allows, such as an array, can't be found again."""
        try:
            self._open[call.request.id] = call
        except TypeError:
            pass

    def remove(self, call: WorkerCall) -> None:
        """Forget a call that has its reply."""
        try:
            if self._open.get(call.request.id) is call:
                del self._open[call.request.id]
        except TypeError:
            pass
        if self._somebody_waits:
            self._changed.put(None)

    def find(self, id: Any) -> WorkerCall | None:
        """The open call of that id."""
        try:
            return self._open.get(id)
        except TypeError:
            return None

    def all(self) -> list[WorkerCall]:
        """Every open call, oldest first."""
        return list(self._open.values())

    def in_stage(self, stage: Stage) -> list[WorkerCall]:
        """The open calls that are there, oldest first."""
        return [call for call in self.all() if call.stage is stage]

    def wait_for_change(self, seconds: float) -> None:
        """Wait until a call was answered, at most so long."""
        self._somebody_waits = True
        if self._open:  # asked again after the announcement
            with contextlib.suppress(Empty):
                self._changed.get(timeout=seconds)

"""Jobs: calls with a life of their own. Their state, progress, events and result can be asked for at any time."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic, time
from typing import Any, Final

from manybridge.errors import CallCancelledError, CallError, ManybridgeError
from manybridge.host.arguments import checked_text
from manybridge.host.calls import Call, CallStage
from manybridge.host.options import CallOptions
from manybridge.host.streams import StreamEvent
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import EVENT_PROGRESS, Event

KEPT_EVENTS: Final = 10_000
"""Events that a job keeps for late readers; the oldest go first."""


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "queued"
    STARTING = "starting"
    """No worker is ready yet."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL_STATES: Final = frozenset({JobState.DONE, JobState.FAILED, JobState.CANCELLED})


@dataclass(frozen=True, slots=True)
class JobProgress:
    """The last progress that a job reported."""

    current: float
    total: float | None
    message: str
    rate: float | None
    """Steps in a second since the first report; None before the second one."""
    time_left: float | None
    """Seconds, at that rate; None where total or rate is not known."""


class AsyncJob:
    """One job. Made by `submit`.

    Args:
        id: of the job.
        bridge: where it runs.
        command: what it runs.
        is_starting: whether its bridge has no worker yet.
    """

    def __init__(self, id: str, bridge: str, command: str, is_starting: Callable[[], bool]) -> None:
        self.id = id
        self.bridge = bridge
        self.command = command
        self.created_at = time()
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.progress: JobProgress | None = None
        self._is_starting = is_starting
        self._events: deque[StreamEvent] = deque(maxlen=KEPT_EVENTS)
        self._count = 0
        self._first_report: tuple[float, float] | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[Any] | None = None
        self._call: Call | None = None
        """The call to a worker that was made last for it."""
        self._stop: Callable[[Call], None]

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.command} {self.state}>"

    @property
    def state(self) -> JobState:
        """How far it is."""
        task = self._task
        if task is not None and task.done():
            return _final_state(task)
        if self.started_at is not None:
            return JobState.RUNNING
        return JobState.STARTING if self._is_starting() else JobState.QUEUED

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._task is not None and self._task.done()

    @property
    def error(self) -> ManybridgeError | None:
        """Why it failed or was cancelled; None while it has not."""
        if not self.done or self._task is None:
            return None
        if self._task.cancelled():
            return CallCancelledError(f"job {self.id} was cancelled", details={"job": self.id})
        error = self._task.exception()
        return error if isinstance(error, ManybridgeError) else None

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for at most `timeout` seconds. Returns whether it has."""
        assert self._task is not None
        done, _ = await asyncio.wait({self._task}, timeout=timeout)
        return bool(done)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds; it goes on.
            ManybridgeError: it failed, or was cancelled.
        """
        assert self._task is not None
        if not await self.wait(timeout):
            raise TimeoutError(f"job {self.id} has not ended within {timeout} s; it goes on")
        if self._task.cancelled():
            raise CallCancelledError(f"job {self.id} was cancelled", details={"job": self.id})
        return self._task.result()

    async def cancel(self) -> bool:
        """Stop it, and return when its work has ended. Returns whether it still ran.

        The error of its result says which rung of the ladder stopped it.
        """
        if self.done or self._task is None:
            return False
        if self._call is not None and self._call.stage is not CallStage.DONE:
            self._stop(self._call)
        else:  # between two calls, or before the first one: nothing runs that would have to be stopped
            self._task.cancel()
        await asyncio.wait({self._task})
        return True

    async def events(self, from_seq: int = 0) -> AsyncIterator[StreamEvent]:
        """Yield its events from number `from_seq` on, past and future ones, until it ends."""
        while events := await self.take_events(from_seq):
            for event in events:
                yield event
            from_seq = events[-1].seq + 1

    async def take_events(self, from_seq: int) -> list[StreamEvent]:
        """Return the events from number `from_seq` on, waiting for the first; an empty list at the end."""
        while True:
            first = self._count - len(self._events)
            if events := list(self._events)[max(0, from_seq - first) :]:
                return events
            if self.done:
                return []
            self._changed.clear()
            await self._changed.wait()

    def describe(self) -> dict[str, Any]:
        """Return what is known of it as plain data."""
        error, progress = self.error, self.progress
        return {
            "id": self.id,
            "bridge": self.bridge,
            "command": self.command,
            "state": str(self.state),
            "progress": None if progress is None else {name: getattr(progress, name) for name in _PROGRESS_FIELDS},
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "events": self._count,
            "error": None if error is None else error.to_info().to_object(),
        }

    # ------------------------------------------------------------------ what the manager does

    def begin(
        self,
        work: Callable[[CallOptions], Coroutine[Any, Any, Any]],
        options: CallOptions,
        stop: Callable[[Call], None],
    ) -> None:
        """Start the call; `stop` is told of the call to a worker that is to be stopped."""
        self._stop = stop
        options.on_event, options.on_call = self._receive, self._call_made
        self._task = asyncio.get_running_loop().create_task(work(options), name=f"job {self.id}")
        self._task.add_done_callback(self._ended)

    def _call_made(self, call: Call) -> None:
        self._call = call
        call.on_sent = self._sent

    def _sent(self) -> None:
        if self.started_at is None:
            self.started_at = time()

    def _receive(self, event: Event) -> None:
        # Numbered anew: a job's events have no gaps, although a call's may (calls of tools are not among them).
        self._events.append(StreamEvent(event.event, self._count, event.data))
        self._count += 1
        if event.event == EVENT_PROGRESS:
            self.progress = self._measure(event.data)
        self._changed.set()

    def _measure(self, data: dict[str, Any]) -> JobProgress:
        now, current, total = monotonic(), data.get("current", 0), data.get("total")
        if self._first_report is None:
            self._first_report = (now, current)
            return JobProgress(current, total, data.get("message", ""), None, None)
        began, first = self._first_report
        rate = (current - first) / (now - began) if now > began and current > first else None
        left = (total - current) / rate if rate and total is not None else None
        return JobProgress(current, total, data.get("message", ""), rate, left)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # read by `result`; nobody may ever ask
        self.finished_at = time()
        self._changed.set()


class JobTable:
    """Owner of the jobs of one host.

    Args:
        max_jobs: so many are remembered; the oldest finished ones are forgotten first.
    """

    def __init__(self, max_jobs: int) -> None:
        self._max_jobs = max_jobs
        self._jobs: dict[str, AsyncJob] = {}

    def add(self, bridge: str, command: str, is_starting: Callable[[], bool]) -> AsyncJob:
        """Make a job that has not begun."""
        job = AsyncJob(f"job-{secrets.token_hex(4)}", bridge, command, is_starting)
        self._jobs[job.id] = job
        for finished in [each for each in self._jobs.values() if each.done][: max(0, len(self._jobs) - self._max_jobs)]:
            del self._jobs[finished.id]
        return job

    def get(self, id: str) -> AsyncJob:
        """Return a job.

        Raises:
            CallError: `job_not_found`.
            InvalidArgumentError: the id is no text.
        """
        if checked_text(id, "id") not in self._jobs:
            raise CallError(f'there is no job "{id}"', code=ErrorCode.JOB_NOT_FOUND, details={"job": id})
        return self._jobs[id]

    def list(self) -> list[AsyncJob]:
        """Return every job, oldest first."""
        return list(self._jobs.values())

    async def close(self) -> None:
        """Cancel what runs."""
        for job in self._jobs.values():
            await job.cancel()


_PROGRESS_FIELDS: Final = ("current", "total", "message", "rate", "time_left")


def _final_state(task: asyncio.Task[Any]) -> JobState:
    if task.cancelled():
        return JobState.CANCELLED
    error = task.exception()
    if error is None:
        return JobState.DONE
    cancelled = isinstance(error, ManybridgeError) and error.code == ErrorCode.CANCELLED
    return JobState.CANCELLED if cancelled else JobState.FAILED

"""Jobs: calls with a life of their own. Their state, progress, events and result can be asked for at any time."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine
from enum import StrEnum
from time import time
from typing import TYPE_CHECKING, Any, Final

from manybridge.errors import CallCancelledError, ManybridgeError
from manybridge.host.arguments import wrong_argument
from manybridge.host.calls import Call, CallStage
from manybridge.host.job_events import EventLog, gap, with_gaps
from manybridge.host.kept_secrets import without_keys
from manybridge.host.options import CallOptions
from manybridge.host.progress import JobProgress, ProgressMeter
from manybridge.host.streams import StreamEvent
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import EVENT_LOG, EVENT_PROGRESS, Event
from manybridge.store.records import JobRecord

if TYPE_CHECKING:
    from manybridge.host.job_journal import JobJournal

_log = logging.getLogger("manybridge.host")


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

CLOSING_CODES: Final = frozenset({ErrorCode.HOST_CLOSED, ErrorCode.SHUTTING_DOWN, ErrorCode.CANCELLED})
"""What jobs end with because their host is closed."""


class AsyncJob(ABC):
    """One job, wherever it runs. `LiveJob` is one of this host, `StoredJob` one that only the store knows."""

    id: str
    bridge: str
    """Where it runs."""
    command: str
    """What it runs."""
    session: str | None
    created_at: float
    """Unix seconds, as the next two."""
    started_at: float | None
    finished_at: float | None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.command} {self.state}>"

    @property
    @abstractmethod
    def state(self) -> JobState:
        """How far it is."""

    @property
    @abstractmethod
    def progress(self) -> JobProgress | None:
        """How far its work is, how fast it goes and how long it will take, as of now; None before its first report."""

    @property
    @abstractmethod
    def error(self) -> ManybridgeError | None:
        """Why it failed or was cancelled; None while it has not."""

    @property
    @abstractmethod
    def event_count(self) -> int:
        """How many events it has had: the number of the next one."""

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self.state in FINAL_STATES

    @abstractmethod
    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for at most `timeout` seconds. Returns whether it has."""

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds; it goes on.
            ManybridgeError: it failed, or was cancelled.
        """
        if not await self.wait(timeout):
            raise TimeoutError(f"job {self.id} has not ended within {timeout} s; it goes on")
        error = self.error
        if error is not None:
            raise error.copy()
        return self._result()

    @abstractmethod
    async def cancel(self) -> bool:
        """Stop it, and return when its work has ended. Returns whether it still ran; one that had ended stays as it is.

        The error of its result says in `details["stopped_by"]` which rung of the ladder stopped it.
        """

    async def events(self, from_seq: int = 0) -> AsyncIterator[StreamEvent]:
        """Yield its events from number `from_seq` on, past and future ones, until it ends.

        Events that are not kept any more are told as one event `gap`, whose `data` has `from_seq` and `to_seq`.
        """
        while events := await self.take_events(from_seq):
            for event in events:
                yield event
            from_seq = events[-1].seq + 1

    @abstractmethod
    async def take_events(self, from_seq: int, *, wait: bool = True) -> list[StreamEvent]:
        """Return events from number `from_seq` on, waiting for the first; an empty list at the end.

        Args:
            from_seq: the number of the first one that is wanted.
            wait: False returns an empty list where there is none now.

        Raises:
            InvalidArgumentError: `from_seq` is no whole number from 0 on.
        """

    @abstractmethod
    def _result(self) -> Any:
        """What it returned; it is done."""

    def describe(self) -> dict[str, Any]:
        """Return what is known of it, but for its result, as plain data."""
        error, progress = self.error, self.progress
        return {
            "id": self.id,
            "bridge": self.bridge,
            "command": self.command,
            "session": self.session,
            "state": str(self.state),
            "progress": None if progress is None else progress.to_object(),
            "created_at": self.created_at,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "events": self.event_count,
            "error": None if error is None else error.to_info().to_object(),
        }


class LiveJob(AsyncJob):
    """A job of this host. Made by `submit`.

    Owner of its task and of its events. Its readers read at their own pace: none of them can hold it up.

    Args:
        id: of the job.
        bridge: where it runs.
        command: what it runs.
        args: with what.
        is_starting: whether its bridge has no worker yet.
        session: as in `submit`.
        resume: whether it may be run again after an interruption.
        journal: keeps it durable; None where there is no store.
        first_event: the number of its first event.
    """

    def __init__(
        self,
        id: str,
        bridge: str,
        command: str,
        args: dict[str, Any],
        is_starting: Callable[[], bool],
        *,
        session: str | None = None,
        resume: bool = False,
        journal: JobJournal | None = None,
        first_event: int = 0,
    ) -> None:
        self.id = id
        self.bridge = bridge
        self.command = command
        self.args = args
        # One that may run again needs its arguments, and has no keys among them; without a store nothing is kept.
        self._kept_args = args if resume or journal is None else without_keys(args)
        self.session = session
        self.resume = resume
        self.created_at = time()
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.log = EventLog(first_event)
        if journal is not None:
            self.log.needed_from = first_event
        self.was_claimed = False
        """Whether it was taken over from a host that has gone."""
        self.is_deleted = False
        self.host_closes = False
        """Set when the host closes: what ends the job from then on is an interruption."""
        self._is_starting = is_starting
        self._journal = journal
        self._meter = ProgressMeter()
        self._last_progress: JobProgress | None = None
        """As it was when the job ended: its rate does not fall from then on."""
        self._changed = asyncio.Event()
        self._finished = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._cancelling = False
        self._call: Call | None = None
        """The call to a worker that was made last for it."""
        self._stop: Callable[[Call], None]
        self._outcome: tuple[JobState, Any, ManybridgeError | None] | None = None
        """Final state, result and error; readers see them once they are stored."""

    @property
    def state(self) -> JobState:
        """How far it is."""
        if self._outcome is not None and self._finished.is_set():
            return self._outcome[0]
        if self.started_at is not None:
            return JobState.RUNNING
        return JobState.STARTING if self._is_starting() else JobState.QUEUED

    @property
    def progress(self) -> JobProgress | None:
        """How far its work is; measured when asked."""
        return self._last_progress if self.finished_at is not None else self._meter.measure()

    @property
    def error(self) -> ManybridgeError | None:
        """Why it failed or was cancelled."""
        return self._outcome[2] if self._outcome is not None and self._finished.is_set() else None

    @property
    def event_count(self) -> int:
        """The number of the next event."""
        return self.log.next

    @property
    def current_call(self) -> Call | None:
        """The call to a worker that was made last for it."""
        return self._call

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended."""
        if timeout is None:
            await self._finished.wait()
        elif not self._finished.is_set():
            try:
                async with asyncio.timeout(max(0.0, timeout)):
                    await self._finished.wait()
            except TimeoutError:
                return self._finished.is_set()
        return True

    async def cancel(self) -> bool:
        """Stop it, in whatever state it is, and return when its work has ended."""
        if self._outcome is not None:
            await self._finished.wait()  # its result is being stored
            return False
        self._cancelling = True
        call = self._call
        if call is not None and call.stage is CallStage.DONE:
            await asyncio.sleep(0)  # the answer is here but was not looked at: it may be the job's last
            call = self._call
        if self._outcome is None and self._task is not None:
            if call is not None and call.stage is not CallStage.DONE:
                self._stop(call)
            else:  # between two calls, or before the first one: nothing runs that would have to be stopped
                self._task.cancel()
        await self._finished.wait()
        return self._outcome is not None and self._outcome[0] is JobState.CANCELLED

    async def take_events(self, from_seq: int, *, wait: bool = True) -> list[StreamEvent]:
        """Return events from memory, and older ones from the store."""
        checked_from_seq(from_seq)
        while True:
            if from_seq < self.log.first:
                return await self._older_events(from_seq)
            if events := self.log.read(from_seq):
                return events
            if not wait or self._finished.is_set():
                return []
            self._changed.clear()
            await self._changed.wait()

    async def _older_events(self, from_seq: int) -> list[StreamEvent]:
        first = self.log.first
        stored = [] if self._journal is None else await self._journal.read(self.id, from_seq)
        found = with_gaps(from_seq, [event for event in stored if event.seq < first])
        return found or [gap(from_seq, first - 1)]

    def _result(self) -> Any:
        return None if self._outcome is None else self._outcome[1]

    def record(self) -> JobRecord:
        """What the store keeps of it."""
        state, result, error = self._outcome or (self.state, None, None)
        interrupted = self.host_closes and error is not None and error.code in CLOSING_CODES
        if interrupted and self.resume:  # the next host runs it again
            state, result, error = JobState.QUEUED, None, None
        progress = self.progress
        return JobRecord(
            id=self.id,
            bridge=self.bridge,
            command=self.command,
            args=self._kept_args,
            session=self.session,
            idempotent=self.resume,
            state=str(state),
            progress=None if progress is None else progress.to_object(),
            result=result,
            error=None if error is None else error.to_info().to_object(),
            host="" if self._journal is None else self._journal.host,
            events=self.log.next,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=None if state not in FINAL_STATES else self.finished_at,
        )

    # ------------------------------------------------------------------ what the table does

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

    def never_began(self) -> None:
        """It could not be written, so it will not run: whoever has found it meanwhile must not wait for its end."""
        self._outcome = (JobState.CANCELLED, None, self._cancelled_error())
        self._finish()

    def note(self, message: str) -> None:
        """Add a log event of the host's own."""
        self._receive(Event(0, EVENT_LOG, 0, {"level": "warning", "message": message}))

    def _call_made(self, call: Call) -> None:
        if self._cancelling:  # its last call answered in the moment when it was to be stopped
            raise self._cancelled_error()
        self._call = call
        call.on_sent = self._sent

    def _sent(self) -> None:
        if self.started_at is None:
            self.started_at = time()
            if self._journal is not None:
                self._journal.changed(self)

    def _receive(self, event: Event) -> None:
        # Numbered anew: a job's events have no gaps, although a call's may (calls of tools are not among them).
        self.log.append(event.event, event.data)
        if event.event == EVENT_PROGRESS:
            self._meter.report(event.data)
        if self._journal is not None:
            self._journal.progressed(self)
        self._changed.set()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._last_progress = self._meter.measure()
        self.finished_at = time()
        self._outcome = self._outcome_of(task)
        if self._journal is None:
            self._finish()
        else:
            self._journal.finish(self, self._finish)

    def _finish(self) -> None:
        self._finished.set()
        self._changed.set()

    def _outcome_of(self, task: asyncio.Task[Any]) -> tuple[JobState, Any, ManybridgeError | None]:
        error = self._cancelled_error() if task.cancelled() else task.exception()
        if error is None:
            return JobState.DONE, task.result(), None
        if not isinstance(error, ManybridgeError):
            _log.error("job %s failed in the host itself", self.id, exc_info=error)
            text = f"{type(error).__qualname__} in the host: {error}"
            error = ManybridgeError(text, code=ErrorCode.INTERNAL_ERROR, type=type(error).__qualname__)
        facts = {"interrupted": True} if self.host_closes and error.code in CLOSING_CODES else {}
        state = JobState.CANCELLED if error.code == ErrorCode.CANCELLED and not facts else JobState.FAILED
        return state, None, error.copy(job=self.id, **facts)

    def _cancelled_error(self) -> ManybridgeError:
        details = {"job": self.id, "command": self.command, "stopped_by": "queue"}
        return CallCancelledError(f"job {self.id} was cancelled; no worker ran it at that moment", details=details)


def checked_from_seq(value: Any) -> int:
    """Return the number of an event.

    Raises:
        InvalidArgumentError: it is none.
    """
    if type(value) is not int or value < 0:
        raise wrong_argument("from_seq", "a whole number from 0 on", value)
    return value

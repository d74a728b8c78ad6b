"""Jobs that only the store knows: those of hosts that have gone, and those that run in other hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic, time
from typing import Any, Final, Protocol

from manybridge.errors import CallCancelledError, ManybridgeError, error_for
from manybridge.host.job_cancels import request_cancel, without_request
from manybridge.host.job_events import READ_AT_ONCE, with_gaps
from manybridge.host.jobs import FINAL_STATES, AsyncJob, JobState, checked_from_seq
from manybridge.host.progress import JobProgress
from manybridge.host.streams import StreamEvent
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import ErrorInfo
from manybridge.store.base import HostStore, JobStore
from manybridge.store.records import JobRecord

LOOK_SECONDS: Final = 0.2
"""How often a job of another host is looked at while somebody waits for it: as often as that host writes."""


CANCEL_PATIENCE: Final = 15.0
"""Seconds that another host has to stop a job: it looks once a second, and the longest ladder takes a few."""


class StoredJobs(JobStore, HostStore, Protocol):
    """What of a store is needed to follow a job."""


class StoredJob(AsyncJob):
    """A job as its record says. One that runs elsewhere is looked at again whenever somebody waits for it.

    Args:
        record: what the store keeps.
        store: asked for events and news.
    """

    def __init__(self, record: JobRecord, store: StoredJobs) -> None:
        self._store = store
        self.id = record.id
        self.bridge = record.bridge
        self.command = record.command
        self.session = record.session
        self.created_at = record.created_at
        self._learn(record)

    @property
    def state(self) -> JobState:
        """How far it was when it was last looked at."""
        return JobState(self._record.state)

    @property
    def host(self) -> str:
        """The id of the host that runs it, or ran it."""
        return self._record.host

    @property
    def progress(self) -> JobProgress | None:
        """As its host wrote it last."""
        data = self._record.progress
        return None if data is None else JobProgress.from_object(data)

    @property
    def error(self) -> ManybridgeError | None:
        """Why it failed or was cancelled."""
        found = self._record.error
        return None if found is None else error_for(_info(found))

    @property
    def event_count(self) -> int:
        """How many events it had when it was last looked at."""
        return self._record.events

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until its host has written that it ended."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self.done:
            left = LOOK_SECONDS if deadline is None else min(LOOK_SECONDS, deadline - monotonic())
            if left <= 0:
                return False
            await asyncio.sleep(left)
            await self.look()
        return True

    async def look(self) -> None:
        """Read its record again, and see whether its host lives. One that was deleted stays as it was last."""
        if self.done or (record := await self._store.get_job(self.id)) is None:
            return
        found, living = await with_living_hosts(self._store, [record])
        for record in found:
            gone = not is_final(record) and not record.idempotent and record.host not in living
            self._learn(interrupted(record) if gone else record)

    async def cancel(self) -> bool:
        """Ask its host to stop it, and wait until that is done. One that waits for a host is stopped here.

        Raises:
            ManybridgeError: `timeout`: its host has not answered; the request stays.
        """
        await self.look()
        found, living = await with_living_hosts(self._store, [self._record])
        for record in found:
            self._learn(record)
        if self.done:
            return False
        if self.host not in living:
            await self._store.save_job(_cancelled(self._record))
            await self.look()
            return True
        await request_cancel(self._store, self.id)
        if not await self.wait(CANCEL_PATIENCE):
            text = f"the host that runs job {self.id} has not stopped it within {CANCEL_PATIENCE:g} s; it was asked to"
            raise ManybridgeError(text, code=ErrorCode.TIMEOUT, details={"job": self.id, "host": self.host})
        return self.state is JobState.CANCELLED

    async def take_events(self, from_seq: int, *, wait: bool = True) -> list[StreamEvent]:
        """Return events from the store."""
        checked_from_seq(from_seq)
        while True:
            was_done = self.done  # asked before the events: what comes after the end is nothing
            events = without_request(await self._store.read_events(self.id, from_seq, READ_AT_ONCE))
            if events or was_done or not wait:
                return with_gaps(from_seq, events)
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    def _result(self) -> Any:
        return self._record.result

    def _learn(self, record: JobRecord) -> None:
        self._record = record
        self.started_at = record.started_at
        self.finished_at = record.finished_at


async def with_living_hosts(store: StoredJobs, records: Iterable[JobRecord]) -> tuple[list[JobRecord], set[str]]:
    """Return records of jobs, and the hosts that live, in a state in which the two can be compared.

    A host announces itself before it writes its first job, and is gone only after it has written the end of its last.
    So whoever asks for the hosts first takes a job that is new for one that nobody runs; and whoever does not look
    again at a job whose host has gone, one that has ended meanwhile.

    Args:
        store: asked for the hosts, and again for open jobs of hosts that have gone.
        records: read just now. Those that were deleted meanwhile are left out of what is returned.
    """
    found, living = list(records), set[str]()
    if any(not is_final(each) for each in found):
        living = await store.living_hosts()
    current = [each if is_final(each) or each.host in living else await store.get_job(each.id) for each in found]
    return [each for each in current if each is not None], living


def interrupted(record: JobRecord) -> JobRecord:
    """What becomes of the record of a job whose host has gone."""
    text = f"job {record.id} was interrupted: the host that ran it has ended, and it was not to be run again"
    details = {"job": record.id, "command": record.command, "host": record.host, "interrupted": True}
    error = ManybridgeError(text, code=ErrorCode.HOST_CLOSED, details=details)
    return replace(
        record, state=str(JobState.FAILED), error=error.to_info().to_object(), result=None, finished_at=time()
    )


def _cancelled(record: JobRecord) -> JobRecord:
    details = {"job": record.id, "command": record.command, "stopped_by": "queue"}
    error = CallCancelledError(f"job {record.id} was cancelled; no host ran it", details=details)
    return replace(record, state=str(JobState.CANCELLED), error=error.to_info().to_object(), finished_at=time())


def is_final(record: JobRecord) -> bool:
    """Whether a job has ended."""
    return record.state in FINAL_STATES


def _info(found: dict[str, Any]) -> ErrorInfo:
    known = {name: found[name] for name in ErrorInfo._fields if name in found}
    return ErrorInfo(**{"code": str(ErrorCode.INTERNAL_ERROR), "message": "", **known})

"""Writing jobs into the store, beside their work and not in its way.

A change of state is written in a moment, progress and events in batches, the final record before anybody has the
result. A store that fails or hangs does not stop a job: its writes are tried again, its result is delivered meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol

from manybridge.host.job_cancels import CancelWatch, without_request
from manybridge.host.job_events import READ_AT_ONCE
from manybridge.store.base import JobStore, KeyStore
from manybridge.store.records import JobEvent

if TYPE_CHECKING:
    from manybridge.host.jobs import LiveJob

_log = logging.getLogger("manybridge.host")

BATCH_SECONDS: Final = 0.2
"""Events wait so long for others, so that a stream of tokens costs five writes a second."""

STATE_SECONDS: Final = 0.02
"""A change of state waits so long for the end of the job: a short one is written once at its end, not twice."""

BATCH_EVENTS: Final = 100
"""So many waiting events are written at once."""

RETRY_SECONDS: Final = 1.0
"""After a failed write."""

PATIENCE: Final = 5.0
"""Seconds that one write may take before the store counts as failing, and that the last writes get at the end."""


class JournalStore(JobStore, KeyStore, Protocol):
    """What of a store the journal needs."""


def claim_key(id: str) -> str:
    """The key under which one host claims an interrupted job."""
    return f"job {id}"


class JobJournal:
    """Owner of the one task that writes jobs, and of what waits to be written.

    Args:
        store: where to.
        host: the id of this host, as records name it.
        announce: makes sure that this host counts as living there; None where that is done.
    """

    def __init__(self, store: JournalStore, host: str, announce: Callable[[], Awaitable[None]] | None = None) -> None:
        self.store = store
        self.host = host
        self._announce = announce
        self._cancels = CancelWatch(store)
        self._dirty: dict[str, LiveJob] = {}
        self._finishing: dict[str, Callable[[], None]] = {}
        self._events = 0
        """Written at the latest when there are so many."""
        self._due = monotonic()
        self._wake = asyncio.Event()
        self._writing = asyncio.Lock()
        """Held while something of a job is written, so that none is written again after it was deleted."""
        self._failing = False
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def add(self, job: LiveJob) -> None:
        """Write a job that has not begun: it is known before it runs.

        Raises:
            ManybridgeError: the store can't.
        """
        await self.announce()
        await self.store.save_job(job.record())
        self.began(job)

    def began(self, job: LiveJob) -> None:
        """From now on others may ask, through the store, that it be cancelled."""
        self._cancels.add(job)

    async def announce(self) -> None:
        """Have this host count as living: a job of one that does not is interrupted.

        Raises:
            ManybridgeError: the store can't.
        """
        if self._announce is not None:
            await self._announce()

    def changed(self, job: LiveJob) -> None:
        """Its state is another one."""
        self._note(job, STATE_SECONDS)

    def progressed(self, job: LiveJob) -> None:
        """It has another event."""
        self._events += 1
        self._note(job, BATCH_SECONDS if self._events < BATCH_EVENTS else 0.0)

    def finish(self, job: LiveJob, then: Callable[[], None]) -> None:
        """It has ended; `then` is called when that is written, or could not be."""
        self._finishing[job.id] = then
        self._note(job, 0.0)
        if self._failing:
            self._release(job)

    async def delete(self, id: str, job: LiveJob | None) -> None:
        """Delete a job that has ended; what is not written of it stays so.

        Raises:
            ManybridgeError: the store can't.
        """
        async with self._writing:
            if job is not None:
                job.is_deleted = True
            await self.store.delete_job(id)

    async def read(self, id: str, from_seq: int) -> list[JobEvent]:
        """Return events that memory has let go; none where the store can't say."""
        try:
            async with asyncio.timeout(PATIENCE):
                return without_request(await self.store.read_events(id, from_seq, READ_AT_ONCE))
        except Exception as error:  # noqa: BLE001  # somebody else's code; the reader is told of a gap
            _log.warning("the store could not give events of job %s: %s", id, error)
            return []

    async def close(self) -> None:
        """Write what waits, and end."""
        await self._cancels.close()
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=PATIENCE + RETRY_SECONDS)
            self._task.cancel()
            await asyncio.wait({self._task})
        for job in list(self._dirty.values()):
            self._release(job)

    # ------------------------------------------------------------------ the writer

    def _note(self, job: LiveJob, delay: float) -> None:
        soon = monotonic() + delay
        if not self._dirty or soon < self._due:
            self._due = soon
            self._wake.set()
        self._dirty[job.id] = job
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write_all(), name="job journal")

    async def _write_all(self) -> None:
        while not self._closing or self._dirty:
            await self._wait()
            jobs, self._dirty, self._events = list(self._dirty.values()), {}, 0
            failed = False
            for job in jobs:
                failed = failed or not await self._written(job)
                if failed:
                    self._dirty.setdefault(job.id, job)
                    self._release(job)
            if failed and self._closing:
                return
            self._failing = failed

    async def _wait(self) -> None:
        """Wait until something is due."""
        if self._failing and not self._closing:
            await asyncio.sleep(RETRY_SECONDS)
        while not self._closing and (not self._dirty or self._due > monotonic()):
            self._wake.clear()
            try:
                async with asyncio.timeout(max(0.0, self._due - monotonic()) if self._dirty else None):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _written(self, job: LiveJob) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._write(job)
        except Exception as error:  # noqa: BLE001  # whatever a store raises: the job goes on without it
            if not self._failing:
                what = str(error) or f"no write within {PATIENCE:g} s"  # a TimeoutError says nothing
                _log.error("the store fails; jobs go on, and what it misses is written when it is back: %s", what)
            return False
        return True

    async def _write(self, job: LiveJob) -> None:
        async with self._writing:
            if job.is_deleted:
                return
            log = job.log
            while events := log.read(log.needed_from or 0):
                await self.store.append_events(job.id, [JobEvent(each.seq, each.event, each.data) for each in events])
                log.needed_from = events[-1].seq + 1
            is_final = job.id in self._finishing  # asked before the record is made: it may end while that is written
            await self.store.save_job(job.record())
            if is_final:
                if job.was_claimed:
                    await self.store.drop_key(job.bridge, claim_key(job.id), self.host)
                self._dirty.pop(job.id, None)
                self._release(job)

    def _release(self, job: LiveJob) -> None:
        if then := self._finishing.pop(job.id, None):
            then()

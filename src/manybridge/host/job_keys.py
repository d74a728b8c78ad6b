"""One job for each idempotency key, however often it is submitted, by however many hosts of one store.

A key leads to the job that was made for it, for `STORED_SECONDS`. If that job failed, was cancelled or was deleted, the
next submit makes another: its key is reserved *after* the first one's, so that of several hosts that see the failure at
the same time one makes the new job, and the others get it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final
from weakref import WeakValueDictionary

from manybridge.errors import CallError, ManybridgeError, StoreError
from manybridge.host.idempotency import STORED_SECONDS
from manybridge.host.jobs import AsyncJob, JobState, LiveJob
from manybridge.host.store_access import StoreAccess
from manybridge.host.tasks import TaskSet
from manybridge.protocol.errors import ErrorCode
from manybridge.store.records import KeyRecord

_log = logging.getLogger("manybridge.host")

SHORTEST_PAUSE: Final = 0.02
LONGEST_PAUSE: Final = 0.5
"""Seconds between two looks at a key for which a job is being made."""


class JobKeys:
    """Owner of the idempotency keys of jobs.

    Args:
        access: to the store that keeps them. They last as long as it: of a host without one, as long as the host.
        find: returns a job by its id, or raises `job_not_found`.
    """

    def __init__(self, access: StoreAccess, find: Callable[[str], Awaitable[AsyncJob]]) -> None:
        self._access = access
        self._find = find
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        """Bridge and key: held by the one submit of this host that looks at that key. Gone when nobody waits for it."""
        self._tasks = TaskSet()
        self._writing: dict[tuple[str, str], asyncio.Task[None]] = {}
        """Bridge and key: what is being written about it."""

    async def job_of(self, bridge: str, key: str, fingerprint: str, make: Callable[[], Awaitable[LiveJob]]) -> AsyncJob:
        """Return the job of a key, made now if there is none that has not failed.

        Args:
            bridge: where it runs; each has keys of its own.
            key: the idempotency key.
            fingerprint: tells whether it is the same call.
            make: makes the job and begins it.

        Raises:
            CallError: `conflict`: the key was used for another call.
            StoreError: the key can't be reserved; there is no job then.
        """
        await self._access.announce()
        async with self._turns.setdefault((bridge, key), asyncio.Lock()):
            return await self._job_of(bridge, key, fingerprint, make)

    async def _job_of(
        self, bridge: str, key: str, fingerprint: str, make: Callable[[], Awaitable[LiveJob]]
    ) -> AsyncJob:
        if (writing := self._writing.get((bridge, key))) is not None:  # of a submit that was cancelled meanwhile
            await asyncio.wait({writing})
        place, pause = f"{bridge}:submit", SHORTEST_PAUSE
        while True:
            record = KeyRecord(bridge=place, key=key, fingerprint=fingerprint, host=self._access.host)
            found, ours = await self._access.store.begin_key(record)
            if ours:
                return await self._make((bridge, key), record, make)
            if found.done:
                job = await self._job(found.result)
                failed = job is not None and job.state in {JobState.FAILED, JobState.CANCELLED}
                if not failed and found.fingerprint != fingerprint:
                    raise _reused(bridge, key)
                if job is not None and not failed:
                    return job
                place = f"{bridge}:submit after {found.result}"
            elif found.host == record.host:
                await self._access.store.drop_key(place, key, found.host)  # the job's id could not be kept
            else:
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE, pause * 2)

    async def close(self) -> None:
        """Wait until what is known is written."""
        await self._tasks.join()

    async def _make(self, which: tuple[str, str], record: KeyRecord, make: Callable[[], Awaitable[LiveJob]]) -> LiveJob:
        try:
            job = await make()
        except BaseException:
            # On its own, because the submit may have been cancelled. If it fails, the end of this host frees the key.
            self._write(which, self._access.store.drop_key(record.bridge, record.key, record.host))
            raise
        # Shielded: whoever is cancelled now has a job that runs, and will want to find it by its key.
        await asyncio.shield(self._write(which, self._keep(record, job)))
        return job

    def _write(self, which: tuple[str, str], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._writing[which] = self._tasks.start(work, f"write idempotency key {which[1]}")
        task.add_done_callback(lambda _: self._writing.pop(which, None))
        return task

    async def _keep(self, record: KeyRecord, job: LiveJob) -> None:
        try:
            await self._access.store.finish_key(replace(record, result=job.id), STORED_SECONDS)
        except StoreError as error:
            _log.warning("that idempotency key %s leads to job %s could not be kept: %s", record.key, job.id, error)

    async def _job(self, id: str) -> AsyncJob | None:
        """Return a job, or None where it was deleted."""
        try:
            return await self._find(id)
        except ManybridgeError as error:
            if error.code != ErrorCode.JOB_NOT_FOUND:
                raise
            return None


def _reused(bridge: str, key: str) -> CallError:
    text = f"idempotency_key {key!r} was used for a job with another command or other arguments; use a new key"
    return CallError(text, code=ErrorCode.CONFLICT, retryable=False, details={"bridge": bridge, "key": key})

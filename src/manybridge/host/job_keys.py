"""One job for each idempotency key, however often it is submitted, by however many hosts of one store.

A key leads to the job that was made for it, for `STORED_SECONDS`. If that job failed, was cancelled or was deleted, the
next submit makes another: its key is reserved *after* the first one's, so that of several hosts that see the failure at
the same time one makes the new job, and the others get it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from typing import Final
from weakref import WeakValueDictionary

from manybridge.errors import CallError, ManybridgeError, StoreError
from manybridge.host.idempotency import STORED_SECONDS
from manybridge.host.jobs import AsyncJob, JobState, LiveJob
from manybridge.host.key_reservations import KeyReservations
from manybridge.host.store_access import StoreAccess
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
        self._reservations = KeyReservations(access)

    async def job_of(
        self,
        bridge: str,
        key: str,
        fingerprint: str,
        make: Callable[[], Awaitable[LiveJob]],
        deadline: float = inf,
    ) -> AsyncJob:
        """Return the job of a key, made now if there is none that has not failed.

        Args:
            bridge: where it runs; each has keys of its own.
            key: the idempotency key.
            fingerprint: tells whether it is the same call.
            make: makes the job and begins it.
            deadline: how long to wait for the store, and for another host that makes the job, monotonic.

        Raises:
            CallError: `conflict`: the key was used for another call.
            CallTimeoutError: the store has not answered in time; there is no job then.
            StoreError: the key can't be reserved; there is no job then.
        """
        async with self._turns.setdefault((bridge, key), asyncio.Lock()):
            found = await self._reserved_or_found(bridge, key, fingerprint, deadline)
            return await self._make(found, make) if isinstance(found, KeyRecord) else found

    async def _reserved_or_found(
        self, bridge: str, key: str, fingerprint: str, deadline: float
    ) -> KeyRecord | AsyncJob:
        """Return the job of a key; or the key, reserved for the one that is to be made."""
        place, pause = f"{bridge}:submit", SHORTEST_PAUSE
        while True:
            record = KeyRecord(bridge=place, key=key, fingerprint=fingerprint, host=self._access.host)
            found, ours = await self._reservations.begin(record, deadline)
            if ours:
                return record
            if found.done:
                job = await self._access.before(deadline, self._job(found.result))
                failed = job is not None and job.state in {JobState.FAILED, JobState.CANCELLED}
                if not failed and found.fingerprint != fingerprint:
                    raise _reused(bridge, key)
                if job is not None and not failed:
                    return job
                place = f"{bridge}:submit after {found.result}"
            elif found.host == record.host:
                self._reservations.drop(record)  # the job's id could not be kept
            else:
                await self._access.before(deadline, asyncio.sleep(pause))
                pause = min(LONGEST_PAUSE, pause * 2)

    async def close(self) -> None:
        """Wait until what is known is written."""
        await self._reservations.close()

    async def _make(self, record: KeyRecord, make: Callable[[], Awaitable[LiveJob]]) -> LiveJob:
        try:
            job = await make()
        except BaseException:
            self._reservations.drop(record)
            raise
        # Shielded: whoever is cancelled now has a job that runs, and will want to find it by its key.
        await asyncio.shield(self._reservations.start(record, self._keep(record, job)))
        return job

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

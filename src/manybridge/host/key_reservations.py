"""Idempotency keys in the store, reserved and given back so that no two of this host's callers get in each other's way.

What the store is asked to write is written, also when nobody waits for it any more. So whoever reserves a key waits
first for what this host is still writing about it, and a reservation that comes after its caller has gone is given
back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from math import inf
from typing import Any

from manybridge.host.store_access import StoreAccess
from manybridge.host.tasks import TaskSet
from manybridge.store.records import KeyRecord


class KeyReservations:
    """Owner of what a host writes about keys.

    Args:
        access: to the store.
    """

    def __init__(self, access: StoreAccess) -> None:
        self._access = access
        self._tasks = TaskSet()
        self._writing: dict[tuple[str, str], asyncio.Task[Any]] = {}
        """Bridge and key: what is being written about it, or will be."""

    async def begin(self, record: KeyRecord, deadline: float = inf) -> tuple[KeyRecord, bool]:
        """Reserve a key, as `KeyStore.begin_key` does.

        Args:
            record: of this host.
            deadline: how long to wait for the store, monotonic.

        Raises:
            CallTimeoutError: the store has not answered; the key is not reserved, or will be given back.
            StoreError: it can't be reserved.
        """
        # Looked up here: what is given back below waits for this, and must not be waited for in turn.
        beginning = asyncio.ensure_future(self._begin(record, self._writing.get((record.bridge, record.key))))
        try:
            return await self._access.before(deadline, asyncio.shield(beginning))
        except BaseException:
            self.start(record, self._give_back(beginning, record))
            raise

    def start(self, record: KeyRecord, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Write something about a key in the background; the next `begin` waits for it."""
        place = (record.bridge, record.key)
        task = self._writing[place] = self._tasks.start(work, f"write idempotency key {record.key}")
        task.add_done_callback(lambda done: self._writing.pop(place) if self._writing.get(place) is done else None)
        return task

    def drop(self, record: KeyRecord) -> None:
        """Give a key back in the background: its caller may be about to go. If it fails, this host's end frees it."""
        self.start(record, self._access.store.drop_key(record.bridge, record.key, record.host))

    async def close(self) -> None:
        """Wait until everything is written."""
        await self._tasks.join()

    async def _begin(self, record: KeyRecord, writing: asyncio.Task[Any] | None) -> tuple[KeyRecord, bool]:
        if writing is not None:
            await asyncio.wait({writing})
        await self._access.announce()
        return await self._access.store.begin_key(record)

    async def _give_back(self, beginning: asyncio.Future[tuple[KeyRecord, bool]], record: KeyRecord) -> None:
        (outcome,) = await asyncio.gather(beginning, return_exceptions=True)
        if isinstance(outcome, tuple) and outcome[1]:
            await self._access.store.drop_key(record.bridge, record.key, record.host)

"""One execution for each idempotency key, however often the call is made, and by however many hosts of one store.

With a durable store a key is reserved there before its call is made, and the result is kept with it. A call whose host
died in the middle is made again by whoever asks next: nobody can know how far it came.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import Any, Final

from manybridge.errors import CallError, CallTimeoutError, StoreError
from manybridge.host.key_reservations import KeyReservations
from manybridge.host.store_access import StoreAccess
from manybridge.protocol.errors import ErrorCode
from manybridge.store.records import KeyRecord

_log = logging.getLogger("manybridge.host")

KEPT_SECONDS: Final = 300.0
"""A result is repeated for so long after it came: beyond any sensible retry of a client whose connection broke."""

KEPT_RESULTS: Final = 1000
"""Results that are remembered at the same time; the oldest is forgotten first."""

STORED_SECONDS: Final = 86_400.0
"""How long a durable store repeats a result: beyond a night in which a client was down."""


@dataclass(slots=True)
class _Entry:
    fingerprint: str
    task: asyncio.Task[Any]
    waiters: int = 0
    expires: float | None = None
    """None while it runs."""


class IdempotencyTable:
    """Owner of the calls that carry a key, while they run and for a while after they succeeded.

    A failure is told to everybody who waits for it, and then forgotten, so that a retry is one.

    Args:
        access: to the store; what is durable there is so here.
    """

    def __init__(self, access: StoreAccess) -> None:
        self._access = access
        self._reservations = KeyReservations(access)
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def run(
        self,
        key: tuple[str, str],
        fingerprint: str,
        work: Callable[[], Coroutine[Any, Any, Any]],
        deadline: float = inf,
    ) -> Any:
        """Return what `work` returns, or what it returned for the same key before.

        Args:
            key: bridge and idempotency key.
            fingerprint: tells whether it is the same call.
            work: makes the call.
            deadline: how long to wait for another host that makes the call, monotonic.

        Raises:
            CallError: `conflict`: the key was used for another call.
            StoreError: the key can't be reserved; the call was not made.
        """
        self._forget_old()
        entry = self._entries.get(key)
        if entry is None:
            made = self._durable(key, fingerprint, work, deadline) if self._access.shared else work()
            task = asyncio.get_running_loop().create_task(made, name=f"idempotent call {key[1]}")
            entry = self._entries[key] = _Entry(fingerprint, task)
            task.add_done_callback(lambda done: self._ended(key, done))
        elif entry.fingerprint != fingerprint:
            raise _reused(key)
        return await self._wait(entry)

    async def close(self) -> None:
        """Cancel what runs and forget everything."""
        running = [entry.task for entry in self._entries.values() if not entry.task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._entries.clear()
        await self._reservations.close()

    async def _durable(
        self, key: tuple[str, str], fingerprint: str, work: Callable[[], Coroutine[Any, Any, Any]], deadline: float
    ) -> Any:
        store = self._access.store
        record = KeyRecord(bridge=key[0], key=key[1], fingerprint=fingerprint, host=self._access.host)
        found = await self._reserve(record, deadline)
        if found is not None:
            return found.result
        try:
            result = await work()
        except BaseException:
            self._reservations.drop(record)
            raise
        keeping = store.finish_key(replace(record, result=result), STORED_SECONDS)
        try:
            await self._access.after(deadline, asyncio.shield(self._reservations.start(record, keeping)))
        except (StoreError, CallTimeoutError) as error:
            _log.warning("the result of idempotency key %s is remembered by this host alone: %s", key[1], error)
        return result

    async def _reserve(self, record: KeyRecord, deadline: float) -> KeyRecord | None:
        """Reserve a key; or return what was kept under it."""
        pause = 0.02
        while True:
            found, ours = await self._reservations.begin(record, deadline)
            if ours:
                return None
            if found.host == record.host and not found.done:
                self._reservations.drop(record)  # its result could not be kept, and this host has forgotten it since
                continue
            if found.fingerprint != record.fingerprint:
                raise _reused((record.bridge, record.key))
            if found.done:
                return found
            if monotonic() + pause > deadline:
                text = f"another host makes the call with idempotency_key {record.key!r}, and it has not ended in time"
                raise CallTimeoutError(text, details={"stopped_by": "queue", "holder": found.host})
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)

    async def _wait(self, entry: _Entry) -> Any:
        entry.waiters += 1
        try:
            return await asyncio.shield(entry.task)
        except asyncio.CancelledError:
            if entry.waiters == 1 and not entry.task.done():
                entry.task.cancel()  # the last one who wanted it has gone
            raise
        finally:
            entry.waiters -= 1

    def _ended(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._entries.pop(key, None)
            return
        with contextlib.suppress(KeyError):
            self._entries[key].expires = monotonic() + KEPT_SECONDS
            self._entries.move_to_end(key)

    def _forget_old(self) -> None:
        now = monotonic()
        finished = [key for key, entry in self._entries.items() if entry.expires is not None]
        surplus = max(0, len(finished) - KEPT_RESULTS)
        for index, key in enumerate(finished):
            expires = self._entries[key].expires
            if index >= surplus and (expires is None or expires > now):
                return
            del self._entries[key]


def call_fingerprint(command: str, args: dict[str, Any], session: str | None) -> str:
    """A hash that is the same for the same call in every process. What JSON can't carry counts by its type alone."""
    whole = json.dumps(
        [command, args, session], sort_keys=True, separators=(",", ":"), default=lambda each: str(type(each))
    )
    return hashlib.sha256(whole.encode()).hexdigest()


def _reused(key: tuple[str, str]) -> CallError:
    text = (
        f"idempotency_key {key[1]!r} was used for a call with another command, other arguments or in another session; "
        "use a new key, or make the very same call again"
    )
    return CallError(text, code=ErrorCode.CONFLICT, retryable=False, details={"bridge": key[0], "key": key[1]})

"""One execution for each idempotency key, however often the call is made."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from manybridge.errors import InvalidArgumentError

KEPT_SECONDS: Final = 300.0
"""A result is repeated for so long after it came: beyond any sensible retry of a client whose connection broke."""

KEPT_RESULTS: Final = 1000
"""Results that are remembered at the same time; the oldest is forgotten first."""


@dataclass(slots=True)
class _Entry:
    fingerprint: int
    task: asyncio.Task[Any]
    waiters: int = 0
    expires: float | None = None
    """None while it runs."""


class IdempotencyTable:
    """Owner of the calls that carry a key, while they run and for a while after they succeeded.

    A failure is told to everybody who waits for it, and then forgotten, so that a retry is one.
    """

    def __init__(self) -> None:
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()

    async def run(self, key: tuple[str, str], fingerprint: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Return what `work` returns, or what it returned for the same key before.

        Args:
            key: bridge and idempotency key.
            fingerprint: tells whether it is the same call.
            work: makes the call.

        Raises:
            InvalidArgumentError: the key was used for another call.
        """
        self._forget_old()
        entry = self._entries.get(key)
        if entry is None:
            task = asyncio.get_running_loop().create_task(work(), name=f"idempotent call {key[1]}")
            entry = self._entries[key] = _Entry(fingerprint, task)
            task.add_done_callback(lambda done: self._ended(key, done))
        elif entry.fingerprint != fingerprint:
            text = f"idempotency_key {key[1]!r} was used for a call with another command or other arguments"
            raise InvalidArgumentError(text, details={"problems": [{"argument": "idempotency_key"}]})
        return await self._wait(entry)

    async def close(self) -> None:
        """Cancel what runs and forget everything."""
        running = [entry.task for entry in self._entries.values() if not entry.task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._entries.clear()

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

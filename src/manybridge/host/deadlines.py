"""Deadlines of many calls for the price of one timer.

Nearly every call ends long before its deadline, so a timer for each would be set only to be cancelled. Calls whose
deadlines lie close together share a bucket: adding and removing a call is one set operation each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Final

from manybridge.host.calls import Call

BUCKETS_PER_SECOND: Final = 100
"""A call is told of its deadline at most 10 ms late: a tenth of what a person notices."""


class DeadlineWheel:
    """Calls by the time when something must happen to them. Owner of `Call.bucket`.

    Args:
        expired: called with each call whose time has come, once for each `add`.
    """

    def __init__(self, expired: Callable[[Call], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._buckets: dict[int, set[Call]] = {}
        self._next: float = inf
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: Call, deadline: float) -> None:
        """Have `expired` called at `deadline` (monotonic), unless `discard` comes first; `inf` is never."""
        if deadline == inf:
            return
        number = int(deadline * BUCKETS_PER_SECOND) + 1
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = set()
            if number < self._next:
                self._arm(number)
        bucket.add(call)
        call.bucket = bucket

    def discard(self, call: Call) -> None:
        """Forget a call."""
        bucket = call.bucket
        if bucket is not None:
            bucket.discard(call)
            call.bucket = None

    def close(self) -> None:
        """Forget every call."""
        if self._timer is not None:
            self._timer.cancel()
        self._buckets.clear()
        self._next = inf

    def _arm(self, number: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = number
        self._timer = self._loop.call_later(max(0.0, number / BUCKETS_PER_SECOND - monotonic()), self._turn)

    def _turn(self) -> None:
        now = monotonic() * BUCKETS_PER_SECOND
        self._timer, self._next = None, inf
        # Buckets that emptied since are dropped here, not when their last call left: that would be once per call.
        due = [number for number, bucket in self._buckets.items() if number <= now or not bucket]
        expired = [call for number in sorted(due) for call in self._buckets.pop(number)]
        for call in expired:
            call.bucket = None
        if self._buckets:
            self._arm(min(self._buckets))
        for call in expired:
            self._expired(call)

"""Deadlines of many calls for the price of one comparison each.

Nearly every call ends long before its deadline, so a timer for each, or a place in a sorted list, would be made only
to be thrown away. One timer stands for the earliest deadline that was announced; when it fires, the open calls are
looked through, which are few, and it is set again for the earliest that is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import Final

from manybridge.host.calls import Call

RESOLUTION: Final = 0.01
"""Seconds. A call is told of its deadline at most so late: a tenth of what a person notices."""


class DeadlineWatch:
    """Tells calls that their time has come. Owner of the one timer.

    Args:
        open_calls: every call that has no answer yet, in any order.
        expired: called with each call whose time has come; it may change what `open_calls` returns. A call whose
            stopping has begun is not told again.
    """

    def __init__(self, open_calls: Callable[[], Iterable[Call]], expired: Callable[[Call], None]) -> None:
        self._open_calls = open_calls
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.next = inf
        """When somebody will look, monotonic."""

    def announce(self, due: float) -> None:
        """There is a call with this deadline (monotonic; `inf` is none). Callers compare with `next` first."""
        if due < self.next:
            if self._timer is not None:
                self._timer.cancel()
            self.next = due + RESOLUTION
            self._timer = self._loop.call_later(max(0.0, self.next - monotonic()), self._look)

    def close(self) -> None:
        """Tell nobody any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.next = None, -inf

    def _look(self) -> None:
        self._timer, self.next = None, inf
        now = monotonic()
        waiting = [call for call in self._open_calls() if call.stop_reason is None]
        expired = [call for call in waiting if call.due <= now]
        self.announce(min((call.due for call in waiting if call.due > now), default=inf))
        for call in expired:
            self._expired(call)

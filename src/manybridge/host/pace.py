"""How many calls a worker may hold ahead: as many as it finishes in a moment, by its own measure.

A worker that runs one call at a time would idle while a reply and the next request cross. Where its calls are short it
gets several; where one of them turns out to be long, those behind it are noticed, so that they can go elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from manybridge.host.worker import WorkerHandle

PIPELINE_SECONDS: Final = 0.004
"""A worker may hold this much work ahead. Enough to hide the way to the host and back (under 0.3 ms), and little
enough that nobody waits noticeably behind it while another worker is idle."""

MAX_PIPELINED: Final = 64
"""Calls that a worker may hold ahead: enough that it still has work while the host takes in a batch of its replies."""

RELIEF_SECONDS: Final = 0.02
"""Calls that were sent ahead because calls were short, and now wait behind a long one, go elsewhere after this."""

SMOOTHING: Final = 0.2
"""Weight of the newest measurement in the running mean of service times."""


class Pace:
    """Owner of one worker's measured service time, and of the look at calls that wait in it. Writes its `capacity`.

    Args:
        worker: whose.
        is_stuck: told when calls wait in it behind one that takes longer than those before it.
    """

    service_time = inf
    """Running mean, seconds; inf before the first call."""
    watch: asyncio.TimerHandle | None = None
    """Set while somebody will look."""

    def __init__(self, worker: WorkerHandle, is_stuck: Callable[[WorkerHandle], None]) -> None:
        self._worker = worker
        self._is_stuck = is_stuck
        self._loop = asyncio.get_running_loop()

    def measured(self, seconds: float) -> None:
        """A call took so long."""
        mean, worker = self.service_time, self._worker
        self.service_time = mean = seconds if mean == inf else mean + SMOOTHING * (seconds - mean)
        if worker.capacity and worker.concurrency == 1:
            worker.capacity = MAX_PIPELINED if mean <= 0 else max(1, min(MAX_PIPELINED, int(PIPELINE_SECONDS / mean)))

    def begin_watch(self) -> None:
        """Calls wait in the worker behind its oldest one: look after them until none does."""
        self.watch = self._loop.call_later(RELIEF_SECONDS, self._look, next(iter(self._worker.calls)))

    def recall(self) -> None:
        """Ask for the calls behind the oldest one back, newest first, so that they come to wait in their order."""
        worker = self._worker
        worker.capacity = min(worker.capacity, 1)
        for id, call in reversed(list(worker.calls.items())[1:]):
            if call.stop_reason is None and not call.recalled and call.target is None:
                call.recalled = True
                worker.post("common:cancel", {"id": id, "only_waiting": True})

    def end_watch(self) -> None:
        """The worker is dead."""
        if self.watch is not None:
            self.watch.cancel()

    def _look(self, oldest: Any) -> None:
        self.watch = None
        worker = self._worker
        if not worker.is_ready or len(worker.calls) < 2:
            return
        now_oldest = next(iter(worker.calls))
        if now_oldest == oldest:
            self._is_stuck(worker)
        self.watch = self._loop.call_later(RELIEF_SECONDS, self._look, now_oldest)

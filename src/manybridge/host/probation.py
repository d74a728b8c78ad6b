"""The one worker that a half-open breaker lets start: one call at a time until it has answered one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from manybridge.errors import ManybridgeError
from manybridge.host.calls import Call
from manybridge.host.worker import WorkerHandle
from manybridge.host.worker_owner import WorkerOwner
from manybridge.protocol.messages import ErrorReply, Event, Reply

IDLE_PROOF_SECONDS: Final = 1.0
"""A worker that nobody calls has proven itself when it has lived for so long. Without that a pool would stay at one
worker until somebody calls; and one that dies idle dies sooner."""


class Probation:
    """Stands between a worker and its pool, so that the pool's own path stays as short as it is.

    Args:
        worker: ready, and known to no pool yet.
        pool: what it is told goes there, too.
        proven: called once, unless the worker ends before.
    """

    def __init__(self, worker: WorkerHandle, pool: WorkerOwner, proven: Callable[[], None]) -> None:
        self._worker = worker
        self._pool = pool
        self._proven = proven
        self._capacity, worker.capacity = worker.capacity, 1
        worker.belongs_to(self)
        self._timer = asyncio.get_running_loop().call_later(IDLE_PROOF_SECONDS, self._look)

    def call_ended(self, worker: WorkerHandle, call: Call, message: Reply | ErrorReply, now: float) -> None:
        """It has answered, in whatever way."""
        self._end()
        self._pool.call_ended(worker, call, message, now)

    def call_failed(self, call: Call, error: ManybridgeError) -> None:
        """As the pool's."""
        self._pool.call_failed(call, error)

    def is_stuck(self, worker: WorkerHandle) -> None:
        """As the pool's."""
        self._pool.is_stuck(worker)

    def has_room(self, worker: WorkerHandle) -> None:
        """As the pool's."""
        self._pool.has_room(worker)

    def tool_requested(self, worker: WorkerHandle, call: Call, event: Event) -> None:
        """As the pool's."""
        self._pool.tool_requested(worker, call, event)

    def poisoned(self, worker: WorkerHandle) -> None:
        """As the pool's."""
        self._pool.poisoned(worker)

    def died(self, worker: WorkerHandle) -> None:
        """It has not proven itself."""
        self._timer.cancel()
        self._pool.died(worker)

    def _look(self) -> None:
        if self._worker.is_ready and not self._worker.calls:
            self._end()
            self._pool.has_room(self._worker)

    def _end(self) -> None:
        self._timer.cancel()
        worker = self._worker
        worker.belongs_to(self._pool)
        if worker.is_ready:
            worker.capacity = max(worker.capacity, self._capacity)
            self._proven()

"""The first two rungs of the ladder that stops everything.

A call must stop because its caller said so or because its deadline passed. Then, in this order:

1. *cooperative*: its flag is set; `ctx.cancelled` is true and `ctx.check()` raises. Half of the grace.
2. *exception*: `Cancelled` is raised in the running code, again and again while it is swallowed. The other half.
3. SIGTERM, then SIGKILL to the process group, by whoever started this worker. A worker without a host does it itself,
   because a client at a raw port has no other way to get rid of the work.

A call that is still queued is answered at once: nothing has to be stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from manybridge.worker.calls import Stage, WorkerCall

REPEAT_SECONDS: Final = 0.05
"""Pause between two exceptions into code that swallowed the first; long enough for a `finally` to finish."""


class StopLadder:
    """Decides at which time which rung is due. Holds no state but the calls'; used by the watch only.

    Args:
        grace: seconds from the flag to the moment when the worker itself is stopped.
        interrupt: raises the exception in the call's code.
        stopped_in_queue: answers a call that never began.
        give_up: called with a call that survived both rungs; None if the host takes over there.
    """

    def __init__(
        self,
        grace: float,
        *,
        interrupt: Callable[[WorkerCall], None],
        stopped_in_queue: Callable[[WorkerCall], None],
        give_up: Callable[[WorkerCall], None] | None,
    ) -> None:
        self._grace = grace
        self._interrupt = interrupt
        self._stopped_in_queue = stopped_in_queue
        self._give_up = give_up

    def request_stop(self, call: WorkerCall, reason: str, now: float) -> None:
        """Put a call onto the first rung. The first reason wins."""
        if call.stop_reason is not None or call.stage is Stage.DONE:
            return
        call.stop_reason = reason
        call.stop_requested_at = now
        if call.claim(Stage.DONE):
            self._stopped_in_queue(call)
        else:
            call.cancel_task()  # a coroutine has no better flag than its cancellation

    def recall(self, call: WorkerCall) -> bool:
        """Answer a call that has not begun, as cancelled in the queue. False if it has begun, and nothing is done."""
        if call.stop_reason is not None or not call.claim(Stage.DONE):
            return False
        call.stop_reason = "cancelled"
        self._stopped_in_queue(call)
        return True

    def advance(self, call: WorkerCall, now: float) -> float | None:
        """Do what is due for a call; return the seconds until the next thing is due, or None."""
        if call.stop_requested_at is None:
            if call.deadline is None:
                return None
            if now < call.deadline:
                return call.deadline - now
            self.request_stop(call, "timeout", now)
        if call.stage is Stage.DONE or call.stop_requested_at is None:
            return None
        return self._climb(call, now, call.stop_requested_at)

    def _climb(self, call: WorkerCall, now: float, since: float) -> float | None:
        exception_at, end_at = since + self._grace / 2, since + self._grace
        if now < exception_at:
            return exception_at - now
        if now >= end_at and self._give_up is not None:
            self._give_up(call)
            return None
        if call.last_interrupt is None or now - call.last_interrupt >= REPEAT_SECONDS:
            call.last_interrupt = now
            self._interrupt(call)
        return REPEAT_SECONDS if self._give_up is None else min(REPEAT_SECONDS, end_at - now)

"""When a worker may be started again: at once, after a wait, or not for a while. Pure; the clock comes in."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import Final

from manybridge.errors import ManybridgeError, OverloadedError
from manybridge.host.causes import cause_of
from manybridge.host.config import RestartConfig
from manybridge.protocol.errors import ErrorCode

SHORTEST_RETRY: Final = 0.5
"""Seconds before a start that failed for a lasting reason (a package is missing) is tried again; doubles each time."""

MOST_DOUBLED: Final = 64
"""A wait is not doubled more often: nobody waits for so long, and a float would overflow at 1024."""

PASSING_CODES: Final = frozenset(
    {ErrorCode.WORKER_CRASHED, ErrorCode.WORKER_START_FAILED, ErrorCode.PROTOCOL_VIOLATION, ErrorCode.OUT_OF_MEMORY}
)
"""What a worker may die of that the next one need not die of. Anything else was said by the worker or found before it
was started (a package is missing, setup failed): starting again will not help until somebody changes something, and
callers get this error itself."""


class BreakerState(StrEnum):
    """Whether workers may be started."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Counts crashes of one bridge's workers. Owner of that history.

    closed -> open: `max_crashes` within `window`, or a start that failed for a lasting reason.
    open -> half_open: the wait is over and somebody wants a worker; exactly one is started.
    half_open -> closed: it has proven itself. half_open -> open: it has not.

    What a proof is depends on what opened it. Where starts had failed, becoming ready is one. Where workers had died in
    service, becoming ready says nothing: the one worker gets one call at a time until it has answered one.
    """

    def __init__(self, policy: RestartConfig) -> None:
        self.policy = policy
        self.state = BreakerState.CLOSED
        self.cause: ManybridgeError | None = None
        """What the last worker died of."""
        self._crashes: deque[float] = deque()
        self._lasting_failures = 0
        self._in_a_row = 0
        """Crashes since a worker last answered a call."""
        self._open_until = 0.0
        self._died_in_service = False
        """Whether the last crash was of a worker that had become ready."""

    def crashed(self, now: float, cause: ManybridgeError, *, served: bool = False, was_ready: bool = False) -> None:
        """A worker died by itself, or did not become ready.

        Args:
            now: monotonic.
            cause: what it died of.
            served: whether it had answered a call: then starting works, and nothing is gained by waiting.
            was_ready: whether it had become ready.
        """
        self.cause = cause
        self._died_in_service = was_ready
        self._in_a_row = 1 if served else self._in_a_row + 1
        if self.state is BreakerState.OPEN:
            return  # one of several that failed together
        if cause.code not in PASSING_CODES:
            wait = min(SHORTEST_RETRY * 2 ** min(self._lasting_failures, MOST_DOUBLED), self.policy.max_backoff)
            self._lasting_failures += 1
            self._open(now + wait)
            return
        self._crashes.append(now)
        self._forget_old(now)
        if self.state is BreakerState.HALF_OPEN or len(self._crashes) >= self.policy.max_crashes:
            self._open(now + self.policy.window)

    def ready(self) -> bool:
        """A worker became ready. Returns whether it is one that has yet to prove itself, and is then to say so."""
        self._lasting_failures = 0
        if self.state is not BreakerState.CLOSED and not self._died_in_service:
            self.proven()
        return self.state is BreakerState.HALF_OPEN

    def proven(self) -> None:
        """The worker that was tried has answered a call, or lived on for a while."""
        if self.state is not BreakerState.CLOSED:
            self.state = BreakerState.CLOSED
            self._crashes.clear()
            self.cause = None

    def unproven(self, now: float) -> None:
        """The worker that was tried has gone without having crashed: the next one may be tried at once."""
        if self.state is BreakerState.HALF_OPEN:
            self._open(now)

    @property
    def crashes(self) -> int:
        """How many crashes count now."""
        return len(self._crashes)

    def wait(self, now: float) -> float | None:
        """Seconds until the next worker may be started by itself; None while somebody must ask for it (`probe`)."""
        if self.state is not BreakerState.CLOSED:
            return None
        self._forget_old(now)
        repeated = min(len(self._crashes), self._in_a_row) - 1  # the first replacement starts at once
        if repeated <= 0:
            return 0.0
        since = now - self._crashes[-1]
        doubled = 2.0 ** min(repeated - 1, MOST_DOUBLED)
        backoff: float = min(self.policy.initial_backoff * doubled, self.policy.max_backoff)
        return max(0.0, backoff - since)

    def probe(self, now: float) -> bool:
        """Somebody wants a worker: may one start be tried? True once per opening."""
        if self.state is BreakerState.OPEN and now >= self._open_until:
            self.state = BreakerState.HALF_OPEN
            return True
        return False

    def remaining(self, now: float) -> float:
        """Seconds until `probe` may be true."""
        return max(0.0, self._open_until - now)

    def refusal(self, now: float, bridge: str) -> ManybridgeError:
        """The error of a call that comes while no worker lives and none may be started."""
        retry_after = round(self.remaining(now), 3)
        cause = self.cause
        if cause is not None and cause.code not in PASSING_CODES:
            return cause.copy(retry_after=retry_after)
        times = f"{len(self._crashes)} times"
        text = f'the workers of bridge "{bridge}" crashed {times}; calls are refused for {retry_after:g} s'
        details = {"bridge": bridge, "retry_after": retry_after, "crashes": len(self._crashes)}
        if cause is not None:
            text += f"; the last time: {cause.message}"
            details["cause"] = cause_of(cause)
            details["last_failure"] = {"code": cause.code, "message": cause.message, "details": cause.details}
        return OverloadedError(text, code=ErrorCode.CIRCUIT_OPEN, details=details)

    def _open(self, until: float) -> None:
        self.state = BreakerState.OPEN
        self._open_until = until

    def _forget_old(self, now: float) -> None:
        while self._crashes and self._crashes[0] <= now - self.policy.window:
            self._crashes.popleft()

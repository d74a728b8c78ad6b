"""Counters of one pool."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any, Final

from manybridge.errors import ManybridgeError
from manybridge.host.causes import cause_of

KEPT_LATENCIES: Final = 2048
"""Percentiles are of so many last calls: enough for a p99 that means something, and 16 KB."""


class PoolStats:
    """What a pool has done since it was made. Written by the pool."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed: Counter[str] = Counter()
        self.started = 0
        """Workers that became ready."""
        self.crashed = 0
        self.causes: Counter[str] = Counter()
        """What workers died of, once they were ready: `CrashCause`."""
        self.start_failures: Counter[str] = Counter()
        """Why workers did not become ready: `CrashCause`, or the code of what they said."""
        self.killed = 0
        """Workers that the stop ladder had to end."""
        self.recycled = 0
        self.requeued = 0
        """Calls taken back from a dead worker that had not begun them."""
        self.retried = 0
        """Calls that were made once more for their caller."""
        self.recovered = 0
        """Of the calls that had failed, those that then succeeded."""
        self.fell_back = 0
        """Calls that another bridge was given, because this one could not serve."""
        self.deprecated = 0
        """Version 1 commands, those without a namespace."""
        self.latencies: deque[float] = deque(maxlen=KEPT_LATENCIES)
        """Seconds from the call to its answer, waiting included."""

    def fail(self, error: ManybridgeError) -> None:
        """Count a failed call."""
        self.failed[error.code] += 1

    def crash(self, error: ManybridgeError) -> None:
        """Count the death of a worker that had been ready."""
        self.crashed += 1
        self.causes[cause_of(error)] += 1

    def start_failed(self, error: ManybridgeError) -> None:
        """Count a worker that did not become ready."""
        self.start_failures[cause_of(error)] += 1

    def describe(self) -> dict[str, Any]:
        """Return the counters as plain data; latencies in milliseconds."""
        failed = sum(self.failed.values())
        return {
            "calls": self.succeeded + failed,
            "succeeded": self.succeeded,
            "failed": failed,
            "errors": dict(self.failed),
            "workers_started": self.started,
            "crashes": self.crashed,
            "crash_causes": dict(self.causes),
            "start_failures": dict(self.start_failures),
            "killed": self.killed,
            "restarts": self.crashed + self.killed,
            "recycled": self.recycled,
            "requeued": self.requeued,
            "retried": self.retried,
            "recovered": self.recovered,
            "fell_back": self.fell_back,
            "deprecated_calls": self.deprecated,
            "latency_ms": percentiles(self.latencies),
        }


def percentiles(latencies: deque[float]) -> dict[str, float]:
    """Return p50, p90, p99 and max in milliseconds; zeros without a call."""
    ordered = sorted(latencies)
    if not ordered:
        return {"p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
    last = len(ordered) - 1
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[round(share * last)] * 1000, 3) for name, share in shares.items()}

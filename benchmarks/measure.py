"""Small tools for measuring: percentiles, repetition, ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """Times of many repetitions, in seconds."""

    p50: float
    p95: float
    p99: float
    count: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Spread:
        """Summarise; at least one value."""
        ordered = sorted(seconds)
        return cls(*(ordered[min(len(ordered) - 1, int(len(ordered) * q))] for q in (0.50, 0.95, 0.99)), len(ordered))

    def to_object(self) -> dict[str, Any]:
        """For the results file, in microseconds."""
        return {"p50_us": self.p50 * 1e6, "p95_us": self.p95 * 1e6, "p99_us": self.p99 * 1e6, "count": self.count}


def repeat(action: Callable[[], Any], times: int) -> list[float]:
    """Time `action`, each run by itself, in seconds."""
    seconds = []
    for _ in range(times):
        begun = perf_counter()
        action()
        seconds.append(perf_counter() - begun)
    return seconds


def median_ratio(ours: Sequence[float], limit: Sequence[float]) -> float:
    """The median of the ratios of paired rounds.

    Rounds of both sides are interleaved, so that a noisy neighbour on the machine meets both of a pair.
    """
    return statistics.median(a / b for a, b in zip(ours, limit, strict=True))

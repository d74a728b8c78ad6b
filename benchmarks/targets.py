"""What must be reached, in one table, and how far a run got."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple


class Target(NamedTuple):
    """One promise about speed or size."""

    name: str
    """For people."""
    read: Callable[[dict[str, Any]], float]
    """Finds the figure in the results."""
    limit: float
    at_least: bool = False
    """Whether the figure must be at least `limit`; otherwise at most."""
    unit: str = "x"

    def judge(self, results: dict[str, Any]) -> dict[str, Any] | None:
        """Compare; None if this run did not measure it."""
        try:
            value = self.read(results)
        except KeyError:
            return None
        met = value >= self.limit if self.at_least else value <= self.limit
        bound = f"{'>=' if self.at_least else '<='} {self.limit:g} {self.unit}"
        return {"target": self.name, "bound": bound, "value": round(value, 3), "unit": self.unit, "met": met}


TARGETS: Final = (
    Target(
        "async round trip, 100 B, against the limit",
        lambda r: r["calls"]["round_trip"]["100 B"]["async"]["times_the_limit"],
        3.0,
    ),
    Target(
        "sync round trip, 100 B, against the limit",
        lambda r: r["calls"]["round_trip"]["100 B"]["sync"]["times_the_limit"],
        5.0,
    ),
    *(
        Target(
            f"throughput, 64 in flight, {size}, share of the limit",
            lambda r, size=size: r["calls"]["throughput"][size]["64"]["async_share_of_limit"],  # type: ignore[misc]  # bound here
            0.40,
            at_least=True,
        )
        for size in ("100 B", "100 KB", "10 MB")
    ),
    Target(
        "what the host adds to the first chunk of a stream",
        lambda r: r["streaming"]["first_chunk"]["p50_us"] / 1000,
        1.0,
        unit="ms",
    ),
    Target(
        "chunks a second from one worker",
        lambda r: r["streaming"]["chunks_per_s"],
        10_000,
        at_least=True,
        unit="/s",
    ),
    Target(
        "pool of 4 DSPy workers against a pool of 1",
        lambda r: r["startup"]["dspy zygote"]["4"]["times_one_worker"],
        1.5,
    ),
    Target(
        "DSPy worker replaced after kill -9 (zygote)",
        lambda r: r["recovery"]["dspy zygote"]["replaced_ms"]["p50"],
        200.0,
        unit="ms",
    ),
    Target("first ping of the drop-in", lambda r: r["footprint"]["drop_in_first_ping_ms"]["p50"], 150.0, unit="ms"),
    Target(
        "overhead of DSPy through the bridge on a 100 ms call",
        lambda r: r["overhead"]["overhead_percent"],
        5.0,
        unit="%",
    ),
    Target(
        "idle worker of the python bridge, unshared memory",
        lambda r: r["footprint"]["python_idle_unshared_mb"],
        30.0,
        unit="MB",
    ),
    Target(
        "embeddings in a batch against one at a time",
        lambda r: r["batching"]["embedding"]["explicit"]["gain"],
        2.0,
        at_least=True,
    ),
    Target(
        "generation by concurrent calls against one at a time",
        lambda r: r["batching"]["generation"]["concurrent"]["gain"],
        2.0,
        at_least=True,
    ),
    Target(
        "`manybridge env sync` of an unchanged lock",
        lambda r: r["frameworks"]["env_sync_unchanged_s"]["p50"],
        1.0,
        unit="s",
    ),
    Target(
        "durable create on SQLite, over the same in memory",
        lambda r: r["store"]["create"]["sqlite"]["over_memory_ms"],
        3.0,
        unit="ms",
    ),
)


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Every target that this run measured."""
    return [verdict for target in TARGETS if (verdict := target.judge(results)) is not None]

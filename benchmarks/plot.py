"""The results as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

SIDES: Final = {"limit": "limit (socket pair)", "async": "AsyncMLBridge", "sync": "MLBridge", "executor": "executor"}
COLOURS: Final = {"limit": "#999999", "async": "#2166ac", "sync": "#92c5de", "executor": "#f4a582"}


def plot(results: dict[str, Any], path: Path) -> None:
    """Draw round trip, throughput and start-up of a run; suites that it lacks are left out."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(15, 4.5))
    if "calls" in results:
        _round_trips(axes[0], results["calls"]["round_trip"])
        _throughput(axes[1], results["calls"]["throughput"]["100 B"])
    if "startup" in results:
        _startup(axes[2], results["startup"])
    described = next(iter(results["facts"].values()))
    figure.suptitle(
        f"manybridge {described['versions']['manybridge']} at {described['commit']}, "
        f"{described['machine']['cores']} cores, Python {described['versions']['python']}",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _round_trips(axis: Any, round_trip: dict[str, Any]) -> None:
    for offset, (side, label) in enumerate(SIDES.items()):
        values = [each[side]["p50_us"] for each in round_trip.values()]
        bars = axis.bar([n + 0.2 * offset for n in range(len(values))], values, 0.2, label=label, color=COLOURS[side])
        if side != "limit":
            ratios = [f"{each[side]['times_the_limit']:.1f}x" for each in round_trip.values()]
            axis.bar_label(bars, ratios, fontsize=7)
    axis.set_xticks([n + 0.3 for n in range(len(round_trip))], list(round_trip))
    axis.set(yscale="log", title="Round trip, p50", ylabel="microseconds", xlabel="payload")
    axis.legend(fontsize=7)


def _throughput(axis: Any, throughput: dict[str, Any]) -> None:
    for offset, side in enumerate(("limit", "async", "executor")):
        values = [each[f"{side}_per_s"] for each in throughput.values()]
        axis.bar([n + 0.25 * offset for n in range(len(values))], values, 0.25, label=SIDES[side], color=COLOURS[side])
    axis.set_xticks([n + 0.25 for n in range(len(throughput))], list(throughput))
    axis.set(title="Throughput, 100 B, one worker", ylabel="calls per second", xlabel="in flight")
    axis.legend(fontsize=7)


def _startup(axis: Any, startup: dict[str, Any]) -> None:
    for label, sizes in startup.items():
        axis.plot([int(n) for n in sizes], [each["p50_ms"] for each in sizes.values()], marker="o", label=label)
    axis.set(title="Pool start", ylabel="milliseconds until all are ready", xlabel="workers", yscale="log")
    axis.legend(fontsize=7)

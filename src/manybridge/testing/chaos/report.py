"""What a run of chaos found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from manybridge.testing.chaos.injection import Injection
from manybridge.testing.chaos.load import Tally
from manybridge.testing.chaos.plan import PlannedFault
from manybridge.testing.chaos.scenario import Scenario


@dataclass
class ChaosReport:
    """The account of one run. `broken` says in words which promises were not kept; empty means that it passed."""

    scenario: Scenario
    plan: list[PlannedFault]
    total: Tally
    works: Mapping[str, Tally]
    retriable: Tally
    injections: list[Injection]
    skipped: list[str]
    """Faults that could not be injected, and why."""
    late: float
    """Seconds by which the latest call was sent after its time."""
    leaks: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Promises that were not kept."""
        total, promises = self.total, self.scenario.promises
        counts = {"lost": total.lost, "answered wrongly": total.wrong, "ended by an untyped error": total.untyped}
        found = [f"{count} calls were {what}" for what, count in counts.items() if count]
        found += [
            f"{count} calls failed with {code}, which is not one of the codes"
            for code, count in total.unexpected.items()
        ]
        if self.retriable.success < promises.success:
            share = f"{self.retriable.success:.2%} of the calls that may be repeated succeeded"
            found.append(f"{share}; promised: {promises.success:.2%}")
        for injection in self.injections:
            if injection.recovered_in is None or injection.recovered_in > promises.recovery:
                whom = injection.facts.get("worker", injection.bridge or "the store")
                found.append(f"{injection.fault} of {whom}: not well again within {promises.recovery:g} s")
        found += [f"a fault could not be injected: {reason}" for reason in self.skipped]
        return found + [f"leaked: {what}" for what in self.leaks]

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "scenario": self.scenario.name,
            "seed": self.scenario.seed,
            "duration": self.scenario.duration,
            "rate": self.scenario.rate,
            "plan": [planned.describe() for planned in self.plan],
            "calls": self.total.describe(),
            "by_kind": {name: tally.describe() for name, tally in self.works.items()},
            "retriable_success": round(self.retriable.success, 5),
            "faults": [injection.describe() for injection in self.injections],
            "skipped": self.skipped,
            "late_ms": round(self.late * 1000, 1),
            "leaks": self.leaks,
            "broken": self.broken,
            "passed": not self.broken,
        }

    def render(self) -> str:
        """As text."""
        total, scenario = self.total, self.scenario
        lines = [
            f"{scenario.name}: {scenario.duration:g} s at {scenario.rate:g} calls/s, seed {scenario.seed}",
            "",
            *self._calls(),
            "",
            f"answered {total.answered} of {total.sent} ({total.success:.2%}){_times(total)}",
            f"failed   {total.failed.total()}{_codes(total)}",
            f"lost     {total.lost}",
            f"wrong    {total.wrong}",
            f"untyped  {total.untyped}",
            f"leaked   {', '.join(self.leaks) or 'nothing'}",
            "",
            *self._faults(),
        ]
        lines += [f"    example: {sample.work} {sample.number}: {sample.text}" for sample in total.samples[:5]]
        broken = self.broken
        lines += ["", "promises kept" if not broken else "PROMISES BROKEN", *(f"  - {text}" for text in broken)]
        return "\n".join(lines)

    def _calls(self) -> list[str]:
        width = max(len(name) for name in self.works)
        rows = [f"{'calls':<{width}}  {'sent':>7} {'answered':>9} {'failed':>7} {'p50 ms':>8} {'p99 ms':>8}"]
        for name, tally in self.works.items():
            p50, p99 = (tally.percentile(share) for share in (0.5, 0.99))
            rows.append(
                f"{name:<{width}}  {tally.sent:>7} {tally.answered:>9} {tally.failed.total():>7} "
                f"{_ms(p50):>8} {_ms(p99):>8}"
            )
        return rows

    def _faults(self) -> list[str]:
        by_fault: dict[str, list[float | None]] = {}
        for injection in self.injections:
            by_fault.setdefault(injection.fault, []).append(injection.recovered_in)
        rows = [f"{'faults':<18} {'struck':>7} {'recovered':>10} {'p50 ms':>9} {'longest ms':>11}"]
        for fault, times in by_fault.items():
            known = [seconds for seconds in times if seconds is not None]
            middle, longest = (median(known), max(known)) if known else (None, None)
            rows.append(f"{fault:<18} {len(times):>7} {len(known):>10} {_ms(middle):>9} {_ms(longest):>11}")
        return rows + [f"  not injected: {reason}" for reason in self.skipped]


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"


def _times(tally: Tally) -> str:
    p50, p99 = tally.percentile(0.5), tally.percentile(0.99)
    return "" if p50 is None else f", p50 {_ms(p50)} ms, p99 {_ms(p99)} ms"


def _codes(tally: Tally) -> str:
    return "".join(f"\n  {code} {count}" for code, count in sorted(tally.failed.items()))

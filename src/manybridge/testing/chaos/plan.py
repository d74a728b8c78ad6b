"""The plan of a run: every fault with its time, drawn from the seed before anything begins."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from manybridge.testing.chaos.injection import ChaosError
from manybridge.testing.chaos.scenario import FaultRule, Scenario

MAX_FAULTS: Final = 100_000
"""Of one run: more are a slip in `every`, and would be drawn for ever."""

MAX_WORKER: Final = 1 << 16
"""Workers are drawn as a number below this; it is counted through those that are ready when the fault strikes."""


@dataclass(frozen=True, slots=True)
class PlannedFault:
    """One fault that will strike."""

    at: float
    """Seconds from the beginning."""
    fault: str
    bridge: str | None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        said = " ".join(f"{key}={value}" for key, value in self.parameters.items())
        return f"{self.at:8.3f} s  {self.fault:<18} {self.bridge or 'store':<12} {said}".rstrip()

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {"at": round(self.at, 3), "fault": self.fault, "bridge": self.bridge, **self.parameters}


def make_plan(scenario: Scenario) -> list[PlannedFault]:
    """Return the faults of a run in the order of their times. The same scenario and seed give the same plan.

    Raises:
        ChaosError: they are too many.
    """
    found: list[PlannedFault] = []
    for number, rule in enumerate(scenario.faults):
        # One generator for each rule: another rule more does not move the times of this one.
        choices = random.Random(f"{scenario.seed}/plan/{number}")  # noqa: S311  # repeatable, not secret
        for at in _times(rule, scenario.duration, choices):
            drawn = {} if rule.bridge is None else {"worker": choices.randrange(MAX_WORKER)}
            found.append(PlannedFault(at, rule.fault, rule.bridge, {**rule.parameters, **drawn, **_fixed(rule)}))
            if len(found) > MAX_FAULTS:
                raise ChaosError(
                    f"faults[{number}]: strikes so often that the plan of {scenario.duration:g} s has more than "
                    f"{MAX_FAULTS} faults; give it a longer `every`, or `times`"
                )
    return sorted(found, key=lambda planned: planned.at)


def print_plan(scenario: Scenario, plan: Sequence[PlannedFault]) -> str:
    """The plan for people, with the seed that makes it again."""
    head = f"plan of {scenario.name}: {len(plan)} faults in {scenario.duration:g} s, seed {scenario.seed}"
    return "\n".join([head, *(f"  {planned}" for planned in plan), *_never(scenario, plan)])


def _never(scenario: Scenario, plan: Sequence[PlannedFault]) -> Iterator[str]:
    """Yield a line for each fault that was asked for and does not strike: a run that kept its promises proves less."""
    planned = {(each.fault, each.bridge) for each in plan}
    for fault, bridge in dict.fromkeys((rule.fault, rule.bridge) for rule in scenario.faults):
        if (fault, bridge) not in planned:
            yield f"     never    {fault:<18} {bridge or 'store':<12} its first time is not before the end"


def _fixed(rule: FaultRule) -> dict[str, Any]:
    """A worker that the scenario names is not drawn."""
    return {"worker": rule.parameters["worker"]} if "worker" in rule.parameters else {}


def _times(rule: FaultRule, duration: float, choices: random.Random) -> Iterator[float]:
    if rule.every is None:
        yield from (at for at in sorted(rule.at) if at < duration)
        return
    due, count = rule.every if rule.after is None else rule.after, 0
    while due < duration and (rule.times is None or count < rule.times):
        moved = due + rule.every * rule.jitter * choices.uniform(-0.5, 0.5)
        if 0 <= moved < duration:
            yield moved
        due, count = due + rule.every, count + 1

"""Runs scenarios: a load, the faults of the plan at their times, and the account of both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Self, TypeVar

from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.sync import MLBridge
from manybridge.testing.chaos.faults import FAULTS, Faults
from manybridge.testing.chaos.holdings import Holdings, leaks_since
from manybridge.testing.chaos.injection import ChaosError, Injection
from manybridge.testing.chaos.load import Load
from manybridge.testing.chaos.plan import PlannedFault, make_plan
from manybridge.testing.chaos.report import ChaosReport
from manybridge.testing.chaos.scenario import Scenario, load_scenario

Result = TypeVar("Result")
ScenarioSource = Scenario | str | Path | Mapping[str, Any]
Told = Callable[[str], None]


class AsyncChaos:
    """Faults for a host, for asyncio programs: `async with AsyncChaos(ml, seed=7) as chaos`.

    Args:
        ml: a host that was started.
        seed: of everything that is drawn: times, workers, the mix of calls.
    """

    def __init__(self, ml: AsyncMLBridge, *, seed: int | None = None) -> None:
        self.faults = Faults(ml, seed=seed or 0)
        self._ml = ml
        self._seed = seed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every fault and put everything back."""
        await self.faults.close()

    async def inject(self, fault: str, bridge: str | None = None, **parameters: Any) -> Injection:
        """Inject one fault, by its name in `FAULTS`; parameters are those of the method of `Faults`."""
        return await self.faults.inject(fault, bridge, **parameters)

    async def recovered(self, injection: Injection, timeout: float = 30.0) -> float | None:
        """Wait until all is well again; seconds since the fault struck, or None."""
        return await self.faults.recovered(injection, timeout)

    async def run(self, scenario: ScenarioSource, *, told: Told | None = None) -> ChaosReport:
        """Run a scenario against this host and return its report. The host stays open.

        Args:
            scenario: one that was loaded, the path of its TOML file, or the mapping in it.
            told: gets a line for each fault, as it strikes and as its bridge is whole again.

        Raises:
            ChaosError: it can't be run here.
            ManybridgeError: a bridge could not be started.
        """
        loaded = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
        run = _Run(self._ml, self.faults, loaded.changed(seed=self._seed), told or (lambda _: None))
        return await run.report()


class Chaos:
    """Faults for a host, for blocking programs: `with Chaos(ml, seed=7) as chaos`. Methods as in `AsyncChaos`."""

    def __init__(self, ml: MLBridge, *, seed: int | None = None) -> None:
        self._run: Callable[..., Any] = ml._run  # the host's loop is where its faults must be made

        async def make() -> AsyncChaos:
            return AsyncChaos(ml._bridge, seed=seed)

        self._chaos: AsyncChaos = self._run(make())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End every fault and put everything back."""
        self._run(self._chaos.close())

    def inject(self, fault: str, bridge: str | None = None, **parameters: Any) -> Injection:
        """Inject one fault, by its name in `FAULTS`; parameters are those of the method of `Faults`."""
        found: Injection = self._run(self._chaos.inject(fault, bridge, **parameters))
        return found

    def recovered(self, injection: Injection, timeout: float = 30.0) -> float | None:
        """Wait until all is well again; seconds since the fault struck, or None."""
        found: float | None = self._run(self._chaos.recovered(injection, timeout))
        return found

    def run(self, scenario: ScenarioSource, *, told: Told | None = None) -> ChaosReport:
        """Run a scenario against this host and return its report."""
        found: ChaosReport = self._run(self._chaos.run(scenario, told=told))
        return found


class _Run:
    """One run of one scenario. Owner of what was injected."""

    def __init__(self, ml: AsyncMLBridge, faults: Faults, scenario: Scenario, told: Told) -> None:
        self._ml = ml
        self._faults = faults
        self._scenario = scenario
        self._told = told
        self._plan = make_plan(scenario)
        self._injections: list[Injection] = []
        self._skipped: list[str] = []

    async def report(self) -> ChaosReport:
        scenario = self._scenario
        await self._prepare()
        before = Holdings.now()
        load = Load(
            self._ml,
            scenario.works,
            rate=scenario.rate,
            seed=scenario.seed,
            patience=scenario.patience,
            first=len(scenario.works),
        )
        began = monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run(scenario.duration))
            for planned in self._plan:
                group.create_task(self._strike(planned, began))
        leaks = await leaks_since(before)
        return ChaosReport(
            scenario,
            self._plan,
            load.total(),
            load.tallies,
            load.retriable(),
            sorted(self._injections, key=lambda injection: injection.at),
            self._skipped,
            load.late,
            leaks,
        )

    async def _prepare(self) -> None:
        """Have every bridge, tap and store connection there before anything is counted."""
        for bridge in sorted(self._scenario.uses):
            await self._ml.wait_ready(bridge)
        for bridge in sorted({rule.bridge for rule in self._wire_rules() if rule.bridge is not None}):
            await self._faults.tap(bridge, every=True)
        if "store" in self._scenario.strikes and not await self._faults.store_serves():
            raise ChaosError("faults of the store need one that works; it does not take a write now")
        await self._ml.list_resources()  # with all connections to the store there, none that comes later is a leak
        await self._ml.list_sessions()
        await self._ml.jobs()
        for number, work in enumerate(self._scenario.works):
            outcome = await work.perform(self._ml, number)
            if not outcome.is_right:
                raise ChaosError(
                    f"{work.name} is answered with {outcome.got!r:.300} before any fault; the scenario expects "
                    f"{outcome.expected!r:.300}"
                )

    def _wire_rules(self) -> list[Any]:
        return [rule for rule in self._scenario.faults if FAULTS[rule.fault].strikes == "wire"]

    async def _strike(self, planned: PlannedFault, began: float) -> None:
        await asyncio.sleep(max(0.0, began + planned.at - monotonic()))
        try:
            injection = await self._faults.inject(planned.fault, planned.bridge, **planned.parameters)
        except ChaosError as error:
            self._skipped.append(f"{planned.fault} at {planned.at:.1f} s: {error.message}")
            self._told(f"{monotonic() - began:7.2f} s  {planned.fault} could not be injected: {error.message}")
            return
        self._injections.append(injection)
        whom = injection.facts.get("worker", injection.bridge or "the store")
        self._told(f"{monotonic() - began:7.2f} s  {planned.fault} struck {whom}")
        seconds = await self._faults.recovered(injection, self._scenario.promises.recovery)
        what = "is not well again" if seconds is None else f"well again after {seconds * 1000:.0f} ms"
        self._told(f"{monotonic() - began:7.2f} s  {planned.fault} of {whom}: {what}")

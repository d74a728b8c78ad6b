"""Faults on purpose, a load to feel them, and an account of every call: see docs/how-to/chaos.md."""

from __future__ import annotations

from manybridge.testing.chaos.faults import FAULTS, FaultKind, Faults
from manybridge.testing.chaos.injection import ChaosError, Injection
from manybridge.testing.chaos.load import Load, Tally
from manybridge.testing.chaos.plan import PlannedFault, make_plan, print_plan
from manybridge.testing.chaos.report import ChaosReport
from manybridge.testing.chaos.run import AsyncChaos, Chaos
from manybridge.testing.chaos.scenario import Scenario, builtin_names, builtin_scenario, load_scenario
from manybridge.testing.chaos.works import ANYTHING, Work, call_work, job_work, resource_work, stream_work

__all__ = [
    "ANYTHING",
    "FAULTS",
    "AsyncChaos",
    "Chaos",
    "ChaosError",
    "ChaosReport",
    "FaultKind",
    "Faults",
    "Injection",
    "Load",
    "PlannedFault",
    "Scenario",
    "Tally",
    "Work",
    "builtin_names",
    "builtin_scenario",
    "call_work",
    "job_work",
    "load_scenario",
    "make_plan",
    "print_plan",
    "resource_work",
    "stream_work",
]

"""Faults on purpose, a load to feel them, and an account of every call: see docs/how-to/chaos.md."""

from __future__ import annotations

from manybridge.testing.chaos.faults import FAULTS, FaultKind, Faults
from manybridge.testing.chaos.injection import ChaosError, Injection
from manybridge.testing.chaos.load import Load, Tally
from manybridge.testing.chaos.works import ANYTHING, Work, call_work, job_work, resource_work, stream_work

__all__ = [
    "ANYTHING",
    "FAULTS",
    "ChaosError",
    "FaultKind",
    "Faults",
    "Injection",
    "Load",
    "Tally",
    "Work",
    "call_work",
    "job_work",
    "resource_work",
    "stream_work",
]

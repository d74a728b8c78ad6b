"""What a fault was, once it was injected; and the error of faults that can't be."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from manybridge.host.worker import WorkerHandle
from manybridge.testing.problems import KitError


class ChaosError(KitError):
    """A fault or a scenario that can't be had here; the message says what it needs."""


@dataclass
class Injection:
    """One fault that was injected."""

    fault: str
    bridge: str | None
    """None for a fault of the store."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What was done, and to whom."""
    at: float = field(default_factory=monotonic)
    """When it struck, monotonic."""
    victim: WorkerHandle | None = None
    must_die: bool = False
    """Whether the bridge is not whole before the victim was replaced."""
    over: asyncio.Task[Any] | None = None
    """Ends when the fault does. None for one that is over at once."""
    recovered_in: float | None = None
    """Seconds until all was well again; None while it is not."""

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        recovered = None if self.recovered_in is None else round(self.recovered_in * 1000, 1)
        return {"fault": self.fault, "bridge": self.bridge, **self.facts, "recovered_ms": recovered}

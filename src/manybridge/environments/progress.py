"""How long work tells where it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """Where the work is. `total` is None where nobody knows."""

    message: str
    current: int = 0
    total: int | None = None


Report = Callable[[Step], None]


def quiet(_step: Step) -> None:
    """Tell nobody."""

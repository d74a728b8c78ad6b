"""What the store keeps: one frozen class per kind of record. Times are Unix seconds, `Any` is what JSON can carry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """One job."""

    id: str
    bridge: str
    command: str
    args: dict[str, Any] = field(default_factory=dict)
    session: str | None = None
    idempotent: bool = False
    """Whether the command may be run again after an interruption."""
    state: str
    """A `JobState`: queued, starting, running, done, failed, cancelled."""
    progress: dict[str, Any] | None = None
    """`current, total, message, rate, time_left` of the last report."""
    result: Any = None
    error: dict[str, Any] | None = None
    """An `error_info` object, where the job failed or was cancelled."""
    host: str
    """The host that runs it; a job of a host that has gone is interrupted."""
    events: int = 0
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One event of a job; `seq` counts up from 0 without gaps."""

    seq: int
    event: str
    data: Any

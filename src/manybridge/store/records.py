"""What the store keeps: one frozen class per kind of record. Times are Unix seconds, `Any` is what JSON can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceRecord:
    """One resource: its recipe, its last snapshot, and which host may change it."""

    id: str
    bridge: str
    type: str
    config: dict[str, Any] = field(default_factory=dict)
    policy: Literal["recreate", "restore", "pinned"] = "recreate"
    session: str | None = None
    owner: str | None = None
    """Who made it, where callers have identities."""
    created_at: float
    executions: int = 0
    last_executed: float | None = None
    state: Any = None
    """The last snapshot; None where there is none, and in listings, which leave it out."""
    version: int = 0
    """Counts snapshots: a host whose living object has another version holds an old one."""
    ready: bool = True
    """False while its id is only reserved: a host makes it."""
    holder: str | None = None
    """The host that may execute it, or makes it; None where any may."""
    fence: int = 0
    """Counts changes of the holder: what was begun under an older number is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Executions of one resource that are to be added to its record."""

    bridge: str
    id: str
    count: int
    last_executed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One session."""

    id: str
    affinity: str
    concurrency: str
    lease_seconds: float
    """How long it lives on after its last call."""
    expires_in: float
    """Seconds from now, by the clock of the database: hosts need not agree on the time."""
    settings: dict[str, Any] = field(default_factory=dict)
    owner: str | None = None
    created_at: float
    calls: int = 0


def changed_settings(settings: Mapping[str, Any] | None, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session's settings with some of them replaced; None as a value removes one."""
    return {name: value for name, value in {**(settings or {}), **changes}.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """One idempotency key."""

    bridge: str
    key: str
    fingerprint: str
    """Hash of command, arguments and session: tells whether it is the same call."""
    done: bool = False
    result: Any = None
    host: str
    """The host that makes, or made, the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRecord:
    """One host process. It is living while its lease runs and, on the same machine, while its process does."""

    id: str
    machine: str
    """Boot and process namespace; see `manybridge.store.liveness`."""
    pid: int
    started: int
    """When the process began, in clock ticks since boot: tells it from a later one with the same pid."""

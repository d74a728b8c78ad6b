"""What a store can do, as protocols: the host knows these and no database."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from manybridge.store.records import JobEvent, JobRecord


class JobStore(Protocol):
    """Keeps jobs. Every method may raise `StoreError`."""

    async def save_job(self, record: JobRecord) -> None:
        """Insert it, or replace the one with the same id."""

    async def get_job(self, id: str) -> JobRecord | None:
        """Return it, or None."""

    async def list_jobs(
        self, *, bridge: str | None = None, states: Collection[str] | None = None, limit: int = 1000
    ) -> list[JobRecord]:
        """Return the newest `limit` jobs that match, oldest first."""

    async def delete_job(self, id: str) -> bool:
        """Delete it with its events. Returns whether it was there."""

    async def append_events(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """Keep events; a number that is already there is left as it is."""

    async def read_events(self, job_id: str, from_seq: int = 0, limit: int = 10_000) -> list[JobEvent]:
        """Return events from number `from_seq` on, in order."""

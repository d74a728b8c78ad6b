"""Jobs in memory: for tests, and for a host whose records need not outlive it."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence
from dataclasses import replace

from manybridge.store.records import JobEvent, JobRecord


class MemoryJobStore:
    """A `JobStore` whose records end with it. Owner of them."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobRecord] = {}
        self._events: dict[str, list[JobEvent]] = {}

    async def save_job(self, record: JobRecord) -> None:
        """Insert it, or replace the one with the same id."""
        self._jobs[record.id] = replace(record)

    async def get_job(self, id: str) -> JobRecord | None:
        """Return it, or None."""
        return self._jobs.get(id)

    async def list_jobs(
        self, *, bridge: str | None = None, states: Collection[str] | None = None, limit: int = 1000
    ) -> list[JobRecord]:
        """Return the newest `limit` jobs that match, oldest first."""
        found = [
            each
            for each in self._jobs.values()
            if (bridge is None or each.bridge == bridge) and (states is None or each.state in states)
        ]
        found.sort(key=lambda each: each.created_at)
        return found[-limit:] if limit > 0 else []

    async def delete_job(self, id: str) -> bool:
        """Delete it with its events."""
        self._events.pop(id, None)
        return self._jobs.pop(id, None) is not None

    async def append_events(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """Keep events; a number that is already there is left as it is."""
        kept = self._events.setdefault(job_id, [])
        for event in events:
            place = bisect_left(kept, event.seq, key=_number)
            if place == len(kept) or kept[place].seq != event.seq:
                insort(kept, event, key=_number)

    async def read_events(self, job_id: str, from_seq: int = 0, limit: int = 10_000) -> list[JobEvent]:
        """Return events from number `from_seq` on, in order."""
        kept = self._events.get(job_id, [])
        start = bisect_left(kept, from_seq, key=_number)
        return kept[start : start + limit]


def _number(event: JobEvent) -> int:
    return event.seq

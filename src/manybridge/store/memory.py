"""The store without a database: the same contract, for as long as the process lives."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from math import inf
from time import monotonic, time
from typing import Any

from manybridge.errors import StoreError
from manybridge.store import liveness
from manybridge.store.records import (
    Execution,
    HostRecord,
    JobEvent,
    JobRecord,
    KeyRecord,
    ResourceRecord,
    SessionRecord,
    changed_settings,
)


class MemoryJobStore:
    """Implements `JobStore`."""

    def __init__(self) -> None:
        self._jobs: dict[str, JobRecord] = {}
        self._events: dict[str, dict[int, JobEvent]] = {}

    async def save_job(self, record: JobRecord) -> None:
        """See `JobStore`."""
        self._jobs[record.id] = record
        self._events.setdefault(record.id, {})

    async def get_job(self, id: str) -> JobRecord | None:
        """See `JobStore`."""
        return self._jobs.get(id)

    async def list_jobs(
        self, *, bridge: str | None = None, states: Collection[str] | None = None, limit: int = 1000
    ) -> list[JobRecord]:
        """See `JobStore`."""
        found = [
            each
            for each in self._jobs.values()
            if bridge in (None, each.bridge) and (states is None or each.state in states)
        ]
        found.sort(key=lambda each: (each.created_at, each.id))
        return found[max(0, len(found) - limit) :]

    async def delete_job(self, id: str) -> bool:
        """See `JobStore`."""
        self._events.pop(id, None)
        return self._jobs.pop(id, None) is not None

    async def prune_jobs(self, older_than: float, *, bridge: str | None = None, dry_run: bool = False) -> list[str]:
        """See `JobStore`."""
        limit = time() - older_than
        old = [
            (each.finished_at, each.id)
            for each in self._jobs.values()
            if each.finished_at is not None and each.finished_at <= limit and bridge in (None, each.bridge)
        ]
        found = [id for _, id in sorted(old)]
        for id in () if dry_run else found:
            await self.delete_job(id)
        return found

    async def append_events(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """See `JobStore`."""
        kept = self._events.get(job_id)
        if kept is not None:
            for event in events:
                kept.setdefault(event.seq, event)

    async def read_events(self, job_id: str, from_seq: int = 0, limit: int = 10_000) -> list[JobEvent]:
        """See `JobStore`."""
        kept = self._events.get(job_id, {})
        return [kept[seq] for seq in sorted(kept) if seq >= from_seq][:limit]


class MemoryHosts:
    """Implements `HostStore`."""

    def __init__(self) -> None:
        self._hosts: dict[str, tuple[HostRecord, float]] = {}

    async def announce_host(self, host: HostRecord, lease_seconds: float) -> None:
        """See `HostStore`."""
        self._hosts[host.id] = (host, monotonic() + lease_seconds)

    async def living_hosts(self) -> set[str]:
        """See `HostStore`."""
        return {id for id in self._hosts if self._is_living(id)}

    def _is_living(self, id: str | None) -> bool:
        host, expires = self._hosts.get(id or "", (None, 0.0))
        return host is not None and expires > monotonic() and not liveness.has_gone(host)


class MemoryResources(MemoryHosts):
    """Implements `ResourceStore`."""

    def __init__(self) -> None:
        super().__init__()
        self._resources: dict[tuple[str, str], ResourceRecord] = {}

    async def add_resource(self, record: ResourceRecord) -> bool:
        """See `ResourceStore`."""
        found = self._resources.get((record.bridge, record.id))
        if found is not None and (found.ready or self._is_living(found.holder)):
            return False
        self._resources[record.bridge, record.id] = record
        return True

    async def confirm_resource(self, reserved: ResourceRecord, record: ResourceRecord) -> bool:
        """See `ResourceStore`."""
        found = self._resources.get((record.bridge, record.id))
        if found is None or found.ready:
            return False
        if (found.holder, found.created_at) != (reserved.holder, reserved.created_at):
            return False
        self._resources[record.bridge, record.id] = replace(record, ready=True)
        return True

    async def abandon_resource(self, record: ResourceRecord) -> None:
        """See `ResourceStore`."""
        found = self._resources.get((record.bridge, record.id))
        if found is not None and not found.ready and found.created_at == record.created_at:
            del self._resources[record.bridge, record.id]

    async def get_resource(self, bridge: str, id: str) -> ResourceRecord | None:
        """See `ResourceStore`."""
        found = self._resources.get((bridge, id))
        return found if found is not None and found.ready else None

    async def list_resources(
        self, *, bridge: str | None = None, type: str | None = None, session: str | None = None
    ) -> list[ResourceRecord]:
        """See `ResourceStore`."""
        found = [
            replace(each, state=None)
            for each in self._resources.values()
            if each.ready
            and bridge in (None, each.bridge)
            and type in (None, each.type)
            and each.session in (None, session)
        ]
        return sorted(found, key=lambda each: (each.created_at, each.id))

    async def claim_resource(self, bridge: str, id: str, host: str) -> ResourceRecord | None:
        """See `ResourceStore`."""
        found = await self.get_resource(bridge, id)
        if found is None or (found.holder != host and self._is_living(found.holder)):
            return found
        claimed = self._resources[bridge, id] = replace(found, holder=host, fence=found.fence + 1)
        return claimed

    async def save_state(
        self, bridge: str, id: str, *, host: str, fence: int, state: Any, executions: int, last_executed: float | None
    ) -> int | None:
        """See `ResourceStore`."""
        found = self._resources.get((bridge, id))
        if found is None or (found.holder, found.fence) != (host, fence):
            return None
        self._resources[bridge, id] = replace(
            found,
            state=state,
            version=found.version + 1,
            executions=found.executions + executions,
            last_executed=found.last_executed if last_executed is None else last_executed,
        )
        return found.version + 1

    async def release_resources(self, host: str, keys: Collection[tuple[str, str]] | None = None) -> None:
        """See `ResourceStore`."""
        for key in list(self._resources) if keys is None else keys:
            found = self._resources.get(key)
            if found is not None and found.holder == host and found.policy != "pinned" and found.ready:
                self._resources[key] = replace(found, holder=None)

    async def add_executions(self, executions: Sequence[Execution]) -> None:
        """See `ResourceStore`."""
        for each in executions:
            found = self._resources.get((each.bridge, each.id))
            if found is not None:
                count = found.executions + each.count
                self._resources[each.bridge, each.id] = replace(
                    found, executions=count, last_executed=each.last_executed
                )

    async def delete_resource(self, bridge: str, id: str) -> bool:
        """See `ResourceStore`."""
        if await self.get_resource(bridge, id) is None:
            return False
        del self._resources[bridge, id]
        return True

    async def delete_resources(self, bridge: str | None, session: str | None) -> list[tuple[str, str]]:
        """See `ResourceStore`."""
        doomed = [
            key
            for key, each in self._resources.items()
            if each.ready and each.session == session and bridge in (None, each.bridge)
        ]
        for key in doomed:
            del self._resources[key]
        return doomed

    async def prune_resources(
        self, older_than: float, *, bridge: str | None = None, dry_run: bool = False
    ) -> list[tuple[str, str]]:
        """See `ResourceStore`."""
        limit = time() - older_than
        old = [
            ((each.last_executed or each.created_at, each.id), key)
            for key, each in self._resources.items()
            if each.ready
            and bridge in (None, each.bridge)
            and (each.last_executed or each.created_at) <= limit
            and not self._is_living(each.holder)
        ]
        found = [key for _, key in sorted(old)]
        for key in () if dry_run else found:
            del self._resources[key]
        return found

    async def retire_host(self, id: str) -> None:
        """See `HostStore`."""
        self._hosts.pop(id, None)
        for key, found in list(self._resources.items()):
            if found.holder == id and not found.ready:
                del self._resources[key]
        await self.release_resources(id)


class MemorySessions(MemoryResources):
    """Implements `SessionStore`."""

    def __init__(self) -> None:
        super().__init__()
        self._sessions: dict[str, tuple[SessionRecord, float]] = {}

    async def add_session(self, record: SessionRecord) -> bool:
        """See `SessionStore`."""
        if await self.get_session(record.id) is not None:
            return False
        self._end(record.id)
        self._sessions[record.id] = (record, monotonic() + record.expires_in)
        return True

    async def save_sessions(self, records: Sequence[SessionRecord]) -> None:
        """See `SessionStore`."""
        for record in records:
            found, expires = self._sessions.get(record.id, (record, 0.0))
            merged = replace(
                record,
                created_at=found.created_at,
                calls=max(found.calls, record.calls),
                settings=found.settings if expires > monotonic() else record.settings,
            )
            self._sessions[record.id] = (merged, max(expires, monotonic() + record.expires_in))

    async def renew_sessions(self, records: Sequence[SessionRecord]) -> list[str]:
        """See `SessionStore`."""
        there = [record for record in records if record.id in self._sessions]
        for record in there:
            found, expires = self._sessions[record.id]
            renewed = replace(found, calls=max(found.calls, record.calls))
            self._sessions[record.id] = (renewed, max(expires, monotonic() + record.expires_in))
        return sorted({record.id for record in records} - {record.id for record in there})

    async def change_settings(self, id: str, changes: Mapping[str, Any]) -> dict[str, Any] | None:
        """See `SessionStore`."""
        if await self.get_session(id) is None:
            return None
        found, expires = self._sessions[id]
        settings = changed_settings(found.settings, changes)
        self._sessions[id] = (replace(found, settings=settings), expires)
        return settings

    async def get_session(self, id: str) -> SessionRecord | None:
        """See `SessionStore`."""
        found, expires = self._sessions.get(id, (None, 0.0))
        left = expires - monotonic()
        return replace(found, expires_in=left) if found is not None and left > 0 else None

    async def list_sessions(self) -> list[SessionRecord]:
        """See `SessionStore`."""
        found = [each for id in list(self._sessions) if (each := await self.get_session(id)) is not None]
        return sorted(found, key=lambda each: (each.created_at, each.id))

    async def delete_session(self, id: str) -> bool:
        """See `SessionStore`."""
        return self._end(id)

    async def begin_lease(self, id: str, seconds: float) -> bool:
        """See `SessionStore`."""
        found = await self.get_session(id)
        if found is None:
            return False
        self._sessions[id] = (replace(found, lease_seconds=seconds), monotonic() + seconds)
        return True

    async def end_expired_session(self, id: str) -> bool:
        """See `SessionStore`."""
        return id in self._sessions and self._sessions[id][1] <= monotonic() and self._end(id)

    async def end_expired_sessions(self) -> list[str]:
        """See `SessionStore`."""
        now = monotonic()
        return [id for id, (_, expires) in list(self._sessions.items()) if expires <= now and self._end(id)]

    def _end(self, id: str) -> bool:
        if self._sessions.pop(id, None) is None:
            return False
        for key in [key for key, each in self._resources.items() if each.session == id]:
            del self._resources[key]
        return True


class MemoryStore(MemoryJobStore, MemorySessions):
    """Implements `Store`; keys included."""

    failure: tuple[StoreError, float] | None = None

    def __init__(self) -> None:
        MemoryJobStore.__init__(self)
        MemorySessions.__init__(self)
        self._keys: dict[tuple[str, str], tuple[KeyRecord, float]] = {}

    async def begin_key(self, record: KeyRecord) -> tuple[KeyRecord, bool]:
        """See `KeyStore`."""
        now = monotonic()
        self._keys = {key: entry for key, entry in self._keys.items() if entry[1] > now}
        found, _ = self._keys.get((record.bridge, record.key), (None, 0.0))
        if found is not None and (found.done or self._is_living(found.host)):
            return found, False
        self._keys[record.bridge, record.key] = (record, inf)
        return record, True

    async def finish_key(self, record: KeyRecord, keep_seconds: float) -> bool:
        """See `KeyStore`."""
        found, _ = self._keys.get((record.bridge, record.key), (None, 0.0))
        if found is None or found.done or found.host != record.host:
            return False
        self._keys[record.bridge, record.key] = (replace(record, done=True), monotonic() + keep_seconds)
        return True

    async def drop_key(self, bridge: str, key: str, host: str) -> None:
        """See `KeyStore`."""
        found, _ = self._keys.get((bridge, key), (None, 0.0))
        if found is not None and not found.done and found.host == host:
            del self._keys[bridge, key]

    @property
    def is_open(self) -> bool:
        """See `Store`."""
        return True

    async def read_schema(self) -> str | None:
        """See `Store`."""
        return None

    async def close(self) -> None:
        """See `Store`."""

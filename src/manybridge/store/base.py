"""What a store can do, as protocols: the host knows these and no database.

A store is opened for one *scope*, a name; it sees the records of that scope and no others. Every method may raise
`StoreError`. What a method has returned from is kept: it survives the death of this process at any moment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

from manybridge.errors import StoreError
from manybridge.store.records import (
    Execution,
    HostRecord,
    JobEvent,
    JobRecord,
    KeyRecord,
    ResourceRecord,
    SessionRecord,
)


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

    async def prune_jobs(self, older_than: float, *, bridge: str | None = None, dry_run: bool = False) -> list[str]:
        """Delete those that ended more than so many seconds ago, with their events.

        Args:
            older_than: seconds.
            bridge: only of this one.
            dry_run: delete nothing.

        Returns:
            The id of each, the one that ended first at the front.
        """

    async def append_events(self, job_id: str, events: Sequence[JobEvent]) -> None:
        """Keep events; a number that is there already is left as it is. Those of a job that is not kept are dropped."""

    async def read_events(self, job_id: str, from_seq: int = 0, limit: int = 10_000) -> list[JobEvent]:
        """Return events from number `from_seq` on, in order."""


class ResourceStore(Protocol):
    """Keeps resources, and sees to it that one host at a time changes one with state."""

    async def add_resource(self, record: ResourceRecord) -> bool:
        """Keep a new one. Returns False where the id is taken.

        An id that is only reserved by a host which has gone is free.
        """

    async def confirm_resource(self, reserved: ResourceRecord, record: ResourceRecord) -> bool:
        """Fill a reservation with the whole record.

        Returns False where the reservation is gone: deleted, or taken over by another host.
        """

    async def abandon_resource(self, record: ResourceRecord) -> None:
        """Give a reservation back, if it is still this one."""

    async def get_resource(self, bridge: str, id: str) -> ResourceRecord | None:
        """Return it whole, or None; reserved ids are not there yet."""

    async def list_resources(
        self, *, bridge: str | None = None, type: str | None = None, session: str | None = None
    ) -> list[ResourceRecord]:
        """Return those of no session, and those of `session` if it is given, oldest first, without their state."""

    async def claim_resource(self, bridge: str, id: str, host: str) -> ResourceRecord | None:
        """Make `host` the holder, unless another living host is.

        Returns:
            The record as it is then, with its state; `holder` says who has it. None where there is none.
        """

    async def save_state(
        self, bridge: str, id: str, *, host: str, fence: int, state: Any, executions: int, last_executed: float | None
    ) -> int | None:
        """Keep a snapshot together with `executions` more executions.

        Returns:
            The new version, or None where the resource is gone or no longer `host`'s under this `fence`: nothing is
            changed then.
        """

    async def release_resources(self, host: str, keys: Collection[tuple[str, str]] | None = None) -> None:
        """Give up holding these (bridge, id), or everything that can live without `host` (all but `pinned`)."""

    async def add_executions(self, executions: Sequence[Execution]) -> None:
        """Count executions; those of resources that have gone are dropped."""

    async def delete_resource(self, bridge: str, id: str) -> bool:
        """Delete it. Returns whether it was there."""

    async def delete_resources(self, bridge: str | None, session: str | None) -> list[tuple[str, str]]:
        """Delete everything of a session (None: everything of no session), of one bridge or of all.

        Returns:
            (bridge, id) of each.
        """

    async def prune_resources(
        self, older_than: float, *, bridge: str | None = None, dry_run: bool = False
    ) -> list[tuple[str, str]]:
        """Delete those that were neither made nor executed for so many seconds, of sessions too.

        What a living host holds, which is to say executes, or has pinned to a worker of its own, is left.

        Args:
            older_than: seconds.
            bridge: only of this one.
            dry_run: delete nothing.

        Returns:
            (bridge, id) of each, oldest first.
        """


class SessionStore(Protocol):
    """Keeps sessions."""

    async def add_session(self, record: SessionRecord) -> bool:
        """Keep a new one. Returns False where the id is taken by a session whose lease still runs."""

    async def save_sessions(self, records: Sequence[SessionRecord]) -> None:
        """Insert or replace several.

        Of one that is there the settings stay, and the longer lease wins: another host may have used it too.
        """

    async def renew_sessions(self, records: Sequence[SessionRecord]) -> list[str]:
        """Note how long several live on, and their calls, as `save_sessions`, and nothing else of them.

        Returns:
            The ids of those that are not there any more: they are not made again.
        """

    async def begin_lease(self, id: str, seconds: float) -> bool:
        """Have a session live so long from now on, be it longer or shorter than before. False where there is none."""

    async def change_settings(self, id: str, changes: Mapping[str, Any]) -> dict[str, Any] | None:
        """Replace some of a session's settings; None as a value removes one. What others change meanwhile is kept.

        Returns:
            The settings as they are then, or None where there is no session.
        """

    async def get_session(self, id: str) -> SessionRecord | None:
        """Return it, or None; one whose lease ran out is not there."""

    async def list_sessions(self) -> list[SessionRecord]:
        """Return those whose leases run, oldest first."""

    async def delete_session(self, id: str) -> bool:
        """Delete it with its resources. Returns whether it was there."""

    async def end_expired_session(self, id: str) -> bool:
        """Delete this one with its resources if its lease ran out. Returns whether it had."""

    async def end_expired_sessions(self) -> list[str]:
        """Delete every session whose lease ran out, with its resources. Returns their ids."""


class KeyStore(Protocol):
    """Keeps idempotency keys with the results of their calls."""

    async def begin_key(self, record: KeyRecord) -> tuple[KeyRecord, bool]:
        """Reserve a key for a call of `record.host`, unless it is in use.

        Returns:
            The record as it is then, and whether the call is the caller's to make. It is the caller's too
            where the host that made it has gone in the middle of it.
        """

    async def finish_key(self, record: KeyRecord, keep_seconds: float) -> bool:
        """Keep the result for so long. Returns False where the key is no longer `record.host`'s."""

    async def drop_key(self, bridge: str, key: str, host: str) -> None:
        """Forget a key whose call failed, if it is `host`'s."""


class HostStore(Protocol):
    """Knows which hosts live."""

    async def announce_host(self, host: HostRecord, lease_seconds: float) -> None:
        """Begin, or renew, the lease of a host."""

    async def living_hosts(self) -> set[str]:
        """Return the ids of the hosts whose lease runs and whose process, as far as can be known, does too."""

    async def retire_host(self, id: str) -> None:
        """A host ends: it holds nothing any more."""


class Store(JobStore, ResourceStore, SessionStore, KeyStore, HostStore, Protocol):
    """Everything that a host keeps."""

    failure: tuple[StoreError, float] | None
    """What went wrong last, and when (Unix seconds)."""

    @property
    def is_open(self) -> bool:
        """Whether it has been used: whether there are connections, where it needs some."""

    async def read_schema(self) -> str | None:
        """Return the version of its schema, asked now, which opens it; None where it has none."""

    async def close(self) -> None:
        """End what is under way and close every connection. Calling it again does nothing."""

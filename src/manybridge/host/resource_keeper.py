"""Resources in the store: reserved, recorded, claimed before they are changed, saved after.

A resource with state is changed by one host at a time. That host *claims* it, which gives it a number (`fence`); each
state is written under that number, and refused once another host has claimed it. So a host that was thought dead, and
comes back, can't overwrite anything. A claim that is not used is given back after a second, so that another host (a
command on the same configuration, for example) waits no longer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic, time
from typing import Any, Final

from manybridge.errors import ManybridgeError, ResourceError
from manybridge.host.resource_record import Policy, Record
from manybridge.host.store_access import LEASE_SECONDS, StoreAccess
from manybridge.protocol.errors import ErrorCode
from manybridge.store.records import Execution, ResourceRecord

FRESH_SECONDS: Final = 1.0
"""How long a host may not know that another one has deleted a resource. Asking the store costs half a millisecond."""

IDLE_SECONDS: Final = 1.0
"""A claim that was not used for so long is given back."""

CLAIM_PATIENCE: Final = 2 * LEASE_SECONDS
"""The longest wait for a resource that another host has, where the call itself has no limit: if that host is dead,
its lease has run out by then."""


class ResourceKeeper:
    """The store's side of the resources of one host. Owner of the counts that are not written yet.

    Args:
        access: to the store.
    """

    def __init__(self, access: StoreAccess) -> None:
        self.access = access
        self.store = access.store
        self._dirty: dict[tuple[str, str], Record] = {}
        self._claimed: dict[tuple[str, str], Record] = {}
        access.on_tick += [self._count, self._give_back]

    # ------------------------------------------------------------------ making

    async def reserve(self, record: ResourceRecord) -> ResourceRecord | None:
        """Take an id before anything is made under it. Returns None where it is taken."""
        await self.access.announce()
        reserved = replace(record, ready=False, holder=self.access.host)
        return reserved if await self.store.add_resource(reserved) else None

    async def abandon(self, reserved: ResourceRecord) -> None:
        """Give a reserved id back."""
        await self.store.abandon_resource(reserved)

    async def record(self, recipe: ResourceRecord, policy: Policy, state: Any) -> Record | None:
        """Keep a resource that was made on a worker, from its recipe or reservation.

        Returns None where its id was given to somebody else meanwhile.
        """
        await self.access.announce()
        held = policy != "recreate"
        made = replace(
            recipe,
            policy=policy,
            state=state,
            version=int(policy == "restore"),
            holder=self.access.host if held else None,
            fence=recipe.fence + 1,
            ready=True,
        )
        kept = self.store.add_resource(made) if recipe.ready else self.store.confirm_resource(recipe, made)
        if not await kept:
            return None
        record = Record(made)
        record.checked_at = monotonic()
        if policy == "restore":
            record.fence = record.since = made.fence
            self._claimed[record.key] = record
        return record

    def is_stale(self, record: Record) -> bool:
        """Whether somebody else may have deleted it since we asked."""
        return self.access.shared and record.checked_at + FRESH_SECONDS < monotonic()

    # ------------------------------------------------------------------ changing

    def is_claimed(self, record: Record) -> bool:
        """Whether a resource is ours to change, so that `claim` would have nothing to do."""
        return record.fence is not None and self.access.is_announced

    async def claim(self, record: Record, deadline: float) -> bool:
        """Make a resource ours to change.

        Returns:
            Whether the living objects that we have are as the store says.

        Raises:
            ResourceError: `resource_not_found`; or `conflict`: another host goes on using it.
            StoreError: the store can't say.
        """
        if self.is_claimed(record):
            return True
        async with record.claiming:
            if self.is_claimed(record):
                return True
            await self.access.announce()
            found = await self._claimed_record(record, min(deadline, monotonic() + CLAIM_PATIENCE))
            if record.fence is not None and found.fence == record.fence + 1:
                # Our lease lapsed, and nobody has claimed it meanwhile: what runs goes on, what waits is written.
                record.fence = found.fence
                record.refresh(found)
                return True
            current = found.version == record.version and record.kept == record.changes
            record.state, record.version, record.fence = found.state, found.version, found.fence
            if not current or record.since is None:
                record.since = found.fence  # what still runs was begun on something else
            # Not set back to 0: a write that is under way will tell how far it came.
            record.kept = record.changes
            record.refresh(found)
            self._claimed[record.key] = record
            return current

    async def save(self, record: Record, fence: int, state: Any, number: int, *, counts: bool) -> None:
        """Keep a state that came to be under the claim `fence`.

        States that are waiting when one is written go with it. `number` is that of the snapshot: they are told in the
        order in which they were asked for, but who waits for them may come here in another.

        Raises:
            ResourceError: `conflict`: the resource is another host's by now, and the state is not kept.
            StoreError: it can't be kept.
        """
        if not record.continues(fence):
            raise _taken_over(record)
        if number > record.snapshot:  # else what it tells is in a newer one already
            record.state, record.snapshot = state, number
        record.changes += 1
        record.uncounted += counts
        try:
            await self._saved(record, fence, record.changes)
        except ManybridgeError:
            record.uncounted -= counts  # it did not happen
            raise

    async def _saved(self, record: Record, fence: int, mine: int) -> None:
        async with record.saving:
            if not record.continues(fence):
                raise _taken_over(record)
            if record.kept < mine:
                await self._write(record)

    def lose(self, record: Record) -> None:
        """What we have of its state can't be trusted: the next claim reads the store's."""
        record.fence = record.since = None
        record.version = -1
        self._claimed.pop(record.key, None)

    async def _write(self, record: Record) -> None:
        changes, count, fence = record.changes, record.uncounted, record.fence
        assert fence is not None  # `continues` has looked
        bridge, id = record.key
        try:
            version = await self.store.save_state(
                bridge,
                id,
                host=self.access.host,
                fence=fence,
                state=record.state,
                executions=count,
                last_executed=time() if count else None,
            )
        except BaseException:  # cancelled, too: the write goes on, and nobody here learns how it ends
            self.lose(record)
            raise
        if version is None:
            if record.fence != fence and record.continues(fence):  # claimed again by ourselves meanwhile
                await self._write(record)
                return
            self.lose(record)
            if await self.store.get_resource(bridge, id) is not None:
                raise _taken_over(record)
            record.deleted = True  # by another host: what ran ends undisturbed
            return
        record.version, record.kept = version, max(record.kept, changes)
        record.uncounted -= count

    async def _claimed_record(self, record: Record, deadline: float) -> ResourceRecord:
        pause = 0.02
        while True:
            found = await self.store.claim_resource(*record.key, self.access.host)
            if found is None:
                record.deleted = True
                raise not_found(*record.key)
            if found.holder == self.access.host:
                return found
            if monotonic() + pause > deadline:
                text = (
                    f"resource {record.resource.id} is in use by another host; it can be executed when that one rests"
                )
                details = {"id": record.resource.id, "holder": found.holder}
                raise ResourceError(text, code=ErrorCode.CONFLICT, retryable=True, details=details)
            await asyncio.sleep(pause)
            pause = min(0.25, pause * 2)

    # ------------------------------------------------------------------ a moment later

    def executed(self, record: Record) -> None:
        """Count an execution that needs no state to be saved."""
        record.uncounted += 1
        self._dirty[record.key] = record

    def forget(self, record: Record) -> None:
        """It was deleted, or is not this host's business any more."""
        for known in (self._dirty, self._claimed):
            if known.get(record.key) is record:
                del known[record.key]

    async def _count(self) -> None:
        dirty, self._dirty = self._dirty, {}
        counts = {key: record.uncounted for key, record in dirty.items() if record.uncounted}
        if not counts:
            return
        written = [
            Execution(bridge=key[0], id=key[1], count=count, last_executed=dirty[key].resource.last_executed or time())
            for key, count in counts.items()
        ]
        try:
            await self.store.add_executions(written)
        except ManybridgeError:
            self._dirty = dirty | self._dirty
            raise
        for key, count in counts.items():
            dirty[key].uncounted -= count

    async def _give_back(self) -> None:
        if not self.access.shared:
            return
        horizon = monotonic() - IDLE_SECONDS
        idle = [
            record
            for record in self._claimed.values()
            if not record.in_use and record.used_at < horizon and not record.claiming.locked()
        ]
        if idle:
            await self._release(idle)

    async def _release(self, records: Iterable[Record]) -> None:
        locked = list(records)
        for record in locked:  # none of them is locked, so none of these waits
            await record.claiming.acquire()
        try:
            for record in locked:
                record.fence = None
                self._claimed.pop(record.key, None)
            await self.store.release_resources(self.access.host, [record.key for record in locked])
        finally:
            for record in locked:
                record.claiming.release()


def not_found(bridge: str, id: str) -> ResourceError:
    """The error for a resource that is missing, or somebody else's: the same, so that nobody learns which."""
    return ResourceError(f"Resource not found: {id}", details={"id": id, "bridge": bridge})


def _taken_over(record: Record) -> ResourceError:
    text = (
        f"resource {record.resource.id} was taken over by another host, or its last state could not be kept, "
        "while it was executed; this execution does not count"
    )
    details = {"id": record.resource.id}
    return ResourceError(text, code=ErrorCode.CONFLICT, retryable=True, details=details)

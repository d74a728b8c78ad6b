"""The resources of a host: what each is made of, and which workers hold it.

A worker holds the living thing; the host keeps its *recipe* (type, config, and the last snapshot of its state) in the
store, so that it outlives the worker, and the host where the store is a durable one. What follows from a type's policy:

* `recreate`: any worker can make it from the recipe, so it is made wherever it is needed, and several may hold it.
* `restore`: it has state, so exactly one worker holds it. After each execution the host takes a snapshot; an execution
  counts only together with its snapshot. When the worker is gone, it is made elsewhere from recipe and snapshot.
* `pinned`: it lives and dies with its worker. Afterwards it is `resource_lost`, never a wrong answer.

`resource_keeper.py` does what concerns the store, `placement.py` what concerns workers.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from math import inf
from time import monotonic, time
from typing import Any, Final, NamedTuple

from manybridge.errors import (
    CallTimeoutError,
    ClosedError,
    ManybridgeError,
    ResourceError,
    StoreError,
)
from manybridge.host.config import StoreConfig
from manybridge.host.options import CallOptions
from manybridge.host.placement import Placement, make_call, quiet_options, release, wait_briefly
from manybridge.host.pool import Pool, WorkerGoneError
from manybridge.host.resource_keeper import ResourceKeeper, not_found
from manybridge.host.resource_record import Policy, Record, Resource, resource_of
from manybridge.host.snapshots import AskedSnapshot, after_sent, ask_snapshot, told_state
from manybridge.host.store_access import StoreAccess, halfway
from manybridge.host.wire_arguments import object_argument, text_argument
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.errors import ErrorCode
from manybridge.store.records import ResourceRecord

__all__ = ["Record", "Resource", "ResourceTable"]

DELETE_PATIENCE: Final = 0.2
"""How long a delete waits for the workers to let go. The record is gone at once; a busy worker follows when it can."""

MAX_PLACEMENTS: Final = 5
"""How often an execution looks for another worker when the one that it waited for has gone."""


class _Work(NamedTuple):
    """What is done with a resource where it is."""

    command: str
    args: dict[str, Any]
    is_execution: bool = True


class ResourceTable:
    """Owner of what one host knows of resources.

    Args:
        access: to the store; memory if left out.
        session_needed: called before a resource is kept that belongs to a session: the session must be kept too.
    """

    def __init__(
        self, access: StoreAccess | None = None, session_needed: Callable[[str], Awaitable[None]] | None = None
    ) -> None:
        access = access or StoreAccess(StoreConfig(url="memory:"))
        self._access = access
        self._keeper = ResourceKeeper(access)
        self._placement = Placement()
        self._session_needed = session_needed
        self._records: dict[tuple[str, str], Record] = {}
        self._policies: dict[tuple[str, str], Policy] = {}
        access.on_tick.append(self._placement.trim)

    def __len__(self) -> int:
        return len(self._records)

    # ------------------------------------------------------------------ create

    async def create(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> Resource:
        """Make a resource: `{type, config, id?}`. It is kept before anybody is told that it exists.

        Raises:
            ManybridgeError: as the worker says, or `resource_exists`, `invalid_argument`.
            StoreError: it can't be kept; there is no resource then.
        """
        kind, config = text_argument(args, "type"), object_argument(args, "config")
        chosen = None if args.get("id") is None else text_argument(args, "id")
        id = chosen or _new_id(pool.name, kind, options)
        if self._session_needed is not None and options.session is not None:
            await self._access.before(options.deadline, self._session_needed(options.session))
        recipe = ResourceRecord(
            id=id, bridge=pool.name, type=kind, config=config, session=options.session, created_at=time()
        )
        if chosen is None and options.idempotency_key is None:
            # Before work is done that could not be kept.
            await self._access.before(options.deadline, self._access.announce())
            return await self._make(pool, recipe, options)
        reserved = await self._reserved(pool, recipe, options)
        if reserved is None:
            return await self._existing(recipe, chosen)
        try:
            return await self._make(pool, reserved, options)
        except BaseException as error:
            giving_back = pool.tasks.start(self._keeper.abandon(reserved), f"give back {id}")
            if isinstance(error, ManybridgeError):  # it may be tried again at once, and must find its id free
                await asyncio.wait({giving_back})
            raise

    async def _reserved(self, pool: Pool, recipe: ResourceRecord, options: CallOptions) -> ResourceRecord | None:
        reserving = asyncio.ensure_future(self._keeper.reserve(recipe))
        try:
            return await self._access.before(options.deadline, asyncio.shield(reserving))
        except BaseException:
            pool.tasks.start(self._unreserve(reserving), f"give back {recipe.id}")
            raise

    async def _unreserve(self, reserving: asyncio.Future[ResourceRecord | None]) -> None:
        """Nobody waits for a reservation any more: have none, as soon as it is known whether there is one."""
        (reserved,) = await asyncio.gather(reserving, return_exceptions=True)
        if isinstance(reserved, ResourceRecord):
            await self._keeper.abandon(reserved)

    async def _make(self, pool: Pool, recipe: ResourceRecord, options: CallOptions) -> Resource:
        args = {"type": recipe.type, "config": recipe.config, "id": recipe.id}
        call = make_call("common:create_resource", args, options, options.target)
        await pool.run(call)
        worker = call.worker
        assert worker is not None
        recording: asyncio.Future[Record | None] | None = None
        try:
            policy = await self._policy(pool, recipe.type)
            state = None
            if policy == "restore":
                state = await told_state(worker, ask_snapshot(worker, recipe.id, recipe.session, options), options)
            recording = asyncio.ensure_future(self._keeper.record(recipe, policy, state))
            made = await self._access.after(options.deadline, asyncio.shield(recording))
            if made is None:  # its reservation is gone: with this host, or because others took it for dead
                raise ClosedError("the host is closed") if self._access.closing else _exists(recipe.id)
        except BaseException:
            # Whoever wanted it is told that there is none, so none is left. A write that was begun goes on.
            pool.tasks.start(self._undo(pool, recipe, worker, recording), f"undo {recipe.id}")
            raise
        record = self._records.setdefault(made.key, made)
        self._placement.hold(pool, record, worker)
        return record.resource

    async def _undo(
        self,
        pool: Pool,
        recipe: ResourceRecord,
        worker: WorkerHandle,
        recording: asyncio.Future[Record | None] | None,
    ) -> None:
        await release(pool, Record(recipe), worker)
        if recording is not None:
            await asyncio.gather(recording, return_exceptions=True)
        found = await self._access.store.get_resource(recipe.bridge, recipe.id)
        if found is not None and found.created_at == recipe.created_at:
            await self._access.store.delete_resource(recipe.bridge, recipe.id)

    async def _existing(self, wanted: ResourceRecord, chosen: str | None) -> Resource:
        """What was made for the same idempotency key, before a host died that could not note its result any more."""
        found = None if chosen is not None else await self._access.store.get_resource(wanted.bridge, wanted.id)
        if found is None or (found.type, found.config, found.session) != (wanted.type, wanted.config, wanted.session):
            raise _exists(wanted.id)
        return resource_of(found)

    # ------------------------------------------------------------------ execute

    async def execute(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> Any:
        """Execute a resource: `{id, inputs}`, on a worker that holds it or can make it.

        Raises:
            ManybridgeError: as the worker says, or `resource_not_found`, `resource_lost`, `conflict`.
            StoreError: its state can't be kept; the execution does not count.
        """
        record = await self.find(pool, text_argument(args, "id"), options.session, deadline=options.deadline)
        work = _Work("common:execute_resource", {"id": record.resource.id, "inputs": object_argument(args, "inputs")})
        result = await self._use(pool, record, work, options)
        resource = record.resource
        record.resource = replace(resource, executions=resource.executions + 1, last_executed=time())
        if record.policy != "restore":
            self._keeper.executed(record)
        return result

    async def change(self, pool: Pool, id: str, command: str, args: dict[str, Any], options: CallOptions) -> Any:
        """Make a call of the bridge's own that changes a resource: where that is, and its state is kept afterwards.

        Raises:
            ManybridgeError: as `execute`; what is no resource of the host is the worker's business.
        """
        try:
            record = await self.find(pool, id, options.session, deadline=options.deadline)
        except ResourceError as error:
            if error.code != ErrorCode.RESOURCE_NOT_FOUND:
                raise
            return await pool.run(make_call(command, args, options, options.target))
        return await self._use(pool, record, _Work(command, args, is_execution=False), options)

    async def _use(self, pool: Pool, record: Record, work: _Work, options: CallOptions) -> Any:
        record.in_use += 1
        try:
            return await self._executed(pool, record, work, options)
        finally:
            record.in_use -= 1
            record.used_at = monotonic()
            if record.deleted:
                self._forget(pool, record)

    async def _executed(self, pool: Pool, record: Record, work: _Work, options: CallOptions) -> Any:
        if record.policy == "pinned":
            await self._check_home(record)
        for attempt in range(MAX_PLACEMENTS):
            if record.policy == "restore" and not await self._claim(record, options.deadline):
                self._placement.let_go_everywhere(pool, record)  # another host has changed it
            worker = await self._placement.place(pool, record, options)
            try:
                return await self._execute_on(worker, pool, record, work, options)
            except WorkerGoneError:
                if attempt == MAX_PLACEMENTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _claim(self, record: Record, deadline: float) -> bool:
        if self._keeper.is_claimed(record):
            return True
        return await self._access.before(deadline, self._keeper.claim(record, deadline))

    async def _check_home(self, record: Record) -> None:
        """A pinned resource can be executed by the host whose worker has it.

        Raises:
            ResourceError: `not_supported`: that is another host; or `resource_lost`: it was.
        """
        if record.holder in (None, self._access.host):
            return
        if record.holder in await self._access.store.living_hosts():
            text = f"resource {record.resource.id} lives in a worker of another host and can't be moved; call that one"
            details = {"id": record.resource.id, "holder": record.holder}
            raise ResourceError(text, code=ErrorCode.NOT_SUPPORTED, details=details)
        record.lost = True

    # ------------------------------------------------------------------ find, delete

    async def delete(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> dict[str, Any]:
        """Delete a resource: `{id}`. It is gone at once; an execution that runs ends undisturbed.

        Raises:
            ResourceError: `resource_not_found`.
            StoreError: it can't be deleted.
        """
        record = await self.find(pool, text_argument(args, "id"), options.session, deadline=options.deadline)
        bridge, id = record.key
        if not await self._access.before(options.deadline, self._access.store.delete_resource(bridge, id)):
            self._forget(pool, record)
            raise not_found(bridge, id)
        await wait_briefly(self._forget(pool, record), DELETE_PATIENCE)
        return {"id": id, "deleted": True}

    async def get(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> Resource:
        """Describe a resource: `{id}`.

        Raises:
            ResourceError: `resource_not_found`.
        """
        record = await self.find(
            pool, text_argument(args, "id"), options.session, fresh=True, deadline=options.deadline
        )
        return record.resource

    async def find(
        self, pool: Pool, id: str, session: str | None, *, fresh: bool = False, deadline: float = inf
    ) -> Record:
        """Return the record of a resource that this caller may see.

        Args:
            pool: of its bridge.
            id: its id.
            session: the caller's.
            fresh: ask the store even if it was asked a moment ago.
            deadline: of the call that needs it, monotonic.

        Raises:
            CallTimeoutError: the store did not answer before that.
            ResourceError: `resource_not_found`; the same for a missing and for somebody else's resource.
            StoreError: it is not known here, and the store can't say.
        """
        record = self._records.get((pool.name, id))
        if record is None or self._keeper.is_stale(record) or (fresh and self._access.shared):
            record = await self._look_up(pool, id, deadline)
        if record is None or record.resource.session not in (None, session):
            raise not_found(pool.name, id)
        return record

    async def find_all(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> list[Resource]:
        """Describe the resources of one bridge that this caller may see, of one type if `type` is given.

        Raises:
            ResourceError: `unknown_resource_type`, and not an empty list: it is most likely misspelt.
            ManybridgeError: the bridge could not be asked which types it has.
        """
        kind = None if args.get("type") is None else text_argument(args, "type")
        found = await self.visible(pool.name, kind, options.session)
        if kind is not None and not found:
            await self._check_type(pool, kind, options)
        return found

    async def visible(self, bridge: str | None, kind: str | None, session: str | None) -> list[Resource]:
        """Describe the resources that this caller may see, oldest first.

        Raises:
            StoreError: the store can't say.
        """
        stored = await self._access.store.list_resources(bridge=bridge, type=kind, session=session)
        return [self._described(each) for each in stored]

    def _described(self, stored: ResourceRecord) -> Resource:
        known = self._records.get((stored.bridge, stored.id))
        if known is None or known.resource.created_at != stored.created_at:
            return resource_of(stored)
        known.refresh(stored)
        return known.resource

    async def _look_up(self, pool: Pool, id: str, deadline: float) -> Record | None:
        patience = halfway(deadline) if (pool.name, id) in self._records else deadline
        try:
            stored = await self._access.before(patience, self._access.store.get_resource(pool.name, id))
        except (StoreError, CallTimeoutError):
            known = self._records.get((pool.name, id))
            if known is None:
                raise
            return known  # what needs no store goes on
        known = self._records.get((pool.name, id))
        if known is not None and (stored is None or known.resource.created_at != stored.created_at):
            self._forget(pool, known)
            known = None
        if stored is None:
            return None
        if known is None:
            known = self._records[pool.name, id] = Record(stored)
        known.refresh(stored)
        return known

    # ------------------------------------------------------------------ ends

    async def drop_session(self, pool: Pool, session: str | None) -> int:
        """Delete what a session made, or, for None, everything that no session owns. Return how many.

        Raises:
            StoreError: it can't be deleted in the store; the workers have let go all the same.
        """
        doomed = [
            each
            for each in self._records.values()
            if each.resource.bridge == pool.name and each.resource.session == session
        ]
        tasks = [task for record in doomed for task in self._forget(pool, record)]
        deleted = await self._access.store.delete_resources(pool.name, session)
        await wait_briefly(tasks, DELETE_PATIENCE)
        return len(deleted)

    async def forget_bridge(self, bridge: str) -> None:
        """A bridge is gone with all its workers. What a durable store has of it stays, for when it comes back."""
        for record in [each for each in self._records.values() if each.resource.bridge == bridge]:
            del self._records[record.key]
            self._keeper.forget(record)
            if not self._access.shared:
                await self._access.store.delete_resource(*record.key)
        self.forget_policies(bridge)

    def forget_policies(self, bridge: str) -> None:
        """A bridge has changed: its types may have other policies."""
        self._policies = {key: policy for key, policy in self._policies.items() if key[0] != bridge}

    def forget_worker(self, worker: WorkerHandle) -> None:
        """A worker takes no more calls; what was pinned to it is lost."""
        self._placement.forget_worker(worker)

    def _forget(self, pool: Pool, record: Record) -> list[asyncio.Task[Any]]:
        """It is deleted: let every worker go. Returns what does that."""
        record.deleted = True
        if self._records.get(record.key) is record:
            del self._records[record.key]
        self._keeper.forget(record)
        return self._placement.let_go_everywhere(pool, record)

    # ------------------------------------------------------------------ execution and state

    async def _execute_on(
        self, worker: WorkerHandle, pool: Pool, record: Record, work: _Work, options: CallOptions
    ) -> Any:
        call = make_call(work.command, work.args, options, worker)
        fence = record.fence
        if record.policy != "restore" or fence is None:
            return await pool.run(call)
        snapshots: list[AskedSnapshot] = []
        if worker.concurrency == 1:
            # Sent right behind the execution: the worker takes it when that has ended, and nobody waits for the way
            # to the host and back. A concurrent worker could take it too early.
            after_sent(call, lambda: snapshots.append(ask_snapshot(worker, *_name(record), options)))
        try:
            result = await pool.run(call)
        except WorkerGoneError:
            raise
        except asyncio.CancelledError:
            for asked in snapshots:
                worker.stop_asked(asked.call, "cancelled")
            self._let_go(pool, record, worker)  # nobody waits to see in which state it was left
            raise
        except ManybridgeError:
            # The living object may have changed before it failed. It stays only if the host can know its state.
            try:
                await self._keep_state(record, worker, fence, snapshots, options, counts=False)
            except ManybridgeError:
                self._let_go(pool, record, worker)
            raise
        try:
            await self._keep_state(record, worker, fence, snapshots, options, counts=work.is_execution)
        except BaseException:
            self._let_go(pool, record, worker)  # it ran, but its state is not kept: it did not happen
            raise
        return result

    async def _keep_state(
        self,
        record: Record,
        worker: WorkerHandle,
        fence: int,
        snapshots: list[AskedSnapshot],
        options: CallOptions,
        *,
        counts: bool,
    ) -> None:
        """Keep the state after an execution.

        Raises:
            ManybridgeError: the worker died before it told its state, or the state can't be told or kept.
        """
        if not record.deleted:
            asked = snapshots[-1] if snapshots else ask_snapshot(worker, *_name(record), options)
            state = await told_state(worker, asked, options)
            if not record.deleted:
                saving = self._keeper.save(record, fence, state, asked.number, counts=counts)
                await self._access.after(options.deadline, saving)

    def _let_go(self, pool: Pool, record: Record, worker: WorkerHandle) -> None:
        """Have a worker forget a resource that will be restored from its last snapshot."""
        self._placement.let_go(pool, record, worker)

    # ------------------------------------------------------------------ types

    async def _policy(self, pool: Pool, kind: str) -> Policy:
        key = (pool.name, kind)
        if key not in self._policies:
            await self._ask_types(pool, CallOptions(30.0))
        return self._policies.get(key, "recreate")

    async def _check_type(self, pool: Pool, kind: str, options: CallOptions) -> None:
        """Make sure that a bridge has a type; only one that is not known yet costs a question."""
        if (pool.name, kind) in self._policies:
            return
        known = await self._ask_types(pool, quiet_options(options, None))
        if kind not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            text = f"Unknown resource type: {kind} (bridge {pool.name!r}: {has})"
            details = {"type": kind, "known": known}
            raise ResourceError(text, code=ErrorCode.UNKNOWN_RESOURCE_TYPE, details=details)

    async def _ask_types(self, pool: Pool, options: CallOptions) -> list[str]:
        facts = await pool.run(make_call("common:capabilities", {}, options, None))
        types = facts.get("resources", {})
        for name, described in types.items():
            self._policies[pool.name, name] = described.get("policy", "recreate")
        return sorted(types)


def _new_id(bridge: str, kind: str, options: CallOptions) -> str:
    """An id that nobody has; for an idempotency key always the same one, so that a retry finds what was made."""
    if options.idempotency_key is None:
        return f"{kind}-{secrets.token_hex(4)}"
    key = "\0".join((bridge, options.session or "", options.idempotency_key))
    return f"{kind}-{hashlib.sha256(key.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"


def _exists(id: str) -> ResourceError:
    return ResourceError(f"A resource {id!r} exists already.", code=ErrorCode.RESOURCE_EXISTS, details={"id": id})


def _name(record: Record) -> tuple[str, str | None]:
    return record.resource.id, record.resource.session

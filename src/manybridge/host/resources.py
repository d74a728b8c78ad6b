"""The resources of a host: what each is made of, and which workers hold it.

A worker holds the living thing; the host holds its *recipe* (type, config, and the last snapshot of its state), so that
it outlives the worker. What follows from a type's policy:

* `recreate`: any worker can make it from the recipe, so it is made wherever it is needed, and several may hold it.
* `restore`: it has state, so exactly one worker holds it. After each execution the host takes a snapshot; an execution
  counts only together with its snapshot. When the worker is gone, it is made elsewhere from recipe and snapshot.
* `pinned`: it lives and dies with its worker. Afterwards it is `resource_lost`, never a wrong answer.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import time
from typing import Any, Final, Literal

from manybridge.errors import InvalidArgumentError, ManybridgeError, ResourceError
from manybridge.host.calls import Call, loop_future
from manybridge.host.options import CallOptions
from manybridge.host.own_requests import ignore_outcome
from manybridge.host.pool import Pool, WorkerGoneError
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import json_type

Policy = Literal["recreate", "restore", "pinned"]

DELETE_PATIENCE: Final = 0.2
"""How long a delete waits for the workers to let go. The record is gone at once; a busy worker follows when it can."""

MAX_PLACEMENTS: Final = 5
"""How often an execution looks for another worker when the one that it waited for has gone."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as its caller sees it."""

    id: str
    type: str
    bridge: str
    session: str | None
    created_at: float
    """Epoch seconds."""
    executions: int = 0
    last_executed: float | None = None
    """Epoch seconds."""


class Record:
    """What the host knows of one resource. Changed by the table only."""

    def __init__(self, resource: Resource, config: dict[str, Any], policy: Policy) -> None:
        self.resource = resource
        self.config = config
        self.policy = policy
        self.state: Any = None
        self.holders: set[WorkerHandle] = set()
        self.lost = False
        self.deleted = False
        self.lock = asyncio.Lock()
        """Held while it is being made on a worker."""

    def living(self) -> list[WorkerHandle]:
        """The workers that hold it, least busy first."""
        return sorted((each for each in self.holders if each.is_ready), key=lambda each: len(each.calls))


class ResourceTable:
    """Owner of the records of one host."""

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], Record] = {}
        self._policies: dict[tuple[str, str], Policy] = {}

    def __len__(self) -> int:
        return len(self._records)

    async def create(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> Resource:
        """Make a resource: `{type, config, id?}`.

        Raises:
            ManybridgeError: as the worker says, or `resource_exists`, `invalid_argument`.
        """
        kind, config = _text(args, "type"), _object(args, "config")
        id = f"{kind}-{secrets.token_hex(4)}" if args.get("id") is None else _text(args, "id")
        if (pool.name, id) in self._records:
            raise ResourceError(f"A resource {id!r} exists already.", code=ErrorCode.RESOURCE_EXISTS)
        call = _call("common:create_resource", {"type": kind, "config": config, "id": id}, options, options.target)
        await pool.run(call)
        assert call.worker is not None
        policy = await self._policy(pool, kind)
        record = Record(Resource(id, kind, pool.name, options.session, time()), config, policy)
        if policy == "restore":
            await self._keep_state(record, call.worker, [])
        self._hold(record, call.worker)
        self._records[pool.name, id] = record
        return record.resource

    async def execute(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> Any:
        """Execute a resource: `{id, inputs}`, on a worker that holds it or can make it.

        Raises:
            ManybridgeError: as the worker says, or `resource_not_found`, `resource_lost`.
        """
        record = self.find(pool.name, _text(args, "id"), options.session)
        inputs = _object(args, "inputs")
        for attempt in range(MAX_PLACEMENTS):
            worker = await self._place(pool, record, options)
            try:
                result = await self._execute_on(worker, pool, record, inputs, options)
            except WorkerGoneError:
                if attempt == MAX_PLACEMENTS - 1:
                    raise
            else:
                break
        resource = record.resource
        record.resource = replace(resource, executions=resource.executions + 1, last_executed=time())
        return result

    async def delete(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> dict[str, Any]:
        """Delete a resource: `{id}`. It is gone at once; an execution that runs ends undisturbed.

        Raises:
            ResourceError: `resource_not_found`.
        """
        record = self.find(pool.name, _text(args, "id"), options.session)
        await self._drop(pool, record)
        return {"id": record.resource.id, "deleted": True}

    def get(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> Resource:
        """Describe a resource: `{id}`.

        Raises:
            ResourceError: `resource_not_found`.
        """
        return self.find(pool.name, _text(args, "id"), options.session).resource

    def find(self, bridge: str, id: str, session: str | None) -> Record:
        """Return the record of a resource that this caller may see.

        Raises:
            ResourceError: `resource_not_found`; the same for a missing and for somebody else's resource.
        """
        record = self._records.get((bridge, id))
        if record is None or record.resource.session not in (None, session):
            raise ResourceError(f"Resource not found: {id}", details={"id": id, "bridge": bridge})
        return record

    async def find_all(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> list[Resource]:
        """Describe the resources of one bridge that this caller may see, of one type if `type` is given.

        Raises:
            ResourceError: `unknown_resource_type`, and not an empty list: it is most likely misspelt.
            ManybridgeError: the bridge could not be asked which types it has.
        """
        kind = None if args.get("type") is None else _text(args, "type")
        found = self.visible(pool.name, kind, options.session)
        if kind is not None and not found:
            await self._check_type(pool, kind, options)
        return found

    def visible(self, bridge: str | None, kind: str | None, session: str | None) -> list[Resource]:
        """Describe the resources that this caller may see, oldest first."""
        return [
            record.resource
            for record in self._records.values()
            if bridge in (None, record.resource.bridge)
            and kind in (None, record.resource.type)
            and record.resource.session in (None, session)
        ]

    async def drop_session(self, pool: Pool, session: str | None) -> int:
        """Delete what a session made, or, for None, everything that no session owns. Return how many."""
        doomed = [each for each in self._of_bridge(pool.name) if each.resource.session == session]
        for record in doomed:
            await self._drop(pool, record)
        return len(doomed)

    def forget_bridge(self, bridge: str) -> None:
        """A bridge is gone with all its workers."""
        for record in list(self._of_bridge(bridge)):
            del self._records[bridge, record.resource.id]
        self.forget_policies(bridge)

    def forget_policies(self, bridge: str) -> None:
        """A bridge has changed: its types may have other policies."""
        self._policies = {key: policy for key, policy in self._policies.items() if key[0] != bridge}

    def forget_worker(self, worker: WorkerHandle) -> None:
        """A worker takes no more calls; what was pinned to it is lost."""
        for record in self._records.values():
            if worker in record.holders:
                record.holders.discard(worker)
                record.lost = record.lost or record.policy == "pinned"

    # ------------------------------------------------------------------ placement

    async def _place(self, pool: Pool, record: Record, options: CallOptions) -> WorkerHandle:
        """Return a worker that holds the resource, making it there if need be."""
        if record.lost:
            text = f"resource {record.resource.id} died with its worker, and its type can't be made again"
            raise ResourceError(text, code=ErrorCode.RESOURCE_LOST, details={"id": record.resource.id})
        worker = self._holder(pool, record, options)
        if worker is not None:
            return worker
        async with record.lock:  # two executions must not make it twice
            worker = self._holder(pool, record, options)
            return worker if worker is not None else await self._materialise(pool, record, options)

    def _holder(self, pool: Pool, record: Record, options: CallOptions) -> WorkerHandle | None:
        living = record.living()
        if not living:
            return None
        if record.policy != "recreate":
            return living[0]
        if options.target is not None and options.target.is_ready:
            return options.target if options.target in record.holders else None
        if living[0].calls and any(not each.calls for each in pool.ready if each not in record.holders):
            return None  # an idle worker can have one of its own
        return living[0]

    async def _materialise(self, pool: Pool, record: Record, options: CallOptions) -> WorkerHandle:
        resource = record.resource
        args = {"type": resource.type, "config": record.config, "id": resource.id}
        if record.policy == "restore" and record.state is not None:
            args["state"] = record.state
        idle = [each for each in pool.ready if not each.calls and each not in record.holders]
        target = options.target if options.target is not None and options.target.is_ready else next(iter(idle), None)
        call = _call("common:create_resource", args, quiet_options(options, resource.session), target)
        try:
            await pool.run(call)
        except ResourceError as error:
            if error.code != ErrorCode.RESOURCE_EXISTS or call.worker is None:
                raise
        except ManybridgeError as error:
            error.details.setdefault("while", f"resource {resource.id} was made again from its recipe")
            raise
        assert call.worker is not None
        if record.deleted:
            raise ResourceError(f"Resource not found: {resource.id}", details={"id": resource.id})
        self._hold(record, call.worker)
        return call.worker

    def _hold(self, record: Record, worker: WorkerHandle) -> None:
        if not worker.is_ready:  # it went between its answer and now
            record.lost = record.policy == "pinned"
            return
        record.holders.add(worker)
        worker.held_resources += record.policy == "pinned"

    # ------------------------------------------------------------------ execution and state

    async def _execute_on(
        self, worker: WorkerHandle, pool: Pool, record: Record, inputs: dict[str, Any], options: CallOptions
    ) -> Any:
        call = _call("common:execute_resource", {"id": record.resource.id, "inputs": inputs}, options, worker)
        if record.policy != "restore":
            return await pool.run(call)
        snapshots: list[asyncio.Future[Any]] = []
        if worker.concurrency == 1:
            # Sent right behind the execution: the worker takes it when that has ended, and nobody waits for the way
            # to the host and back. A concurrent worker could take it too early.
            _after_sent(call, lambda: snapshots.append(_ask_snapshot(worker, record)))
        try:
            result = await pool.run(call)
        except WorkerGoneError:
            raise
        except asyncio.CancelledError:
            self._let_go(pool, record, worker)  # nobody waits to see in which state it was left
            raise
        except ManybridgeError:
            # The living object may have changed before it failed. It stays only if the host can know its state.
            try:
                await self._keep_state(record, worker, snapshots)
            except ManybridgeError:
                self._let_go(pool, record, worker)
            raise
        await self._keep_state(record, worker, snapshots)
        return result

    async def _keep_state(self, record: Record, worker: WorkerHandle, snapshots: list[asyncio.Future[Any]]) -> None:
        """Remember the state after an execution.

        Raises:
            ManybridgeError: the worker died before it told its state, or the state can't be told.
        """
        if not record.deleted:
            asked = snapshots[-1] if snapshots else _ask_snapshot(worker, record)
            record.state = (await asked)["state"]

    def _let_go(self, pool: Pool, record: Record, worker: WorkerHandle) -> None:
        """Have a worker forget a resource that will be restored from its last snapshot."""
        if worker in record.holders:
            record.holders.discard(worker)
            pool.tasks.start(_release(pool, record, worker), f"release {record.resource.id}")

    # ------------------------------------------------------------------ ends

    async def _drop(self, pool: Pool, record: Record) -> None:
        record.deleted = True
        self._records.pop((pool.name, record.resource.id), None)
        releases = []
        for worker in record.living():
            worker.held_resources -= record.policy == "pinned"
            releases.append(pool.tasks.start(_release(pool, record, worker), f"delete {record.resource.id}"))
        if releases:
            await asyncio.wait(releases, timeout=DELETE_PATIENCE)

    def _of_bridge(self, bridge: str) -> Iterator[Record]:
        return iter([each for each in self._records.values() if each.resource.bridge == bridge])

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
        facts = await pool.run(_call("common:capabilities", {}, options, None))
        types = facts.get("resources", {})
        for name, described in types.items():
            self._policies[pool.name, name] = described.get("policy", "recreate")
        return sorted(types)


def quiet_options(options: CallOptions, session: str | None) -> CallOptions:
    """The same deadline and session's name, for a step whose events are nobody's."""
    quiet = CallOptions(options.timeout, session)
    quiet.deadline = options.deadline
    return quiet


def _call(command: str, args: dict[str, Any], options: CallOptions, target: WorkerHandle | None) -> Call:
    call = Call(command, args, loop_future())
    options.begin(call)
    call.target = target
    return call


def _ask_snapshot(worker: WorkerHandle, record: Record) -> asyncio.Future[Any]:
    args = {"id": record.resource.id}
    future = worker.control("common:snapshot_resource", args, session_id=record.resource.session)
    future.add_done_callback(ignore_outcome)  # where the execution fails, its snapshot may go unread
    return future


def _text(args: dict[str, Any], name: str) -> str:
    value = args.get(name)
    if isinstance(value, str) and value:
        return value
    raise _wrong(args, name, "a non-empty string")


def _object(args: dict[str, Any], name: str) -> dict[str, Any]:
    value = args.get(name, {})
    if isinstance(value, dict):
        return value
    raise _wrong(args, name, "an object")


def _wrong(args: dict[str, Any], name: str, expected: str) -> InvalidArgumentError:
    found = json_type(args[name]) if name in args else "nothing"
    problem = {"argument": name, "expected": expected, "found": found}
    return InvalidArgumentError(f"{name}: expected {expected}, found {found}", details={"problems": [problem]})


def _after_sent(call: Call, action: Callable[[], None]) -> None:
    before = call.on_sent

    def both() -> None:
        if before is not None:
            before()
        action()

    call.on_sent = both


async def _release(pool: Pool, record: Record, worker: WorkerHandle) -> None:
    call = Call("common:delete_resource", {"id": record.resource.id}, loop_future())
    call.session_id, call.target = record.resource.session, worker
    try:
        await pool.run(call)
    except ManybridgeError:
        return  # the worker has gone, or never had it: either way it does not hold it

"""Which workers hold which resources: made where needed, let go when there are too many, forgotten with them."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import Any

from manybridge.errors import ManybridgeError, ResourceError
from manybridge.host.calls import Call, CallStage, loop_future
from manybridge.host.memory import group_memory
from manybridge.host.options import CallOptions
from manybridge.host.pool import Pool
from manybridge.host.resource_keeper import not_found
from manybridge.host.resource_record import Record
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.errors import ErrorCode


class Placement:
    """Owner of the knowledge which worker holds what."""

    def __init__(self) -> None:
        self._held: dict[WorkerHandle, OrderedDict[tuple[str, str], Record]] = {}
        """The least recently used one first."""
        self._pools: dict[WorkerHandle, Pool] = {}

    async def place(self, pool: Pool, record: Record, options: CallOptions) -> WorkerHandle:
        """Return a worker that holds the resource, making it there if need be.

        Raises:
            ResourceError: `resource_lost`.
            ManybridgeError: it can't be made; `details["while"]` says that it was made again.
        """
        if record.lost:
            raise _lost(record)
        worker = self._holder(pool, record, options)
        if worker is None:
            async with record.making:  # two executions must not make it twice
                worker = self._holder(pool, record, options)
                if worker is None:
                    worker = await self._materialise(pool, record, options)
        held = self._held.get(worker)
        if held is not None and record.key in held:
            held.move_to_end(record.key)
        return worker

    def hold(self, pool: Pool, record: Record, worker: WorkerHandle) -> None:
        """A worker has made it."""
        if not worker.is_ready:  # it went between its answer and now
            record.lost = record.policy == "pinned"
            return
        record.holders.add(worker)
        worker.held_resources += record.policy == "pinned"
        self._held.setdefault(worker, OrderedDict())[record.key] = record
        self._pools[worker] = pool
        self._evict(pool, worker, record)

    def let_go(self, pool: Pool, record: Record, worker: WorkerHandle) -> asyncio.Task[Any] | None:
        """Have a worker forget a resource. Returns the task that does it; None where it does not hold it."""
        if worker not in record.holders:
            return None
        record.holders.discard(worker)
        worker.held_resources -= record.policy == "pinned"
        held = self._held.get(worker)
        if held is not None and held.get(record.key) is record:
            del held[record.key]
        task = pool.tasks.start(release(pool, record, worker), f"release {record.resource.id}")
        record.releases.add(task)
        task.add_done_callback(record.releases.discard)
        return task

    def let_go_everywhere(self, pool: Pool, record: Record) -> list[asyncio.Task[Any]]:
        """Have every worker forget a resource."""
        tasks = [self.let_go(pool, record, worker) for worker in list(record.holders)]
        return [task for task in tasks if task is not None]

    def forget_worker(self, worker: WorkerHandle) -> None:
        """A worker takes no more calls; what was pinned to it is lost."""
        self._pools.pop(worker, None)
        for record in self._held.pop(worker, OrderedDict()).values():
            record.holders.discard(worker)
            record.lost = record.lost or record.policy == "pinned"

    async def trim(self) -> None:
        """Let go of one resource on each worker that uses too much memory. Called again and again."""
        for worker, pool in list(self._pools.items()):
            if pool.config.resource_memory_mb is not None and worker.is_ready:
                self._evict(pool, worker, None)

    # ------------------------------------------------------------------ inside

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
        if record.releases:
            # A worker that is still to forget an old state would answer that it has it already.
            left = options.deadline - monotonic()
            await asyncio.wait(record.releases, timeout=None if left == inf else max(0.0, left))
        idle = [each for each in pool.ready if not each.calls and each not in record.holders]
        target = options.target if options.target is not None and options.target.is_ready else next(iter(idle), None)
        worker = await self._make(pool, record, options, target)
        if record.deleted:
            pool.tasks.start(release(pool, record, worker), f"release {record.resource.id}")
            raise not_found(*record.key)
        self.hold(pool, record, worker)
        return worker

    async def _make(
        self, pool: Pool, record: Record, options: CallOptions, target: WorkerHandle | None, again: bool = False
    ) -> WorkerHandle:
        resource = record.resource
        args = {"type": resource.type, "config": record.config, "id": resource.id}
        if record.policy == "restore" and record.state is not None:
            args["state"] = record.state
        call = make_call("common:create_resource", args, quiet_options(options, resource.session), target)
        try:
            await pool.run(call)
        except ResourceError as error:
            if error.code != ErrorCode.RESOURCE_EXISTS or call.worker is None:
                raise
            if record.policy == "restore":  # whatever it has is not the state that we want
                if again:
                    raise
                await release(pool, record, call.worker)
                return await self._make(pool, record, options, call.worker, again=True)
        except ManybridgeError as error:
            error.details.setdefault("while", f"resource {resource.id} was made again from its recipe")
            raise
        assert call.worker is not None
        return call.worker

    def _evict(self, pool: Pool, worker: WorkerHandle, newest: Record | None) -> None:
        held, config = self._held.get(worker) or OrderedDict(), pool.config
        evictable = [each for each in held.values() if each is not newest and _can_go(each)]
        surplus = 0 if config.max_resources is None else max(0, len(held) - config.max_resources)
        if not surplus and evictable and config.resource_memory_mb is not None:
            # One at a time: how much its memory was is known only when it is gone.
            surplus = int(group_memory(worker.process.pid) // 2**20 > config.resource_memory_mb)
        for record in evictable[:surplus]:
            self.let_go(pool, record, worker)


def _can_go(record: Record) -> bool:
    return record.policy != "pinned" and not record.in_use


def _lost(record: Record) -> ResourceError:
    text = f"resource {record.resource.id} died with its worker, and its type can't be made again"
    return ResourceError(text, code=ErrorCode.RESOURCE_LOST, details={"id": record.resource.id})


def quiet_options(options: CallOptions, session: str | None) -> CallOptions:
    """The same deadline and session's name, for a step whose events are nobody's."""
    quiet = CallOptions(options.timeout, session)
    quiet.deadline = options.deadline
    if session == options.session:
        quiet.settings = options.settings
    return quiet


def make_call(command: str, args: dict[str, Any], options: CallOptions, target: WorkerHandle | None) -> Call:
    """Return a call to a worker that is one step of a caller's call."""
    call = Call(command, args, loop_future())
    options.begin(call)
    call.target = target
    return call


async def release(pool: Pool, record: Record, worker: WorkerHandle) -> None:
    """Have a worker forget a resource, if it has it. A `close` that takes longer than a call may is stopped."""
    call = Call("common:delete_resource", {"id": record.resource.id}, loop_future())
    call.session_id, call.target, call.of_host = record.resource.session, worker, True
    closing = asyncio.ensure_future(pool.run(call))
    try:
        while not closing.done():
            await asyncio.wait({closing}, timeout=pool.config.default_timeout)
            if not closing.done() and call.stage is CallStage.SENT and worker.may_have_begun(call):
                pool.stop_call(call, "cancelled")
        closing.result()
    except ManybridgeError:
        return  # the worker has gone, or never had it: either way it does not hold it
    finally:
        closing.cancel()


async def wait_briefly(tasks: Iterable[asyncio.Task[Any]], seconds: float) -> None:
    """Wait for tasks, but not for long."""
    waiting = list(tasks)
    if waiting:
        await asyncio.wait(waiting, timeout=seconds)

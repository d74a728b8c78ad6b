"""The way of a call through the host: sessions, resources, tools, idempotency, and then a pool."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from math import inf
from time import monotonic
from typing import Any, Final

from manybridge.errors import CallError, InvalidArgumentError, ManybridgeError
from manybridge.host.calls import Call, loop_future
from manybridge.host.idempotency import IdempotencyTable, call_fingerprint
from manybridge.host.options import CallOptions
from manybridge.host.own_requests import answer_of, see_to
from manybridge.host.pool import Pool, WorkerGoneError
from manybridge.host.pools import PoolSet
from manybridge.host.rescue import Rescue
from manybridge.host.resources import Resource, ResourceTable
from manybridge.host.session_keeper import SessionKeeper
from manybridge.host.session_settings import HandedSettings
from manybridge.host.sessions import Session, SessionTable, current_session
from manybridge.host.store_access import StoreAccess
from manybridge.host.tools import ToolRegistry
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.batch import BatchError, BatchItem, batch_items
from manybridge.protocol.commands import COMMON, HOST_COMMANDS
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import EVENT_CHUNK, Event

HostCommand = Callable[[Pool, dict[str, Any], CallOptions], Awaitable[Any]]

NOT_FOR_CALLERS: Final = {
    "common:hello": "the host has agreed on a version with its workers already",
    "common:shutdown": "use unregister_bridge or close, which let running calls end",
    "common:cancel": "cancel the call itself: its task, stream or job",
    "common:call_result": "register the tool with register_tool",
    "common:snapshot_resource": "the host takes snapshots by itself",
    "common:configure_session": "give settings to create_session or update_session, and every worker gets them",
    **{f"common:{name}": "jobs are the host's: use submit, get_job and what a job has" for name in HOST_COMMANDS},
    **{f"common:{name}": f"it is the host's: use {name}" for name in ("explain", "reload_bridge")},
}
"""Commands between host and worker, and what to do instead."""


class Router:
    """Knows what the host answers itself, and takes everything else to the right pool and worker."""

    def __init__(
        self,
        pools: PoolSet,
        sessions: SessionTable,
        resources: ResourceTable,
        tools: ToolRegistry,
        access: StoreAccess,
    ) -> None:
        self._pools = pools
        self._sessions = sessions
        self.session_keeper = SessionKeeper(access, sessions, self.end_session)
        self._resources = resources
        self._tools = tools
        self._idempotency = IdempotencyTable(access)
        self.rescue = Rescue(pools.get)
        self._commands: dict[str, HostCommand] = {
            "common:create_resource": self._create_resource,
            "common:execute_resource": self._resources.execute,
            "common:get_resource": self._get_resource,
            "common:list_resources": self._list_resources,
            "common:delete_resource": self._resources.delete,
            "common:batch": self._batch,
            "common:cleanup": self._clean_up,
        }

        self._special = pools.special
        self._special |= self._commands.keys() | NOT_FOR_CALLERS.keys()

    def is_plain(self, command: str) -> bool:
        """Whether a command, outside a session and without a key, needs nothing but a worker."""
        return command not in self._special and not self._tools.tools

    async def close(self) -> None:
        """Cancel the calls that nobody but a key holds."""
        await self._idempotency.close()

    async def call(self, pool: Pool, command: str, args: dict[str, Any], options: CallOptions) -> Any:
        """Make a call and return its result.

        Raises:
            ManybridgeError: it failed.
        """
        if options.idempotency_key is None or command == "common:batch":  # whose calls get keys of their own
            return await self._in_session(pool, command, args, options)
        key = (pool.name, options.idempotency_key)
        work = partial(self._in_session, pool, command, args, options)
        mark = call_fingerprint(command, args, options.session)
        return await self._idempotency.run(key, mark, work, options.deadline)

    async def _in_session(self, pool: Pool, command: str, args: dict[str, Any], options: CallOptions) -> Any:
        if options.session is None or command == "common:batch":

            async def attempt(pool: Pool, command: str) -> Any:
                return await self._perform(pool, command, args, options)

            return await self.rescue.call(pool, command, options, attempt)
        session = self._sessions.known(options.session)
        if session is None or self.session_keeper.is_stale(session):
            session = await self.session_keeper.obtain(options.session, options.deadline)
        # The session is held until nothing more can be done: a call that comes second must not overtake a retry.
        async with self._sessions.turn(session, options.deadline, command):
            follow = options.on_call

            async def attempt_at_home(pool: Pool, command: str) -> Any:
                options.on_call = follow
                return await self._perform_at_home(session, pool, command, args, options)

            return await self.rescue.call(pool, command, options, attempt_at_home)

    async def _perform_at_home(
        self, session: Session, pool: Pool, command: str, args: dict[str, Any], options: CallOptions
    ) -> Any:
        session.bridges.add(pool.name)
        options.settings = await self._settings(session, pool, command, options)
        last = _follow(session, pool, options)
        while True:  # bounded: each round lost a worker, and the call has a deadline
            options.target = session.worker_for(pool.name)
            try:
                result = await self._perform(pool, command, args, options)
                break
            except WorkerGoneError:
                continue
            finally:
                _bind(session, pool, last)
        if _configures(pool, command):
            return await self.session_keeper.configured(session, pool.name, args, result)
        return result

    async def _settings(
        self, session: Session, pool: Pool, command: str, options: CallOptions
    ) -> HandedSettings | None:
        if session.settings.is_incomplete(pool.name):
            if pool.session_settings is None:  # only a worker can say whether this is the call that will complete them
                left = options.deadline - monotonic()
                with suppress(ManybridgeError, TimeoutError):  # the call itself will say why there is no worker
                    await pool.wait_ready(None if left == inf else max(0.0, left))
            if _configures(pool, command):
                return None
        return session.settings.for_bridge(pool.name)

    async def after_failure(self, pool: Pool, call: Call, error: ManybridgeError) -> Any:
        """Do what can be done about a plain call that has failed; return the result, or raise what remains.

        Raises:
            ManybridgeError: nothing could be done, or it did not help.
        """
        if self.rescue.is_hopeless(pool, error):
            raise error
        options = CallOptions(call.timeout, traceparent=call.traceparent)
        options.deadline, options.last_call = call.deadline, call
        if error.code == ErrorCode.RESOURCE_NOT_FOUND:
            if _changed_resource(pool, call.command, call.args) is None:
                raise error
            # Made before any worker could say that this is no plain command, and where the resource is not.
            return await self._perform(pool, call.command, call.args, options)

        async def attempt(pool: Pool, command: str) -> Any:
            return await self._perform(pool, command, call.args, options)

        return await self.rescue.after(error, pool, call.command, options, attempt)

    async def _perform(self, pool: Pool, command: str, args: dict[str, Any], options: CallOptions) -> Any:
        if command in NOT_FOR_CALLERS:
            text = f"{command} is not for callers of a host: {NOT_FOR_CALLERS[command]}"
            raise CallError(text, code=ErrorCode.NOT_SUPPORTED, details={"command": command})
        chunks = self._offer_tools(options)
        own = self._commands.get(command)
        if own is not None:
            result = await own(pool, args, options)
        elif (changed := _changed_resource(pool, command, args)) is not None:
            result = await self._resources.change(pool, changed, command, args, options)
        else:
            call = Call(command, args, loop_future())
            options.begin(call)
            call.target = options.target
            result = await pool.run(call)
        # Its worker streamed only for the sake of tools: give the caller what a call without a stream returns.
        return {"chunks": chunks} if chunks and result == {} else result

    def _offer_tools(self, options: CallOptions) -> list[Any]:
        chunks: list[Any] = []
        if options.tools is None and self._tools.tools:
            options.tools = self._tools.run
        if options.tools is not None and options.on_event is None:

            def collect(event: Event) -> None:
                if event.event == EVENT_CHUNK:
                    chunks.append(event.data)

            options.on_event = collect
        return chunks

    # ------------------------------------------------------------------ what the host answers itself

    async def _create_resource(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> dict[str, Any]:
        resource = await self._resources.create(pool, args, options)
        described = describe_resource(resource)
        del described["executions"], described["last_executed"]
        return described

    async def _get_resource(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> dict[str, Any]:
        return describe_resource(await self._resources.get(pool, args, options))

    async def _list_resources(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> dict[str, Any]:
        found = await self._resources.find_all(pool, args, options)
        return {"resources": [describe_resource(each) for each in found], "total_count": len(found)}

    async def _batch(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> dict[str, Any]:
        try:
            items = batch_items(args.get("calls"))
        except BatchError as error:
            raise InvalidArgumentError(str(error)) from None
        outcomes = await self.batch(pool, items, options)
        return {"results": [_batch_result(each) for each in outcomes]}

    async def batch(self, pool: Pool, calls: list[BatchItem], options: CallOptions) -> list[Any]:
        """Make several calls at the same time; return results and errors in their order.

        In a session they run one after the other, as everything in a session does.
        """

        async def one(index: int, item: BatchItem) -> Any:
            key = options.idempotency_key
            given = replace(options, on_event=None, idempotency_key=None if key is None else f"{key}[{index}]")
            given.deadline = options.deadline
            try:
                return await self.call(pool, item.command, item.args, given)
            except ManybridgeError as error:
                return error

        if options.session is not None:  # at the same time they would reject, or stop, one another
            return [await one(index, item) for index, item in enumerate(calls)]
        return list(await asyncio.gather(*(one(index, item) for index, item in enumerate(calls))))

    async def _clean_up(self, pool: Pool, args: dict[str, Any], options: CallOptions) -> dict[str, Any]:
        session = args.get("session_id") or options.session
        removed = await self._resources.drop_session(pool, session)
        facts: dict[str, Any] = {}
        for worker in list(pool.ready):
            asked = _ask_to_clean_up(worker, session, options.timeout)
            facts = await answer_of(worker, asked, options.deadline)
        return {**facts, "status": "cleaned", "resources_removed": removed}

    async def end_session(self, session: Session) -> None:
        """Delete what a session made and have its workers forget it."""
        for pool in self._pools.all():
            await self._resources.drop_session(pool, session.id)
            if pool.name in session.bridges:
                for worker in list(pool.ready):
                    seconds = pool.config.default_timeout or inf
                    asked = _ask_to_clean_up(worker, session.id, seconds)
                    pool.tasks.start(see_to(worker, asked, seconds), f"clean up session {session.id}")


def _ask_to_clean_up(worker: WorkerHandle, session: str | None, timeout: float) -> Call:
    worker.forget_session(session)
    call = Call("common:cleanup", {} if session is None else {"session_id": session}, loop_future(), timeout)
    worker.ask(call)
    return call


def _configures(pool: Pool, command: str) -> bool:
    """Whether the result of a command has the settings of its session. Version 1 knows of none."""
    namespace, _, operation = command.rpartition(":")
    return namespace not in {"", COMMON} and operation in (pool.session_settings or ())


def _changed_resource(pool: Pool, command: str, args: dict[str, Any]) -> str | None:
    """The id of the resource that a command changes."""
    namespace, _, operation = command.rpartition(":")
    name = pool.changes.get(operation) if namespace not in {"", COMMON} else None
    id = None if name is None else args.get(name)
    return id if isinstance(id, str) and id else None


def describe_resource(resource: Resource) -> dict[str, Any]:
    """A resource as it goes over the wire."""
    return asdict(resource)


def _follow(session: Session, pool: Pool, options: CallOptions) -> list[Call]:
    """Have the session know the call to a worker that is made for it now. Returns where that call will be."""
    last: list[Call] = []
    before, nested = options.on_call, current_session.get() == session.id

    def made(call: Call) -> None:
        last[:] = [call]
        if not nested and session.current is not None:
            session.current.made(call, partial(pool.stop_call, reason="cancelled"))
        if before is not None:
            before(call)

    options.on_call = made
    return last


def _bind(session: Session, pool: Pool, last: list[Call]) -> None:
    worker = last[0].worker if last else None
    moves = session.affinity == "hint" or pool.name not in session.workers
    if moves and worker is not None and worker.is_ready:
        session.workers[pool.name] = worker


def _batch_result(outcome: Any) -> dict[str, Any]:
    if isinstance(outcome, ManybridgeError):
        return {"success": False, "error": outcome.message, "error_info": outcome.to_info().to_object()}
    return {"success": True, "result": outcome}

"""`AsyncMLBridge`: the public face of a host, for asyncio programs. `manybridge.host.sync` has the blocking one."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from importlib import import_module
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Self

from manybridge.errors import ClosedError, InvalidArgumentError, ManybridgeError
from manybridge.host.arguments import (
    checked_args,
    checked_name,
    checked_seconds,
    checked_text,
    checked_timeout,
    maybe_name,
    wrong_argument,
)
from manybridge.host.calls import Call
from manybridge.host.config import BridgeConfig, ConfigSource, read_config
from manybridge.host.explain import explain_bridge, explain_call, explain_job, explain_pause, explain_session
from manybridge.host.health import bridge_health, can_serve, health_when_closed, overall
from manybridge.host.idempotency import call_fingerprint
from manybridge.host.job_keys import JobKeys
from manybridge.host.job_table import DurableJobs, JobTable
from manybridge.host.jobs import AsyncJob, LiveJob
from manybridge.host.options import CallOptions
from manybridge.host.pool import Pool
from manybridge.host.pools import PoolSet
from manybridge.host.registry import Registry
from manybridge.host.rescue import Pause
from manybridge.host.resources import Resource, ResourceTable
from manybridge.host.router import Router
from manybridge.host.session_settings import checked_settings
from manybridge.host.sessions import Session, SessionInfo, SessionTable
from manybridge.host.store_access import StoreAccess, locate_store
from manybridge.host.streams import AsyncStream
from manybridge.host.tasks import TaskSet
from manybridge.host.tools import ToolRegistry
from manybridge.protocol.batch import BatchItem, unknown_key
from manybridge.protocol.errors import ErrorCode
from manybridge.store.records import JobRecord, changed_settings

_log = logging.getLogger("manybridge.host")


class AsyncMLBridge:
    """A host: the bridges of one configuration, their workers, and the calls to them.

    Use it as `async with AsyncMLBridge.from_config(...) as ml`. Every method must be called on one event loop.

    Common arguments: `bridge` is the name of a registered bridge, None the default one. `command` is
    `namespace:operation`; without a namespace it gets the bridge's. `timeout` is in seconds and includes waiting for a
    worker; None means the bridge's `default_timeout`, `math.inf` no limit. `session` is the id of a session, which is
    made on first use. `idempotency_key` makes equal calls one; what only looks takes none. Every method raises
    `ManybridgeError` and nothing else but `asyncio.CancelledError` and the `TimeoutError` of a wait that says so; a
    mistyped argument is `InvalidArgumentError`. Cancelling the task of a call stops the call's work.
    """

    def __init__(self, config: ConfigSource = None, *, take_over_jobs: bool = True) -> None:
        loaded = read_config(config)
        self._take_over_jobs = take_over_jobs
        self._config = loaded.config
        self._registry = Registry(loaded.config, folder=loaded.path.parent if loaded.path is not None else None)
        self._tools = ToolRegistry()
        self._access = StoreAccess(locate_store(loaded))
        self._resources = ResourceTable(self._access, self._keep_session)
        self._jobs = JobTable(self._config.limits.max_jobs)
        self._job_keys = JobKeys(self._access, self._jobs.find)
        self._restore: Callable[[], Awaitable[None]] | None = None
        """Reads the jobs of the store; None once that is done."""
        self._restoring = asyncio.Lock()
        self._tasks = TaskSet()
        self._started = False
        self._closed = False
        self._loop: asyncio.AbstractEventLoop
        self._pools: PoolSet
        self._sessions: SessionTable
        self._router: Router

    @classmethod
    def from_config(cls, source: ConfigSource = None, *, take_over_jobs: bool = True) -> Self:
        """Make a host from a TOML file, a folder, a mapping, a `HostConfig`, or None: the nearest `manybridge.toml`.

        Args:
            source: as above.
            take_over_jobs: run jobs again that another host left in the store. A host for one call leaves them.

        Raises:
            ConfigError: anything in it is wrong.
        """
        return cls(source, take_over_jobs=take_over_jobs)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Begin to start workers and return at once; calls made now wait for them. Calling it again does nothing."""
        self._open()

    async def wait_ready(self, bridge: str | None = None, timeout: float | None = None) -> None:
        """Wait until a bridge can serve: until its whole pool is ready.

        Raises:
            ManybridgeError: the reason why it can't.
            TimeoutError: it is not ready within `timeout` seconds; it goes on starting.
        """
        seconds = checked_timeout(timeout, None)
        await self._own_pool(bridge).wait_ready(None if seconds == inf else seconds)

    async def close(self, drain: float | None = None) -> None:
        """Take no more calls, let those that run end, then end every worker. Calling it again does nothing.

        Args:
            drain: seconds that running calls get; the configured `shutdown_timeout` if left out.
        """
        drain = self._config.limits.shutdown_timeout if drain is None else checked_seconds(drain, "drain")
        if self._closed:
            return
        if self._started and _running_loop() is not self._loop:
            raise _other_loop()
        self._closed = True
        if not self._started:
            return
        self._jobs.closing()
        await self._router.session_keeper.flush()
        self._sessions.close_all()
        await self._pools.close(drain)
        await self._jobs.close()
        await self._job_keys.close()
        await self._router.close()
        await self._tasks.cancel()
        await self._access.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Work that an error left behind is nobody's any more.
        await self.close(None if kind is None else 0.0)

    # ------------------------------------------------------------------ calls

    async def call(
        self,
        bridge: str | None,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> Any:
        """Make a call and return its result."""
        pool = self._own_pool(bridge)
        if type(command) is not str:
            command = checked_text(command, "command")
        if ":" not in command:
            command = f"{pool.name}:{command}"
        if session is None and idempotency_key is None and self._router.is_plain(command):
            seconds = checked_timeout(timeout, pool.config.default_timeout)
            call = Call(command, checked_args(args), future := pool.new_future(), seconds)
            if traceparent is not None:
                call.traceparent = checked_text(traceparent, "traceparent")
            pool.submit(call)
            try:  # pool.run without its coroutine: this is the path that most calls take
                return await future
            except ManybridgeError as error:
                return await self._router.after_failure(pool, call, error)
            except asyncio.CancelledError:
                pool.stop_call(call, "cancelled")
                raise
        options = self._options(pool, timeout, session, idempotency_key, traceparent)
        return await self._router.call(pool, command, checked_args(args), options)

    def stream(
        self,
        bridge: str | None,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotency_key: str | None = None,
        traceparent: str | None = None,
    ) -> AsyncStream:
        """Make a call whose events are read while it runs: `async for event in ml.stream(...)`.

        Leaving the loop early stops the call.
        """
        pool, command, given = self._prepare(bridge, command, args)
        options = self._options(pool, timeout, session, idempotency_key, traceparent)
        return AsyncStream(lambda given_options: self._router.call(pool, command, given, given_options), options)

    async def batch(
        self,
        bridge: str | None,
        calls: Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotency_key: str | None = None,
        return_exceptions: bool = True,
    ) -> list[Any]:
        """Make several calls, each `{"command": ..., "args": {...}}`, at the same time.

        Args:
            bridge: for all of them.
            calls: what to call.
            timeout: for all of them together.
            session: for all of them; they then run one after the other.
            idempotency_key: each call gets a key of its own, made of this one and its place. A batch that is made again
                repeats only what has not succeeded.
            return_exceptions: put the error of a failed call into its place; otherwise raise the first one, after all
                have ended.

        Returns:
            The results in the order of the calls.
        """
        pool = self._own_pool(bridge)
        if not isinstance(calls, Iterable):
            raise wrong_argument("calls", "a list of mappings with a command and args", calls)
        items = [self._batch_item(pool, each, f"calls[{index}]") for index, each in enumerate(calls)]
        options = self._options(pool, timeout, session, idempotency_key, None)
        outcomes = await self._router.batch(pool, items, options)
        if not return_exceptions:
            for outcome in outcomes:
                if isinstance(outcome, ManybridgeError):
                    raise outcome
        return outcomes

    # ------------------------------------------------------------------ jobs

    async def submit(
        self,
        bridge: str | None,
        command: str,
        args: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotency_key: str | None = None,
        id: str | None = None,
        resume: bool = False,
    ) -> AsyncJob:
        """Start a call that lives on by itself and return its job. Without a `timeout` a job has no limit.

        Args:
            bridge: as everywhere, and so the next five.
            command: what to run.
            args: with what.
            timeout: seconds, from now on.
            session: the job waits its turn there.
            idempotency_key: a second `submit` with it, within a day, returns the first one's job, unless that failed;
                with a durable store also after a restart and from another host.
            id: chosen by the host if left out.
            resume: run it again, from its beginning, if its host ends before it. It must bear that.
        """
        pool, command, given = self._prepare(bridge, command, args)
        options = self._options(pool, inf if timeout is None else timeout, session, idempotency_key, None)
        if type(resume) is not bool:
            raise wrong_argument("resume", "True or False", resume)
        await self._jobs_restored()

        async def make() -> LiveJob:
            job = await self._jobs.add(
                pool.name,
                command,
                dict(given),
                partial(_has_no_worker, pool),
                id=id,
                session=options.session,
                resume=resume,
            )
            self._begin_job(job, pool, options)
            return job

        if options.idempotency_key is None:
            return await make()
        fingerprint = call_fingerprint(command, given, options.session)
        key, deadline = options.idempotency_key, options.deadline
        return await self._job_keys.job_of(pool.name, key, fingerprint, make, deadline)

    def _begin_job(self, job: LiveJob, pool: Pool, options: CallOptions) -> None:
        job.begin(
            lambda given_options: self._router.call(pool, job.command, job.args, given_options),
            options,
            lambda call: pool.stop_call(call, "cancelled"),
        )

    async def keep_jobs(
        self,
        store: DurableJobs,
        host: str,
        announce: Callable[[], Awaitable[None]] | None = None,
        *,
        take_over: bool = True,
    ) -> None:
        """Keep jobs in a store from now on, and go on with what a host before this one left there.

        Args:
            store: opened.
            host: this host's id there.
            announce: makes sure that this host counts as living there; None where that is done.
            take_over: run interrupted jobs again that are to be. A host that ends with its one call leaves them.

        Raises:
            StoreError: it can't be read. It is read again when somebody next asks for a job.
        """
        self._restore = partial(self._restore_jobs, store, host, announce, take_over)
        await self._jobs_restored()

    async def _restore_jobs(
        self, store: DurableJobs, host: str, announce: Callable[[], Awaitable[None]] | None, take_over: bool
    ) -> None:
        def can_run(record: JobRecord) -> bool:
            return take_over and record.bridge in self.bridges()

        for record in await self._jobs.attach(store, host, announce, can_run):
            pool = self.pool(record.bridge)
            job = self._jobs.revive(record, partial(_has_no_worker, pool), await self._jobs.next_event(record))
            job.note("the host that ran this job has ended; it runs again from its beginning")
            self._begin_job(job, pool, CallOptions(session=record.session))

    async def _restore_early(self) -> None:
        """Go on with interrupted jobs without waiting for anybody to ask for them."""
        try:
            await self._jobs_restored()
        except ManybridgeError as error:
            _log.warning("the jobs of the store can't be read; that is tried again when one is asked for: %s", error)

    async def _jobs_restored(self) -> None:
        """Wait until the jobs of the store are known here."""
        if self._restore is not None:
            async with self._restoring:
                if self._restore is not None:
                    await self._restore()
                    self._restore = None

    async def jobs(
        self, bridge: str | None = None, states: Collection[str] | str | None = None, limit: int | None = None
    ) -> list[AsyncJob]:
        """Return the jobs that are remembered, oldest first; also those of earlier hosts.

        Args:
            bridge: only of this one; None of all.
            states: only in these `JobState`s.
            limit: only so many, the newest ones.
        """
        await self._jobs_restored()
        return self._jobs.list(maybe_name(bridge, "bridge"), states, limit)

    async def get_job(self, id: str) -> AsyncJob:
        """Return a job by its id; also one of an earlier host, or of another one with the same store."""
        await self._jobs_restored()
        return await self._jobs.find(id)

    async def delete_job(self, id: str) -> None:
        """Forget a job that has ended, with its events and its result."""
        await self._jobs_restored()
        await self._jobs.delete(id)

    # ------------------------------------------------------------------ resources

    async def create_resource(
        self,
        bridge: str | None,
        type: str,
        config: Mapping[str, Any] | None = None,
        *,
        id: str | None = None,
        timeout: float | None = None,
        session: str | None = None,
        idempotency_key: str | None = None,
    ) -> Resource:
        """Make a resource. One that is made in a session is visible only there and ends with it."""
        args: dict[str, Any] = {"type": type, "config": checked_args(config, "config")}
        if id is not None:
            args["id"] = id
        keywords = {"timeout": timeout, "session": session, "idempotency_key": idempotency_key}
        return Resource(**await self.call(bridge, "common:create_resource", args, **keywords))  # type: ignore[arg-type]

    async def execute_resource(
        self,
        bridge: str | None,
        id: str,
        inputs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotency_key: str | None = None,
    ) -> Any:
        """Execute a resource, on a worker that holds it or makes it again from its recipe."""
        args = {"id": id, "inputs": checked_args(inputs, "inputs")}
        return await self.call(
            bridge,
            "common:execute_resource",
            args,
            timeout=timeout,
            session=session,
            idempotency_key=idempotency_key,
        )

    async def get_resource(
        self, bridge: str | None, id: str, *, timeout: float | None = None, session: str | None = None
    ) -> Resource:
        """Return what is known of a resource."""
        pool = self._own_pool(bridge)
        options = self._options(pool, timeout, session, None, None)
        name = checked_name(id, "id")
        return (await self._resources.find(pool, name, options.session, fresh=True, deadline=options.deadline)).resource

    async def list_resources(
        self,
        bridge: str | None = None,
        type: str | None = None,
        *,
        timeout: float | None = None,
        session: str | None = None,
    ) -> list[Resource]:
        """Return the resources of a bridge (of all bridges for None), oldest first.

        With a `type` that the bridge does not have it is `unknown_resource_type`. Of all bridges, any name will do.
        """
        maybe_name(type, "type")
        if bridge is None:
            deadline = monotonic() + checked_timeout(timeout, None)
            found = self._resources.visible(None, type, maybe_name(session, "session"))
            return await self._access.before(deadline, found)
        pool = self._own_pool(bridge)
        options = self._options(pool, timeout, session, None, None)
        return await self._access.before(options.deadline, self._resources.find_all(pool, {"type": type}, options))

    async def delete_resource(
        self,
        bridge: str | None,
        id: str,
        *,
        timeout: float | None = None,
        session: str | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Delete a resource. It is gone at once; an execution that runs ends undisturbed."""
        deleted: dict[str, Any] = await self.call(
            bridge,
            "common:delete_resource",
            {"id": id},
            timeout=timeout,
            session=session,
            idempotency_key=idempotency_key,
        )
        return deleted

    # ------------------------------------------------------------------ sessions

    async def create_session(
        self,
        id: str | None = None,
        *,
        affinity: str = "hint",
        concurrency: str = "enqueue",
        lease: float | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> SessionInfo:
        """Make a session.

        Args:
            id: chosen by the host if left out.
            affinity: what its calls get while the worker that had the last one is busy: any other worker (`hint`), a
                place in that worker's queue (`strict_queue`), or `session_busy` (`strict_fail_fast`).
            concurrency: what a second call at the same time gets: `enqueue`, `reject`, `interrupt`.
            lease: seconds that it lives on after its last call; the configured `session_ttl` if left out.
            settings: plain data that is kept with it. What has the name of a bridge is handed to each of its workers
                that serves the session: `{"dspy": {"model": "openai/gpt-4o-mini", "api_key_env": "OPENAI_API_KEY"}}`.
                Keys are refused, because they would be kept; name their variables.
        """
        self._open()
        kept = changed_settings(None, checked_settings(settings, self.bridges()))
        return await self._router.session_keeper.create(id, affinity, concurrency, lease, kept)

    async def update_session(self, id: str, *, settings: Mapping[str, Any]) -> SessionInfo:
        """Change the settings of a session for its calls from now on, on whatever worker.

        Args:
            id: of the session.
            settings: as for `create_session`. Each replaces the one of its name, whole; None removes it; the others
                stay.
        """
        self._open()
        changes = checked_settings(settings, self.bridges())
        return await self._router.session_keeper.update(id, changes)

    async def list_sessions(self) -> list[SessionInfo]:
        """Return the sessions, oldest first."""
        self._open()
        return await self._router.session_keeper.list()

    async def get_session(self, id: str) -> SessionInfo:
        """Return what is known of a session."""
        self._open()
        return (await self._router.session_keeper.find(id)).describe()

    async def extend_session(self, id: str, lease: float | None = None) -> SessionInfo:
        """Begin a session's lease anew, with another length if one is given."""
        self._open()
        return await self._router.session_keeper.extend(id, lease)

    async def close_session(self, id: str) -> None:
        """End a session and delete what was made in it."""
        self._open()
        await self._router.session_keeper.close(id)

    # ------------------------------------------------------------------ tools and adapters

    def register_tool(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        description: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """Offer a function to workers: a handler may call it with `ctx.call_host(name, args)`.

        Args:
            name: what handlers call it.
            function: runs on this loop if it is a coroutine function, otherwise on a thread; gets the arguments by
                keyword.
            description: for agents; the first line of its docstring if left out.
            parameters: JSON Schema of its arguments; made from its annotations if left out.
        """
        self._tools.register(name, function, description, parameters)

    def unregister_tool(self, name: str) -> None:
        """Take a tool back."""
        self._tools.unregister(name)

    def tools(self) -> list[dict[str, Any]]:
        """Return name, description and parameters of each tool."""
        return self._tools.describe()

    def get_adapter(self, bridge: str | None = None) -> Any:
        """Return the typed client of a bridge's framework, for example `AsyncDSPyAdapter`. May be awaited."""
        name, adapters = self.adapters_of(bridge)
        return adapters.asynchronous(self, name)

    def adapters_of(self, bridge: str | None) -> tuple[str, Any]:
        """Return a bridge's name and the `AdapterPair` of its framework."""
        name = self._registry.resolve(bridge)
        # Adapters stand above the host and may know frameworks; the host must not import them to exist.
        return name, import_module("manybridge.adapters").adapter_pair(self._framework_of(name))

    def _framework_of(self, name: str) -> str:
        reference = self._registry.get(name).reference
        return reference if reference.isidentifier() else name

    # ------------------------------------------------------------------ the registry

    def bridges(self) -> dict[str, dict[str, Any]]:
        """Return the registered bridges: name to what it runs and how many workers it keeps."""
        default = self._registry.default
        return {
            name: {"bridge": config.reference or name, "pool_size": config.pool_size, "default": name == default}
            for name, config in self._registry.items()
        }

    async def register_bridge(self, name: str, config: BridgeConfig | Mapping[str, Any] | str) -> None:
        """Add a bridge while running. A string is what it would have as `bridge`, or a Python file's path."""
        self._open()
        checked_name(name, "name")
        if isinstance(config, str):
            config = {"python_script" if config.partition(":")[0].endswith(".py") else "bridge": config}
        self._registry.register(name, config)

    async def update_bridge(self, name: str, **changes: Any) -> None:
        """Change keys of a bridge's configuration while running.

        Workers that it makes stale are replaced one by one; calls go on meanwhile.
        """
        self._open()
        self._registry.update(name, changes)

    async def reload_bridge(self, name: str | None = None) -> dict[str, Any]:
        """Replace the workers of a bridge, one after the other, by ones that load its code anew; calls go on meanwhile.

        Returns when the last one is replaced: `{"bridge": ..., "replaced": n}`. A bridge whose workers have not been
        started yet has none. Its breaker begins anew, so this is also how to say that a cause was removed. What is
        pinned to a replaced worker is lost.

        Raises:
            ManybridgeError: a replacement did not start. The workers that are left serve on; health says so.
        """
        pool = self._own_pool(name)
        replaced = await pool.supervisor.reload()
        if pool.supervisor.started:
            await pool.wait_ready(None)
        return {"bridge": pool.name, "replaced": replaced}

    async def unregister_bridge(self, name: str) -> None:
        """Remove a bridge. Calls that run may end; those that wait fail with `host_closed`."""
        self._open()
        self._registry.unregister(name)

    async def capabilities(
        self, bridge: str | None = None, *, timeout: float | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Return the commands and resource types of a bridge with their JSON Schemas."""
        found: dict[str, Any] = await self.call(bridge, "common:capabilities", {}, timeout=timeout, session=session)
        return found

    # ------------------------------------------------------------------ what it is doing

    async def health(self, *, probe: bool = True) -> dict[str, Any]:
        """Say whether calls can be served, for each bridge and its workers, and if not, why.

        `live`: the host answers at all. `ready`: every bridge can take a call now, itself or by its fallback. `store`:
        where records are kept, and whether it can be reached; calls that keep nothing go on without it, so it makes a
        host `degraded` at most.

        Args:
            probe: ask every worker to answer a ping now, instead of saying only what the host knows.
        """
        if self._closed:
            return health_when_closed()
        self._open()
        pools = self._pools.all()
        asked = asyncio.gather(*(bridge_health(pool, probe=probe) for pool in pools))
        found, store = await asyncio.gather(asked, self._access.health(probe=probe))
        bridges = {pool.name: each for pool, each in zip(pools, found, strict=True)}
        return {
            "status": overall(bridges, store),
            "live": True,
            "ready": can_serve(bridges),
            "pid": os.getpid(),
            "bridges": bridges,
            "store": store,
        }

    async def explain(self, what: str | None = None) -> dict[str, Any]:
        """Say what something waits for, and why, as of now.

        Args:
            what: a bridge, the id of a session or a job, or the traceparent of an open call; looked up in this order.
                None: every bridge.

        Returns:
            `waits_for`, a word (None where it waits for nothing), `reason`, a sentence, and facts such as `position`
            in the queue. A bridge and a session list their calls.

        Raises:
            InvalidArgumentError: nothing is called that.
        """
        self._open()
        if what is None:
            return {"what": "host", "bridges": {pool.name: self._explain_bridge(pool) for pool in self._pools.all()}}
        if what in self.bridges():
            return self._explain_bridge(self.pool(checked_name(what, "what")))
        pools, pauses = self._pools.all(), list(self._router.rescue.pauses)
        if (session := self._sessions.known(what)) is not None:
            return explain_session(session, pools, pauses)
        for pool in pools:
            for call in pool.open_calls():
                if call.traceparent == what:
                    return {"what": "call", "id": what, **explain_call(pool, call)}
        for pause in pauses:
            if pause.traceparent == what:
                return {"what": "call", "id": what, **explain_pause(pause)}
        return await self._explain_job(what, pauses)

    def _explain_bridge(self, pool: Pool) -> dict[str, Any]:
        pauses = [each for each in self._router.rescue.pauses if each.bridge == pool.name]
        return {**explain_bridge(pool), "between_attempts": [explain_pause(each) for each in pauses]}

    async def _explain_job(self, id: str, pauses: list[Pause]) -> dict[str, Any]:
        try:
            job = await self.get_job(id)
        except ManybridgeError as error:
            if error.code != ErrorCode.JOB_NOT_FOUND:
                raise
            text = f"what: expected a bridge, a session, a job or the traceparent of an open call, found {id!r}"
            raise InvalidArgumentError(text) from None
        its = [each for each in pauses if (each.bridge, each.command) == (job.bridge, job.command)]
        pool = self._pools.get(job.bridge) if job.bridge in self.bridges() else None
        return explain_job(job, pool, [each for each in its if each.session == job.session])

    async def stats(self) -> dict[str, Any]:
        """Return counters, queue depths and latencies of each bridge."""
        self._open()
        return {
            "bridges": {pool.name: pool.describe() for pool in self._pools.all()},
            "sessions": len(self._sessions),
            "resources": len(self._resources),
            "jobs": len(self._jobs.list()),
            "tools": len(self._tools.describe()),
        }

    # ------------------------------------------------------------------ inside

    def _open(self) -> None:
        """Make what needs a running loop, once; from then on make sure that it is this one.

        Raises:
            ClosedError: the host is closed.
            ManybridgeError: `not_supported`: it was started on another loop.
        """
        loop = _running_loop()
        if self._started:
            if loop is not self._loop:
                raise _other_loop()
            return
        if self._closed:
            raise ClosedError("the host is closed")
        if loop is None:
            raise _other_loop()
        self._loop, self._started = loop, True
        limits = self._config.limits
        self._pools = PoolSet(self._registry, self._worker_gone, self._bridge_changed, self._config.environments)
        self._sessions = SessionTable(limits.session_ttl, limits.max_sessions, self._session_expired)
        self._router = Router(self._pools, self._sessions, self._resources, self._tools, self._access)
        self._pools.start()
        if self._access.shared:
            access = self._access
            self._restore = partial(
                self._restore_jobs, access.store, access.host, access.announce, self._take_over_jobs
            )
            if self._take_over_jobs:
                self._tasks.start(self._restore_early(), "jobs of the store")

    def pool(self, bridge: str | None) -> Pool:
        """Return the pool of a bridge; any thread may ask. For `MLBridge` and gateways."""
        if not self._started:
            self._open()
        return self._pools.get(bridge)

    def _own_pool(self, bridge: str | None) -> Pool:
        self._open()
        return self._pools.get(bridge)

    async def perform(self, pool: Pool, command: str, args: dict[str, Any], options: CallOptions) -> Any:
        """Make a call with everything that it may need. For gateways."""
        return await self._router.call(pool, command, args, options)

    def make_private_session(self, id: str, affinity: str) -> None:
        """Make a session that ends with this host, whatever its store. For gateways: a connection's own."""
        self._open()
        self._sessions.create(id, affinity, lease=inf)

    async def after_failure(self, pool: Pool, call: Call, error: ManybridgeError) -> Any:
        """Do what can be done about a plain call that has failed: its result, or the error that remains."""
        return await self._router.after_failure(pool, call, error)

    def is_hopeless(self, pool: Pool, error: ManybridgeError) -> bool:
        """Whether `after_failure` could do nothing; any thread may ask."""
        return self._router.rescue.is_hopeless(pool, error)

    def is_plain(self, command: str) -> bool:
        """Whether a command needs nothing but a worker; any thread may ask."""
        return self._router.is_plain(command)

    def is_quiet(self) -> bool:
        """Whether no bridge has anything to do. For `MLBridge`."""
        return all(pool.is_quiet for pool in self._pools.all())

    def _prepare(
        self, bridge: str | None, command: str, args: Mapping[str, Any] | None
    ) -> tuple[Pool, str, dict[str, Any]]:
        pool = self._own_pool(bridge)
        return pool, _full_command(pool, command, "command"), checked_args(args)

    @staticmethod
    def _batch_item(pool: Pool, item: Mapping[str, Any], place: str) -> BatchItem:
        if not isinstance(item, Mapping):
            raise wrong_argument(place, "a mapping with a command and args", item)
        if (unknown := unknown_key(item)) is not None:
            raise wrong_argument(place, "only the keys command and args", item, unknown)
        command = _full_command(pool, item.get("command"), f"{place}.command")
        return BatchItem(command, checked_args(item.get("args"), f"{place}.args"))

    @staticmethod
    def _options(
        pool: Pool, timeout: float | None, session: str | None, key: str | None, traceparent: str | None
    ) -> CallOptions:
        seconds = checked_timeout(timeout, pool.config.default_timeout)
        if traceparent is not None:
            checked_text(traceparent, "traceparent")
        return CallOptions(seconds, maybe_name(session, "session"), maybe_name(key, "idempotency_key"), traceparent)

    def _worker_gone(self, worker: Any) -> None:
        self._resources.forget_worker(worker)
        self._sessions.forget_worker(worker)

    def _bridge_changed(self, name: str, removed: bool) -> None:
        if removed:
            self._tasks.start(self._resources.forget_bridge(name), f"forget the resources of {name}")
        else:
            self._resources.forget_policies(name)

    async def _keep_session(self, id: str) -> None:
        await self._router.session_keeper.needed(id)

    def _session_expired(self, session: Session) -> None:
        if not self._closed:
            self._tasks.start(self._router.end_session(session), f"end session {session.id}")


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _other_loop() -> ManybridgeError:
    text = (
        "an AsyncMLBridge is used, and closed, on the event loop that it was started on, and by one thread; make one "
        "for each loop, or use MLBridge, which any thread may use"
    )
    return ManybridgeError(text, code=ErrorCode.NOT_SUPPORTED)


def _has_no_worker(pool: Pool) -> bool:
    return not pool.ready


def _full_command(pool: Pool, command: Any, name: str) -> str:
    """Return a command with its namespace; `name` is what an error calls it."""
    command = checked_text(command, name)
    return command if ":" in command else f"{pool.name}:{command}"

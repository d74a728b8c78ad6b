"""`MLBridge`: the public face of a host for programs without an event loop.

The host lives on a loop of its own (`LoopThread`). A plain call does not make a task there: it is handed to the pool as
it is, and the caller's thread waits on a lock that the answer releases.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import weakref
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from manybridge.errors import ClosedError, ManybridgeError
from manybridge.host.arguments import checked_args, checked_text, checked_timeout
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.calls import Call
from manybridge.host.config import BridgeConfig, ConfigSource
from manybridge.host.health import health_when_closed
from manybridge.host.jobs import AsyncJob, JobState
from manybridge.host.loop_thread import Answer, LoopThread
from manybridge.host.progress import JobProgress
from manybridge.host.resources import Resource
from manybridge.host.sessions import SessionInfo
from manybridge.host.streams import AsyncStream, StreamEvent
from manybridge.protocol.errors import ErrorCode

T = TypeVar("T")

EXIT_DRAIN: Final = 0.5
"""Seconds that running calls get when the program ends without having closed its host."""


class MLBridge:
    """A host, for blocking programs: `with MLBridge.from_config(...) as ml`.

    Has the methods of `AsyncMLBridge` with the same arguments. Any thread may use it, several at the same time. A call
    that is interrupted by Ctrl-C stops its work.
    """

    def __init__(self, config: ConfigSource = None) -> None:
        self._begin(AsyncMLBridge(config))

    @classmethod
    def from_config(cls, source: ConfigSource = None) -> Self:
        """Make and start a host from a TOML file, a folder, a mapping, a `HostConfig`, or None: the nearest file.

        Raises:
            ConfigError: anything in it is wrong.
        """
        return cls(source)

    # ------------------------------------------------------------------ life

    def _begin(self, bridge: AsyncMLBridge) -> None:
        self._bridge = bridge
        self._thread = LoopThread(bridge.is_quiet)
        self._closed = False
        _open_hosts.add(self)
        self._run(bridge.start())

    def wait_ready(self, bridge: str | None = None, timeout: float | None = None) -> None:
        """Wait until the whole pool of a bridge is ready."""
        self._run(self._bridge.wait_ready(bridge, timeout))

    def close(self, drain: float | None = None) -> None:
        """Take no more calls, let those that run end for `drain` seconds, then end every worker."""
        if self._closed:
            return
        if self._thread.is_forked:  # it is the parent's to close
            self._closed = True
            return
        try:
            self._run(self._bridge.close(drain))
        finally:
            self._closed = True
            self._thread.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(None if kind is None else 0.0)

    def __del__(self) -> None:
        # A finaliser may run on any thread, at any moment: it must not wait. The thread ends by itself.
        thread = getattr(self, "_thread", None)
        if thread is not None and not getattr(self, "_closed", True):
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                thread.post(_close_then_stop, thread.loop, self._bridge)

    # ------------------------------------------------------------------ calls

    def call(
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
        if type(command) is not str:
            command = checked_text(command, "command")
        plain = session is None and idempotency_key is None and traceparent is None
        if not plain or not self._bridge.is_plain(command):
            return self._run(
                self._bridge.call(
                    bridge,
                    command,
                    args,
                    timeout=timeout,
                    session=session,
                    idempotency_key=idempotency_key,
                    traceparent=traceparent,
                )
            )
        return self._call_plain(bridge, command, checked_args(args), timeout)

    def _call_plain(self, bridge: str | None, command: str, args: dict[str, Any], timeout: float | None) -> Any:
        pool = self._bridge.pool(bridge)
        self._check_usable()
        answer = Answer()
        command = command if ":" in command else f"{pool.name}:{command}"
        call = Call(command, args, answer, checked_timeout(timeout, pool.config.default_timeout))
        try:
            self._thread.submit(pool, call, answer)
            return answer.wait()
        except ManybridgeError as error:
            if self._bridge.is_hopeless(pool, error):
                raise
            return self._run(self._bridge.after_failure(pool, call, error))
        except BaseException:  # Ctrl-C, or an exception set from another thread
            with contextlib.suppress(RuntimeError):
                self._thread.post(pool.stop_call, call, "cancelled")
            raise

    def stream(
        self,
        bridge: str | None,
        command: str,
        args: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Stream:
        """Make a call whose events are read while it runs: `for event in ml.stream(...)`.

        Leaving the loop early stops the call. Options are those of `call`.
        """

        async def begin() -> AsyncStream:
            return self._bridge.stream(bridge, command, args, **options)

        return Stream(self._run, self._run(begin()))

    def batch(
        self,
        bridge: str | None,
        calls: Sequence[Mapping[str, Any]],
        *,
        return_exceptions: bool = True,
        **options: Any,
    ) -> list[Any]:
        """Make several calls at the same time; return results, and errors in their places, in order."""
        return self._run(self._bridge.batch(bridge, calls, return_exceptions=return_exceptions, **options))

    # ------------------------------------------------------------------ jobs

    def submit(self, bridge: str | None, command: str, args: Mapping[str, Any] | None = None, **options: Any) -> Job:
        """Start a call that lives on by itself and return its job. Without a `timeout` a job has no limit."""
        return Job(self._run, self._run(self._bridge.submit(bridge, command, args, **options)))

    def jobs(
        self, bridge: str | None = None, states: Collection[str] | str | None = None, limit: int | None = None
    ) -> list[Job]:
        """Return the jobs that are remembered, oldest first; of one bridge, in some states, the newest `limit`."""
        return [Job(self._run, job) for job in self._run(self._bridge.jobs(bridge, states, limit))]

    def get_job(self, id: str) -> Job:
        """Return a job by its id; one that another host has put into the store as well."""
        return Job(self._run, self._run(self._bridge.get_job(id)))

    def delete_job(self, id: str) -> None:
        """Forget a job that has ended, with its events and its result."""
        self._run(self._bridge.delete_job(id))

    # ------------------------------------------------------------------ resources

    def create_resource(
        self, bridge: str | None, type: str, config: Mapping[str, Any] | None = None, **options: Any
    ) -> Resource:
        """Make a resource. One that is made in a session is visible only there and ends with it."""
        return self._run(self._bridge.create_resource(bridge, type, config, **options))

    def execute_resource(
        self, bridge: str | None, id: str, inputs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Execute a resource, on a worker that holds it or makes it again from its recipe."""
        return self._run(self._bridge.execute_resource(bridge, id, inputs, **options))

    def get_resource(self, bridge: str | None, id: str, **options: Any) -> Resource:
        """Return what is known of a resource."""
        return self._run(self._bridge.get_resource(bridge, id, **options))

    def list_resources(self, bridge: str | None = None, type: str | None = None, **options: Any) -> list[Resource]:
        """Return the resources of a bridge (of all bridges for None), oldest first."""
        return self._run(self._bridge.list_resources(bridge, type, **options))

    def delete_resource(self, bridge: str | None, id: str, **options: Any) -> dict[str, Any]:
        """Delete a resource. It is gone at once; an execution that runs ends undisturbed."""
        return self._run(self._bridge.delete_resource(bridge, id, **options))

    # ------------------------------------------------------------------ sessions

    def create_session(self, id: str | None = None, **options: Any) -> SessionInfo:
        """Make a session; `affinity`, `concurrency`, `lease`, `settings` as in `AsyncMLBridge.create_session`."""
        return self._run(self._bridge.create_session(id, **options))

    def update_session(self, id: str, *, settings: Mapping[str, Any]) -> SessionInfo:
        """Change the settings of a session for its calls from now on: those that are named; None removes one."""
        return self._run(self._bridge.update_session(id, settings=settings))

    def list_sessions(self) -> list[SessionInfo]:
        """Return the sessions, oldest first."""
        return self._run(self._bridge.list_sessions())

    def get_session(self, id: str) -> SessionInfo:
        """Return what is known of a session."""
        return self._run(self._bridge.get_session(id))

    def extend_session(self, id: str, lease: float | None = None) -> SessionInfo:
        """Begin a session's lease anew, with another length if one is given."""
        return self._run(self._bridge.extend_session(id, lease))

    def close_session(self, id: str) -> None:
        """End a session and delete what was made in it."""
        self._run(self._bridge.close_session(id))

    # ------------------------------------------------------------------ tools and adapters

    def register_tool(
        self,
        name: str,
        function: Callable[..., Any],
        *,
        description: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """Offer a function to workers; a plain one runs on a thread, a coroutine function on the host's loop."""
        self._bridge.register_tool(name, function, description=description, parameters=parameters)

    def unregister_tool(self, name: str) -> None:
        """Take a tool back."""
        self._bridge.unregister_tool(name)

    def tools(self) -> list[dict[str, Any]]:
        """Return name, description and parameters of each tool."""
        return self._bridge.tools()

    def get_adapter(self, bridge: str | None = None) -> Any:
        """Return the typed client of a bridge's framework, for example `DSPyAdapter`."""
        name, adapters = self._bridge.adapters_of(bridge)
        return adapters.blocking(self, name)

    # ------------------------------------------------------------------ the registry

    def bridges(self) -> dict[str, dict[str, Any]]:
        """Return the registered bridges: name to what it runs and how many workers it keeps."""
        return self._bridge.bridges()

    def register_bridge(self, name: str, config: BridgeConfig | Mapping[str, Any] | str) -> None:
        """Add a bridge while running. A string is what it would have as `bridge`, or a Python file's path."""
        self._run(self._bridge.register_bridge(name, config))

    def update_bridge(self, name: str, **changes: Any) -> None:
        """Change keys of a bridge's configuration while running; stale workers are replaced one by one."""
        self._run(self._bridge.update_bridge(name, **changes))

    def reload_bridge(self, name: str | None = None) -> dict[str, Any]:
        """Replace the workers of a bridge, one after the other, by ones that load its code anew; calls go on."""
        return self._run(self._bridge.reload_bridge(name))

    def unregister_bridge(self, name: str) -> None:
        """Remove a bridge."""
        self._run(self._bridge.unregister_bridge(name))

    def capabilities(self, bridge: str | None = None, **options: Any) -> dict[str, Any]:
        """Return the commands and resource types of a bridge with their JSON Schemas."""
        return self._run(self._bridge.capabilities(bridge, **options))

    # ------------------------------------------------------------------ what it is doing

    def health(self, *, probe: bool = True) -> dict[str, Any]:
        """Say whether calls can be served, for each bridge and its workers, and if not, why."""
        if self._closed:  # so is its loop
            return health_when_closed()
        return self._run(self._bridge.health(probe=probe))

    def explain(self, what: str | None = None) -> dict[str, Any]:
        """Say what a bridge's calls, a session, a job or a call (by its traceparent) wait for, and why."""
        return self._run(self._bridge.explain(what))

    def stats(self) -> dict[str, Any]:
        """Return counters, queue depths and latencies of each bridge."""
        return self._run(self._bridge.stats())

    # ------------------------------------------------------------------ inside

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the host's loop and wait for it."""
        try:
            self._check_usable()
        except ManybridgeError:
            work.close()
            raise
        return self._thread.run(work)

    def _check_usable(self) -> None:
        if self._closed:
            raise ClosedError("the host is closed")
        if self._thread.is_current():
            text = "a blocking call on the host's own loop would wait for itself; make the tool a plain function"
            raise ManybridgeError(text, code=ErrorCode.NOT_SUPPORTED)


class Stream:
    """Iterate over it for the events; `result` holds the final result after the last one. `close` stops the call."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], stream: AsyncStream) -> None:
        self._run = run
        self._stream = stream

    def __iter__(self) -> Iterator[StreamEvent]:
        while events := self._run(self._stream.take_some()):
            yield from events

    @property
    def result(self) -> Any:
        """What the call returned.

        Raises:
            ManybridgeError: it failed, or has not ended: read the events to their end first.
        """
        return self._stream.result

    def close(self) -> None:
        """Stop the call if it still runs."""
        self._run(self._stream.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Job:
    """One job, for blocking programs. See `AsyncJob`."""

    def __init__(self, run: Callable[[Coroutine[Any, Any, Any]], Any], job: AsyncJob) -> None:
        self._run = run
        self._job = job
        self.id = job.id
        self.bridge = job.bridge
        self.command = job.command

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def state(self) -> JobState:
        """How far it is."""
        return self._job.state

    @property
    def progress(self) -> JobProgress | None:
        """How far its work is, how fast it goes and how long it will take, as of now; None before its first report."""
        return self._job.progress

    @property
    def created_at(self) -> float:
        """When it was made, Unix seconds."""
        return self._job.created_at

    @property
    def started_at(self) -> float | None:
        """When a worker got it, Unix seconds."""
        return self._job.started_at

    @property
    def finished_at(self) -> float | None:
        """When it ended, Unix seconds."""
        return self._job.finished_at

    @property
    def event_count(self) -> int:
        """How many events it has had: the number of the next one."""
        return self._job.event_count

    @property
    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._job.done

    @property
    def error(self) -> ManybridgeError | None:
        """Why it failed or was cancelled."""
        return self._job.error

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it has ended, for at most `timeout` seconds. Returns whether it has."""
        return bool(self._run(self._job.wait(timeout)))

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the result.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds; it goes on.
            ManybridgeError: it failed, or was cancelled.
        """
        return self._run(self._job.result(timeout))

    def cancel(self) -> bool:
        """Stop it, and return when its work has ended. Returns whether it still ran."""
        return bool(self._run(self._job.cancel()))

    def events(self, from_seq: int = 0) -> Iterator[StreamEvent]:
        """Yield its events from number `from_seq` on, past and future ones, until it ends. See `AsyncJob.events`."""
        position = from_seq
        while events := self._run(self._job.take_events(position)):
            yield from events
            position = events[-1].seq + 1

    def describe(self) -> dict[str, Any]:
        """Return what is known of it as plain data."""
        return self._job.describe()


def _close_then_stop(loop: asyncio.AbstractEventLoop, bridge: AsyncMLBridge) -> None:
    task = loop.create_task(bridge.close(0.0))
    task.add_done_callback(lambda _: loop.stop())


_open_hosts: weakref.WeakSet[MLBridge] = weakref.WeakSet()


@atexit.register
def _close_at_exit() -> None:
    for host in list(_open_hosts):
        with contextlib.suppress(Exception):
            host.close(EXIT_DRAIN)

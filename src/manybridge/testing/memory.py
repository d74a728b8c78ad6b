"""A host whose bridges run inside this process: the real host, the real worker code, and no worker process.

For fast tests of applications. A call goes the whole way, from `MLBridge` through frames on a socket to the worker's
runtime, which runs on a thread of this process; so validation, error codes, streams, resources, sessions, jobs, batches
and cancelling are the real thing. What differs, because there is no process:

* Nothing is isolated. Code that exits (`os._exit`), crashes or blocks signals takes the test with it; `print` and
  standard error are the test's own, so errors carry no last lines.
* Every worker runs one call at a time, on its thread and not on a main thread, whatever `max_concurrency` says.
* Code that does not stop can't be killed. It is abandoned on its thread: a loop in Python is interrupted, a call that
  blocks (`time.sleep`) goes on until it comes back. The caller is answered as with a real worker.
* `kill` of a worker ends its connection, and its calls fail with `worker_crashed`; its objects are dropped.
* Interpreter, environment, packages, zygote, memory limits and sandbox of the configuration mean nothing here.
* Module globals are shared by all workers, and live on when a worker is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Any, Final, Protocol, cast

from manybridge.bridge import Bridge
from manybridge.errors import WorkerStartError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.config import BridgeConfig
from manybridge.host.launcher import Launched, Launcher, SpawnLauncher, WorkerOrder, WorkerPlan, worker_socketpair
from manybridge.host.pool import Pool
from manybridge.host.process import ExitStatus, WorkerProcess
from manybridge.host.stderr_tail import StderrTail
from manybridge.host.sync import MLBridge
from manybridge.host.zygote import ZygoteLauncher
from manybridge.testing.memory_runtime import MemoryRuntime
from manybridge.testing.problems import KitError, demand_bridge_class

MEMORY: Final = "memory"
"""How such a worker was started, in health and stats."""

CLASS_OF: Final = "manybridge.testing.memory:class_of"
"""Stands for a class that is only known to this process; never resolved."""

BridgeSource = type[Bridge] | Mapping[str, Any]
"""A bridge's class, or the keys of its configuration; there `bridge` may be a class too."""


class AsyncInMemoryMLBridge(AsyncMLBridge):
    """`AsyncMLBridge` without worker processes; see this module for what differs.

    Args:
        bridges: name -> class or configuration. A plain configuration as of `MLBridge` (with a key `bridges`) is
            accepted too.
    """

    def __init__(self, bridges: Mapping[str, Any] | type[Bridge]) -> None:
        config, self._classes = _split(bridges)
        super().__init__(config)

    def _open(self) -> None:
        if self._started:
            return
        super()._open()
        for name in self._registry:
            self._settle(name)
        # After the pools, which follow the same changes.
        self._registry.subscribe(lambda change: self._settle(change.name) if change.new is not None else None)

    def _settle(self, name: str) -> None:
        """Have the workers of a bridge started here; before the first one can have been, as tasks run later."""
        if self._started and (pool := self._pools._pools.get(name)) is not None:
            supervisor = pool.supervisor
            supervisor._checked = True  # packages and variables belong to an environment; this is not it
            if isinstance(supervisor._launcher, SpawnLauncher | ZygoteLauncher):
                supervisor._launcher = self._launcher_for(pool, name)

    def _launcher_for(self, pool: Pool, name: str) -> Launcher:
        """What starts the workers of a bridge; others than `MemoryLauncher` for replays."""
        return MemoryLauncher(pool, name, self._classes.get(name))


class InMemoryMLBridge(MLBridge):
    """`MLBridge` without worker processes, for blocking programs; see this module for what differs.

    Use it as `with InMemoryMLBridge({"words": WordBridge}) as ml`.
    """

    def __init__(self, bridges: Mapping[str, Any] | type[Bridge]) -> None:
        self._begin(self._new_host(bridges))

    def _new_host(self, bridges: Mapping[str, Any] | type[Bridge]) -> AsyncInMemoryMLBridge:
        return AsyncInMemoryMLBridge(bridges)


class MemoryLauncher:
    """A `Launcher` that starts threads."""

    def __init__(self, pool: Pool, name: str, bridge_class: type[Bridge] | None) -> None:
        self._pool = pool
        self._name = name
        self._class = bridge_class

    async def launch(self, order: WorkerOrder) -> Launched:
        """Start a worker.

        Raises:
            WorkerStartError: its socket can't be made.
        """
        config: BridgeConfig = self._pool.config
        plan = WorkerPlan(self._name, config)
        try:
            ours, theirs = worker_socketpair()
        except OSError as error:
            raise WorkerStartError(f"no socket for worker {order.worker_id}: {error}") from error
        arguments = [plan.reference, *plan.arguments(order), "--max-concurrency", "1"]
        process = MemoryProcess(order.worker_id, theirs)
        options = dict(config.options)
        process.begin(lambda: MemoryRuntime.of(arguments, options, theirs, self._class))
        return Launched(cast("WorkerProcess", process), ours, MEMORY)

    async def close(self) -> None:
        """Nothing is held."""


class Serving(Protocol):
    """What runs on the thread of a worker."""

    def run(self) -> None:
        """Serve until the host goes away."""
        ...

    def abandon(self) -> None:
        """Nobody waits any more for what runs. Called on any thread."""
        ...


class MemoryProcess:
    """Looks to a host like the process of a worker. Owner of its thread."""

    def __init__(self, name: str, sock: socket.socket) -> None:
        self.pid = os.getpid()
        self.tail = StderrTail()
        self.started_at = monotonic()
        self.status: ExitStatus | None = None
        self._name = name
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_exit: Callable[[ExitStatus], None] | None = None
        self._runtime: Serving | None = None
        self._thread: threading.Thread | None = None

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return monotonic() - self.started_at

    def begin(self, make: Callable[[], Serving]) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._serve, args=(make,), name=f"manybridge-{self._name}", daemon=True)
        self._thread.start()

    def watch(self, on_exit: Callable[[ExitStatus], None]) -> None:
        """Have `on_exit` called once on the event loop after the worker has ended."""
        self._on_exit = on_exit
        if self.status is not None:
            self._loop.call_soon(on_exit, self.status)

    def signal_group(self, number: signal.Signals) -> None:
        """End the worker, for a signal that would end a process; others do nothing."""
        if self.status is None and number not in (signal.SIGSTOP, signal.SIGCONT):
            self._ended(ExitStatus(signal=signal.Signals(number).name))
            if self._runtime is not None:
                self._runtime.abandon()

    def dump_stacks(self) -> None:
        """There is no standard error of its own to write them to."""

    def receive_status(self, status: ExitStatus) -> None:
        """Nobody else collects it."""

    def lost_parent(self) -> None:
        """It has none."""

    def close(self) -> None:
        """Let go of everything. A thread whose code does not stop is left behind."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _serve(self, make: Callable[[], Serving]) -> None:
        status = ExitStatus(exit_code=1)
        try:
            self._runtime = make()
            self._runtime.run()
            status = ExitStatus(exit_code=0)
        finally:
            self._sock.close()
            with contextlib.suppress(RuntimeError):  # the host's loop is closed
                self._loop.call_soon_threadsafe(self._ended, status)

    def _ended(self, status: ExitStatus) -> None:
        if self.status is not None:
            return
        self.status = status
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if self._on_exit is not None:
            self._on_exit(status)


def _split(given: Mapping[str, Any] | type[Bridge]) -> tuple[dict[str, Any], dict[str, type[Bridge]]]:
    """Return a configuration that can be checked, and the classes that stood in it."""
    if isinstance(given, type):
        demand_bridge_class(given, "bridges")
        given = {given.name: given}
    if not isinstance(given, Mapping):
        raise KitError(
            "bridges: expected a bridge's class, or a mapping of names to classes or tables as in manybridge.toml, "
            f"found {given!r:.200}"
        )
    config = dict(given) if isinstance(given.get("bridges"), Mapping) else {"bridges": dict(given)}
    classes: dict[str, type[Bridge]] = {}
    bridges: dict[str, Any] = {}
    for name, source in config["bridges"].items():
        if not isinstance(source, (type, Mapping)):
            bridges[name] = source  # the check of the configuration says what is wrong with it
            continue
        table = {"bridge": source} if isinstance(source, type) else dict(source)
        if isinstance(found := table.get("bridge"), type):
            demand_bridge_class(found, f"bridges.{name}")
            classes[name] = found
            table["bridge"] = CLASS_OF
        bridges[name] = table
    return {**config, "bridges": bridges}, classes

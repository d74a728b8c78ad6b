"""Workers from a zygote: one process imports the framework, every worker is a fork of it.

A fork takes milliseconds where an import takes a second, and shares the framework's memory. Only the bridge knows
whether its framework may be forked; the zygote says so after its import (`ready` or `unsafe`), and says of every
single fork whether it was safe at that moment (`forked` or `refused`). Whatever goes wrong here, the worker is spawned
instead, and the reason is kept for health and the doctor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from typing import Any, Final

from manybridge.errors import WorkerStartError
from manybridge.host.guardian import Guardian
from manybridge.host.launcher import (
    Launched,
    SpawnLauncher,
    WorkerOrder,
    WorkerPlan,
    start_process,
    worker_socketpair,
)
from manybridge.host.process import ExitStatus, WorkerProcess

MAX_DATAGRAM: Final = 256 * 1024
"""As in worker/zygote.py."""

KILLED: Final = frozenset({"SIGKILL", "SIGTERM"})
"""Signals that come from outside: by the kernel when memory ended, or by a person."""

FORK_SECONDS: Final = 5.0
"""How long a zygote may take to answer. A fork takes milliseconds; one that does not answer holds a lock."""


class ZygoteError(Exception):
    """This worker can't be forked; the text says why."""


class Zygote:
    """One zygote process and its control socket. Owner of the requests that it has not answered.

    Args:
        plan: of the workers that it will fork.
        guardian: is told of its process group.
    """

    def __init__(self, plan: WorkerPlan, guardian: Guardian) -> None:
        self._plan = plan
        self._guardian = guardian
        self._loop = asyncio.get_running_loop()
        self._forks: dict[str, asyncio.Future[int]] = {}
        self._children: dict[int, WorkerProcess] = {}
        self._early_exits: dict[int, ExitStatus] = {}
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self.ready: asyncio.Future[None] = self._loop.create_future()
        """Fails with `ZygoteError` where the framework is not safe to fork, or could not be imported."""
        self.process = self._start(theirs)
        self.process.watch(self._ended)
        self._loop.add_reader(self._control, self._receive)

    def _start(self, theirs: socket.socket) -> WorkerProcess:
        reading, writing = os.pipe()
        try:
            command = [*self._plan.command(), "--name", self._plan.name, "--zygote"]
            popen = start_process(command, self._plan.environment(), theirs.fileno(), writing)
        except BaseException:
            os.close(reading)
            self._control.close()
            raise
        finally:
            os.close(writing)
            theirs.close()
        self._guardian.watch(popen.pid)
        return WorkerProcess(popen.pid, reading, self._plan.stderr_tail("zygote"), popen=popen)

    async def fork(self, order: WorkerOrder, argv: list[str]) -> Launched:
        """Fork a worker.

        Raises:
            ZygoteError: it refused, died or did not answer.
        """
        ours, theirs = worker_socketpair()
        reading, writing = os.pipe()
        answer = self._forks[order.worker_id] = self._loop.create_future()
        try:
            self._send_fork(order, argv, [theirs.fileno(), writing])
            async with asyncio.timeout(FORK_SECONDS):
                pid = await answer
        except BaseException as error:
            ours.close()
            os.close(reading)
            if isinstance(error, (OSError, TimeoutError)):
                raise ZygoteError(f"the zygote did not answer: {type(error).__name__}") from error
            raise
        finally:
            self._forks.pop(order.worker_id, None)
            theirs.close()
            os.close(writing)
        self._guardian.watch(pid)
        process = WorkerProcess(pid, reading, self._plan.stderr_tail(order.worker_id), on_raw=self._plan.on_raw)
        self._children[pid] = process
        if (status := self._early_exits.pop(pid, None)) is not None:
            process.receive_status(status)
        return Launched(process, ours, "zygote")

    async def close(self) -> None:
        """End the zygote. Its children go on."""
        self._stop_reading()
        if self.process.status is None:
            ended = asyncio.Event()
            self.process.watch(lambda _: ended.set())
            for number in (signal.SIGTERM, signal.SIGKILL):
                self.process.signal_group(number)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FORK_SECONDS / 5):
                        await ended.wait()
        self._ended(self.process.status or ExitStatus())

    def _send_fork(self, order: WorkerOrder, argv: list[str], fds: list[int]) -> None:
        config = self._plan.config
        request = {
            "worker_id": order.worker_id,
            "generation": order.generation,
            "argv": argv,
            "env": self._plan.environment(),
            "options": config.options,
        }
        data = json.dumps({"fork": request}).encode()
        if len(data) > MAX_DATAGRAM:
            raise ZygoteError("the bridge's options and environment are too large for the zygote's socket")
        socket.send_fds(self._control, [data], fds)

    def _receive(self) -> None:
        while True:
            try:
                data = self._control.recv(MAX_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._stop_reading()
                return
            for kind, facts in json.loads(data).items():
                self._handle(kind, facts)

    def _handle(self, kind: str, facts: dict[str, Any]) -> None:
        if kind == "ready" and not self.ready.done():
            self.ready.set_result(None)
        elif kind == "unsafe" and not self.ready.done():
            self._not_ready(str(facts.get("reason")))
        elif kind in ("forked", "refused"):
            self._answer(str(facts.get("worker_id")), facts)
        elif kind == "exited":
            self._child_ended(int(facts["pid"]), ExitStatus.from_wait_status(int(facts["status"])))

    def _answer(self, worker_id: str, facts: dict[str, Any]) -> None:
        future = self._forks.get(worker_id)
        if future is None or future.done():
            if "pid" in facts:  # nobody waits for it any more
                with contextlib.suppress(ProcessLookupError):
                    os.kill(facts["pid"], signal.SIGKILL)
        elif "pid" in facts:
            future.set_result(int(facts["pid"]))
        else:
            future.set_exception(ZygoteError(f"the zygote refused: {facts.get('reason')}"))

    def _child_ended(self, pid: int, status: ExitStatus) -> None:
        process = self._children.pop(pid, None)
        if process is None:
            self._early_exits[pid] = status
        else:
            process.receive_status(status)

    def _not_ready(self, reason: str) -> None:
        self.ready.set_exception(ZygoteError(reason))
        self.ready.exception()  # read by whoever asks next; nobody may be waiting now

    def _ended(self, status: ExitStatus) -> None:
        self._receive_rest()
        self._stop_reading()
        self.process.close()
        self._guardian.forget(self.process.pid)
        if not self.ready.done():
            last = self.process.tail.lines()[-1:] or [""]
            self._not_ready(f"the zygote ended with {status} {last[0]}".rstrip())
        for future in self._forks.values():
            if not future.done():
                future.set_exception(ZygoteError(f"the zygote ended with {status}"))
        for child in self._children.values():
            child.lost_parent()
        self._children.clear()

    def _receive_rest(self) -> None:
        if self._control.fileno() >= 0:
            self._receive()

    def _stop_reading(self) -> None:
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._control.close()


class ZygoteLauncher:
    """Forks workers where that is safe and spawns them where it is not. Owner of the bridge's zygote."""

    def __init__(self, plan: WorkerPlan, guardian: Guardian) -> None:
        self._plan = plan
        self._guardian = guardian
        self._spawn = SpawnLauncher(plan, guardian)
        self._zygote: Zygote | None = None
        self.fallback_reason: str | None = None
        """Why workers are spawned; None while they are forked, or not started yet."""
        self._unsafe = False

    async def launch(self, order: WorkerOrder) -> Launched:
        """Start a worker.

        Raises:
            WorkerStartError: `zygote = "always"` was asked for and it can't be forked; or it can't be spawned either.
        """
        if not self._unsafe:
            try:
                zygote = await self._ready_zygote()
                return await zygote.fork(order, [self._plan.reference, *self._plan.arguments(order)])
            except ZygoteError as error:
                self.fallback_reason = str(error)
        if self._plan.config.zygote == "always":
            text = f'bridge "{self._plan.name}" is configured with zygote = "always", but {self.fallback_reason}'
            raise WorkerStartError(text, details={"bridge": self._plan.name, "reason": self.fallback_reason})
        return await self._spawn.launch(order)

    async def close(self) -> None:
        """End the zygote. Workers that run are not touched."""
        zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.close()

    async def _ready_zygote(self) -> Zygote:
        zygote = self._zygote
        if zygote is None or zygote.process.status is not None:
            zygote = self._zygote = Zygote(self._plan, self._guardian)  # the first, or the last one has died
        try:
            await asyncio.shield(zygote.ready)
        except ZygoteError:
            # Its import would fail or leave threads behind the next time too; unless somebody killed it meanwhile.
            status = zygote.process.status
            self._unsafe = status is None or status.signal not in KILLED
            raise
        self.fallback_reason = None
        return zygote

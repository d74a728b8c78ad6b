"""Keeps the right number of workers alive: starts, replaces, recycles, and knows when to stop trying."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import count
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from manybridge.errors import ManybridgeError, WorkerStartError
from manybridge.host.breaker import Breaker, BreakerState
from manybridge.host.causes import CrashCause, oom_watch
from manybridge.host.config import BridgeConfig
from manybridge.host.death import crash_error
from manybridge.host.launcher import Launched, Launcher, SpawnLauncher, WorkerOrder, WorkerPlan
from manybridge.host.memory import group_memory
from manybridge.host.probation import Probation
from manybridge.host.requirements import check_requirements, check_variables
from manybridge.host.worker import WorkerHandle, WorkerState
from manybridge.host.zygote import ZygoteLauncher
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.host.pool import Pool

_log = logging.getLogger("manybridge.host")

OVERFLOW_IDLE_SECONDS: Final = 10.0
"""An overflow worker without work for so long is ended: longer than the pauses of one busy client."""

INSPECTION_SECONDS: Final = 1.0
"""How often age and memory are looked at, where there is a limit. Reading memory costs well under a millisecond."""

DUMP_SECONDS: Final = 0.1
"""What the stacks of a worker that is not ready in time may take to arrive; they say what it waits for."""

RETIRE_GRACE: Final = 2.5
"""Seconds that a retired worker may take to close its bridge."""

FIRST_ROLL_WAIT: Final = 1.0
"""Seconds before a replacement of stale workers that did not start is tried again; doubles up to `max_backoff`."""


class Supervisor:
    """Owner of the starting of workers, the restart policy and the recycling of one pool."""

    def __init__(self, pool: Pool, plan: WorkerPlan) -> None:
        self._pool = pool
        self._plan = plan
        self._launcher = self._make_launcher(plan)
        self.breaker = Breaker(pool.config.restart)
        self.started = False
        self.intercept: Callable[[WorkerOrder, Launched], Launched] | None = None
        """Given each process that was started, may stand between it and us. For fault injection, and else None."""
        self._starting = 0
        self._numbers = count(1)
        self._generation = 0
        self._closing = False
        self._checked = False
        self._restart_timer: asyncio.TimerHandle | None = None
        self._inspection: asyncio.TimerHandle | None = None
        self._recycling: set[WorkerHandle] = set()
        self._probationer: WorkerHandle | None = None
        """The worker that a half-open breaker has let start."""
        self._first_current = 0
        """Workers of an earlier generation are stale: they run with another configuration, or with older code."""
        self._recycle_task: asyncio.Task[None] | None = None
        self._roll_task: asyncio.Task[ManybridgeError | None] | None = None
        self._roll_timer: asyncio.TimerHandle | None = None
        self._failed_rolls = 0
        self.roll_failure: ManybridgeError | None = None
        """Why stale workers are still there."""
        oom_watch()
        self._exhausted: set[WorkerHandle] = set()
        """Overflow workers whose time to go has been set."""

    # ------------------------------------------------------------------ what the pool asks

    @property
    def starting(self) -> int:
        """How many workers are on their way."""
        return self._starting

    def start(self) -> None:
        """Begin to keep workers."""
        if not self.started and not self._closing:
            self.started = True
            self.ensure()
            self._inspect_later()

    def wanted(self) -> ManybridgeError | None:
        """A call waits. Return why no worker will come for it, or None if one will."""
        self.start()
        if self._pool.ready or self._starting or self._restart_timer is not None:
            return None
        if self.breaker.state is BreakerState.CLOSED:
            self.ensure()
            return None
        if self.breaker.probe(monotonic()):
            self._checked = False
            self._begin()
            return None
        return self.refusal()

    def refusal(self) -> ManybridgeError:
        """The error of calls while the breaker is open."""
        return self.breaker.refusal(monotonic(), self._pool.name)

    def ensure(self) -> None:
        """Start what is missing, now or after the backoff."""
        if self._closing or not self.started or self._restart_timer is not None:
            return
        missing = self._pool.config.pool_size - len(self._pool.ready) - self._starting
        if missing <= 0:
            return
        wait = self.breaker.wait(monotonic())
        if wait is None:
            self._probe_later()
        elif wait > 0:
            self._restart_timer = asyncio.get_running_loop().call_later(wait, self._restart)
        else:
            for _ in range(missing):
                self._begin()

    def maybe_overflow(self) -> None:
        """A call waits: start one more worker, if there may be more."""
        config, pool = self._pool.config, self._pool
        living = len(pool.ready) + self._starting
        may_grow = config.pool_size <= living < config.pool_size + config.max_overflow
        if may_grow and pool.ready and pool.waiting > self._starting:
            self._begin()

    def worker_served(self, worker: WorkerHandle) -> None:
        """Replies came from a worker: is its time over?"""
        limit = self._pool.config.max_requests
        if limit is not None and worker.requests >= limit and worker.is_ready:
            self.recycle(worker, f"it has served {worker.requests} calls")
        elif worker.state is WorkerState.RETIRING and not worker.calls:
            self._end(worker)
        elif not worker.calls and len(self._pool.ready) > self._pool.config.pool_size:
            self._spare(worker)

    def worker_died(self, worker: WorkerHandle) -> None:
        """A worker has ended; if it had been ready and nobody wanted that, it crashed."""
        self._recycling.discard(worker)
        if not worker.was_ready or self._closing:
            return
        if not worker.expected_end:
            error = worker.fatal or crash_error(worker)
            self._pool.stats.crash(error)
            _log.warning("%s", error)
            self.breaker.crashed(monotonic(), error, served=worker.pace.service_time != inf, was_ready=True)
        if worker is self._probationer:
            self._probationer = None
            self.breaker.unproven(monotonic())
        self.ensure()

    def recycle(self, worker: WorkerHandle, reason: str) -> None:
        """Replace a worker: first the replacement, then drain, then stop."""
        if self._recycling or worker.held_resources or not worker.is_ready or self._closing:
            return  # one at a time: a pool whose workers are of one age would double its memory
        self._recycling.add(worker)
        _log.info("worker %s is replaced: %s", worker.id, reason)
        self._starting += 1
        self._recycle_task = self._pool.tasks.start(self._recycle(worker), f"replace {worker.id}")

    def reconfigure(self, config: BridgeConfig) -> None:
        """Follow a changed configuration. Workers that it makes stale are replaced one after the other."""
        old, self._pool.config = self._pool.config, config
        self.breaker.policy = config.restart
        if any(getattr(old, key) != getattr(config, key) for key in STALE_MAKING_KEYS):
            self._renew()
        for worker in self._pool.ready[config.pool_size :]:
            self._retire(worker)
        self._inspect_later()
        self.ensure()

    async def reload(self) -> int:
        """Replace every worker by one that loads the bridge's code anew, one after the other. Return how many.

        Raises:
            ManybridgeError: a replacement did not start. The workers that are left serve on with the old code; their
                replacement is tried again by itself, and health says so.
        """
        if not self.started:
            return 0
        stale = [worker for worker in self._pool.ready if worker.is_ready]
        self._renew()
        self.ensure()
        while (task := self._roll_task or self._recycle_task) is not None:
            failure = await asyncio.shield(task)
            if failure is not None:
                raise failure.copy()
        return len(stale)

    def is_stale(self, worker: WorkerHandle) -> bool:
        """Whether a worker was started before the last change."""
        return worker.generation < self._first_current

    def closing(self) -> None:
        """Start nothing more."""
        self._closing = True
        for timer in (self._restart_timer, self._inspection, self._roll_timer):
            if timer is not None:
                timer.cancel()

    async def close(self) -> None:
        """End what helps to start workers."""
        await self._launcher.close()

    def zygote_facts(self) -> dict[str, Any]:
        """How workers are started, and why not otherwise."""
        if isinstance(self._launcher, ZygoteLauncher):
            reason = self._launcher.fallback_reason
            return {"used": reason is None, "reason": reason}
        return {"used": False, "reason": 'zygote = "never"'}

    # ------------------------------------------------------------------ starting

    def _make_launcher(self, plan: WorkerPlan) -> Launcher:
        if plan.config.zygote == "never" or not plan.forkable:
            return SpawnLauncher(plan, self._pool.guardian)
        return ZygoteLauncher(plan, self._pool.guardian)

    def _restart(self) -> None:
        self._restart_timer = None
        self.ensure()
        self._pool.serve_waiting()  # the breaker may have opened meanwhile: then nobody comes for them

    def _probe_later(self) -> None:
        # Where some workers live nobody's call has to ask; where none does, the next call does.
        if self._pool.ready and self.breaker.state is BreakerState.OPEN:
            wait = self.breaker.remaining(monotonic())
            self._restart_timer = asyncio.get_running_loop().call_later(wait + 0.01, self._probe)

    @property
    def next_start(self) -> float | None:
        """Seconds until the next worker is started by itself; None where none is to be."""
        timer = self._restart_timer
        return None if timer is None else max(0.0, timer.when() - asyncio.get_running_loop().time())

    def _probe(self) -> None:
        self._restart_timer = None
        if self.breaker.probe(monotonic()):
            self._begin()
        else:
            self.ensure()

    def _begin(self) -> None:
        self._starting += 1
        self._pool.tasks.start(self._start_one(), f"start a worker of {self._pool.name}")

    async def _start_one(self) -> None:
        try:
            worker = await self._new_worker()
        except ManybridgeError as error:
            self._starting -= 1
            self._start_failed(error)
            return
        except BaseException:
            self._starting -= 1
            self.breaker.unproven(monotonic())
            raise
        self._starting -= 1
        if self.breaker.ready():
            self._probationer = worker
            Probation(worker, self._pool, self._proven)
        self._admit(worker)
        self.ensure()

    def _proven(self) -> None:
        self._probationer = None
        self.breaker.proven()
        self.ensure()

    def _admit(self, worker: WorkerHandle) -> None:
        self._pool.worker_ready(worker)
        ready, config = self._pool.ready, self._pool.config
        while len(ready) > config.pool_size + config.max_overflow:  # the pool has become smaller while it started
            self._retire(next(filter(self.is_stale, ready), ready[-1]))
        if any(map(self.is_stale, ready)):  # what it was started with has changed meanwhile
            self._roll()

    async def _new_worker(self) -> WorkerHandle:
        """Start a worker and wait until it can work.

        Raises:
            ManybridgeError: it can't; its process is gone.
        """
        await self._check()
        config = self._pool.config
        self._generation += 1
        order = WorkerOrder(f"{self._pool.name}-{next(self._numbers)}", self._generation)
        worker = None
        try:
            async with asyncio.timeout(config.start_timeout):
                launched = await self._launcher.launch(order)
                if self.intercept is not None:
                    launched = self.intercept(order, launched)
                worker = WorkerHandle(order, launched, config, self._pool)
                self._pool.workers.append(worker)
                await worker.connect()
                await worker.handshake()
        except TimeoutError:
            error = await _not_ready_in_time(order, config, worker)
            await _dispose(worker)
            raise error from None
        except OSError as failure:
            await _dispose(worker)
            details = {"cause": CrashCause.START_FAILED.value, "worker_id": order.worker_id}
            raise WorkerStartError(f"can't start worker {order.worker_id}: {failure}", details=details) from failure
        except BaseException:
            await _dispose(worker)
            raise
        return worker

    async def _check(self) -> None:
        """Check what the bridge needs, once, before a process is started for it."""
        name, config = self._pool.name, self._pool.config
        if self._checked:
            return
        if config.required_packages:
            await check_requirements(name, config, interpreters=self._plan.interpreters)
        else:  # asking the interpreter costs its start, and nothing would be asked
            check_variables(name, config)
        self._checked = True

    def _start_failed(self, error: ManybridgeError) -> None:
        if self._closing:
            return
        _log.warning('a worker of bridge "%s" did not start: %s', self._pool.name, error)
        if error.code == ErrorCode.WORKER_START_FAILED:
            error.details.setdefault("cause", CrashCause.START_FAILED.value)
        self._pool.stats.start_failed(error)
        self.breaker.crashed(monotonic(), error)
        self._pool.not_ready(error)
        self.ensure()

    # ------------------------------------------------------------------ replacing and retiring

    async def _recycle(self, worker: WorkerHandle) -> None:
        try:
            await self._replace(worker)
        finally:
            self._recycle_task = None

    async def _replace(self, worker: WorkerHandle) -> ManybridgeError | None:
        """Start a replacement and retire the worker; it goes on where that fails, and the failure is returned."""
        try:
            replacement = await self._new_worker()
        except ManybridgeError as error:
            if self._closing:
                return error  # we ended it ourselves, and the worker does not go on either
            _log.warning("worker %s goes on, because its replacement did not start: %s", worker.id, error)
            self._pool.stats.start_failed(error)
            return error
        finally:
            self._starting -= 1
            self._recycling.discard(worker)
        self._pool.stats.recycled += 1
        self._retire(worker)
        self._admit(replacement)
        return None

    def _renew(self) -> None:
        """Start all later workers from scratch, and replace those that are there."""
        self._plan = self._plan.reconfigured(self._pool.config)
        previous, self._launcher = self._launcher, self._make_launcher(self._plan)
        self._checked = False
        self.breaker = Breaker(self._pool.config.restart)
        self._probationer = None
        if self._restart_timer is not None:
            self._restart_timer.cancel()
            self._restart_timer = None
        self._first_current = self._generation + 1
        self._failed_rolls, self.roll_failure = 0, None
        self._pool.tasks.start(previous.close(), "close the previous launcher")
        self._roll()

    def _roll(self) -> None:
        if self._roll_timer is not None:
            self._roll_timer.cancel()
            self._roll_timer = None
        if self._roll_task is None and not self._closing:
            self._roll_task = self._pool.tasks.start(self._replace_stale(), "replace stale workers")

    async def _replace_stale(self) -> ManybridgeError | None:
        """Replace stale workers one after the other, until none is left or a replacement does not start."""
        try:
            while (worker := self._next_stale()) is not None:
                self._recycling.add(worker)
                self._starting += 1
                self.roll_failure = await self._replace(worker)
                if self.roll_failure is not None:
                    wait = min(FIRST_ROLL_WAIT * 2.0**self._failed_rolls, self._pool.config.restart.max_backoff)
                    self._failed_rolls += 1
                    self._roll_timer = asyncio.get_running_loop().call_later(wait, self._roll)
                    return self.roll_failure
            return None
        finally:
            self._roll_task = None

    def _next_stale(self) -> WorkerHandle | None:
        ready = self._pool.ready
        return next((each for each in ready if self.is_stale(each) and each not in self._recycling), None)

    def _retire(self, worker: WorkerHandle) -> None:
        worker.retire()
        self._pool.withdraw(worker)
        if not worker.calls:
            self._end(worker)

    def _end(self, worker: WorkerHandle) -> None:
        if not worker.expected_end:
            worker.expected_end = True
            self._pool.tasks.start(worker.stop(RETIRE_GRACE), f"end {worker.id}")

    def _spare(self, worker: WorkerHandle) -> None:
        if worker not in self._exhausted:
            self._exhausted.add(worker)
            served = worker.requests
            loop = asyncio.get_running_loop()
            loop.call_later(OVERFLOW_IDLE_SECONDS, self._end_spare, worker, served)

    def _end_spare(self, worker: WorkerHandle, served: int) -> None:
        self._exhausted.discard(worker)
        if not worker.is_ready or len(self._pool.ready) <= self._pool.config.pool_size or self._closing:
            return
        if worker.requests == served and not worker.calls and not worker.held_resources:
            self._retire(worker)
        else:
            self._spare(worker)

    # ------------------------------------------------------------------ age and memory

    def _inspect_later(self) -> None:
        config = self._pool.config
        if self._inspection is not None:
            self._inspection.cancel()
        if not self._closing and (config.max_age is not None or config.max_memory_mb is not None):
            self._inspection = asyncio.get_running_loop().call_later(INSPECTION_SECONDS, self._inspect)

    def _inspect(self) -> None:
        config = self._pool.config
        for worker in list(self._pool.ready):
            if config.max_age is not None and worker.process.uptime > config.max_age:
                self.recycle(worker, f"it is {worker.process.uptime:.0f} s old")
            elif config.max_memory_mb is not None:
                used = group_memory(worker.process.pid) // 2**20
                if used > config.max_memory_mb:
                    self.recycle(worker, f"its process group uses {used} MiB")
        self._inspect_later()


STALE_MAKING_KEYS: Final = (
    "bridge", "python_script", "search_path", "python", "check_python", "options", "max_concurrency", "cancel_grace",
    "required_env", "required_packages", "environment", "zygote", "max_frame_bytes", "capture_output",
)  # fmt: skip
"""Keys that a worker is started with: to follow a change of one of them it must be replaced."""


async def _dispose(worker: WorkerHandle | None) -> None:
    if worker is not None:
        worker.expected_end = True
        worker.kill()
        await worker.stop(0.0)


async def _not_ready_in_time(order: WorkerOrder, config: BridgeConfig, worker: WorkerHandle | None) -> WorkerStartError:
    text = f"worker {order.worker_id} was not ready within {config.start_timeout:g} s and was killed"
    cause = CrashCause.START_TIMEOUT.value
    details: dict[str, Any] = {"cause": cause, "worker_id": order.worker_id, "start_timeout": config.start_timeout}
    if worker is not None:
        worker.process.dump_stacks()
        await asyncio.sleep(DUMP_SECONDS)
        details |= {"pid": worker.process.pid, "state": str(worker.state), "stderr_tail": worker.process.tail.lines()}
    return WorkerStartError(text, details=details)

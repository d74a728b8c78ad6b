"""Faults, one method each, struck at the living workers of one host.

Nothing here needs the help of the bridge's code but `hang` and `eat_memory` of the mock bridge: signals, resource
limits, the worker's standard error and its socket are reached from outside. See `FAULTS` for the list.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import resource
import signal as signals
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, Literal, Self, TypeVar

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.calls import Call, loop_future
from manybridge.host.launcher import Launched, WorkerOrder
from manybridge.host.pool import Pool
from manybridge.host.worker import WorkerHandle, WorkerState
from manybridge.testing.chaos.injection import ChaosError, Injection
from manybridge.testing.chaos.parameters import parameter_problems
from manybridge.testing.chaos.store_faults import StoreFaults
from manybridge.testing.chaos.tapping import replace_untapped
from manybridge.testing.chaos.threads import in_thread
from manybridge.testing.chaos.wire import Damage, Direction, Order, Tap, Wire, WireFault

DeadlySignal = Literal["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM", "SIGBUS", "SIGILL"]
Found = TypeVar("Found")
HangMode = Literal["python", "swallow", "sleep", "c", "c_released"]
Way = Literal["to_worker", "to_host"]

LOOK_SECONDS: Final = 0.005
"""How often recovery is looked for: figures are that exact."""

PING_SECONDS: Final = 0.5
"""A worker that does not answer a ping within this is not well: its lane needs milliseconds."""

VICTIM_SECONDS: Final = 5.0
"""How long to wait for a worker that a fault can strike; starting one takes less."""

RECOVERY_SECONDS: Final = 30.0
"""Where nothing else is said: beyond every backoff but that of an open breaker."""

CHUNK: Final = b"chaos " * 10_922 + b"flood\n"
"""64 KiB of one line: what a worker's standard error takes at once."""


class Faults:
    """Injects faults into one host. Use it on the host's event loop, as `async with Faults(ml) as faults`.

    Each method strikes once and returns an `Injection`; `recovered` waits until all is well again. Which of several
    workers is struck is drawn from the seed, unless `worker` (a number, counted through the ready ones) says so.

    Args:
        ml: a host that was started. One at a time can have faults.
        seed: of the choice of workers.
    """

    def __init__(self, ml: AsyncMLBridge, *, seed: int = 0) -> None:
        self.launched: dict[int, str] = {}
        """Process id of each worker that was started since -> its id."""
        self._ml = ml
        self._choices = random.Random(f"{seed}/faults")  # noqa: S311  # repeatable, not secret
        self._store = StoreFaults(ml)
        self._wire: Wire | None = None
        self._taps: dict[int, Tap] = {}
        self._tapped: set[str] = set()
        self._slow: dict[str, tuple[int, float]] = {}
        self._running: set[asyncio.Task[Any]] = set()
        self._stopped: set[WorkerHandle] = set()
        self._pools = {name: ml.pool(name) for name in ml.bridges()}
        for pool in self._pools.values():
            if pool.supervisor.intercept is not None:
                raise ChaosError("this host has faults already; one Faults or Chaos at a time")
            pool.supervisor.intercept = self._intercept
            self.launched.update((worker.process.pid, worker.id) for worker in pool.workers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every fault and put everything back. Calling it again does nothing."""
        for worker in list(self._stopped):
            worker.process.signal_group(signals.SIGCONT)
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        await self._store.close()
        for pool in self._pools.values():
            pool.supervisor.intercept = None
        if self._wire is not None:
            self._wire.release()
            self._wire = None

    # ------------------------------------------------------------------ any fault

    async def inject(self, fault: str, bridge: str | None = None, **parameters: Any) -> Injection:
        """Inject a fault by its name in `FAULTS`.

        Raises:
            ChaosError: there is none of that name, a parameter is wrong, or it can't be had here.
        """
        kind = FAULTS.get(fault)
        if kind is None:
            raise ChaosError(f'there is no fault "{fault}"; known: {", ".join(FAULTS)}')
        if problems := list(parameter_problems(kind.inject, parameters)):
            raise ChaosError("\n".join(f"{fault}: {problem}" for problem in problems), details={"problems": problems})
        if kind.strikes == "store":
            return await kind.inject(self, **parameters)
        return await kind.inject(self, bridge, **parameters)

    async def recovered(self, injection: Injection, timeout: float = RECOVERY_SECONDS) -> float | None:
        """Wait until the fault is over and its bridge is whole: as many workers as configured, all answering.

        Returns:
            Seconds since the fault struck, or None if that takes longer than `timeout`.
        """
        try:
            async with asyncio.timeout(timeout):
                if injection.over is not None:
                    await asyncio.wait({injection.over})
                    await asyncio.sleep(0)  # what puts things back is called when it is over
                while not await self._is_well(injection):  # noqa: ASYNC110  # the kernel has no event for this
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            return None
        injection.recovered_in = monotonic() - injection.at
        return injection.recovered_in

    # ------------------------------------------------------------------ the process

    async def kill(
        self, bridge: str | None = None, *, signal: DeadlySignal = "SIGKILL", worker: int | None = None
    ) -> Injection:
        """End a worker with a signal."""
        victim = await self._victim(bridge, worker)
        injection = _struck("kill", victim, must_die=True, signal=signal)
        victim.process.signal_group(signals.Signals[signal])
        return injection

    async def stop(
        self, bridge: str | None = None, *, seconds: float | None = 1.0, worker: int | None = None
    ) -> Injection:
        """Stop a worker's process and let it go on later; it does not know that time has passed.

        A stopped worker is also what a hang in C of any bridge looks like from outside: it answers nothing, no signal
        but SIGKILL helps.

        Args:
            bridge: None for the default one.
            seconds: until it goes on; None for never.
            worker: which one.
        """
        victim = await self._victim(bridge, worker, needs_process=True)
        injection = _struck("stop", victim, must_die=seconds is None, seconds=seconds)
        victim.process.signal_group(signals.SIGSTOP)
        self._stopped.add(victim)
        if seconds is not None:
            self._while(injection, lambda: self._go_on_after(victim, seconds))
        return injection

    async def hang(
        self,
        bridge: str | None = None,
        *,
        mode: HangMode = "python",
        seconds: float = 1.0,
        command: str | None = None,
        args: dict[str, Any] | None = None,
        worker: int | None = None,
    ) -> Injection:
        """Make a call whose code does not come back, and give it `seconds` of time; then the host has to stop it.

        Args:
            bridge: None for the default one.
            mode: in Python code, in Python code that catches everything, in a blocking call, in C with the
                interpreter's lock held, or in C without it. For the mock bridge.
            seconds: the call's timeout.
            command: what to call in another bridge; it must not come back by itself.
            args: with what.
            worker: which one.
        """
        victim = await self._victim(bridge, worker)
        pool = self._pool(bridge)
        if command is None:
            command, args = self._mock_command(pool, "busy", "hang"), {"mode": mode, "seconds": 3600.0}
        injection = _struck("hang", victim, command=command, mode=mode, seconds=seconds)
        self._while(injection, lambda: self._call(pool, victim, command, args or {}, seconds, injection))
        return injection

    async def slow_start(
        self, bridge: str | None = None, *, seconds: float = 1.0, starts: int = 1, worker: int | None = None
    ) -> Injection:
        """Kill a worker, and have its next `starts` successors begin `seconds` late: they are stopped until then."""
        victim = await self._victim(bridge, worker)
        self._slow[self._pool(bridge).name] = (starts, seconds)
        injection = _struck("slow_start", victim, must_die=True, seconds=seconds, starts=starts)
        victim.process.signal_group(signals.SIGKILL)
        return injection

    async def eat_memory(
        self, bridge: str | None = None, *, mb: int = 64, seconds: float = 1.0, worker: int | None = None
    ) -> Injection:
        """Leave a worker with less memory for a while.

        The mock bridge takes that much and gives it back. Of every other bridge the address space is limited to what
        it has plus `mb`, so that an allocation beyond that fails as on a machine whose memory is used up.
        """
        victim = await self._victim(bridge, worker)
        pool = self._pool(bridge)
        eats = _is_mock(pool)
        if not eats:
            _check_process(victim)
        injection = _struck("eat_memory", victim, mb=mb, seconds=seconds, how="allocated" if eats else "limited")
        if eats:
            self._while(injection, lambda: self._allocate(pool, victim, mb, seconds))
        else:  # before we return: a call that allocates while we measure would raise the limit
            before = _limit_address_space(victim.process.pid, mb)
            self._while(injection, lambda: self._give_back(victim, before, seconds))
        return injection

    async def flood(self, bridge: str | None = None, *, mb: float = 4.0, worker: int | None = None) -> Injection:
        """Write `mb` megabytes to a worker's standard error, as a library that logs everything does."""
        victim = await self._victim(bridge, worker, needs_process=True)
        injection = _struck("flood", victim, mb=mb)
        self._while(injection, lambda: in_thread(lambda: _flood(victim.process.pid, int(mb * 1_000_000))))
        return injection

    # ------------------------------------------------------------------ the wire

    async def cut(
        self, bridge: str | None = None, *, direction: Way = "to_host", worker: int | None = None
    ) -> Injection:
        """Cut the connection in the middle of the next frame."""
        return await self._strike_wire("cut", bridge, worker, Order("cut", Direction(direction)), must_die=True)

    async def delay(
        self,
        bridge: str | None = None,
        *,
        direction: Way = "to_host",
        seconds: float = 0.1,
        frames: int = 10,
        worker: int | None = None,
    ) -> Injection:
        """Hold each of the next `frames` frames for `seconds`; their order stays."""
        order = Order("delay", Direction(direction), frames=frames, seconds=seconds)
        return await self._strike_wire("delay", bridge, worker, order)

    async def corrupt(
        self,
        bridge: str | None = None,
        *,
        direction: Way = "to_host",
        damage: Damage = "json",
        worker: int | None = None,
    ) -> Injection:
        """Damage the next frame so that no reader may take it for a good one: its JSON, or its length."""
        order = Order("corrupt", Direction(direction), damage=damage)
        return await self._strike_wire("corrupt", bridge, worker, order, must_die=True)

    async def reorder(
        self, bridge: str | None = None, *, direction: Way = "to_host", frames: int = 1, worker: int | None = None
    ) -> Injection:
        """Have a frame overtaken by the next one, `frames` times. Replies may come in any order; events may not."""
        return await self._strike_wire("reorder", bridge, worker, Order("reorder", Direction(direction), frames=frames))

    async def tap(self, bridge: str | None = None, *, every: bool = False) -> None:
        """Have the workers of a bridge started with a tap on their wire; replaces those that have none.

        Faults of the wire do it when they are first injected. Before a load it costs nobody anything.

        Args:
            bridge: None for the default one.
            every: wait until all workers have one and the replaced ones have ended, not only until one has.

        Raises:
            ChaosError: workers could not be replaced in time.
        """
        pool = self._pool(bridge)
        self._wire = self._wire or Wire()
        self._tapped.add(pool.name)
        await replace_untapped(pool, lambda worker: worker.process.pid in self._taps, every=every)

    # ------------------------------------------------------------------ the store

    async def store_locked(self, *, seconds: float = 1.0) -> Injection:
        """Hold the write lock of the SQLite file, as another program would."""
        return await self._store.lock(seconds)

    async def store_read_only(self, *, seconds: float = 1.0) -> Injection:
        """Have SQLite refuse to write."""
        return await self._store.read_only(seconds)

    async def store_removed(self, *, seconds: float = 1.0) -> Injection:
        """Move the files of the database away, and back."""
        return await self._store.remove(seconds)

    async def store_disconnected(self) -> Injection:
        """End every connection of manybridge to its PostgreSQL database, from the server's side."""
        return await self._store.disconnect()

    async def store_serves(self) -> bool:
        """Whether the store takes a write now."""
        return await self._store.serves()

    # ------------------------------------------------------------------ whom it strikes

    def _pool(self, bridge: str | None) -> Pool:
        return self._ml.pool(bridge)

    async def _victim(
        self, bridge: str | None, number: int | None, *, tapped: bool = False, needs_process: bool = False
    ) -> WorkerHandle:
        """Choose a ready worker; waits for one if there is none, and starts the bridge if nobody did."""
        pool = self._pool(bridge)
        pool.start()
        drawn = self._choices.randrange(1 << 16) if number is None else number
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(VICTIM_SECONDS):
                ready = await _until(lambda: self._strikable(pool, tapped))
                victim = ready[drawn % len(ready)]
                return _check_process(victim) if needs_process else victim
        raise ChaosError(f'bridge "{pool.name}" had no worker to strike for {VICTIM_SECONDS:g} s')

    def _strikable(self, pool: Pool, tapped: bool) -> list[WorkerHandle]:
        workers = [worker for worker in pool.ready if not tapped or worker.process.pid in self._taps]
        return sorted(workers, key=lambda worker: worker.generation)

    def _intercept(self, order: WorkerOrder, launched: Launched) -> Launched:
        """Called by a supervisor with each process that it has started."""
        pid = launched.process.pid
        self.launched[pid] = order.worker_id
        name = order.worker_id.rpartition("-")[0]
        starts, seconds = self._slow.get(name, (0, 0.0))
        if starts > 0:
            self._slow[name] = (starts - 1, seconds)
            launched.process.signal_group(signals.SIGSTOP)
            asyncio.get_running_loop().call_later(seconds, launched.process.signal_group, signals.SIGCONT)
        if name in self._tapped and self._wire is not None:
            self._taps[pid], ours = self._wire.tap(launched.sock)
            return launched._replace(sock=ours)
        return launched

    # ------------------------------------------------------------------ what goes on for a while

    def _while(self, injection: Injection, work: Callable[[], Awaitable[Any]]) -> None:
        async def run() -> None:
            try:
                await work()
            except (ManybridgeError, OSError) as error:  # its victim has gone, which ends a fault too
                injection.facts["ended_by"] = str(error)

        injection.over = asyncio.get_running_loop().create_task(run(), name=f"chaos: {injection.fault}")
        self._running.add(injection.over)
        injection.over.add_done_callback(self._running.discard)

    async def _go_on_after(self, victim: WorkerHandle, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await _until(lambda: victim.state is WorkerState.DEAD)
        victim.process.signal_group(signals.SIGCONT)
        self._stopped.discard(victim)

    @staticmethod
    async def _call(
        pool: Pool, victim: WorkerHandle, command: str, args: dict[str, Any], timeout: float, injection: Injection
    ) -> None:
        call = Call(command, args, loop_future(), timeout)
        call.target = victim
        try:
            await pool.run(call)
        except ManybridgeError as error:
            injection.facts["code"] = error.code
            injection.facts["stopped_by"] = error.details.get("stopped_by")

    @staticmethod
    async def _allocate(pool: Pool, victim: WorkerHandle, mb: int, seconds: float) -> None:
        for each, wait in ((mb, seconds), (0, 0.0)):
            call = Call("mock:allocate", {"mb": each}, loop_future(), RECOVERY_SECONDS)
            call.target = victim
            await pool.run(call)
            await asyncio.sleep(wait)

    @staticmethod
    async def _give_back(victim: WorkerHandle, limits: tuple[int, int], seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
        finally:
            if victim.process.status is None:
                resource.prlimit(victim.process.pid, resource.RLIMIT_AS, limits)

    async def _strike_wire(
        self, fault: WireFault, bridge: str | None, worker: int | None, order: Order, *, must_die: bool = False
    ) -> Injection:
        if self._pool(bridge).name not in self._tapped:
            await self.tap(bridge)
        victim = await self._victim(bridge, worker, tapped=True)
        injection = _struck(fault, victim, must_die=must_die, direction=order.direction.value)
        self._taps[victim.process.pid].order(order)

        async def until_struck() -> None:
            while not order.struck.is_set() and victim.state is not WorkerState.DEAD:
                victim.post("common:ping", {})  # so that there is a frame, on an idle connection too
                await asyncio.sleep(LOOK_SECONDS)
            injection.at = order.struck_at or injection.at

        self._while(injection, until_struck)
        return injection

    @staticmethod
    def _mock_command(pool: Pool, operation: str, fault: str) -> str:
        if _is_mock(pool):
            return f"{pool.name}:{operation}"
        raise ChaosError(
            f'the bridge "{pool.name}" has no command of ours for the fault {fault}: say which of its own with '
            "command = ... and args = {...}, or take the fault stop, which needs none"
        )

    # ------------------------------------------------------------------ recovery

    async def _is_well(self, injection: Injection) -> bool:
        victim = injection.victim
        if victim is None:
            return await self._store.serves()
        if injection.must_die and victim.state is not WorkerState.DEAD:
            return False
        pool = self._pool(injection.bridge)
        if len(pool.ready) < pool.config.pool_size:
            return False
        answers = await asyncio.gather(*(_answers(worker) for worker in list(pool.ready)))
        return all(answers) and len(pool.ready) >= pool.config.pool_size


Inject = Callable[..., Awaitable[Injection]]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault."""

    inject: Inject
    strikes: Literal["worker", "wire", "store"]

    @property
    def description(self) -> str:
        """What it does, in a line."""
        return (self.inject.__doc__ or "").strip().partition("\n")[0]


FAULTS: Final[dict[str, FaultKind]] = {
    "kill": FaultKind(Faults.kill, "worker"),
    "stop": FaultKind(Faults.stop, "worker"),
    "hang": FaultKind(Faults.hang, "worker"),
    "slow_start": FaultKind(Faults.slow_start, "worker"),
    "eat_memory": FaultKind(Faults.eat_memory, "worker"),
    "flood": FaultKind(Faults.flood, "worker"),
    "cut": FaultKind(Faults.cut, "wire"),
    "delay": FaultKind(Faults.delay, "wire"),
    "corrupt": FaultKind(Faults.corrupt, "wire"),
    "reorder": FaultKind(Faults.reorder, "wire"),
    "store_locked": FaultKind(Faults.store_locked, "store"),
    "store_read_only": FaultKind(Faults.store_read_only, "store"),
    "store_removed": FaultKind(Faults.store_removed, "store"),
    "store_disconnected": FaultKind(Faults.store_disconnected, "store"),
}
"""Every fault, by the name that scenarios use. Keyword arguments of the methods are its parameters."""


def _struck(fault: str, victim: WorkerHandle, *, must_die: bool = False, **facts: Any) -> Injection:
    told = {"worker": victim.id, "pid": victim.process.pid, **facts}
    bridge = victim.id.rpartition("-")[0]
    return Injection(fault, bridge, told, victim=victim, must_die=must_die)


def _check_process(victim: WorkerHandle) -> WorkerHandle:
    """Never strike the process that we are in."""
    if victim.process.pid == os.getpid():
        raise ChaosError(
            f"worker {victim.id} runs inside this process (an in-memory host): this fault needs a real one"
        )
    return victim


def _is_mock(pool: Pool) -> bool:
    return (pool.config.reference or pool.name) == "mock"


async def _until(look: Callable[[], Found]) -> Found:
    while not (found := look()):  # noqa: ASYNC110  # pools tell nobody; the hot path must not pay for us
        await asyncio.sleep(LOOK_SECONDS)
    return found


async def _answers(worker: WorkerHandle) -> bool:
    try:
        async with asyncio.timeout(PING_SECONDS):
            await worker.control("common:ping", {})
    except (TimeoutError, ManybridgeError):
        return False
    return True


def _limit_address_space(pid: int, mb: int) -> tuple[int, int]:
    """Leave a process what it has and `mb` more; returns its limits before."""
    _, hard = before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (_address_space(pid) + mb * 2**20, hard))
    return before


def _address_space(pid: int) -> int:
    """Bytes of address space that a process has."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:  # noqa: PTH123  # a file of the kernel
        return int(file.read().split()[0]) * resource.getpagesize()


def _flood(pid: int, size: int) -> None:
    """Write to a process's standard error from outside: its descriptor is a file to us."""
    fd = os.open(f"/proc/{pid}/fd/2", os.O_WRONLY)
    try:
        while size > 0:
            size -= os.write(fd, CHUNK[:size])
    finally:
        os.close(fd)

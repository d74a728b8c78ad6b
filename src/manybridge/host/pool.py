"""The pool of one bridge: who gets which worker, and what happens to calls when a worker dies.

Theory of operation. A call is *queued* until a worker has room, then *sent*. Workers that run one call at a time may
still have several calls, when their last ones were short: that hides the way between the two processes. Workers tell
the pool about replies and deaths through the methods of `WorkerOwner`; the supervisor starts and replaces workers and
tells the pool when one is ready. Everything happens on one event loop, so there is no lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from math import inf
from time import monotonic
from typing import Any, Final

from manybridge.errors import (
    CallCancelledError,
    CallTimeoutError,
    ClosedError,
    ManybridgeError,
    OverloadedError,
    WorkerCrashedError,
)
from manybridge.host.calls import Call, CallStage, StopReason
from manybridge.host.causes import cause_of
from manybridge.host.config import BridgeConfig
from manybridge.host.deadlines import DeadlineWatch
from manybridge.host.death import crash_error
from manybridge.host.guardian import Guardian
from manybridge.host.launcher import WorkerPlan
from manybridge.host.own_requests import error_of
from manybridge.host.quarantine import Quarantine
from manybridge.host.stats import PoolStats
from manybridge.host.supervisor import Supervisor
from manybridge.host.tasks import TaskSet
from manybridge.host.tools import run_tool
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.messages import ErrorReply, Event, Reply

_log = logging.getLogger("manybridge.host")

STOP_GRACE: Final = 2.5
"""Seconds that an idle worker may take to close its bridge; the worker itself cuts that off after 2."""

LONGEST_RETRY_HINT: Final = 60.0


class WorkerGoneError(WorkerCrashedError):
    """The one worker that a call was meant for has gone before it began. Whoever chose the worker chooses again."""


class Pool:
    """Owner of the queue and of the set of workers of one bridge.

    Args:
        name: of the bridge.
        config: its checked configuration.
        guardian: is told of every worker.
        plan: how workers are started; made from the configuration if left out.
    """

    def __init__(self, name: str, config: BridgeConfig, guardian: Guardian, *, plan: WorkerPlan | None = None) -> None:
        self.name = name
        self.config = config
        self.workers: list[WorkerHandle] = []
        """Every worker that has not ended."""
        self.ready: list[WorkerHandle] = []
        """Those that take calls."""
        self.stats = PoolStats()
        self.closing = False
        self.idempotent: frozenset[str] = frozenset()
        """Operations that may be repeated, as the newest worker says."""
        self.session_settings: frozenset[str] | None = None
        """Operations that configure a session, as the newest worker says; None before there was one."""
        self.changes: Mapping[str, str] = {}
        """Operations that change a resource, with the argument that has its id; as the newest worker says."""
        self.special: set[str] = set()
        """Commands that are more than a call to a worker. The pools of one host share it."""
        self.worker_gone: list[Callable[[WorkerHandle], None]] = []
        """Told of each worker that takes no calls any more."""
        self.tasks = TaskSet()
        self.guardian = guardian
        self.supervisor = Supervisor(self, plan or WorkerPlan(name, config))
        self.new_future: Callable[[], asyncio.Future[Any]] = asyncio.get_running_loop().create_future
        """Where the answer of a call that is made on the pool's own loop can go."""
        self._queue: deque[Call] = deque()
        self._pinned_waiting = 0
        self._sequence = count(1)
        self._deadlines = DeadlineWatch(self.open_calls, self._expired)
        self.quarantine = Quarantine(config.restart.window)
        self._idle: asyncio.Future[None] | None = None
        self._ready_waiters: set[asyncio.Future[None]] = set()

    # ------------------------------------------------------------------ calls

    @property
    def waiting(self) -> int:
        """How many calls wait for a worker."""
        return len(self._queue) + self._pinned_waiting

    @property
    def running(self) -> int:
        """How many calls workers have."""
        return sum(len(worker.calls) for worker in self.workers)

    @property
    def is_quiet(self) -> bool:
        """Whether no call is open and no worker is on its way."""
        return not (self._queue or self._pinned_waiting or self.tasks or any(worker.calls for worker in self.workers))

    async def run(self, call: Call) -> Any:
        """Submit a call whose future belongs to the running loop, and wait for its answer.

        Raises:
            ManybridgeError: the call failed.
            asyncio.CancelledError: the caller was cancelled; the call is being stopped.
        """
        future = call.future  # the call may get another one
        self.submit(call)
        try:
            return await future  # type: ignore[misc]  # an asyncio.Future here, by contract
        except asyncio.CancelledError:
            self.stop_call(call, "cancelled")
            raise

    def submit(self, call: Call) -> None:
        """Take a call. Its future gets the answer, in any case."""
        if self.closing:
            self.call_failed(call, ClosedError(f'bridge "{self.name}" is closed'))
        elif self.quarantine.suspects and (error := self.quarantine.examine(call)) is not None:
            self.call_failed(call, error)
        elif call.target is not None:
            self._submit_to(call.target, call)
        elif not self._queue and (worker := self._least_busy()) is not None:
            if self._send(worker, call):
                worker.look_out()
        else:
            self._enqueue(call, self._queue)

    def stop_call(self, call: Call, reason: StopReason) -> None:
        """Stop a call wherever it is; its future gets the error when the work has ended."""
        if call.stage is CallStage.QUEUED:
            call.stop_reason = reason
            self._unqueue(call)
            self.call_failed(call, call.stopped_error())
        elif call.worker is not None:
            call.worker.stop_call(call, reason)

    def _submit_to(self, worker: WorkerHandle, call: Call) -> None:
        if not worker.is_ready:
            self.call_failed(call, _gone(worker))
        elif not worker.pinned and len(worker.calls) < worker.capacity:
            self._send(worker, call)
        else:
            self._enqueue(call, worker.pinned)

    def _least_busy(self) -> WorkerHandle | None:
        best, least = None, 1 << 30
        for worker in self.ready:
            load = len(worker.calls)
            if load < least and load < worker.capacity:
                if not load:
                    return worker
                best, least = worker, load
        return best

    def _send(self, worker: WorkerHandle, call: Call) -> bool:
        """Give a call to a worker. Returns whether its answer may come at once."""
        try:
            is_brief = worker.send(call)
        except ManybridgeError as error:
            self.call_failed(call, error)
            return False
        if call.deadline < self._deadlines.next:
            self._deadlines.announce(call.deadline)
        return is_brief

    def open_calls(self) -> Iterator[Call]:
        """Every call that has no answer yet: first those that wait for any worker, in their order."""
        yield from self._queue
        for worker in self.workers:
            yield from worker.pinned
            yield from worker.calls.values()

    # ------------------------------------------------------------------ the queue

    def _enqueue(self, call: Call, queue: deque[Call]) -> None:
        if not self.ready and call.target is None and (refusal := self.supervisor.wanted()) is not None:
            self.call_failed(call, refusal)
            return
        config = self.config
        if len(self._queue) + self._pinned_waiting >= config.max_queue and not call.of_host:
            self.call_failed(call, self._overloaded(f"{self.waiting} calls wait already"))
            return
        call.sequence = next(self._sequence)
        if config.queue_timeout is not None and not call.of_host:
            call.queue_expires = monotonic() + config.queue_timeout
        queue.append(call)
        self._deadlines.announce(call.due)
        if call.target is not None:
            self._pinned_waiting += 1
        if config.max_overflow:
            self.supervisor.maybe_overflow()

    def _unqueue(self, call: Call) -> None:
        if call.target is not None:
            call.target.pinned.remove(call)
            self._pinned_waiting -= 1
        else:
            self._queue.remove(call)

    def _next_for(self, worker: WorkerHandle) -> Call | None:
        queue, pinned = self._queue, worker.pinned
        if pinned and (not queue or pinned[0].sequence < queue[0].sequence):
            self._pinned_waiting -= 1
            return pinned.popleft()
        return queue.popleft() if queue else None

    def _dispatch(self, worker: WorkerHandle) -> None:
        # With several workers each takes its share of a short queue, so that none sits idle behind another's calls.
        share = -(-len(self._queue) // max(1, len(self.ready))) + len(worker.pinned)
        queue, pinned, calls = self._queue, worker.pinned, worker.calls
        while len(calls) < worker.capacity and share > 0:
            call = self._next_for(worker) if pinned or not queue else queue.popleft()
            if call is None:
                return
            share -= 1
            self._send(worker, call)

    def _expired(self, call: Call) -> None:
        if call.stage is CallStage.QUEUED and monotonic() < call.deadline:
            self._unqueue(call)
            self.call_failed(call, self._overloaded(f"no worker was free within {self.config.queue_timeout:g} s"))
        else:
            self.stop_call(call, "timeout")

    def _overloaded(self, reason: str) -> OverloadedError:
        serving = [worker.pace.service_time for worker in self.ready if worker.pace.service_time != inf]
        each = sum(serving) / len(serving) if serving else 1.0
        hint = min(LONGEST_RETRY_HINT, max(0.05, each * (self.waiting + 1) / max(1, len(self.ready))))
        details = {
            "bridge": self.name,
            "retry_after": round(hint, 3),
            "waiting": self.waiting,
            "running": self.running,
            "workers": len(self.ready),
        }
        return OverloadedError(f'bridge "{self.name}" is overloaded: {reason}', details=details)

    def fail_waiting(self, error: Callable[[], ManybridgeError]) -> None:
        """Fail every call that waits for any worker: none will come."""
        queue = list(self._queue)
        self._queue.clear()
        for call in queue:
            self.call_failed(call, error())

    # ------------------------------------------------------------------ what workers tell (WorkerOwner)

    def call_ended(self, worker: WorkerHandle, call: Call, message: Reply | ErrorReply, now: float) -> None:
        """A reply came."""
        if type(message) is Reply:
            self.stats.succeeded += 1
            self.stats.latencies.append(now - call.created_at)
            call.succeed(message.result)
        elif call.stage is not CallStage.DONE:
            assert type(message) is ErrorReply
            error = error_of(message)
            if call.recalled and call.stop_reason is None and error.details.get("stopped_by") == "queue":
                self._requeue(call)
                return
            stopped = type(error) in {CallTimeoutError, CallCancelledError} and "stopped_by" in error.details
            self.call_failed(call, _stopped(call, worker, error) if stopped else error)

    def call_failed(self, call: Call, error: ManybridgeError) -> None:
        """A call is over, with this error."""
        self.stats.fail(error)
        call.fail(error)

    def has_room(self, worker: WorkerHandle) -> None:
        """Replies came."""
        if self._queue or worker.pinned:
            self._dispatch(worker)
            if self._queue and len(self.ready) > 1:
                self.serve_waiting()  # what came back from this one is for the others
        worker.finish_drain()
        self.supervisor.worker_served(worker)
        if self._idle is not None and not self.running and not self.waiting:
            self._idle.set_result(None)
            self._idle = None

    def is_stuck(self, worker: WorkerHandle) -> None:
        """Its calls behind the first one come back, if another worker can take them."""
        if any(not other.calls for other in self.ready):
            worker.pace.recall()

    def tool_requested(self, worker: WorkerHandle, call: Call, event: Event) -> None:
        """A handler calls a tool of its caller; it runs beside everything else."""
        self.tasks.start(run_tool(worker, call, event.data), f"tool {event.data.get('tool')}")

    def poisoned(self, worker: WorkerHandle) -> None:
        """It will be killed; its replacement starts now."""
        self.withdraw(worker)
        self.supervisor.ensure()

    def died(self, worker: WorkerHandle) -> None:
        """Its calls get their answers, or another worker."""
        self.withdraw(worker)
        if worker in self.workers:
            self.workers.remove(worker)
        self.guardian.forget(worker.process.pid)
        begun = worker.begun_calls()
        calls = list(worker.calls.values())
        worker.calls.clear()
        if not worker.expected_end and begun:
            guilty = [call for call in begun if call.stop_reason is None and call.stage is not CallStage.DONE]
            self.quarantine.blame(guilty, cause_of(worker.fatal or crash_error(worker)), monotonic())
        for call in reversed(calls):
            self._bereaved(worker, call, call in begun)
        self.supervisor.worker_died(worker)
        self.serve_waiting()
        if self._idle is not None and not self.running and not self.waiting:
            self._idle.set_result(None)
            self._idle = None

    # ------------------------------------------------------------------ workers come and go

    def worker_ready(self, worker: WorkerHandle) -> None:
        """The supervisor has a worker for us."""
        self.ready.append(worker)
        self.idempotent, self.session_settings = worker.idempotent, worker.session_settings
        self.changes = worker.changes
        for operation in worker.changes:  # a blocking client asks before it has put the namespace in front
            self.special |= {operation, f"{self.name}:{operation}"}
        self.stats.started += 1
        self._dispatch(worker)
        if len(self.ready) >= self.config.pool_size:
            for waiter in self._ready_waiters:
                _settle(waiter, None)

    def not_ready(self, error: ManybridgeError) -> None:
        """The supervisor could not start a worker."""
        for waiter in self._ready_waiters:
            _settle(waiter, error.copy())
        if not self.ready and not self.supervisor.starting:
            self.fail_waiting(error.copy)

    async def wait_ready(self, timeout: float | None) -> None:
        """Wait until the whole pool is ready.

        Raises:
            ManybridgeError: a worker could not be started.
            TimeoutError: not within `timeout` seconds.
        """
        refusal = self.supervisor.wanted()
        if refusal is not None:
            raise refusal
        if len(self.ready) >= self.config.pool_size:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._ready_waiters.add(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        finally:
            self._ready_waiters.discard(waiter)

    def withdraw(self, worker: WorkerHandle) -> None:
        """Give a worker no more calls. Those that wait for it, and for no other, are told."""
        if worker not in self.ready:
            return
        self.ready.remove(worker)
        for told in self.worker_gone:
            told(worker)
        pinned = list(worker.pinned)
        worker.pinned.clear()
        self._pinned_waiting -= len(pinned)
        for call in pinned:
            self.call_failed(call, _gone(worker))

    def _bereaved(self, worker: WorkerHandle, call: Call, begun: bool) -> None:
        if call.stage is CallStage.DONE:
            return
        if call.stop_reason is not None:
            self.stats.killed += worker.expected_end and begun
            if call.stopped_by == "queue" and begun:
                call.stopped_by = "sigkill"  # it died on its own while it was asked to stop
            self.call_failed(call, call.stopped_error(**worker.facts(), stderr_tail=worker.process.tail.lines()))
        elif begun:
            self.call_failed(call, worker.fatal or crash_error(worker))
        elif call.target is not None:
            self.call_failed(call, _gone(worker))
        else:
            self._requeue(call)

    def _requeue(self, call: Call) -> None:
        self.stats.requeued += 1
        call.stage, call.worker, call.sequence, call.sent_at = CallStage.QUEUED, None, 0, None
        call.queue_expires = inf  # it has had its turn; only its deadline counts
        self._queue.appendleft(call)

    def serve_waiting(self) -> None:
        """Give waiting calls to workers with room; fail them if there is no worker and none will come."""
        for worker in list(self.ready):
            if not self._queue:
                return
            self._dispatch(worker)
        if self._queue and (refusal := self.supervisor.wanted()) is not None:
            self.fail_waiting(refusal.copy)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Begin to start workers; calls may come at once, and wait."""
        self.supervisor.start()

    async def close(self, drain: float = 0.0) -> None:
        """Take no more calls, let those that there are end for at most `drain` seconds, and end every worker."""
        if self.closing:
            return
        self.closing = True
        self.supervisor.closing()
        if drain > 0 and (self.running or (self.waiting and self.ready)):
            self._idle = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._idle}, timeout=None if drain == inf else drain)
            self._idle = None
        self.not_ready(ClosedError(f'bridge "{self.name}" is closed'))
        self.fail_waiting(lambda: ClosedError(f'bridge "{self.name}" is closed'))
        await self.supervisor.close()
        busy = [worker for worker in self.workers if worker.calls]
        for worker in busy:
            worker.expected_end = True
            worker.kill(ClosedError(f'bridge "{self.name}" was closed while the call ran'))
        async with asyncio.TaskGroup() as group:
            for worker in list(self.workers):
                # One that has not become ready has nothing to close; waiting would be for the end of its import.
                group.create_task(worker.stop(STOP_GRACE if worker.was_ready else 0.0))
        await self.tasks.cancel()
        self._deadlines.close()

    def describe(self) -> dict[str, Any]:
        """Return the counters, the queue and the workers."""
        return {
            **self.stats.describe(),
            "waiting": self.waiting,
            "running": self.running,
            "workers": len(self.ready),
            "pool_size": self.config.pool_size,
            "zygote": self.supervisor.zygote_facts(),
        }


def _settle(waiter: asyncio.Future[None], error: ManybridgeError | None) -> None:
    if waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)


def _stopped(call: Call, worker: WorkerHandle, error: ManybridgeError) -> ManybridgeError:
    """The worker's own report that it stopped a call, in the host's words: which call, and after how long."""
    call.stop_reason = call.stop_reason or ("timeout" if isinstance(error, CallTimeoutError) else "cancelled")
    call.stopped_by = error.details["stopped_by"]
    told = call.stopped_error(**worker.facts())
    told.details |= error.details
    told.framework, told.traceback = error.framework, error.traceback
    return told


def _gone(worker: WorkerHandle) -> WorkerGoneError:
    return WorkerGoneError(f"worker {worker.id} has gone before the call began", details={"worker_id": worker.id})

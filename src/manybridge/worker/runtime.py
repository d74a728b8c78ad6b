"""The worker: joins intake, lane, executor, outbox and bridge, and runs the calls.

The parts, in the order in which a call meets them::

    lane       who reads the input            intake      where a message goes
    commands   the code behind a command      executor    the thread or loop that it runs on
    interrupt  how it is stopped              stopping    when
    answers    which reply it gets            outbox      how that is written
    lifecycle  signals and the process's end
"""

from __future__ import annotations

import argparse
from collections import deque
from time import monotonic, time
from typing import Any, Final

from manybridge.bridge import Bridge, Cancelled, WorkerInfo
from manybridge.bridge.progress import running_call, serve_threads
from manybridge.protocol.connection import WorkerConnection
from manybridge.protocol.messages import Request, is_message_id
from manybridge.worker import auto_progress
from manybridge.worker.answers import Answers
from manybridge.worker.calls import RUNNING, CallTable, Stage, WorkerCall
from manybridge.worker.commands import CommandRunner
from manybridge.worker.control import ControlCommands
from manybridge.worker.executor import ThreadPool
from manybridge.worker.host_calls import HostCalls
from manybridge.worker.intake import Intake
from manybridge.worker.interrupt import Interrupter, Terminated
from manybridge.worker.lane import Lane
from manybridge.worker.lifecycle import Lifecycle
from manybridge.worker.loader import STARTING, Loader, LoadState
from manybridge.worker.outbox import Outbox
from manybridge.worker.process import die_with_parent, exit_now
from manybridge.worker.session_settings import SessionSettings
from manybridge.worker.stdio import ProtocolDescriptors
from manybridge.worker.stopping import StopLadder
from manybridge.worker.version1 import Version1

SHORT_CALL_SECONDS: Final = 0.001
"""After a call shorter than this, the next one's reply is worth waiting for, so that both share a write."""

LOOK_SECONDS: Final = 0.1
"""How often a worker that only waits for its last calls looks whether somebody still wants them."""


class Runtime:
    """One worker process. Owner of the queue.

    Args:
        arguments: see `options.parse`.
        options: the bridge's options.
        descriptors: where the protocol is, after `take_stdio`.
        parent: process id of who started us, or None if its death is watched by somebody else (a zygote's child).
        bridge_class: already imported by a zygote, or None.
    """

    def __init__(
        self,
        arguments: argparse.Namespace,
        options: dict[str, Any],
        descriptors: ProtocolDescriptors,
        *,
        parent: int | None,
        bridge_class: type[Bridge] | None = None,
    ) -> None:
        self.info = WorkerInfo(arguments.worker_id, arguments.mode, arguments.generation, time(), arguments.sandbox)
        self.loader = Loader(arguments.bridge, options, self.info, bridge_class)
        self.loader.find_class()
        self.connection = WorkerConnection(arguments.max_frame_bytes)
        self.calls = CallTable()
        self._arguments = arguments
        self._parent = parent if arguments.mode != "standalone" else None
        self._queue: deque[WorkerCall] = deque()
        self._load_requested = False
        self._last_duration = 1.0
        self._threads: ThreadPool | None = None
        self._interrupter = Interrupter()
        self._lane = Lane(
            descriptors.input,
            receive=self._receive,
            end_of_input=self._end_of_input,
            tick=self._tick,
            in_frame=lambda: self.connection.buffered_bytes > 0,
            nudged=self._nudged,
            failed=self._fail,
        )
        self._lifecycle = Lifecycle(descriptors, self._interrupter, self._lane.nudge_fd)
        self._outbox = Outbox(
            descriptors.output, self.connection, self._interrupter, self._lane.wake, lambda: exit_now(0)
        )
        self.host_calls = HostCalls(self._outbox, self._lane.attend)
        self._ladder = StopLadder(
            arguments.cancel_grace_ms / 1000,
            interrupt=self._interrupter.interrupt,
            stopped_in_queue=self._stopped_in_queue,
            give_up=None if arguments.mode == "host" else self._give_up,
        )
        control = ControlCommands(self)
        self._session_settings = SessionSettings()
        self.runner = CommandRunner(
            self.loader, arguments.name, control.find, self.concurrency, self._session_settings.forget
        )
        self._take = self._take_first
        """Takes a call from the queue; replaced as soon as nothing has to be decided for each."""
        self._perform = self.runner.run
        """Runs a command; replaced by what looks for the session's settings as soon as there are any."""
        self.answers = Answers(self._outbox, self.calls, self.loader, self.runner)
        self.intake = Intake(
            self.connection,
            control,
            self.answers,
            new_call=self._new_call,
            enqueue=self._enqueue,
            serve=self._serve,
            answered=self._request_load,
        )
        self._learn_dialect()
        serve_threads(self._sole_call)
        auto_progress.install()

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """Serve until the client goes away, then end the process."""
        keeps_going = self.intake.version1 is not None and self.info.mode == "standalone"  # as DSPex's script does
        self._lifecycle.begin(ignore_signals=keeps_going, forked=self._outbox.abandon)
        try:
            self._serve_all()
        except Terminated:
            pass
        except BaseException as error:  # noqa: BLE001  # a process border
            self._lifecycle.fail(error)
        self._lifecycle.end(self._close)

    def _serve_all(self) -> None:
        while not self._lifecycle.terminating:
            if self._queue:
                with self._lane:
                    self._drain_queue()
            elif self.intake.closing or self._lane.closed:
                if not self.calls or (self._lane.closed and self._lifecycle.output_hung_up()):
                    return
                with self._lane:
                    self.calls.wait_for_change(LOOK_SECONDS)
            elif self._load_requested and self.loader.state is STARTING:
                with self._lane:
                    self._load()
            else:
                self._lane.read_once()

    def _drain_queue(self) -> None:
        queue, lifecycle, take = self._queue, self._lifecycle, self._take
        while queue and not lifecycle.terminating:
            call = queue.popleft()
            try:
                take(call)
            except Cancelled:  # an interrupt that fell between two statements of ours
                self.answers.stopped(call)

    def _close(self) -> None:
        self._outbox.flush()
        bridge = self.loader.bridge
        if bridge is not None and self.loader.state is LoadState.READY:
            self.runner.close_resources()
            bridge.close()

    def _receive(self, data: bytes) -> None:
        self.intake.receive(data)

    def _nudged(self, numbers: bytes) -> None:
        self._lifecycle.nudged(numbers)

    def _fail(self, error: BaseException) -> None:
        self._lifecycle.fail(error)

    def _end_of_input(self) -> None:
        self.connection.receive_eof()
        self.host_calls.end_of_input()
        self._exit_if_alone()

    def _exit_if_alone(self) -> None:
        """End at once, in the middle of a call or an import, if nobody is there to take a reply."""
        if self._lane.closed and self._lane.busy and self._lifecycle.output_hung_up():
            exit_now(0)

    def _stopped_in_queue(self, call: WorkerCall) -> None:
        self.answers.stopped(call)

    def _give_up(self, call: WorkerCall) -> None:
        """Nobody else can stop this code: answer for it and end the process with everything that it started."""
        if self.answers.stopped(call, stopped_by="exit"):
            for other in self.calls.all():
                self.answers.ended_with_worker(other, call)
            exit_now(1)

    # ------------------------------------------------------------------ what control commands ask

    def is_idle(self) -> bool:
        """Whether nobody waits for an answer."""
        return not self._queue and not self.calls

    def queued_calls(self) -> int:
        """How many calls wait."""
        return len(self.calls.in_stage(Stage.QUEUED))

    def _sole_call(self) -> WorkerCall | None:
        """The call that code on a thread of its own belongs to, where that is certain."""
        running = self.calls.in_stage(RUNNING)
        return running[0] if len(running) == 1 else None

    def concurrency(self) -> int:
        """How many calls run at a time."""
        asked = self._arguments.max_concurrency
        found = self.loader.bridge_class
        return int(asked or (found.max_concurrency if found is not None else 1))

    def bridge_facts(self, method: str) -> dict[str, Any]:
        """What the bridge adds to ping or stats; a bridge that fails there does not fail the ping."""
        if self.loader.bridge is None or self.loader.state is not LoadState.READY:
            return {}
        try:
            return dict(getattr(self.loader.bridge, method)())
        except (Exception, SystemExit) as error:  # noqa: BLE001  # a border: user code
            return {f"{method}_error": type(error).__qualname__}

    def cancel(self, id: Any) -> bool:
        """Put a call onto the stop ladder. False if there is no such call."""
        call = self.calls.find(id) if is_message_id(id) else None
        if call is None or call.stage is Stage.DONE:
            return False
        self._ladder.request_stop(call, "cancelled", monotonic())
        self._lane.wake()
        return True

    def configure_session(self, session_id: str, settings: dict[str, Any]) -> None:
        """Have the calls of a session from now on run with these settings. On the reader's thread."""
        self._session_settings.keep(session_id, settings)
        self._perform = self._perform_in_session

    def recall(self, id: Any) -> bool:
        """Give a call back that has not begun. False if it has, or if there is no such call."""
        call = self.calls.find(id) if is_message_id(id) else None
        return call is not None and self._ladder.recall(call)

    # ------------------------------------------------------------------ input, on the reader's thread

    def _new_call(self, request: Request) -> WorkerCall:
        return WorkerCall(request, self.connection.version > 1 or request.is_extended, self._outbox, self.host_calls)

    def _enqueue(self, call: WorkerCall) -> None:
        self.calls.add(call)
        if self._threads is not None and not self.intake.is_plain(call.request.command):
            self._threads.submit(lambda: self._serve(call))
        else:
            self._queue.append(call)
        if call.deadline is not None and call.deadline < self._lane.next_look:
            self._lane.watch_until(call.deadline)

    def _request_load(self) -> None:
        self._load_requested = self._load_requested or self._arguments.load == "eager"

    # ------------------------------------------------------------------ serving, on the executing thread

    def _take_first(self, call: WorkerCall) -> None:
        """Serve a call from the queue here, or hand it to the threads of a concurrent bridge."""
        if self.loader.state is STARTING and not self.intake.is_plain(call.request.command):
            self._load()
        if self._threads is not None and not self.intake.is_plain(call.request.command):
            self._threads.submit(lambda: self._serve(call))
        else:
            self._serve(call)

    def _load(self) -> None:
        self.loader.load()
        self._learn_dialect()
        if self.concurrency() > 1:
            self._threads = ThreadPool(self.concurrency())
        else:
            self._take = self._serve
        self._watch_parent()  # before there is user code that could keep the interpreter from us

    def _learn_dialect(self) -> None:
        found = self.loader.bridge_class
        if found is not None and found.dialect == "dspex" and self.intake.version1 is None:
            self.connection.lenient = True
            self.intake.version1 = Version1(self)

    def _serve(self, call: WorkerCall) -> None:
        begun = monotonic()
        if call.deadline is not None and begun >= call.deadline:
            self._ladder.request_stop(call, "timeout", begun)
        if not call.claim(RUNNING):
            return
        call.started_at = begun
        result, failure = self._run(call)
        self._last_duration = monotonic() - begun
        if failure is None and call.stop_reason is None:
            hold = self._last_duration < SHORT_CALL_SECONDS and self._next_is_alike(call)
            self.answers.succeeded(call, result, hold=hold)
        else:
            self.answers.finish(call, result, failure)
        self._request_load()

    def _next_is_alike(self, call: WorkerCall) -> bool:
        # A held reply is lost if the next call ends the process, and the host can't know then which of the two had
        # begun. Calls of one command share that risk; another command's reply is never put at it.
        queue = self._queue
        try:
            return bool(queue) and queue[0].request.command == call.request.command
        except IndexError:  # this is a thread of the pool, and the main thread took the next call just now
            return False

    def _run(self, call: WorkerCall) -> tuple[Any, BaseException | None]:
        """The border between user code and the worker."""
        result: Any = None
        failure: BaseException | None = None
        running_call.set(call)
        try:
            try:
                self._interrupter.arm(call)
                request = call.request
                command = request.command
                if self.intake.version1 is not None:
                    call.plain = self.intake.is_plain(command)
                if call.plain or ":" not in command:
                    result = self._perform_deprecated(call)
                else:
                    result = self._perform(call, command, request.args)
            finally:
                self._interrupter.disarm()
        except Terminated:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever user code raises
            self._interrupter.disarm()
            failure = error
        if self._lifecycle.has_forked:
            self._lifecycle.leave_fork(failure)
        return result, failure

    def _perform_deprecated(self, call: WorkerCall) -> Any:
        self.answers.counters.deprecated += 1
        if call.plain:
            assert self.intake.version1 is not None
            return self.intake.version1.perform(call)
        return self._perform(call, call.request.command, call.request.args)

    def _perform_in_session(self, call: WorkerCall, command: str, args: dict[str, Any]) -> Any:
        bridge = self.loader.bridge
        if bridge is not None and self.loader.state is LoadState.READY:
            self._session_settings.apply(call, bridge)
        return self.runner.run(call, command, args)

    # ------------------------------------------------------------------ the clock, on the watch thread

    def _tick(self, now: float) -> float | None:
        self._watch_parent()
        self._exit_if_alone()
        due = [
            self._lifecycle.seconds_left(now),
            self._outbox.flush_due(now),
            *(self._ladder.advance(call, now) for call in self.calls.all()),
        ]
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _watch_parent(self) -> None:
        parent, self._parent = self._parent, None
        if parent is not None:
            die_with_parent(parent)

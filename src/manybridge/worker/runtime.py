"""The worker: joins lane, executor, outbox and bridge, and owns the open calls."""

from __future__ import annotations

import argparse
import select
import signal
import sys
import threading
from collections import deque
from time import monotonic, time
from types import FrameType
from typing import Any, Final

from manybridge.bridge import Bridge, Cancelled, WorkerInfo
from manybridge.protocol.connection import WorkerConnection
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import ErrorInfo, Malformed, MessageId, Request
from manybridge.worker.calls import Stage, WorkerCall
from manybridge.worker.commands import CommandRunner, common_operation
from manybridge.worker.control import ControlCommands
from manybridge.worker.executor import ThreadPool
from manybridge.worker.failures import describe
from manybridge.worker.host_calls import HostCalls
from manybridge.worker.interrupt import Interrupter
from manybridge.worker.lane import Lane
from manybridge.worker.loader import Loader, LoadState
from manybridge.worker.outbox import Outbox
from manybridge.worker.process import die_with_parent, enable_crash_reports, exit_now, lead_own_group
from manybridge.worker.stdio import ProtocolDescriptors
from manybridge.worker.stopping import StopLadder
from manybridge.worker.version1 import Version1, error_text

CLOSE_SECONDS: Final = 2.0
"""What `Bridge.close` may take when the worker ends. A host waits longer than that before it kills."""

SHORT_CALL_SECONDS: Final = 0.001
"""After a call shorter than this, the next one's reply is worth waiting for, so that both share a write."""


class Terminated(BaseException):
    """SIGTERM arrived: unwind, close the bridge, exit."""


class Counters:
    """What this worker has done so far. Written by the thread that finishes a call."""

    __slots__ = ("calls", "deprecated", "errors")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        self.deprecated = 0


class Runtime:
    """One worker process. Owner of the open calls and the queue.

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
        self.info = WorkerInfo(arguments.worker_id, arguments.mode, arguments.generation, time())
        self.loader = Loader(arguments.bridge, options, self.info, bridge_class)
        self.loader.find_class()
        self.counters = Counters()
        self.closing = False
        """Set when no further call is taken; the worker ends when the queue is empty."""
        self._arguments = arguments
        self._parent = parent
        self._output = descriptors.output
        self._queue: deque[WorkerCall] = deque()
        self._open: dict[MessageId, WorkerCall] = {}
        self._load_requested = False
        self._terminating = False
        self._last_duration = 1.0
        self._threads: ThreadPool | None = None
        dspex = self.loader.bridge_class is not None and self.loader.bridge_class.dialect == "dspex"
        self.connection = WorkerConnection(arguments.max_frame_bytes, lenient=dspex)
        self._interrupter = Interrupter()
        self._lane = Lane(
            descriptors.input,
            receive=self._receive,
            end_of_input=self._end_of_input,
            tick=self._tick,
            in_frame=lambda: self.connection.buffered_bytes > 0,
        )
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
        self._control = ControlCommands(self)
        self.runner = CommandRunner(self.loader, arguments.name, self._control.find)
        self._version1 = Version1(self) if dspex else None

    # ------------------------------------------------------------------ life

    def run(self) -> None:
        """Serve until the client goes away, then end the process."""
        self._prepare()
        try:
            self._serve_all()
        except Terminated:
            pass
        self._end()

    def _prepare(self) -> None:
        lead_own_group()
        enable_crash_reports()
        self._interrupter.install()
        keeps_going = self._version1 is not None and self.info.mode == "standalone"
        for number in (signal.SIGTERM, signal.SIGINT):
            # DSPex's script ignored both signals outside a pool; a handler, not SIG_IGN, so that children don't.
            signal.signal(number, (lambda *_: None) if keeps_going else self._on_terminate)

    def _serve_all(self) -> None:
        while True:
            if self._queue:
                with self._lane:
                    self._drain_queue()
            elif self.closing and not self._open:
                return
            elif self._load_requested and self.loader.state is LoadState.STARTING:
                with self._lane:
                    self.loader.load()
            elif self._lane.closed:
                if self._output_hung_up() or not self._open:
                    return
                self._lane.wait_until_idle()
            else:
                self._lane.read_once()

    def _drain_queue(self) -> None:
        while self._queue:
            call = self._queue.popleft()
            try:
                self._take(call)
            except Cancelled:  # an interrupt that fell between two statements of ours
                if call.stage is not Stage.DONE:
                    self._finish_stopped(call, None)

    def _end(self) -> None:
        """Close the bridge, bounded, and leave."""
        bridge = self.loader.bridge
        if bridge is not None and self.loader.state is LoadState.READY:
            timer = threading.Timer(CLOSE_SECONDS, exit_now, (0,))
            timer.daemon = True
            timer.start()
            try:
                self.runner.close_resources()
                bridge.close()
            except BaseException as error:  # noqa: BLE001  # the last thing that this process does must not fail it
                sys.stderr.write(f"closing the bridge failed: {type(error).__qualname__}\n")
        exit_now(0)

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        if not self._terminating:
            self._terminating = True
            raise Terminated

    def _end_of_input(self) -> None:
        self.connection.receive_eof()
        if threading.current_thread() is not threading.main_thread() and self._output_hung_up():
            exit_now(0)

    def _output_hung_up(self) -> bool:
        # A closed port closes both directions. A shell that only closed our input still wants its replies.
        poller = select.poll()
        poller.register(self._output, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))

    def _give_up(self, call: WorkerCall) -> None:
        """Nobody else can stop this code: answer for it and end the process with everything that it started."""
        self._finish_stopped(call, None, stopped_by="exit")
        exit_now(1)

    # ------------------------------------------------------------------ what control commands ask

    def running_calls(self) -> list[WorkerCall]:
        """The calls whose code runs now, oldest first."""
        return [call for call in list(self._open.values()) if call.stage is Stage.RUNNING]

    def queued_calls(self) -> int:
        """How many calls wait."""
        return len(self._queue)

    def bridge_facts(self, method: str) -> dict[str, Any]:
        """What the bridge adds to ping or stats; a bridge that fails there does not fail the ping."""
        try:
            return dict(getattr(self.loader.bridge, method)()) if self.loader.bridge is not None else {}
        except Exception as error:  # noqa: BLE001  # a border: user code
            return {f"{method}_error": type(error).__qualname__}

    def cancel(self, id: Any) -> bool:
        """Put a call onto the stop ladder. False if there is no such call."""
        call = self._open.get(id) if isinstance(id, (int, str, float)) else None
        if call is None:
            return False
        self._ladder.request_stop(call, "cancelled", monotonic())
        self._lane.wake()
        return True

    # ------------------------------------------------------------------ input, on the reader's thread

    def _receive(self, data: bytes) -> None:
        for message in self.connection.receive_data(data):
            if self.closing:
                self._refuse(message)
            elif type(message) is Malformed:
                self._answer_malformed(message)
            else:
                assert type(message) is Request
                self._dispatch(message)

    def _answer_malformed(self, malformed: Malformed) -> None:
        error = malformed.error
        if self._version1 is not None and self.connection.version == 1:
            if error.code is not ErrorCode.INVALID_REQUEST:
                self.closing = True  # after the requests before it are answered
            return
        details = {name: value for name, value in error.details.items() if name != "id"}
        self._outbox.send_error(malformed.id, ErrorInfo.of(error.code, error.message, **details), extended=True)

    def _refuse(self, message: Request | Malformed) -> None:
        if type(message) is Request and self._version1 is None:
            info = ErrorInfo.of(ErrorCode.SHUTTING_DOWN, "The worker is shutting down and takes no further calls.")
            self._outbox.send_error(message.id, info, extended=True)

    def _dispatch(self, request: Request) -> None:
        extended = self.connection.version == 2 or request.is_extended
        call = WorkerCall(request, extended=extended, outbox=self._outbox, host_calls=self.host_calls)
        if self._is_version1(request):
            if self._version1 is not None and self._version1.may_answer_now(request.command):
                self._serve(call)
                return
        elif self._answered_at_once(call):
            return
        self._enqueue(call)

    def _answered_at_once(self, call: WorkerCall) -> bool:
        handler = self._control.find(common_operation(call.request.command) or "")
        if handler is None:
            return False
        call.claim(Stage.RUNNING)
        self.counters.calls += 1
        try:
            result = handler(call.request)
        except BaseException as error:  # noqa: BLE001  # a border: the reader must survive whatever a control command meets
            self._fail(call, error)
        else:
            self._outbox.send_result(call.request.id, result)
        self._load_requested = self._arguments.load == "eager"
        return True

    def _enqueue(self, call: WorkerCall) -> None:
        try:
            self._open[call.request.id] = call
        except TypeError:  # an id that only version 1 allows, such as an array; it can't be cancelled, only answered
            pass
        if self._threads is not None:
            self._threads.submit(lambda: self._serve(call))
        else:
            self._queue.append(call)
        if call.deadline is not None:
            self._lane.watch_until(call.deadline)

    # ------------------------------------------------------------------ serving, on the executing thread

    def _take(self, call: WorkerCall) -> None:
        """Serve a call from the queue here, or hand it to the threads of a concurrent bridge."""
        if self._is_version1(call.request):
            self._serve(call)
            return
        self._load_requested = True
        self.loader.load()
        if self._threads is None and self._concurrency() > 1:
            self._threads = ThreadPool(self._concurrency())
        if self._threads is not None:
            self._threads.submit(lambda: self._serve(call))
        else:
            self._serve(call)

    def _serve(self, call: WorkerCall) -> None:
        if not call.claim(Stage.RUNNING):
            return
        begun = call.started_at = monotonic()
        failure: BaseException | None = None
        result: Any = None
        try:
            try:
                self._interrupter.arm(call)
                result = self._perform(call)
            finally:
                self._interrupter.disarm()
        except BaseException as error:  # the border between user code and the worker
            self._interrupter.disarm()
            if isinstance(error, Terminated):
                raise
            failure = error
        self._last_duration = monotonic() - begun
        self._finish(call, result, failure)

    def _finish(self, call: WorkerCall, result: Any, failure: BaseException | None) -> None:
        self.counters.calls += 1
        if call.stop_reason is not None:
            self._finish_stopped(call, result)
        elif failure is not None:
            call.stage = Stage.DONE
            self._forget(call)
            self._fail(call, failure)
        else:
            call.stage = Stage.DONE
            self._forget(call)
            if not call.extended and type(result) is not dict:
                result = {"value": result}  # a version 1 client takes nothing but objects
            hold = bool(self._queue) and self._last_duration < SHORT_CALL_SECONDS
            self._outbox.send_result(call.request.id, result, hold=hold)
            self._load_requested = self._load_requested or self._arguments.load == "eager"

    def _perform(self, call: WorkerCall) -> Any:
        if self._version1 is not None and self._is_version1(call.request):
            self.counters.deprecated += 1
            return self._version1.perform(call)
        if ":" not in call.request.command:
            self.counters.deprecated += 1
        return self.runner.run(call, call.request.command, call.request.args)

    # ------------------------------------------------------------------ endings

    def _fail(self, call: WorkerCall, error: BaseException) -> None:
        self.counters.errors += 1
        if self._version1 is not None and self._is_version1(call.request) and not call.extended:
            info = ErrorInfo(ErrorCode.HANDLER_ERROR, error_text(error))
        else:
            info = describe(error, self.loader.bridge, self.runner.framework)
        if isinstance(error, Cancelled):
            info = _stopped("cancelled", "cooperative", None)
        self._outbox.send_error(call.request.id, info, extended=call.extended)

    def _finish_stopped(self, call: WorkerCall, partial: Any, stopped_by: str | None = None) -> None:
        call.stage = Stage.DONE
        self._forget(call)
        self.counters.errors += 1
        info = _stopped(call.stop_reason or "cancelled", stopped_by or call.stopped_by, partial)
        self._outbox.send_error(call.request.id, info._replace(framework=self.runner.framework), extended=call.extended)

    def _stopped_in_queue(self, call: WorkerCall) -> None:
        self._finish_stopped(call, None)

    def _forget(self, call: WorkerCall) -> None:
        try:
            if self._open.get(call.request.id) is call:
                del self._open[call.request.id]
        except TypeError:  # see _enqueue
            pass

    # ------------------------------------------------------------------ the clock, on the watch thread

    def _tick(self, now: float) -> float | None:
        if self._parent is not None and self.info.mode != "standalone":
            parent, self._parent = self._parent, None
            die_with_parent(parent)
        if self._lane.closed and self._open and self._output_hung_up():
            exit_now(0)
        due = [self._outbox.flush_due(now), *(self._ladder.advance(call, now) for call in list(self._open.values()))]
        return min((seconds for seconds in due if seconds is not None), default=None)

    # ------------------------------------------------------------------ names

    def _is_version1(self, request: Request) -> bool:
        return self._version1 is not None and not (type(request.command) is str and ":" in request.command)

    def _concurrency(self) -> int:
        asked = self._arguments.max_concurrency
        found = self.loader.bridge_class
        return int(asked or (found.max_concurrency if found is not None else 1))


def _stopped(reason: str, stopped_by: str, partial: Any) -> ErrorInfo:
    code = ErrorCode.TIMEOUT if reason == "timeout" else ErrorCode.CANCELLED
    text = "The call's deadline passed" if code is ErrorCode.TIMEOUT else "The call was cancelled"
    details = {"stopped_by": stopped_by}
    if partial is not None:
        details["partial_result"] = partial
    return ErrorInfo.of(code, f"{text}; it was stopped by: {stopped_by}.", **details)

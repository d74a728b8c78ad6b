"""One worker: its process, its connection, the calls that it has.

States: starting -> loading -> ready -> (retiring | poisoned) -> dead. `busy` is a ready worker with calls.

A worker that runs one call at a time runs its calls in the order in which it got them. So of the calls that it has,
only the oldest can have begun; the others are safe to give to another worker when it dies.

Any doubt about the stream (a frame that is not legal, an end without an exit) kills the process group: what a worker
says after that can't be trusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from itertools import takewhile
from math import inf
from time import monotonic
from typing import Any, Final, Protocol, cast

import manybridge
from manybridge.errors import ManybridgeError, WorkerCrashedError, WorkerError, WorkerStartError, error_for
from manybridge.host.calls import Call, CallStage, StopReason
from manybridge.host.config import BridgeConfig
from manybridge.host.launcher import Launched, WorkerOrder
from manybridge.host.process import ExitStatus
from manybridge.host.stopping import StopLadder
from manybridge.protocol.connection import ClientConnection
from manybridge.protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from manybridge.protocol.messages import (
    CODECS,
    EVENT_CALL,
    FEATURES,
    PROTOCOL_VERSION,
    ErrorInfo,
    ErrorReply,
    Event,
    Reply,
    Request,
    WorkerMessage,
)

PIPELINE_SECONDS: Final = 0.004
"""A worker may hold this much work ahead. Enough to hide the way to the host and back (under 0.3 ms), and little
enough that nobody waits noticeably behind it while another worker is idle."""

MAX_PIPELINED: Final = 64
"""Calls that a worker may hold ahead: enough that it still has work while the host takes in a batch of its replies."""

RELIEF_SECONDS: Final = 0.02
"""Calls that were sent ahead because calls were short, and now wait behind a long one, go elsewhere after this."""

SMOOTHING: Final = 0.2
"""Weight of the newest measurement in the running mean of service times."""

STREAM_PATIENCE: Final = 0.5
"""Seconds that may lie between the end of a worker's stream and its exit, and the other way round. A process that
does not end after it closed its stream is killed."""

HELD_SECONDS: Final = 0.025
"""A worker holds replies back for 2 ms, and its watch looks every 5 ms; this is beyond both on a busy machine."""


FATAL_MARK: Final = "Fatal Python error"
"""How the interpreter's fault handler begins."""


class WorkerState(StrEnum):
    """What a worker is good for."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    RETIRING = "retiring"
    POISONED = "poisoned"
    DEAD = "dead"


class WorkerOwner(Protocol):
    """What a worker tells its pool."""

    def call_ended(self, worker: WorkerHandle, call: Call, message: Reply | ErrorReply, now: float) -> None:
        """A reply came for a call."""
        ...

    def call_failed(self, call: Call, error: ManybridgeError) -> None:
        """A call is over although its worker still has it."""
        ...

    def is_stuck(self, worker: WorkerHandle) -> None:
        """Calls wait in the worker behind one that takes longer than those before it."""
        ...

    def has_room(self, worker: WorkerHandle) -> None:
        """Replies came; the worker may take more calls."""
        ...

    def tool_requested(self, worker: WorkerHandle, call: Call, event: Event) -> None:
        """The worker calls a tool of the caller."""
        ...

    def poisoned(self, worker: WorkerHandle) -> None:
        """The worker takes no calls any more and will be killed: start its replacement."""
        ...

    def died(self, worker: WorkerHandle) -> None:
        """The process has ended; `worker.calls` holds what it left."""
        ...


class WorkerHandle(asyncio.Protocol):
    """The host's side of one worker. Owner of its connection and of the calls that were sent to it.

    Args:
        order: who it is.
        launched: the process and our end of its socket.
        config: its bridge's configuration.
        owner: is told what happens. Called on the event loop, never while another call into it is on the stack
            because of this worker.
    """

    requests = 0
    service_time = inf
    """Running mean, seconds; inf before the first call."""
    load_seconds: float | None = None
    was_ready = False
    exit_status: ExitStatus | None = None
    fatal: ManybridgeError | None = None
    """Why the host killed it, where it was not the fault of a call that did not stop."""
    expected_end = False
    """The host wanted it to end: no crash."""

    def __init__(self, order: WorkerOrder, launched: Launched, config: BridgeConfig, owner: WorkerOwner) -> None:
        self.id = order.worker_id
        self.generation = order.generation
        self.process = launched.process
        self.started_by = launched.how
        self.config = config
        self.state = WorkerState.STARTING
        self.calls: dict[Any, Call] = {}
        """Open calls, oldest first."""
        self.pinned: deque[Call] = deque()
        """Calls that wait for this worker and no other. Belongs to the pool."""
        self.held_resources = 0
        """Resources that would be lost with it; it is not recycled while there are any."""
        self.capacity = 0
        """How many calls it may have; 0 while it may take none."""
        self.concurrency = 1
        self.hello: dict[str, Any] = {}
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._sock = launched.sock
        self._connection = ClientConnection(config.max_frame_bytes)
        self._control: dict[Any, asyncio.Future[Any]] = {}
        self._next_id = 0
        self._transport: asyncio.Transport | None = None
        self._drain_sock: socket.socket | None = None
        self._outgoing: list[bytes] | None = None
        self._write_at_once = False
        self._last_activity = 0.0
        self._stream_ended = False
        self._ended = self._loop.create_future()
        self._paused_by: set[Call] = set()
        self._ladder = StopLadder(self)
        self._relief: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"WorkerHandle({self.id}, pid {self.process.pid}, {self.state}, {len(self.calls)} calls)"

    # ------------------------------------------------------------------ life

    async def connect(self) -> None:
        """Take over the socket and the exit of the process."""
        # A write to a worker that has just died fails before what it said last was read. This copy of the
        # descriptor reads the rest, so that a call that it did finish is not run again by another worker.
        self._drain_sock = self._sock.dup()
        self._drain_sock.setblocking(False)
        await self._loop.create_unix_connection(lambda: self, sock=self._sock)
        self.process.watch(self._process_ended)

    async def handshake(self) -> None:
        """Agree on the protocol and wait until the bridge is ready to work.

        Raises:
            WorkerStartError: it died, or its bridge can't be loaded or set up; or the cause that the worker gave.
        """
        client = {"name": "manybridge-host", "version": manybridge.__version__, "pid": os.getpid()}
        hello = {"protocol": PROTOCOL_VERSION, "codec": CODECS[0], "features": list(FEATURES), "client": client}
        self.hello = await self.control("common:hello", hello)
        self._connection.accept_hello()
        self.state = WorkerState.LOADING
        facts = await self.control("common:warm_up", {})
        self.load_seconds = facts.get("load_seconds")
        self.concurrency = self.config.max_concurrency or facts.get("max_concurrency") or 1
        self.capacity = self.concurrency
        self.was_ready = True
        self.state = WorkerState.READY

    @property
    def is_ready(self) -> bool:
        """Whether it takes calls."""
        return self.state is WorkerState.READY

    @property
    def is_busy(self) -> bool:
        """Whether it has calls."""
        return bool(self.calls)

    @property
    def busy_seconds(self) -> float:
        """How long the oldest call has been with it."""
        oldest = next(iter(self.calls.values()), None)
        return 0.0 if oldest is None or oldest.sent_at is None else monotonic() - oldest.sent_at

    def describe(self) -> dict[str, Any]:
        """What health says about it."""
        oldest = next(iter(self.calls.values()), None)
        state = "busy" if self.state is WorkerState.READY and self.calls else self.state.value
        return {
            "id": self.id,
            "pid": self.process.pid,
            "state": state,
            "generation": self.generation,
            "started_by": self.started_by,
            "uptime": round(self.process.uptime, 3),
            "busy_seconds": round(self.busy_seconds, 3),
            "current_call": oldest.command if oldest is not None else None,
            "calls": len(self.calls),
            "requests": self.requests,
        }

    def retire(self) -> None:
        """Take no new calls; those that it has go on."""
        if self.state is WorkerState.READY:
            self.state = WorkerState.RETIRING
        self.capacity = 0

    async def stop(self, grace: float) -> None:
        """End the process: ask, SIGTERM, SIGKILL. Returns when it is gone.

        Args:
            grace: seconds that it may take after it was asked.
        """
        self.expected_end = True
        self.capacity = 0
        if self._transport is not None and self.state is not WorkerState.DEAD:
            self.post("common:shutdown", {})
            await self._ends_within(grace)
        for number, patience in ((signal.SIGTERM, self.config.term_grace), (signal.SIGKILL, None)):
            if self._ended.done():
                break
            self.process.signal_group(number)
            await self._ends_within(patience)
        self.process.close()

    def kill(self, reason: ManybridgeError | None = None) -> None:
        """SIGKILL to the group, now. `reason` becomes the error of its calls."""
        self.fatal = self.fatal or reason
        self.poison()
        self.process.signal_group(signal.SIGKILL)

    async def _ends_within(self, seconds: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._ended)

    # ------------------------------------------------------------------ sending

    def send(self, call: Call) -> None:
        """Give the worker a call.

        Raises:
            ManybridgeError: the frame is too large; the worker did not get it.
        """
        self._next_id = id = self._next_id + 1
        now = monotonic()
        deadline = call.deadline
        remaining = None if deadline == inf else max(0, int((deadline - now) * 1000))
        request = Request(id, call.command, call.args, None, call.stream, call.session_id, remaining, call.traceparent)
        try:
            frame = self._connection.send_request(request)
        except LocalProtocolError as error:
            raise error_for(ErrorInfo.of(error.code, error.message, **error.details)) from None
        if not self.calls:
            self._last_activity = now
        self.calls[id] = call
        if len(self.calls) > 1 and self._relief is None and self.concurrency == 1:
            self._relief = self._loop.call_later(RELIEF_SECONDS, self._look_for_relief, next(iter(self.calls)))
        self.requests += 1
        call.id, call.worker, call.stage, call.sent_at = id, self, CallStage.SENT, now
        self._write(frame)
        if call.on_sent is not None:
            call.on_sent()

    def control(self, command: str, args: dict[str, Any], *, session_id: str | None = None) -> asyncio.Future[Any]:
        """Send a request of the host itself. The future fails with `ManybridgeError`."""
        self._next_id = id = self._next_id + 1
        future = self._loop.create_future()
        if self.state is WorkerState.DEAD:
            future.set_exception(self.crash_error("is dead"))
            return future
        self._control[id] = future
        self._write(self._connection.send_request(Request(id, command, args, session_id=session_id)))
        return future

    def post(self, command: str, args: dict[str, Any]) -> None:
        """Send a request of the host itself whose answer nobody waits for.

        Raises:
            LocalProtocolError: it is too large for a frame.
        """
        self.control(command, args).add_done_callback(ignore_outcome)

    def _write(self, frame: bytes) -> None:
        if self._transport is None:
            return
        if self._outgoing is not None:
            self._outgoing.append(frame)
            return
        # The first frame of an iteration goes out at once, for the single caller's sake; those that follow in the
        # same iteration share a write.
        self._transport.write(frame)
        if not self._write_at_once:
            self._outgoing = []
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        frames, self._outgoing = self._outgoing, None
        if frames and self._transport is not None:
            self._transport.write(b"".join(frames))

    def recall(self) -> None:
        """Ask for the calls behind the oldest one back, newest first, so that they come to wait in their order."""
        self.capacity = min(self.capacity, 1)
        for id, call in reversed(list(self.calls.items())[1:]):
            if call.stop_reason is None and not call.recalled and call.target is None:
                call.recalled = True
                self.post("common:cancel", {"id": id, "only_waiting": True})

    def _look_for_relief(self, oldest: Any) -> None:
        self._relief = None
        if self.state is not WorkerState.READY or len(self.calls) < 2:
            return
        now_oldest = next(iter(self.calls))
        if now_oldest == oldest:
            self._owner.is_stuck(self)
        self._relief = self._loop.call_later(RELIEF_SECONDS, self._look_for_relief, now_oldest)

    # ------------------------------------------------------------------ receiving, as asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is ours."""
        self._transport = cast(asyncio.Transport, transport)
        # uvloop's transports join the writes of an iteration themselves.
        self._write_at_once = False

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        try:
            self._receive(self._connection.receive_data(data))
        except RemoteProtocolError as error:
            self._receive(error.received)
            self._violated(error)

    def _receive(self, messages: Sequence[WorkerMessage]) -> None:
        now = monotonic()
        ended = returned = 0
        for message in messages:
            if isinstance(message, Event):
                self._receive_event(message)
            elif (call := self.calls.pop(message.id, None)) is not None:
                if call.recalled:
                    returned += 1  # without work: says nothing about the time that a call takes
                else:
                    ended += 1
                self._owner.call_ended(self, call, message, now)
            else:
                self._receive_control(message)
        if ended:
            self._measure((now - self._last_activity) / ended)
        if ended or returned:
            self._last_activity = now
            self._owner.has_room(self)

    def eof_received(self) -> bool:
        """asyncio: the worker closed its end; the transport closes too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """asyncio: the socket is closed."""
        self._read_rest()
        self._transport = None
        self._stream_ended = True
        if self.exit_status is not None:
            self._finish()
        else:
            self._loop.call_later(0.0 if self.expected_end else STREAM_PATIENCE, self._kill_leftover)

    def _read_rest(self) -> None:
        sock, self._drain_sock = self._drain_sock, None
        if sock is None:
            return
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                self.data_received(data)

    def _kill_leftover(self) -> None:
        self.process.signal_group(signal.SIGKILL)

    def _receive_event(self, event: Event) -> None:
        call = self.calls.get(event.id)
        if call is None:
            return
        if event.event == EVENT_CALL:
            self._owner.tool_requested(self, call, event)
        elif call.on_event is not None:
            call.on_event(event)

    def _receive_control(self, message: WorkerMessage) -> None:
        if message.id is None:
            assert type(message) is ErrorReply
            # What it could not read is ours, so whose call is lost can't be known.
            self._violated(RemoteProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"it could not read: {message.error}"))
            return
        future = self._control.pop(message.id, None)
        if future is None or future.done():
            return
        if type(message) is Reply:
            future.set_result(message.result)
        elif type(message) is ErrorReply:
            future.set_exception(error_of(message))

    def _violated(self, error: RemoteProtocolError) -> None:
        text = f"worker {self.id} broke the protocol and was killed: {error.message}"
        details = {**self.facts(), "violation": str(error.code), **error.details}
        self.kill(WorkerError(text, code=ErrorCode.PROTOCOL_VIOLATION, retryable=True, details=details))

    def _measure(self, seconds: float) -> None:
        mean = self.service_time
        self.service_time = mean = seconds if mean == inf else mean + SMOOTHING * (seconds - mean)
        if self.capacity and self.concurrency == 1:
            self.capacity = MAX_PIPELINED if mean <= 0 else max(1, min(MAX_PIPELINED, int(PIPELINE_SECONDS / mean)))

    # ------------------------------------------------------------------ back-pressure of streams

    def pause_for(self, call: Call) -> None:
        """Stop reading: the reader of this call's stream is slower than the worker."""
        if self._transport is not None and call.id in self.calls:
            self._paused_by.add(call)
            self._transport.pause_reading()

    def resume_for(self, call: Call) -> None:
        """The reader of this call's stream has caught up, or left."""
        self._paused_by.discard(call)
        if not self._paused_by and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # ------------------------------------------------------------------ stopping and dying

    def may_have_begun(self, call: Call) -> bool:
        """Whether the worker can have started to run a call that it has."""
        return self.concurrency > 1 or next(iter(self.calls.values()), None) is call

    def begun_calls(self) -> set[Call]:
        """The calls that a dead worker may have begun; the others can safely be given to another one.

        A worker may hold back the reply of a short call while it runs the next one of the same command. So right
        after a reply, those that follow the oldest with the same command may have begun too.
        """
        calls = list(self.calls.values())
        if self.concurrency > 1:
            return set(calls)
        if monotonic() - self._last_activity > HELD_SECONDS:
            return set(calls[:1])
        return set(takewhile(lambda call: call.command == calls[0].command, calls))

    def stop_call(self, call: Call, reason: StopReason) -> None:
        """Stop a call that was sent, by every rung that it takes."""
        if call.stop_reason is None:
            call.stop_reason = reason
            self.resume_for(call)
            self._ladder.begin(call)

    def give_up_on(self, call: Call) -> None:
        """Answer a call that the worker still has."""
        self._owner.call_failed(call, call.stopped_error(**self.facts()))

    def finish_drain(self) -> None:
        """Kill a poisoned worker as soon as only calls are left that must stop. Called after each reply."""
        if self.state is WorkerState.POISONED:
            self._ladder.finish_drain()

    def poison(self) -> None:
        """Take no more calls for good: code runs in it that does not stop."""
        if self.state in (WorkerState.POISONED, WorkerState.DEAD):
            return
        self.state = WorkerState.POISONED
        self.capacity = 0
        self._owner.poisoned(self)

    def _process_ended(self, status: ExitStatus) -> None:
        self.exit_status = status
        self._paused_by.clear()
        if self._stream_ended:
            self._finish()
            return
        if self._transport is not None:
            self._transport.resume_reading()
        # A descriptor that leaked into some other process may keep the stream open: do not wait for its end.
        self._loop.call_later(STREAM_PATIENCE / 5, self._abort_stream)

    def _abort_stream(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _finish(self) -> None:
        if self.state is WorkerState.DEAD:
            return
        self.state = WorkerState.DEAD
        self.capacity = 0
        if self._relief is not None:
            self._relief.cancel()
        self.process.close()
        error = self.fatal or self.crash_error()
        for future in self._control.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting any more
        self._control.clear()
        self._owner.died(self)
        if not self._ended.done():
            self._ended.set_result(None)

    def crash_error(self, what: str = "") -> ManybridgeError:
        """The error of a call, or of a start, that this worker's death has ended."""
        status = self.exit_status or ExitStatus()
        tail = self.process.tail.lines()
        what = what or (f"died ({status})" if self.was_ready else f"died while it started ({status})")
        text = f"worker {self.id} (pid {self.process.pid}) {what} after {self.process.uptime:.1f} s"
        if last := _last_line(tail):
            text += f"; its last words: {last}"
        details = {**self.facts(), **status.details(), "stderr_tail": tail}
        return (WorkerCrashedError if self.was_ready else WorkerStartError)(text, details=details)

    def facts(self) -> dict[str, Any]:
        """Who it is, for `details` of an error."""
        return {"worker_id": self.id, "pid": self.process.pid, "uptime": round(self.process.uptime, 3)}


def error_of(reply: ErrorReply) -> ManybridgeError:
    """The exception of a failed reply."""
    return error_for(reply.info or ErrorInfo(ErrorCode.HANDLER_ERROR.value, reply.error))


def ignore_outcome(future: asyncio.Future[Any]) -> None:
    """Read a future's exception, so that asyncio does not report that nobody did."""
    if not future.cancelled():
        future.exception()


def _last_line(lines: list[str]) -> str:
    # The cause stands before the stacks that a fatal signal leaves, and their end says nothing.
    fatal = next((line for line in lines if line.startswith(FATAL_MARK)), None)
    if fatal is not None:
        return fatal.strip()[:300]
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

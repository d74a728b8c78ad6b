"""One worker: its life, and the calls that it has.

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
from collections import deque
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import takewhile
from math import inf
from time import monotonic
from types import MappingProxyType
from typing import Any, Final

import manybridge
from manybridge.errors import ManybridgeError, WorkerError, error_for
from manybridge.host.calls import SENT, Call, StopReason
from manybridge.host.causes import CrashCause
from manybridge.host.config import BridgeConfig
from manybridge.host.death import crash_error
from manybridge.host.launcher import Launched, WorkerOrder
from manybridge.host.link import WorkerLink
from manybridge.host.own_requests import OwnRequests
from manybridge.host.pace import Pace
from manybridge.host.process import ExitStatus
from manybridge.host.session_settings import HandedSettings
from manybridge.host.stopping import StopLadder
from manybridge.host.worker_owner import WorkerOwner
from manybridge.protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from manybridge.protocol.messages import (
    CODECS,
    EVENT_CALL,
    FEATURES,
    PROTOCOL_VERSION,
    ErrorInfo,
    ErrorReply,
    Event,
    WorkerMessage,
)

KILL_PATIENCE: Final = 5.0
"""Seconds after SIGKILL. Only a process inside a system call that can't be interrupted (a dead disk) takes longer, and
closing a host must not hang on it; the guardian still knows its group."""

STREAM_PATIENCE: Final = 0.5
"""Seconds that may lie between the end of a worker's stream and its exit, and the other way round. A process that
does not end after it closed its stream is killed."""

HELD_SECONDS: Final = 0.025
"""A worker holds replies back for 2 ms, and its watch looks every 5 ms; this is beyond both on a busy machine."""


BRIEF_SECONDS: Final = 0.0002
"""A worker whose calls take longer than this, the way there and back included, is not waited for awake."""


class WorkerState(StrEnum):
    """What a worker is good for."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    RETIRING = "retiring"
    POISONED = "poisoned"
    DEAD = "dead"


class WorkerHandle:
    """The host's side of one worker. Owner of its life and of the calls that were sent to it.

    Args:
        order: who it is.
        launched: the process and our end of its socket.
        config: its bridge's configuration.
        owner: is told what happens. Called on the event loop, never while another call into it is on the stack
            because of this worker.
    """

    requests = 0
    load_seconds: float | None = None
    was_ready = False
    exit_status: ExitStatus | None = None
    fatal: ManybridgeError | None = None
    """Why the host killed it, where it was not the fault of a call that did not stop."""
    expected_end = False
    """The host wanted it to end: no crash."""
    closed_stream = False
    """The host killed it because it had closed its stream and went on running."""
    death_cause: str | None = None
    """What it died of; set by `crash_error`."""
    idempotent: frozenset[str] = frozenset()
    """Operations of its bridge that may be repeated."""
    session_settings: frozenset[str] = frozenset()
    """Operations of its bridge that configure a session."""
    changes: Mapping[str, str] = MappingProxyType({})
    """Operations of its bridge that change a resource, with the argument that has its id."""

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
        self._link = WorkerLink(launched.sock, config.max_frame_bytes, self)
        self._encode = self._link.protocol.send_call
        self._write = self._link.write
        self.look_out, self.wait = self._link.look_out, self._link.wait
        self._own_requests = OwnRequests(self._link)
        self.control, self.post = self._own_requests.send, self._own_requests.post
        """Make a request of the host itself: with a future for its answer, and without."""
        self._told: dict[str, int] = {}
        """Sessions whose settings it has, and in which revision."""
        self._last_activity = 0.0
        self._ended = self._loop.create_future()
        self._ladder = StopLadder(self)
        self.pace = Pace(self, owner.is_stuck)

    def __repr__(self) -> str:
        return f"WorkerHandle({self.id}, pid {self.process.pid}, {self.state}, {len(self.calls)} calls)"

    # ------------------------------------------------------------------ life

    async def connect(self) -> None:
        """Take over the socket and the exit of the process."""
        self.process.watch(self._process_ended)  # first: whoever gives up on what follows waits for the exit
        await self._link.open()

    async def handshake(self) -> None:
        """Agree on the protocol and wait until the bridge is ready to work.

        Raises:
            WorkerStartError: it died, or its bridge can't be loaded or set up; or the cause that the worker gave.
        """
        client = {"name": "manybridge-host", "version": manybridge.__version__, "pid": os.getpid()}
        hello = {"protocol": PROTOCOL_VERSION, "codec": CODECS[0], "features": list(FEATURES), "client": client}
        self.hello = await self.control("common:hello", hello)
        self._link.protocol.accept_hello()
        self.state = WorkerState.LOADING
        facts = await self.control("common:warm_up", {})
        self.load_seconds = facts.get("load_seconds")
        self.idempotent = frozenset(facts.get("idempotent", ()))
        self.session_settings = frozenset(facts.get("session_settings", ()))
        self.changes = facts.get("changes", {})
        self.concurrency = self.config.max_concurrency or facts.get("max_concurrency") or 1
        self.capacity = self.concurrency
        self.was_ready = True
        self.state = WorkerState.READY

    @property
    def is_ready(self) -> bool:
        """Whether it takes calls."""
        return self.state is WorkerState.READY

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
        if self._link.is_open and self.state is not WorkerState.DEAD:
            self.post("common:shutdown", {})
            await self._ends_within(grace)
        for number, patience in ((signal.SIGTERM, self.config.term_grace), (signal.SIGKILL, KILL_PATIENCE)):
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

    async def _ends_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.shield(self._ended)

    # ------------------------------------------------------------------ sending

    def send(self, call: Call) -> bool:
        """Give the worker a call. Returns whether its answer may come at once, so that `look_out` is worth a try.

        Raises:
            ManybridgeError: the frame is too large; the worker did not get it.
        """
        id = next(self._link.ids)
        now = monotonic()
        deadline = call.deadline
        remaining = None if deadline == inf else max(0, int((deadline - now) * 1000))
        try:
            if call.session_id is None and call.traceparent is None and not call.stream:
                frame = self._encode(id, call.command, call.args, remaining)
            else:
                if call.settings is not None and self._told.get(call.settings.session_id) != call.settings.revision:
                    self._tell(call.settings)
                frame = self._link.protocol.send_request(call.request(id, remaining))
        except LocalProtocolError as error:
            raise error_for(ErrorInfo.of(error.code, error.message, **error.details)) from None
        alone = not self.calls
        self.calls[id] = call
        if alone:
            self._last_activity = now
        elif self.pace.watch is None and self.concurrency == 1:
            self.pace.begin_watch()
        self.requests += 1
        call.id, call.worker, call.stage, call.sent_at = id, self, SENT, now
        self._write(frame, alone=alone)
        if call.on_sent is not None:
            call.on_sent()
        return alone and self.pace.service_time < BRIEF_SECONDS

    def ask(self, call: Call) -> None:
        """Make a call of the host itself, which waits for no room and counts nowhere; see `answer_of`."""
        call.worker = self
        self._own_requests.ask(call)

    def _tell(self, settings: HandedSettings) -> None:
        """Send the settings of a session ahead of its call. What is wrong with them is the call's error."""
        args = {"session_id": settings.session_id, "settings": dict(settings.values)}
        self.post("common:configure_session", args)
        self._told[settings.session_id] = settings.revision

    def forget_session(self, id: str | None) -> None:
        """The worker is cleaning up a session, or all: it is told their settings again if they are used again."""
        if id is None:
            self._told.clear()
        else:
            self._told.pop(id, None)

    # ------------------------------------------------------------------ receiving: what the link tells

    def link_received(self, messages: Sequence[WorkerMessage]) -> None:
        """Replies to calls and to requests of the host, and events."""
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
            elif message.id is not None:
                self._own_requests.answered(message)
            else:  # What it could not read is ours, so whose call is lost can't be known.
                text = f"it could not read: {message.error if isinstance(message, ErrorReply) else message}"
                self.link_violated(RemoteProtocolError(ErrorCode.PROTOCOL_VIOLATION, text))
        if ended:
            self.pace.measured((now - self._last_activity) / ended)
        if ended or returned:
            self._last_activity = now
            self._owner.has_room(self)

    def link_violated(self, error: RemoteProtocolError) -> None:
        """Nothing that it says can be trusted any more."""
        text = f"worker {self.id} broke the protocol and was killed: {error.message}"
        cause = CrashCause.BROKEN_PROTOCOL.value
        details = {"cause": cause, **self.facts(), "violation": str(error.code), **error.details}
        self.kill(WorkerError(text, code=ErrorCode.PROTOCOL_VIOLATION, retryable=True, details=details))

    def link_closed(self) -> None:
        """It has ended, or closed its end of the stream, after which it is good for nothing."""
        if self.exit_status is not None:
            self._finish()
        else:
            patience = 0.0 if self.expected_end else STREAM_PATIENCE
            self._loop.call_later(patience, self._kill_deaf)

    def _kill_deaf(self) -> None:
        if self.exit_status is None:
            self.closed_stream = not self.expected_end
            self.process.signal_group(signal.SIGKILL)

    def _receive_event(self, event: Event) -> None:
        call = self.calls.get(event.id)
        if call is None:
            return
        if event.event == EVENT_CALL:
            self._owner.tool_requested(self, call, event)
        elif call.on_event is not None:
            call.on_event(event)

    # ------------------------------------------------------------------ back-pressure of streams

    def pause_for(self, call: Call) -> None:
        """Stop reading: the reader of this call's stream is slower than the worker."""
        if call.id in self.calls:
            self._link.pause_for(call)

    def resume_for(self, call: Call) -> None:
        """The reader of this call's stream has caught up, or left."""
        self._link.resume_for(call)

    def belongs_to(self, owner: WorkerOwner) -> None:
        """Tell somebody else what happens from now on."""
        self._owner = owner

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

    def stop_asked(self, call: Call, reason: StopReason) -> None:
        """Stop a call that was asked. From now on it is one of those that the worker has, and ends as they do."""
        if self._own_requests.take(call.id):
            ordered = sorted([*self.calls.items(), (call.id, call)])  # oldest first: ids count up
            self.calls.clear()
            self.calls.update(ordered)
            if reason == "timeout":  # a deadline that the worker was not told
                self.post("common:cancel", {"id": call.id})
            self.stop_call(call, reason)

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
        self._link.resume()
        if self._link.has_ended:
            self._finish()
            return
        # A descriptor that leaked into some other process may keep the stream open: do not wait for its end.
        self._loop.call_later(STREAM_PATIENCE / 5, self._link.abort)

    def _finish(self) -> None:
        if self.state is WorkerState.DEAD:
            return
        self.state = WorkerState.DEAD
        self.capacity = 0
        try:
            self.pace.end_watch()
            self.process.close()
            self._own_requests.end(self.fatal or crash_error(self), partial(crash_error, self, "is dead"))
            self._owner.died(self)
        finally:  # whoever waits for the end must not wait for ever because of an error of ours
            if not self._ended.done():
                self._ended.set_result(None)

    def facts(self) -> dict[str, Any]:
        """Who it is, for `details` of an error."""
        return {"worker_id": self.id, "pid": self.process.pid, "uptime": round(self.process.uptime, 3)}

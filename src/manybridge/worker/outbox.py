"""Everything that a worker writes.

Replies go out at once. Events of a fast stream are coalesced: the first is written immediately, those that follow
within a millisecond share a write. The lane's watch thread flushes what is left, so nothing waits longer than
`FLUSH_SECONDS`.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from time import monotonic, time
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.protocol import codec
from manybridge.protocol.connection import WorkerConnection
from manybridge.protocol.errors import ErrorCode, LocalProtocolError
from manybridge.protocol.frames import encode_frame
from manybridge.protocol.messages import ErrorInfo, ErrorReply, Event, MessageId, Reply, worker_message_to_object

COALESCE_SECONDS: Final = 0.001
"""Two writes closer than this are one. A person can't see it, and 10,000 chunks a second become 1,000 writes."""

REPLY_SECONDS: Final = 0.00015
"""The same for replies of short calls. Ten of them share a write then; were it more, host and worker would take turns
instead of working at the same time (measured: 29,000 calls a second with 1 ms, 55,000 with this)."""

FLUSH_SECONDS: Final = 0.002
"""What was held back is written after this at the latest."""

COALESCE_BYTES: Final = 64 * 1024
"""Held-back frames are written when they reach this size: beyond it, joining them costs more than a system call."""


class Outbox:
    """Owner of the output descriptor and of the frames that wait to be written. Any thread may send.

    Args:
        fd: blocking descriptor; a full pipe blocks the sender, which is the back-pressure of a stream.
        connection: turns messages into frames and checks that they are legal.
        shield: keeps the interrupt of the stop ladder out while a frame is written.
        wake: called after a frame was held back, so that somebody calls `flush_due`.
        broken: called when nobody reads any more; ends the process.
    """

    def __init__(
        self,
        fd: int,
        connection: WorkerConnection,
        shield: AbstractContextManager[None],
        wake: Callable[[], None],
        broken: Callable[[], None],
    ) -> None:
        self._fd = fd
        self._connection = connection
        self._shield = shield
        self._wake = wake
        self._broken = broken
        self._lock = threading.Lock()
        self._held: deque[bytes] = deque()
        self._held_bytes = 0
        self._last_write = 0.0

    def send_result(self, id: MessageId, result: Any, *, extended: bool = True, hold: bool = False) -> None:
        """Send the reply of a call. A result that can't be sent, such as one over the frame limit, becomes an error.

        Args:
            id: the call.
            result: any value; what JSON can't carry becomes a marker.
            extended: whether the caller understands `error_info`.
            hold: the next reply follows at once, so this one may wait for it.
        """
        timestamp = time()
        if hold and monotonic() - self._last_write < REPLY_SECONDS and self._held_bytes < COALESCE_BYTES:
            # Neither lock nor shield: nothing is written here. A SIGTERM between the two steps loses the reply, and
            # the host tells the worker's end instead. Nobody is woken either: the next reply takes this one along, and
            # the watch, which is awake while calls run, flushes it should that one take long.
            try:
                self._hold(self._connection.send_result(id, result, timestamp))
                return
            except Exception:  # noqa: BLE001, S110  # as below, where it is raised once more
                pass
        with self._shield, self._lock:
            try:
                frame = self._connection.send_result(id, result, timestamp)
            except Exception as error:  # noqa: BLE001  # a border: encoding runs the user's code (properties, __fspath__)
                frame = self._instead(Reply(id, result, timestamp), error, extended)
            self._write(frame)

    def send_error(self, id: MessageId, info: ErrorInfo, *, extended: bool) -> None:
        """Send the failure of a call, with `error_info` if the caller understands it."""
        reply = ErrorReply(id, info.message, info if extended else None, time())
        with self._shield, self._lock:
            try:
                frame = self._connection.send(reply)
            except Exception as error:  # noqa: BLE001  # a border, see send_result
                frame = self._instead(reply, error, extended)
            self._write(frame)

    def send_malformed(self, id: MessageId | None, info: ErrorInfo) -> None:
        """Answer what is no request, and so no call of the connection's, although it may have had an id."""
        reply = ErrorReply(id, info.message, info, time())
        payload = codec.encode(worker_message_to_object(reply))
        if len(payload) > self._connection.max_frame_bytes:  # its id alone is over the limit
            payload = codec.encode(worker_message_to_object(reply._replace(id=None)))
        with self._shield, self._lock:
            self._write(encode_frame(payload))

    def send_event(self, id: MessageId, event: str, data: Any) -> None:
        """Send one event of a streaming call; dropped if the call ended meanwhile (a thread of its own still emits).

        Raises:
            BridgeError: the event is too large or can't be encoded; the caller gets a log event in its place, so that
                the numbers of the events have no gap.
        """
        with self._shield, self._lock:
            try:
                message = self._connection.event(id, event, data)
            except LocalProtocolError:
                return
            try:
                frame = self._connection.send(message)
            except Exception as error:  # noqa: BLE001  # a border: encoding runs the user's code (properties, __fspath__)
                failure = _failure(error)
                self._write(self._connection.send(_dropped(message, failure)))
                raise failure from None
            if monotonic() - self._last_write >= COALESCE_SECONDS or self._held_bytes >= COALESCE_BYTES:
                self._write(frame)
                return
            is_first = not self._held
            self._hold(frame)
            if is_first:
                self._wake()  # under the shield: an interrupt in the middle of it would leave the frame lying

    def flush_due(self, now: float) -> float | None:
        """Write what was held back long enough. Return the seconds until the rest is due, or None."""
        if not self._held:
            return None
        with self._shield, self._lock:
            left = self._last_write + FLUSH_SECONDS - now
            if left > 0:
                return left
            self._write(b"")
        return None

    def flush(self) -> None:
        """Write what is held back."""
        self.flush_due(monotonic() + FLUSH_SECONDS)

    def abandon(self) -> None:
        """Forget frames and lock: this process is a forked child, and both are its parent's."""
        self._lock = threading.Lock()
        self._held.clear()
        self._held_bytes = 0

    def _instead(self, reply: Reply | ErrorReply, error: Exception, extended: bool) -> bytes:
        """The frame that says why a reply can't be sent."""
        if isinstance(error, LocalProtocolError) and error.code is not ErrorCode.FRAME_TOO_LARGE:
            raise error
        instead = _in_its_place(reply, _failure(error), extended)
        try:
            return self._connection.send(instead)
        except LocalProtocolError:  # its id alone is over the limit
            return self._connection.send(instead._replace(id=None))

    def _hold(self, frame: bytes) -> None:
        self._held.append(frame)
        self._held_bytes += len(frame)  # may be off a little, when another thread writes: it is no more than a hint

    def _write(self, frame: bytes) -> None:
        held = self._held
        if held:
            frames = []
            while held:  # one by one, because a frame may be put there meanwhile
                frames.append(held.popleft())
            self._held_bytes = 0
            frames.append(frame)
            frame = b"".join(frames)
        try:
            written = os.write(self._fd, frame)
            while written < len(frame):
                written += os.write(self._fd, memoryview(frame)[written:])
        except OSError:  # EPIPE or ECONNRESET: the host is gone
            self._broken()
        self._last_write = monotonic()


def _failure(error: Exception) -> BridgeError:
    if isinstance(error, LocalProtocolError):
        return BridgeError(error.code, error.message, details=error.details)
    return BridgeError(ErrorCode.HANDLER_ERROR, f"the value can't be encoded: {type(error).__qualname__} was raised")


def _dropped(event: Event, failure: BridgeError) -> Event:
    return event._replace(event="log", data={"level": "error", "message": f"an event was dropped: {failure.message}"})


def _in_its_place(reply: Reply | ErrorReply, failure: BridgeError, extended: bool) -> ErrorReply:
    text = f"the answer can't be sent: {failure.message}"
    info = ErrorInfo.of(failure.code, text, **failure.details)
    return ErrorReply(reply.id, text, info if extended else None, reply.timestamp)

"""The connection to one worker: its socket, the frames on it, and when it is read."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Sequence
from itertools import count
from math import ceil
from os import sched_yield
from time import monotonic
from typing import TYPE_CHECKING, Final, Protocol, cast

from manybridge.protocol.connection import ClientConnection
from manybridge.protocol.errors import RemoteProtocolError
from manybridge.protocol.messages import WorkerMessage
from manybridge.protocol.spinning import SPIN_SECONDS, AdaptiveSpin

if TYPE_CHECKING:
    from manybridge.host.calls import Call


READ_BYTES: Final = 64 * 1024
"""One read of ours; what is beyond it, the transport reads."""

SPINS_IN_A_ROW: Final = 32
"""About a millisecond of short calls."""


class LinkUser(Protocol):
    """What a link tells the worker that it belongs to."""

    def link_received(self, messages: Sequence[WorkerMessage]) -> None:
        """Messages came, in their order."""
        ...

    def link_violated(self, error: RemoteProtocolError) -> None:
        """What came after the last message is not legal."""
        ...

    def link_closed(self) -> None:
        """Nothing more will come; everything that did come was told."""
        ...


class WorkerLink(asyncio.Protocol):
    """Owner of our end of one worker's socket and of the protocol's state on it.

    Args:
        sock: our end.
        max_frame_bytes: the largest frame in either direction.
        user: is told what comes.
    """

    def __init__(self, sock: socket.socket, max_frame_bytes: int, user: LinkUser) -> None:
        self.protocol = ClientConnection(max_frame_bytes)
        self.ids = count(1)
        """Of the requests on this connection."""
        self.has_ended = False
        """Whether the stream is closed and read to its end."""
        self._sock = sock
        self._user = user
        self._receive = user.link_received
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._rest: socket.socket | None = None
        self._poller = select.poll()
        self._spin = AdaptiveSpin()
        self._spins_in_a_row = 0
        self._outgoing: list[bytes] | None = None
        self._paused_by: set[Call] = set()

    @property
    def is_open(self) -> bool:
        """Whether frames can be written."""
        return self._transport is not None

    async def open(self) -> None:
        """Take over the socket."""
        # A write to a worker that has just died fails before what it said last was read. This copy of the
        # descriptor reads the rest, so that a call that it did finish is not run again by another worker.
        self._rest = self._sock.dup()
        self._rest.setblocking(False)
        self._poller.register(self._rest, select.POLLIN)
        await self._loop.create_unix_connection(lambda: self, sock=self._sock)

    def abort(self) -> None:
        """Close it without waiting for the worker's end of it."""
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------ sending

    def write(self, frame: bytes, *, alone: bool = False) -> None:
        """Send a frame. One for a worker that has gone is dropped: its death is told anyway.

        Args:
            frame: the whole of it.
            alone: no other frame is expected to follow at once.
        """
        if self._outgoing is not None:
            self._outgoing.append(frame)
            return
        # The first frame of an iteration goes out at once, for the single caller's sake; those that follow in the
        # same iteration share a write.
        self._write_now(frame)
        if not alone:
            self._outgoing = []
            self._loop.call_soon(self._flush)

    def look_out(self) -> None:
        """Wait awake for a moment, without the event loop, for what a worker that works fast says at once.

        Messages are told before this returns. The loop is held up for SPIN_SECONDS at most; after SPINS_IN_A_ROW it
        gets a turn in any case, so that a caller who makes one call after the other does not keep it for himself.
        """
        if not self._spin.is_worth_it() or self._rest is None:
            return
        self._spins_in_a_row += 1
        if self._spins_in_a_row > SPINS_IN_A_ROW:
            self._spins_in_a_row = 0
            return
        until = monotonic() + SPIN_SECONDS
        while not self._poller.poll(0):
            if monotonic() >= until:
                self._spin.was_in_vain()
                return
            sched_yield()
        self._spin.paid()
        self._read_now()

    def wait(self, seconds: float) -> bool:
        """Sleep, without the event loop, until the worker says something. Messages are told before this returns.

        Returns:
            Whether there were any bytes. Without, the time is over (rounded up to milliseconds) or the stream is.
        """
        return self._rest is not None and bool(self._poller.poll(ceil(seconds * 1000))) and self._read_now()

    def _read_now(self) -> bool:
        assert self._rest is not None
        with contextlib.suppress(OSError):  # the transport meets it too, and tells
            if data := self._rest.recv(READ_BYTES):
                self.data_received(data)
                return True
        return False

    def _flush(self) -> None:
        frames, self._outgoing = self._outgoing, None
        if frames:
            self._write_now(b"".join(frames))

    def _write_now(self, frame: bytes) -> None:
        # Not by the transport while it holds nothing back: uvloop's writes at the end of the iteration, and the
        # worker would begin that much later.
        transport, sent = self._transport, 0
        if transport is None:
            return
        if self._rest is not None and not transport.get_write_buffer_size():
            try:
                sent = self._rest.send(frame)
            except BlockingIOError:
                pass
            except OSError:  # the worker has gone; what it said last is read first, then its death is told
                return
        if sent < len(frame):
            transport.write(frame[sent:] if sent else frame)

    # ------------------------------------------------------------------ receiving, as asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the socket is ours."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes came."""
        try:
            self._receive(self.protocol.receive_data(data))
        except RemoteProtocolError as error:
            self._receive(error.received)
            self._user.link_violated(error)

    def eof_received(self) -> bool:
        """asyncio: the worker closed its end; the transport closes too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """asyncio: the socket is closed."""
        self._read_rest()
        self._transport = None
        self.has_ended = True
        self._user.link_closed()

    def _read_rest(self) -> None:
        sock, self._rest = self._rest, None
        if sock is None:
            return
        with sock, contextlib.suppress(OSError):
            while data := sock.recv(65536):
                self.data_received(data)

    # ------------------------------------------------------------------ back-pressure of streams

    def pause_for(self, call: Call) -> None:
        """Stop reading: the reader of this call's stream is slower than the worker."""
        if self._transport is not None:
            self._paused_by.add(call)
            self._transport.pause_reading()

    def resume_for(self, call: Call) -> None:
        """The reader of this call's stream has caught up, or left."""
        self._paused_by.discard(call)
        if not self._paused_by and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def resume(self) -> None:
        """Read on, whoever is slow: the worker has ended and what it left is little."""
        self._paused_by.clear()
        if self._transport is not None:
            self._transport.resume_reading()

"""The limit: two Python processes that exchange the same frames over a blocking socket pair, and do nothing else.

No event loop, no queue, no deadlines, no call table: encode, send, receive, decode, with the codec that manybridge
uses. Whatever a bridge adds shows as a ratio to this. The far end is a process of its own, started by fork.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter, time
from typing import Any

from manybridge.protocol import codec
from manybridge.protocol.frames import FrameDecoder, OversizedFrame, encode_frame

READ_BYTES = 64 * 1024
"""One read. Beyond 128 KiB the allocator may map and unmap memory for every read, which once doubled the round trip of
a small message and made it jump between two values."""
LARGE_READ_BYTES = 1024 * 1024
"""One read in the middle of a large frame."""
SAFE_IN_FLIGHT_BYTES = 64 * 1024
"""Requests and replies together stay below what the sockets buffer, so one thread may send all before it reads."""


def request_frame(id: int, payload: dict[str, Any]) -> bytes:
    """The frame that manybridge sends for `echo:echo`."""
    return encode_frame(codec.encode({"id": id, "command": "echo:echo", "args": payload, "deadline_ms": 60000.0}))


def receive(connection: socket.socket, decoder: FrameDecoder) -> bytes:
    """Read once."""
    return connection.recv(LARGE_READ_BYTES if decoder.buffered_bytes else READ_BYTES)


def answer(connection: socket.socket) -> None:
    """The far end: echo the arguments of every request until the other side closes."""
    decoder = FrameDecoder()
    while data := receive(connection, decoder):
        for frame in decoder.receive_data(data):
            assert not isinstance(frame, OversizedFrame)
            request = codec.decode(frame)
            reply = {"id": request["id"], "success": True, "result": request["args"], "timestamp": time()}
            connection.sendall(encode_frame(codec.encode(reply)))


class Limit:
    """The near end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._decoder = FrameDecoder()
        self._ready: list[Any] = []
        self._next = 0

    def round_trip(self, payload: dict[str, Any]) -> None:
        """One request and its reply."""
        self._send(payload)
        self._receive()

    def throughput(self, payload: dict[str, Any], size: int, in_flight: int, total: int) -> float:
        """Calls per second with `in_flight` requests of about `size` bytes always on the way."""
        begun = perf_counter()
        if size * in_flight <= SAFE_IN_FLIGHT_BYTES:
            self._windowed(payload, in_flight, total)
        else:
            self._with_sender(payload, in_flight, total)
        return total / (perf_counter() - begun)

    def _windowed(self, payload: dict[str, Any], in_flight: int, total: int) -> None:
        for _ in range(min(in_flight, total)):
            self._send(payload)
        for done in range(total):
            self._receive()
            if done + in_flight < total:
                self._send(payload)

    def _with_sender(self, payload: dict[str, Any], in_flight: int, total: int) -> None:
        window = threading.Semaphore(in_flight)

        def send_all() -> None:
            for _ in range(total):
                window.acquire()
                self._send(payload)

        sender = threading.Thread(target=send_all)
        sender.start()
        for _ in range(total):
            self._receive()
            window.release()
        sender.join()

    def _send(self, payload: dict[str, Any]) -> None:
        self._next += 1
        self._connection.sendall(request_frame(self._next, payload))

    def _receive(self) -> None:
        while not self._ready:
            self._ready.extend(self._decoder.receive_data(receive(self._connection, self._decoder)))
        reply = codec.decode(self._ready.pop(0))
        assert reply["success"]


@contextmanager
def limit() -> Iterator[Limit]:
    """Start the far end; stop it afterwards."""
    near, far = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            near.close()
            answer(far)
        finally:
            os._exit(0)
    far.close()
    try:
        yield Limit(near)
    finally:
        near.close()
        os.waitpid(pid, 0)

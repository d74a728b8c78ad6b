"""A host behind standard input and output: what an Erlang port, or any parent process, talks to.

The two descriptors are taken before anything else happens, so that whatever prints (a library, a warning) ends on
standard error and can't break a frame. The end of the input ends the host: open requests are still answered while
somebody reads, and stopped when nobody does.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import stat
import sys
import threading
from typing import Any, Final, NamedTuple, cast

from manybridge.gateway.conversation import Conversation
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.config import ConfigSource
from manybridge.protocol.frames import DEFAULT_MAX_FRAME_BYTES

FIRST_PRIVATE_FD: Final = 10
"""As in a worker: above the numbers that careless code closes or reuses."""

READ_BYTES: Final = 256 * 1024

UNREAD_BYTES: Final = 1024 * 1024
"""Output that waits for the client before its streams are held back."""


class Descriptors(NamedTuple):
    """Where the protocol is after `take_stdio`."""

    input: int
    output: int


def take_stdio() -> Descriptors:
    """Move the protocol off descriptors 0 and 1; leave 0 empty and make 1 a copy of 2, the log."""
    taken = Descriptors(*(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE_FD) for fd in (0, 1)))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    sys.stdout.flush()
    return taken


async def serve_stdio(config: ConfigSource = None) -> int:
    """Serve one client on standard input and output until it closes, or asks for the end.

    Args:
        config: as `AsyncMLBridge.from_config`.

    Returns:
        The exit status.

    Raises:
        ConfigError: the configuration is wrong.
    """
    descriptors = take_stdio()
    ml = AsyncMLBridge.from_config(config)
    async with ml:
        await StdioGateway(ml, descriptors).run()
    return 0


class StdioGateway:
    """Joins the descriptors and one conversation. Owner of both descriptors."""

    def __init__(
        self, ml: AsyncMLBridge, descriptors: Descriptors, *, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    ) -> None:
        self._descriptors = descriptors
        self._loop = asyncio.get_running_loop()
        self._input_ended = asyncio.Event()
        self._output_ended = asyncio.Event()
        self._output: asyncio.WriteTransport | None = None
        self._file: Any = None
        """The output, where it is a regular file."""
        self._conversation = Conversation(
            ml, self._write, max_frame_bytes=max_frame_bytes, on_shutdown=self._input_ended.set
        )

    async def run(self) -> None:
        """Serve until the input has ended and every request is answered, or until nobody reads any more."""
        transports = await self._open()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):  # not on the main thread
                self._loop.add_signal_handler(number, self._input_ended.set)
        ended = [asyncio.ensure_future(each.wait()) for each in (self._input_ended, self._output_ended)]
        await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
        if not self._output_ended.is_set():
            answered = asyncio.ensure_future(self._conversation.finish())
            await asyncio.wait({answered, ended[1]}, return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
        await self._conversation.cancel_all()
        for waiting in ended:
            waiting.cancel()
        for transport in transports:
            transport.close()  # what is buffered still goes out
        if self._file is not None:
            self._file.close()
        else:
            await self._output_ended.wait()

    async def _open(self) -> list[asyncio.BaseTransport]:
        input_kind, output_kind = (os.fstat(fd).st_mode for fd in self._descriptors)
        if stat.S_ISSOCK(output_kind):
            # One transport for both directions: two would take each other's readiness for their own.
            same = os.path.samestat(*map(os.fstat, self._descriptors))
            self._output = await self._socket(self._descriptors.output, reads=same)
            if same:
                os.close(self._descriptors.input)
                return [self._output]
        else:
            await self._open_output()
        outputs: list[asyncio.BaseTransport] = [] if self._output is None else [self._output]
        if stat.S_ISSOCK(input_kind):
            return [*outputs, await self._socket(self._descriptors.input, reads=True)]
        return [*outputs, *await self._open_input()]

    async def _socket(self, fd: int, *, reads: bool) -> asyncio.Transport:
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        transport, _ = await self._loop.connect_accepted_socket(lambda: _Duplex(self, reads=reads), sock)
        return transport

    async def _open_input(self) -> list[asyncio.BaseTransport]:
        fd = self._descriptors.input
        stream = os.fdopen(fd, "rb", buffering=0)
        if stat.S_ISFIFO(os.fstat(fd).st_mode) or os.isatty(fd):
            transport, _ = await self._loop.connect_read_pipe(lambda: _Input(self), stream)
            return [transport]
        # A file or a device such as /dev/null, which service managers give: epoll takes neither, and asyncio learns
        # of that only in a callback.
        threading.Thread(target=self._read_file, args=(stream,), name="stdio-input", daemon=True).start()
        return []

    def _read_file(self, stream: Any) -> None:
        with stream:
            while data := stream.read(READ_BYTES):
                self._loop.call_soon_threadsafe(self._conversation.receive, data)
        self._loop.call_soon_threadsafe(self._input_ended.set)

    async def _open_output(self) -> None:
        stream = os.fdopen(self._descriptors.output, "wb", buffering=0)
        try:
            self._output, _ = await self._loop.connect_write_pipe(lambda: _Output(self), stream)
        except (ValueError, PermissionError):
            self._file = stream  # a regular file takes whatever is written

    def _write(self, data: bytes) -> None:
        if self._file is not None:
            self._file.write(data)
        elif self._output is not None and not self._output.is_closing():
            self._output.write(data)

    def receive(self, data: bytes) -> None:
        """The client sent something."""
        self._conversation.receive(data)

    def input_lost(self) -> None:
        """The client sends nothing more."""
        self._input_ended.set()

    def pause(self) -> None:
        """The client does not keep up."""
        self._conversation.pause()

    def resume(self) -> None:
        """The client has caught up."""
        self._conversation.resume()

    def output_lost(self) -> None:
        """Nobody reads any more."""
        self._output_ended.set()


class _Input(asyncio.Protocol):
    """Takes what the client sends."""

    def __init__(self, gateway: StdioGateway) -> None:
        self._gateway = gateway

    def data_received(self, data: bytes) -> None:
        self._gateway.receive(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._gateway.input_lost()


class _Output(asyncio.BaseProtocol):
    """Knows whether the client reads."""

    def __init__(self, gateway: StdioGateway) -> None:
        self._gateway = gateway

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Only streams are held back; replies go into the buffer, however long it is.
        cast(asyncio.WriteTransport, transport).set_write_buffer_limits(high=UNREAD_BYTES)

    def pause_writing(self) -> None:
        self._gateway.pause()

    def resume_writing(self) -> None:
        self._gateway.resume()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._gateway.output_lost()


class _Duplex(_Output, asyncio.Protocol):
    """A socket; the client's input may come from it too."""

    def __init__(self, gateway: StdioGateway, *, reads: bool) -> None:
        super().__init__(gateway)
        self._reads = reads

    def data_received(self, data: bytes) -> None:
        if self._reads:
            self._gateway.receive(data)

    def eof_received(self) -> bool:
        if self._reads:
            self._gateway.input_lost()
        return True  # the other direction may still be open

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reads:
            self._gateway.input_lost()
        super().connection_lost(exc)

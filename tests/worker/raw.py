"""A worker as a stranger sees it: a process, a stream in each direction, and frames written out by hand."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal, Self

import pytest

from tests.support import DEFAULT_TIMEOUT, REPOSITORY, SOURCE, FrameReader, eventually, frame, request

BOOTSTRAP = SOURCE / "manybridge" / "worker" / "bootstrap.py"
BRIDGES = REPOSITORY / "tests" / "workers" / "bridges"

Transport = Literal["socket", "pipes"]
Log = Literal["file", "merged", "closed", "unread"]
"""What the worker's descriptor 2 is: a file that the test reads, the protocol's own stream, nothing, or a pipe whose
reader has gone."""


def bridge(name: str) -> str:
    """The reference of a bridge that only tests use."""
    return str(BRIDGES / f"{name}.py")


class RawWorker:
    """Owns one worker process, this side of its streams, and its log.

    Args:
        reference: the bridge.
        arguments: more of the command line.
        transport: one socket in both directions, as a host has it, or two pipes, as a port or shell has them.
        log: see `Log`.
        environment: variables to set.
        program: in the place of interpreter, bootstrap file and bridge.
    """

    def __init__(
        self,
        reference: str = "mock",
        *arguments: str,
        options: dict[str, Any] | None = None,
        transport: Transport = "socket",
        log: Log = "file",
        environment: dict[str, str] | None = None,
        program: list[str] | None = None,
    ) -> None:
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        """Events that `receive` met on its way, oldest first."""
        self.replies: dict[Any, dict[str, Any]] = {}
        """Replies that `result_beside` met on its way."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed by close()
        command = [*(program or [sys.executable, "-I", str(BOOTSTRAP), reference]), *arguments]
        if options is not None:
            command += ["--options", json.dumps(options)]
        self._open_streams(transport)
        try:
            self.process = subprocess.Popen(
                command,
                stdin=self._their_input,
                stdout=self._their_output,
                stderr=_standard_error(log, self._log.fileno()),
                env={"PATH": os.environ["PATH"], **_session_mark(), **(environment or {})},
                preexec_fn=_close_log if log == "closed" else None,  # noqa: PLW1509  # no thread runs in these tests
            )
        finally:
            for fd in {self._their_input, self._their_output}:
                os.close(fd)
        if self.process.stderr is not None:
            self.process.stderr.close()
        self._reader = FrameReader(self._output)

    def _open_streams(self, transport: Transport) -> None:
        if transport == "socket":
            ours, theirs = socket.socketpair()
            self._input = self._output = ours.detach()
            self._their_input = self._their_output = theirs.detach()
        else:
            self._their_input, self._input = os.pipe()
            self._output, self._their_output = os.pipe()

    # ------------------------------------------------------------------ out

    def send_bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        while data:
            data = data[os.write(self._input, data) :]

    def send_message(self, message: object) -> None:
        """Write any JSON value as one frame."""
        self.send_bytes(frame(json.dumps(message)))

    def send(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> int:
        """Send one request and return its id."""
        number = next(self._ids)
        self.send_bytes(request(number, command, args, **fields))
        return number

    def end_of_input(self) -> None:
        """Close our writing direction only."""
        if self._input == self._output:
            with socket.socket(fileno=os.dup(self._input)) as sock:
                sock.shutdown(socket.SHUT_WR)
        else:
            os.close(self._input)
            self._input = -1

    def stop_reading(self) -> None:
        """Close the descriptor that the worker writes to; with pipes, our writing direction stays open."""
        os.close(self._output)
        if self._input == self._output:
            self._input = -1
        self._output = -1

    def hang_up(self) -> None:
        """Close both directions."""
        for fd in {self._input, self._output} - {-1}:
            os.close(fd)
        self._input = self._output = -1

    # ------------------------------------------------------------------ in

    def read(self, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Return the next frame's value."""
        return self._reader.read(timeout)

    def receive(self, number: Any, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """Return the reply to one request; events on the way are kept in `events`, other replies fail the test."""
        while True:
            message: dict[str, Any] = self.read(timeout)
            if "event" in message:
                self.events.append(message)
                continue
            assert message["id"] == number, message
            return message

    def next_event(self, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """Return the next frame, which must be an event."""
        message: dict[str, Any] = self.read(timeout)
        assert "event" in message, message
        return message

    def ask(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send one request and return its reply."""
        return self.receive(self.send(command, args, **fields))

    def result(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> Any:
        """Send one request and return its result; fail the test if it failed."""
        reply = self.ask(command, args, **fields)
        assert reply["success"], reply
        return reply["result"]

    def result_beside(
        self, number: int, command: str, args: dict[str, Any] | None = None, *, others: list[int] | None = None
    ) -> Any:
        """Like `result`, while call `number` stays open; replies of `others` must come too and go to `replies`."""
        wanted = self.send(command, args)
        left = {wanted, *(others or [])}
        while left:
            message = self.read()
            if "event" in message:
                self.events.append(message)
                continue
            assert message["id"] in left, (message, number)
            left.discard(message["id"])
            self.replies[message["id"]] = message
        reply = self.replies.pop(wanted)
        assert reply["success"], reply
        return reply["result"]

    def error(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send one version 2 request that fails and return its error_info."""
        return error_of(self.ask(command, args, **fields))

    def ping_until_busy(self, number: int) -> None:
        """Wait until that call's code runs."""

        def busy() -> bool:
            facts: dict[str, Any] = self.result("common:ping")
            return bool(facts["current_call"] == number and facts["state"] == "busy")

        eventually(busy, message=f"call {number} does not run")

    @property
    def log(self) -> str:
        """What the worker wrote to descriptor 2 until now."""
        return os.pread(self._log.fileno(), 10_000_000, 0).decode(errors="replace")

    # ------------------------------------------------------------------ the end

    def assert_closed(self) -> None:
        """The worker closes its stream after what was read, without a half frame."""
        with pytest.raises((EOFError, ConnectionResetError)):
            self.read()
        assert not self._reader.rest

    def ended(self, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Wait for the end of the process and return its status; negative for a signal."""
        status: int = self.process.wait(timeout)
        return status

    def close(self) -> None:
        """Hang up, and kill whatever is left."""
        self.hang_up()
        try:
            self.process.wait(DEFAULT_TIMEOUT / 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def error_of(reply: dict[str, Any]) -> dict[str, Any]:
    """The error_info of a failed reply, after a look at its shape."""
    assert reply["success"] is False, reply
    info: dict[str, Any] = reply["error_info"]
    assert info["message"] == reply["error"]
    assert {"code", "message", "retryable", "framework", "type", "details"} <= info.keys()
    return info


def children_of(pid: int) -> list[int]:
    """The live children of a process."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(word) for word in path.read_text().split()]
    return found


def _standard_error(log: Log, file: int) -> int:
    if log == "file":
        return file
    return subprocess.STDOUT if log == "merged" else subprocess.PIPE


def _session_mark() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name == "MANYBRIDGE_TEST_SESSION"}


def _close_log() -> None:
    os.close(2)

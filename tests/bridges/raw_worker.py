"""A worker as a raw program sees it: a process, two pipes and frames."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.support import DEFAULT_TIMEOUT, SOURCE, FrameReader, request

BOOTSTRAP = SOURCE / "manybridge" / "worker" / "bootstrap.py"


class Conversation:
    """Requests and replies, frame by frame.

    Args:
        write: sends bytes.
        descriptor: where bytes come from.
    """

    def __init__(self, write: Callable[[bytes], object], descriptor: int) -> None:
        self._write = write
        self._reader = FrameReader(descriptor)
        self._ids = itertools.count(1)
        self.events: list[dict[str, Any]] = []

    def send(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> int:
        """Send one request and return its id."""
        number = next(self._ids)
        self._write(request(number, command, args, **fields))
        return number

    def read(self, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """Return the next frame."""
        message: dict[str, Any] = self._reader.read(timeout)
        return message

    def receive(self, number: int, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """Return the reply to one request; events on the way are kept in `events`."""
        while True:
            message = self.read(timeout)
            if "event" in message:
                self.events.append(message)
            elif message["id"] == number:
                return message

    def ask(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send one request and return its reply."""
        return self.receive(self.send(command, args, **fields))

    def result(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> Any:
        """Send one request and return its result; fail the test if it failed."""
        reply = self.ask(command, args, **fields)
        assert reply["success"], reply
        return reply["result"]

    def code(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> str:
        """Send one request that fails and return its error code."""
        reply = self.ask(command, args, **fields)
        assert not reply["success"], reply
        code: str = reply["error_info"]["code"]
        return code


class RawWorker(Conversation):
    """Owns one worker process and both ends of the conversation."""

    def __init__(
        self,
        bridge: str | Path,
        options: dict[str, Any] | None = None,
        *arguments: str,
        python: Path | str = sys.executable,
        environment: dict[str, str] | None = None,
    ) -> None:
        command: Sequence[str] = (
            *(str(python), "-I", str(BOOTSTRAP), str(bridge)),
            *("--options", json.dumps(options or {}), *arguments),
        )
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", **(environment or {})},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input = self.process.stdin
        super().__init__(self._send_bytes, self.process.stdout.fileno())

    def _send_bytes(self, data: bytes) -> None:
        self._input.write(data)
        self._input.flush()

    def ended(self, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Wait for the end of the process and return its status; negative for a signal."""
        return self.process.wait(timeout)

    def close(self) -> None:
        """Hang up, and kill whatever is left of the worker's group."""
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        if self.process.stdout:
            self.process.stdout.close()
        try:
            self.process.wait(DEFAULT_TIMEOUT / 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        if self.process.stderr:
            self.process.stderr.close()


@contextlib.contextmanager
def raw_worker(
    bridge: str | Path,
    options: dict[str, Any] | None = None,
    *arguments: str,
    python: Path | str = sys.executable,
    environment: dict[str, str] | None = None,
) -> Iterator[RawWorker]:
    """Start a worker and end it with the block."""
    worker = RawWorker(bridge, options, *arguments, python=python, environment=environment)
    try:
        yield worker
    finally:
        worker.close()

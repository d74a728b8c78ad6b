"""A raw port client: starts the drop-in as DSPex does, speaks {packet, 4} frames, and knows nothing of manybridge.

What a conversation must look like is written as rows: (command, args, expected reply).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple, Self, TypeAlias

from tests.support import DEFAULT_TIMEOUT, MS, SOURCE, frame, frame_message, split_frames

SCRIPT = SOURCE / "manybridge" / "dropin" / "dspy_bridge.py"
PLAIN_PYTHON = Path(sys.executable)
"""An interpreter without DSPy: what the commands answer that need none, and what the others say."""

STANDALONE: tuple[str, ...] = ()
POOL_WORKER = ("--mode", "pool-worker", "--worker-id", "worker_123_1795320422003507")
QUIET = 150 * MS
"""How long nothing must come before it counts as silence."""


class Error(NamedTuple):
    """An error reply with exactly this text."""

    text: str


Expected: TypeAlias = "Error | dict[str, Any] | type | EllipsisType"


class Row(NamedTuple):
    """One request of a conversation and what must come back.

    Attributes:
        expected: `Error`, or the result as an object. In it a type means "a value of exactly this type", `...` means
            anything, and everything else means itself. The result has these keys and no others.
    """

    command: Any
    args: Any
    expected: Expected


def mismatch(expected: Any, found: Any, where: str = "result") -> str | None:
    """Say how `found` differs from what a row expects, or None."""
    if expected is ...:
        return None
    if isinstance(expected, tuple) and all(isinstance(one, type) for one in expected):
        return None if type(found) in expected else f"{where}: {found!r} is not one of {expected}"
    if isinstance(expected, type):
        return None if type(found) is expected else f"{where}: {found!r} is not {expected.__name__}"
    if isinstance(expected, dict):
        if not isinstance(found, dict) or expected.keys() != found.keys():
            return f"{where}: expected the keys {sorted(expected)}, found {found!r}"
        return next((m for key in expected if (m := mismatch(expected[key], found[key], f"{where}.{key}"))), None)
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        pairs = enumerate(zip(expected, found, strict=True))
        return next((m for at, (one, other) in pairs if (m := mismatch(one, other, f"{where}[{at}]"))), None)
    # 1 == True == 1.0 in Python; Elixir tells them apart
    return None if expected == found and type(expected) is type(found) else f"{where}: {found!r} is not {expected!r}"


class Port:
    """One process of the drop-in; a context manager that ends it and waits for it.

    Attributes:
        replies: every message that came and was not yet read by `reply`.
    """

    def __init__(
        self,
        *argv: str,
        python: Path = PLAIN_PYTHON,
        env: Mapping[str, str] | None = None,
        script: Path = SCRIPT,
        cwd: Path | None = None,
    ) -> None:
        self.process = subprocess.Popen(
            [str(python), str(script), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            bufsize=0,
        )
        self.replies: list[Any] = []
        self._rest = b""
        self._next_id = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(DEFAULT_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def send_bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def send(self, command: Any, args: Any = None, *, id: Any = None) -> Any:
        """Send a request as the Elixir side writes it, and return its id."""
        if id is None:
            id, self._next_id = self._next_id, self._next_id + 1
        message = {"id": id, "command": command, "args": {} if args is None else args}
        self.send_bytes(frame_message({**message, "timestamp": "2025-07-20T12:34:56.789012Z"}))
        return id

    def reply(self, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Return the next message.

        Raises:
            EOFError: the process closed its output.
            TimeoutError: nothing came.
        """
        deadline = time.monotonic() + timeout
        while not self.replies:
            if not self._wait_for_output(deadline - time.monotonic()):
                raise TimeoutError(f"no reply within {timeout:.2f} s")
            self._read()
        return self.replies.pop(0)

    def _wait_for_output(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], max(0.0, seconds))[0])

    def _read(self) -> None:
        assert self.process.stdout is not None
        data = os.read(self.process.stdout.fileno(), 1 << 20)
        if not data:
            raise EOFError("the process closed its output")
        messages, self._rest = split_frames(self._rest + data)
        for raw in messages:
            json.dumps(raw, allow_nan=False)  # Jason refuses NaN and Infinity
        self.replies.extend(messages)

    def call(self, command: Any, args: Any = None, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Send a request and return its reply, whose envelope is checked."""
        id = self.send(command, args)
        reply = self.reply(timeout)
        check_envelope(reply, id)
        return reply

    def result(self, command: Any, args: Any = None, timeout: float = DEFAULT_TIMEOUT) -> dict[str, Any]:
        """Return the result of a call that must succeed."""
        reply = self.call(command, args, timeout)
        assert reply["success"], reply
        found: dict[str, Any] = reply["result"]
        return found

    def play(self, *rows: Row) -> None:
        """Have a conversation; every reply must be what its row says."""
        for row in rows:
            check(row, self.call(row.command, row.args))

    def is_silent(self, seconds: float = QUIET) -> bool:
        """Whether nothing comes for a while."""
        return not self.replies and not self._wait_for_output(seconds)

    def close_input(self) -> None:
        """What closing an Erlang port does."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_status(self, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Wait for the end of the process, after which it must have written nothing more."""
        status = self.process.wait(timeout)
        while self._wait_for_output(0):
            try:
                self._read()
            except EOFError:
                break
        assert self.replies == []
        assert self._rest == b""
        return status


def check_envelope(reply: Any, id: Any) -> None:
    """Every reply, whatever it says: the id of the request with its type, and exactly the keys of version 1."""
    assert (type(reply["id"]), reply["id"]) == (type(id), id)
    assert type(reply["timestamp"]) is float
    wanted = {"id", "success", "result" if reply["success"] is True else "error", "timestamp"}
    assert reply.keys() == wanted, reply
    if reply["success"]:
        assert type(reply["result"]) is dict
    else:
        assert type(reply["error"]) is str


def check(row: Row, reply: Any) -> None:
    """Compare a reply with its row."""
    if isinstance(row.expected, Error):
        assert not reply["success"], f"{row.command}: {reply}"
        assert reply["error"] == row.expected.text
    else:
        assert reply["success"], f"{row.command}: {reply}"
        wrong = mismatch(row.expected, reply["result"])
        assert wrong is None, f"{row.command}: {wrong}"


__all__ = ["Error", "Port", "Row", "check", "check_envelope", "frame", "frame_message", "mismatch"]

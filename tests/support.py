"""Shared helpers for tests: scaled time, waiting for a condition, frames on the wire, framework environments."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import os
import select
import struct
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar, overload

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SOURCE = REPOSITORY / "src"

TIME_FACTOR = float(os.environ.get("MANYBRIDGE_TEST_TIME_FACTOR", "1"))
"""How much slower than a quiet developer machine this one is; every time in the tests is multiplied by it."""

MS = 0.001 * TIME_FACTOR
"""One millisecond in seconds, scaled. Tests write times as multiples of it: `timeout=200 * MS`."""

PATIENT: dict[str, float] = {"cancel_grace": 10_000 * MS, "term_grace": 10_000 * MS}
"""Configuration of a bridge whose handlers end by themselves when asked: no machine is so busy that one is killed."""

INTERRUPTING: dict[str, float] = {"cancel_grace": 2_000 * MS, "term_grace": 10_000 * MS}
"""Configuration of a bridge whose handlers are interrupted, after half of that grace, and end then."""

IMPATIENT: dict[str, float] = {"cancel_grace": 200 * MS, "term_grace": 200 * MS}
"""Configuration of a bridge whose handlers have to be killed: nobody waits long for what will not come."""

# A quarter of the 20 s that a test may take: long enough for a worker to start on a loaded two-core machine, and a
# test that waits in vain still fails by its own message and not by the test runner's alarm.
DEFAULT_TIMEOUT = 5_000 * MS

# Between two looks at the condition, seconds. Not scaled: looking costs the same on a slow machine.
FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05

Value = TypeVar("Value")


def eventually(
    predicate: Callable[[], Value], timeout: float = DEFAULT_TIMEOUT, message: str | Callable[[], object] = ""
) -> Value:
    """Call `predicate` until what it returns is true, and return that.

    Args:
        predicate: Looked at once at least, then ever less often (1 ms to 50 ms apart). An `AssertionError` that it
            raises counts as "not yet"; anything else passes through.
        timeout: Seconds; take a multiple of `MS`.
        message: Said on failure, or a function that tells the state at that moment.

    Raises:
        AssertionError: The condition did not come true in time.
    """
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    while True:
        value, failure = _look(predicate)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(_not_in_time(predicate, timeout, message)) from failure
        time.sleep(pause)  # the one sleep behind every eventually(...)
        pause = min(pause * 2, LONGEST_PAUSE)


@overload
async def aeventually(
    predicate: Callable[[], Coroutine[Any, Any, Value]],
    timeout: float = ...,
    message: str | Callable[[], object] = ...,
) -> Value: ...
@overload
async def aeventually(
    predicate: Callable[[], Value], timeout: float = ..., message: str | Callable[[], object] = ...
) -> Value: ...
async def aeventually(
    predicate: Callable[[], Value | Coroutine[Any, Any, Value]],
    timeout: float = DEFAULT_TIMEOUT,
    message: str | Callable[[], object] = "",
) -> Value:
    """Do what `eventually` does without blocking the event loop; `predicate` may be a coroutine function.

    Raises:
        AssertionError: The condition did not come true in time.
    """
    deadline = time.monotonic() + timeout
    pause = FIRST_PAUSE
    while True:
        value, failure = await _alook(predicate)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(_not_in_time(predicate, timeout, message)) from failure
        await asyncio.sleep(pause)  # the one sleep behind every aeventually(...)
        pause = min(pause * 2, LONGEST_PAUSE)


def _look(predicate: Callable[[], Value]) -> tuple[Value | None, AssertionError | None]:
    try:
        return predicate(), None
    except AssertionError as error:
        return None, error


async def _alook(
    predicate: Callable[[], Value | Coroutine[Any, Any, Value]],
) -> tuple[Value | None, AssertionError | None]:
    try:
        value = predicate()
        return (await value if inspect.isawaitable(value) else value), None
    except AssertionError as error:
        return None, error


def _not_in_time(predicate: Callable[..., object], timeout: float, message: str | Callable[[], object]) -> str:
    said = message() if callable(message) else message
    return f"not true within {timeout:.3f} s: {said or getattr(predicate, '__qualname__', predicate)}"


# ---------------------------------------------------------------- processes


def process_is_running(pid: int) -> bool:
    """Say whether `pid` is a process that still runs code: a zombie has ended and only waits to be collected."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # The command name stands in parentheses and may hold spaces and parentheses itself; the state follows the last.
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def framework_python(name: str) -> Path:
    """Return the interpreter of a framework's environment (`.envs/NAME`), for a test marked `framework`.

    Without that environment the test is skipped on a developer's machine and fails in CI, where a skipped test
    would look like a passed one.
    """
    python = REPOSITORY / ".envs" / name / "bin" / "python"
    if not python.exists():
        reason = f"{python} does not exist; run: make setup"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return python


# ---------------------------------------------------------------- the wire, written out by hand
#
# Tests of both ends use these and not manybridge.protocol: an error in the protocol must not hide itself.

HEADER = struct.Struct(">I")


def frame(payload: bytes | str) -> bytes:
    """Return `payload` as one frame: its length in bytes (4 bytes, big-endian), then itself."""
    raw = payload.encode() if isinstance(payload, str) else payload
    return HEADER.pack(len(raw)) + raw


def frame_message(message: object) -> bytes:
    """Return `message` as one frame of UTF-8 JSON."""
    return frame(json.dumps(message, ensure_ascii=False, separators=(",", ":")))


def request(id: int, command: str, args: dict[str, Any] | None = None, **fields: object) -> bytes:
    """Return one request as a frame. `fields` are further keys of the message (`stream=True`, `session_id=...`)."""
    return frame_message({"id": id, "command": command, "args": args or {}, **fields})


def split_frames(data: bytes) -> tuple[list[Any], bytes]:
    """Cut `data` into the messages of its whole frames and the bytes of a last frame that is not whole."""
    messages: list[Any] = []
    while len(data) >= HEADER.size:
        (length,) = HEADER.unpack_from(data)
        end = HEADER.size + length
        if len(data) < end:
            break
        messages.append(json.loads(data[HEADER.size : end]))
        data = data[end:]
    return messages, data


def cuts(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """Return `data` cut at `positions` (any order, repeated ones give empty pieces), as a stream may deliver it."""
    edges = [0, *sorted(min(max(position, 0), len(data)) for position in positions), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


class FrameReader:
    """Reads messages from a file descriptor, blocking; owns the bytes that were read ahead, not the descriptor.

    After an error the bytes read so far stay, so that a test can look at `rest`.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._messages: list[Any] = []
        self.rest = b""

    def read(self, timeout: float = DEFAULT_TIMEOUT) -> Any:
        """Return the next message.

        Raises:
            EOFError: The other end closed; the text tells the bytes of a frame that was cut off.
            TimeoutError: No whole frame came within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while not self._messages:
            self._receive(deadline)
        return self._messages.pop(0)

    def _receive(self, deadline: float) -> None:
        remaining = max(deadline - time.monotonic(), 0)
        if not select.select([self._descriptor], [], [], remaining)[0]:
            raise TimeoutError(f"no whole frame in time; {len(self.rest)} bytes of one: {self.rest[:80]!r}")
        data = os.read(self._descriptor, 65536)
        if not data:
            raise EOFError(f"closed, with {len(self.rest)} bytes of a frame: {self.rest[:80]!r}")
        self._messages, self.rest = split_frames(self.rest + data)

"""Every way in which a bridge's code can misbehave, each on demand. The rows of the crash matrix are made of these."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final, Literal, NoReturn

from manybridge.bridge import BridgeError, Cancelled

FailKind = Literal[
    "raise",
    "bad_text",
    "bridge_error",
    "memory",
    "recursion",
    "exit",
    "os_exit",
    "kill",
    "terminate",
    "segfault",
    "abort",
    "unserializable",
    "huge",
]
DeathKind = Literal["os_exit", "kill", "terminate", "segfault", "abort"]
BusyMode = Literal["python", "swallow", "sleep", "c", "c_released"]
BadValue = Literal["object", "bytes", "set", "function", "cycle", "nan", "surrogate", "keys"]

HUGE_BYTES: Final = 80 * 1024 * 1024
"""More than any frame limit in use (the default is 64 MiB or less), yet small enough for a laptop."""


class MockError(Exception):
    """What `mock:fail {kind: "raise"}` raises: an exception of the bridge's own, unknown to any rule."""


class Opaque:
    """A value that JSON can't carry and whose repr must not reach anybody."""

    def __repr__(self) -> str:
        return "<Opaque password='secret-in-repr'>"


class _Unprintable(Exception):  # noqa: N818  # it is the fault, not an error class to catch
    """An exception that can't even be turned into text."""

    def __str__(self) -> str:
        raise RuntimeError("this exception has no text")

    __repr__ = __str__


def fail(kind: FailKind, message: str = "mock failure", exit_code: int = 3, size: int | None = None) -> Any:
    """Fails in the given way. Returns only for the kinds that are about results.

    Args:
        message: text of the exception, for the kinds that have one.
        exit_code: for `exit` and `os_exit`.
        size: bytes, for `huge`.
    """
    if kind == "huge":
        return "x" * (HUGE_BYTES if size is None else size)
    if kind == "unserializable":
        return bad_value("object")
    if kind == "exit":
        sys.exit(exit_code)
    if kind in _RAISES:
        raise _RAISES[kind](message)
    if kind == "recursion":
        return _recurse(0)
    return die(kind, exit_code)  # type: ignore[arg-type]  # the kinds that are left all end the process


_RAISES: Final[dict[str, Callable[[str], BaseException]]] = {
    "raise": MockError,
    "bad_text": _Unprintable,
    "memory": MemoryError,
    "bridge_error": lambda message: BridgeError("rate_limited", message, details={"retry_after": 1.5}),
}


def die(kind: DeathKind, exit_code: int = 3) -> NoReturn:
    """Ends this process at once, without any clean-up."""
    if kind == "os_exit":
        os._exit(exit_code)
    if kind == "segfault":
        import ctypes

        ctypes.string_at(0)
    elif kind == "abort":
        os.abort()
    else:
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)
    time.sleep(60)  # a signal that is being delivered; nothing may run after this line
    os._exit(exit_code)


def _recurse(depth: int) -> int:
    return _recurse(depth + 1) + 1


def bad_value(what: BadValue) -> Any:
    """A result that JSON can't carry as it is."""
    cycle: list[Any] = []
    cycle.append(cycle)
    values: dict[str, Any] = {
        "object": {"value": Opaque()},
        "bytes": b"\x00\xff",
        "set": {1, 2},
        "function": bad_value,
        "cycle": cycle,
        "nan": {"nan": float("nan"), "infinity": float("inf")},
        "surrogate": "\ud800",
        "keys": {1: "one", (2, 3): "pair", None: "nothing"},
    }
    return values[what]


def be_busy(seconds: float, mode: BusyMode) -> None:
    """Works for that long without ever asking whether it should stop.

    Args:
        mode: `python` loops in bytecode; `swallow` does so and catches everything raised into it; `sleep` is one
            blocking call that releases the interpreter; `c` holds the interpreter inside C with signals blocked, so
            that only SIGKILL helps; `c_released` does the same with the interpreter released.
    """
    deadline = time.monotonic() + seconds
    if mode == "python":
        while time.monotonic() < deadline:
            pass
    elif mode == "swallow":
        _swallow(deadline)
    elif mode == "sleep":
        time.sleep(seconds)
    else:
        _sleep_in_c(seconds, holds_interpreter=mode == "c")


def _swallow(deadline: float) -> None:
    while time.monotonic() < deadline:
        try:
            while time.monotonic() < deadline:
                pass
        except (Exception, Cancelled, KeyboardInterrupt, SystemExit):  # noqa: BLE001, S112  # the fault asked for
            continue


def _sleep_in_c(seconds: float, *, holds_interpreter: bool) -> None:
    """Real code stuck in C does not return for a signal either, which plain sleep() would: hence the mask.

    One call for all the seconds: between two calls the interpreter would run what signals have asked for meanwhile.
    """
    import ctypes

    library = ctypes.PyDLL(None) if holds_interpreter else ctypes.CDLL(None)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        library.sleep(int(seconds))
        library.usleep(int(seconds % 1 * 1_000_000))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""Options of the `mock` bridge: a script, and faults of boot and shutdown."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, get_args

from manybridge.bridge import BridgeError

from .faults import DeathKind, die


class MockOptions(NamedTuple):
    """What `[bridges.mock] options = {...}` may hold."""

    script: Sequence[Any] = ()
    """Replies, as for `mock:script`."""
    setup_delay_ms: float = 0
    """Setup takes that long."""
    setup_error: str | None = None
    """Setup raises a RuntimeError with this text."""
    setup_error_code: str | None = None
    """Setup raises a BridgeError with this code instead."""
    setup_exit: int | None = None
    """Setup calls sys.exit with this code."""
    setup_crash: DeathKind | None = None
    """The process dies in setup."""
    close_delay_ms: float = 0
    """Closing takes that long."""
    close_error: str | None = None
    """Closing raises a RuntimeError with this text."""


_KINDS: Final[dict[str, tuple[Any, str]]] = {
    "script": (list, "a list of replies"),
    "setup_delay_ms": ((int, float), "a number of milliseconds"),
    "setup_error": (str | None, "a text"),
    "setup_error_code": (str | None, "an error code"),
    "setup_exit": (int | None, "an exit code"),
    "setup_crash": (str | None, f"one of {', '.join(get_args(DeathKind))}"),
    "close_delay_ms": ((int, float), "a number of milliseconds"),
    "close_error": (str | None, "a text"),
}


def read_options(given: dict[str, Any]) -> MockOptions:
    """Checks the options.

    Raises:
        BridgeError: `config_error`, naming the key, what was expected and what was found.
    """
    known = MockOptions._fields
    for key, value in given.items():
        if key not in known:
            raise _wrong(key, f"is unknown; known options: {', '.join(known)}")
        kind, words = _KINDS[key]
        if not isinstance(value, kind):
            raise _wrong(key, f"expected {words}, found {value!r}")
    if given.get("setup_crash") not in (None, *get_args(DeathKind)):
        raise _wrong("setup_crash", f"expected {_KINDS['setup_crash'][1]}, found {given['setup_crash']!r}")
    return MockOptions(**given)


def play_boot(options: MockOptions) -> None:
    """Is slow, fails, exits or dies, as the options say."""
    time.sleep(options.setup_delay_ms / 1000)
    if options.setup_crash is not None:
        die(options.setup_crash)
    if options.setup_exit is not None:
        raise SystemExit(options.setup_exit)
    if options.setup_error_code is not None:
        raise BridgeError(options.setup_error_code, options.setup_error or "mock setup error")
    if options.setup_error is not None:
        raise RuntimeError(options.setup_error)


def play_close(options: MockOptions) -> None:
    """Is slow or fails, as the options say."""
    time.sleep(options.close_delay_ms / 1000)
    if options.close_error is not None:
        raise RuntimeError(options.close_error)


def _wrong(key: str, problem: str) -> BridgeError:
    return BridgeError("config_error", f"options.{key}: {problem}", details={"key": key})

"""The arguments of the public surface, checked. Every error names the argument, what was expected and what was found.

What was found is told by its type, a number or a choice by its value too: a text may be a secret in the wrong place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from manybridge.errors import InvalidArgumentError
from manybridge.protocol.messages import MAX_DEADLINE_MS

MAX_SECONDS: Final = MAX_DEADLINE_MS / 1000
"""The longest time that a worker can be told."""


def wrong_argument(name: str, expected: str, value: Any, found: str | None = None) -> InvalidArgumentError:
    """The error of one argument.

    Args:
        name: of the argument.
        expected: what it should have been, with its article.
        value: what it was; only its type is told.
        found: said in the place of the type.
    """
    found = found or type(value).__name__
    problem = {"argument": name, "expected": expected, "found": found}
    return InvalidArgumentError(f"{name}: expected {expected}, found {found}", details={"problems": [problem]})


def checked_text(value: Any, name: str) -> str:
    """Return a text.

    Raises:
        InvalidArgumentError: it is none.
    """
    if isinstance(value, str):
        return value
    raise wrong_argument(name, "a string", value)


def checked_name(value: Any, name: str) -> str:
    """Return a text that names something.

    Raises:
        InvalidArgumentError: it is no text, or empty.
    """
    if isinstance(value, str) and value:
        return value
    raise wrong_argument(name, "a non-empty string", value, "an empty string" if value == "" else None)


def maybe_name(value: Any, name: str) -> str | None:
    """Return None, or a text that names something.

    Raises:
        InvalidArgumentError: it is neither.
    """
    return None if value is None else checked_name(value, name)


def checked_function(value: Any, name: str) -> Callable[..., Any]:
    """Return something that can be called.

    Raises:
        InvalidArgumentError: it can't.
    """
    if callable(value):
        return value  # type: ignore[no-any-return]  # what it takes and returns is its caller's to know
    raise wrong_argument(name, "a function", value)


def checked_args(args: Mapping[str, Any] | None, name: str = "args") -> dict[str, Any]:
    """Return the arguments of a call as a dictionary; `name` is what an error calls them.

    Raises:
        InvalidArgumentError: they are no mapping.
    """
    if args is None:
        return {}
    if isinstance(args, dict):
        return args
    if isinstance(args, Mapping):
        return dict(args)
    raise wrong_argument(name, "a mapping of names to values", args)


def checked_timeout(timeout: float | None, default: float | None) -> float:
    """Return the seconds that a call has: its own, else the bridge's, else no limit.

    Raises:
        InvalidArgumentError: it is no number of seconds, below zero, or longer than a worker can be told.
    """
    if timeout is None:
        return inf if default is None else default
    return checked_seconds(timeout, "timeout", MAX_SECONDS)


def checked_seconds(value: Any, name: str, longest: float = inf) -> float:
    """Return a number of seconds; `math.inf` is no limit.

    Raises:
        InvalidArgumentError: it is no number, below zero, or finite and above `longest`.
    """
    bound = "seconds >= 0" if longest == inf else f"seconds from 0 to {longest:.0f} ({longest / 86400:g} days)"
    expected = f"{bound}, or math.inf for no limit"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise wrong_argument(name, expected, value)
    if 0 <= value <= longest or value == inf:
        return value
    raise wrong_argument(name, expected, value, f"{value}")

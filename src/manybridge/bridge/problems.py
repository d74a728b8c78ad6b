"""Problems of a call's arguments: how they are collected, worded and raised.

Values are described by type and size. Only numbers and booleans are shown, because a string may be a key, and an
invalid argument's text ends up in logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from manybridge.bridge.errors import BridgeError
from manybridge.protocol.errors import ErrorCode

MAX_PROBLEMS: Final = 20
"""Collected per call. A list of a million wrong items must not make a reply of a million lines."""

MAX_NAME: Final = 60
"""Characters of a caller's argument name that are repeated in an error; names of ours are shorter."""

MAX_SHOWN_INTEGER: Final = 10**20
"""Integers from here on are described by their size; `str` even refuses those of more than 4,300 digits."""

NOTHING_FOUND: Final = "nothing"
"""What was found where a required argument or key is missing."""

Path: TypeAlias = "tuple[Path, str | int] | None"
"""Where a value lies, innermost step first: `((None, "layers"), 2)` is `layers[2]`. Cheap to extend while checking."""


class Problem(NamedTuple):
    """One thing that is wrong with the arguments of a call."""

    argument: str
    expected: str
    found: str
    unknown: bool = False
    """Whether nothing of that name is known, as opposed to known but wrong."""
    closest: str | None = None
    """For an unknown argument: the known one that was probably meant."""

    def describe(self) -> dict[str, str]:
        """The form for `details`."""
        facts = {"argument": self.argument, "expected": self.expected, "found": self.found}
        return facts if self.closest is None else {**facts, "closest": self.closest}

    def sentence(self) -> str:
        """The form for people."""
        if self.unknown:
            return f"{self.argument}: unknown argument" + (f" (did you mean {self.closest!r}?)" if self.closest else "")
        if self.found == NOTHING_FOUND:
            return f"{self.argument}: missing, expected {self.expected}"
        return f"{self.argument}: expected {self.expected}, found {self.found}"


class Problems(list[Problem]):
    """Everything that is wrong with the arguments of one call, so far.

    Attributes:
        memo: what each union made of each array or object, or None before the first. Without it, a union that contains
            itself would look at the innermost part once for every way to get there, which is 2 to the power of depth.
    """

    memo: dict[tuple[int, int], tuple[Any, Problems]] | None = None


def report(problems: Problems, path: Path, expected: str, value: Any) -> None:
    """Note that `value` at `path` is not what was expected."""
    note(problems, path, expected, describe_value(value))


def note(problems: Problems, path: Path, expected: str, found: str) -> None:
    """Like `report`, in words of your own about what was found."""
    if len(problems) < MAX_PROBLEMS:
        problems.append(Problem(format_path(path), expected, found))


def note_missing(problems: Problems, path: Path, expected: str) -> None:
    """Note that nothing lies at `path`, where something must."""
    note(problems, path, expected, NOTHING_FOUND)


def note_unknown(problems: Problems, path: Path, known: Iterable[str], value: Any) -> None:
    """Note that nothing is called what the last step of `path` says."""
    if len(problems) < MAX_PROBLEMS and path is not None:
        closest = closest_match(str(path[1]), known)
        problems.append(Problem(format_path(path), "a known argument", describe_value(value), True, closest))


def describe_value(value: Any) -> str:
    """Say what a JSON value is, without the text in it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean true" if value else "boolean false"
    if isinstance(value, int):
        return f"integer {value}" if abs(value) < MAX_SHOWN_INTEGER else f"integer of {value.bit_length()} bits"
    if isinstance(value, float):
        return f"number {value!r}"
    for kind, name, unit in ((str, "string", "character"), (list, "array", "item"), (dict, "object", "key")):
        if isinstance(value, kind):
            return f"{name} of {len(value)} {unit}{'' if len(value) == 1 else 's'}"
    return f"a value of type {type(value).__name__}"


def format_path(path: Path) -> str:
    """Write a path the way a person would: `layers[2].units`."""
    steps: list[str | int] = []
    while path is not None:
        path, step = path
        steps.append(step)
    text = ""
    for step in reversed(steps):
        if isinstance(step, int):
            text += f"[{step}]"
        elif not text:
            text = shorten(step)
        else:
            text += f".{shorten(step)}" if step.isidentifier() else f'["{shorten(step)}"]'
    return text or "arguments"


def shorten(name: str) -> str:
    """Cut a name that came from outside."""
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}..."


def closest_match(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like `name`, in whatever case it is written; None if none does."""
    from difflib import get_close_matches

    names = {each.lower(): each for each in known}
    matches = get_close_matches(name[:MAX_NAME].lower(), list(names), n=1)
    return names[matches[0]] if matches else None


def invalid_arguments(command: str, problems: Sequence[Problem], known: Sequence[str], closed: bool) -> BridgeError:
    """Build the one error for everything that is wrong with a call.

    Args:
        command: whose arguments they are.
        problems: at least one.
        known: names of the arguments that it takes.
        closed: whether it takes no others.
    """
    sentences = "; ".join(problem.sentence() for problem in problems)
    if len(problems) >= MAX_PROBLEMS:
        sentences += "; and more"
    takes = f" It takes {', '.join(known) or 'no arguments'}." if closed else ""
    return BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"Invalid arguments for {command}: {sentences}.{takes}",
        details={"problems": [problem.describe() for problem in problems], "known": list(known)},
    )

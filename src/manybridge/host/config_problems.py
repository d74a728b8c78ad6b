"""What is wrong with a configuration: collected, all of it, and raised as one ConfigError that teaches."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any, Final, Literal, TypeVar

from manybridge.errors import ConfigError
from manybridge.host.config_secrets import MASK, is_secret_key, mask_tree

T = TypeVar("T")

KeyPath = tuple[str, ...]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_LONGEST_QUOTE: Final = 60
"""Enough of a wrong value to recognise it; the rest hides the sentence around it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    source: str
    """The file (with line), environment variable or call that said it."""
    key: str
    """The key path as TOML writes it, empty for the whole document."""
    text: str
    """What was expected and found, and what to do."""
    code: Literal["config_error", "missing_variable"] = "config_error"

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.key, self.text) if part)


@dataclass(slots=True)
class Problems:
    """Collects problems. Knows for every key path which source set it."""

    source_of: Callable[[KeyPath], str]
    found: list[Problem] = field(default_factory=list)

    def add(self, path: KeyPath, text: str, *, missing_variable: bool = False) -> None:
        """Note that the value at `path` is wrong."""
        code: Literal["config_error", "missing_variable"] = "missing_variable" if missing_variable else "config_error"
        self.found.append(Problem(self.source_of(path), dotted(path), text, code))

    def wrong_value(self, path: KeyPath, expected: str, value: Any) -> None:
        """Note that the value at `path` is not what was expected."""
        self.add(path, f"expected {expected}, found {show_value(value, path)}")

    def unknown_key(self, path: KeyPath, known: Iterable[str]) -> None:
        """Note that the table knows no such key."""
        self.add(path, f"unknown key{did_you_mean(path[-1], known)}")

    def settle(self, result: T | None) -> T:
        """Return what was made, or raise what stood in its way.

        Raises:
            ConfigError: as `raise_if_any`.
        """
        self.raise_if_any()
        if result is None:
            raise RuntimeError("a check gave no result and named no problem")
        return result

    def raise_if_any(self) -> None:
        """Raise one ConfigError with everything that was found.

        Raises:
            ConfigError: anything was found. `details["problems"]` lists each with source, key, text and code.
        """
        if self.found:
            raise config_error(self.found)


def config_error(problems: list[Problem]) -> ConfigError:
    """Return the error that reports these problems; a single one is said in one line.

    Its code is `config_error`, or `missing_variable` where nothing else is wrong.
    """
    if len(problems) == 1:
        message = str(problems[0])
    else:
        message = f"the configuration has {len(problems)} problems:\n" + "\n".join(f"  {each}" for each in problems)
    listed = [{"source": each.source, "key": each.key, "text": each.text, "code": each.code} for each in problems]
    codes = {each.code for each in problems}
    return ConfigError(message, code=codes.pop() if len(codes) == 1 else None, details={"problems": listed})


def dotted(path: KeyPath) -> str:
    """Return a key path as TOML writes it: `bridges."my bridge".pool_size`."""
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part) for part in path)


def closest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that was probably meant, if one is near enough."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower().replace("-", "_"), names, n=1, cutoff=0.6)
    return names[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that helps with an unknown word."""
    names = list(known)
    match = closest(word, names)
    if match:
        return f'; did you mean "{match}"?'
    return f"; known: {', '.join(sorted(names))}" if names else ""


def show_value(value: Any, path: KeyPath = ()) -> str:
    """Return a value and its kind for a message, shortened, with secrets masked."""
    key = path[-1] if path else ""
    if isinstance(value, str) and is_secret_key(key):
        return f"{MASK} (a string)"
    shown = mask_tree(value, key=key)
    try:
        text = json.dumps(shown, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(shown)
    if len(text) > _LONGEST_QUOTE:
        text = text[: _LONGEST_QUOTE - 3] + "..."
    return f"{text} ({kind_of(value)})"


def kind_of(value: Any) -> str:
    """Return the kind of a value in the words that messages use."""
    match value:
        case None:
            return "no value"
        case bool():
            return "true or false"
        case int():
            return "a whole number"
        case float():
            return "a number"
        case str():
            return "a string"
        case list() | tuple():
            return "a list"
        case dict():
            return "a table"
        case datetime() | date() | time():
            return "a date or time"
        case _:
            return f"a Python {type(value).__name__}"

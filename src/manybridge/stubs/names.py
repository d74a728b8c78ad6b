"""Names of a bridge as names of Python. The same names always give the same result."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable
from typing import Final

BUILTINS: Final = frozenset({"bool", "dict", "float", "int", "list", "object", "str", "tuple", "type"})
"""Annotations of a class use them: a method of that name would take their place there."""


class Names:
    """Hands out every name once. Owner of the names that are taken.

    Args:
        taken: names that nobody gets.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._taken = set(taken)

    def take(self, wanted: str) -> str:
        """`wanted` if it is free, else with `_` behind it, else with the first free number."""
        name = wanted if wanted not in self._taken else f"{wanted}_"
        number = 2
        while name in self._taken:
            name = f"{wanted}_{number}"
            number += 1
        self._taken.add(name)
        return name


def identifier(text: str) -> str:
    """A valid name for a function or parameter that looks like `text`."""
    name = _words("_", text).strip("_") or "_".join(f"x{ord(character):x}" for character in text[:8]) or "empty"
    name = name if name[0].isidentifier() else f"n{name}"
    return f"{name}_" if keyword.iskeyword(name) else name


def class_name(*texts: str) -> str:
    """A valid name for a class, of all the texts: `("load_model", "result")` is `LoadModelResult`."""
    words = [word for text in texts for word in identifier(text).split("_") if word]
    # Only first letters change: `LMUsage` stays as its author wrote it.
    name = "".join(word[0].upper() + word[1:] for word in words) or "Unnamed"
    return f"{name}_" if keyword.iskeyword(name) else name


def _words(separator: str, text: str) -> str:
    # Python itself reads names in this form, so two that differ only before are one.
    normal = unicodedata.normalize("NFKC", text)
    kept = "".join(character if f"a{character}".isidentifier() else " " for character in normal)
    return re.sub(r"\s+", separator, kept.strip())


def literal(value: str | float | bool | None) -> str:
    """`value` as Python writes it, text in double quotes where that is readable."""
    if isinstance(value, str) and value.isprintable():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return repr(value)

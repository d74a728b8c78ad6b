"""Writes plain values as TOML: the standard library reads it and does not write it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

KeyPath = tuple[str, ...]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


def write_toml(values: Mapping[str, Any], comment: Callable[[KeyPath], str | None] = lambda _path: None) -> str:
    """Return `values` as a TOML document.

    Args:
        values: nested tables of texts, numbers, booleans and lists. None becomes a comment, since TOML has no null.
        comment: gives the remark to put behind a key, or None.
    """
    lines = _table(values, (), comment)
    return "\n".join(lines).strip() + "\n" if lines else ""


def _table(values: Mapping[str, Any], path: KeyPath, comment: Callable[[KeyPath], str | None]) -> list[str]:
    """Return the lines of one table: its own keys first, since a header would take them along."""
    lines = [_line(name, value, comment((*path, name))) for name, value in values.items() if not _is_table(value)]
    if path and (lines or not values):
        lines.insert(0, f"\n[{'.'.join(_key(part) for part in path)}]")
    for name, value in values.items():
        if _is_table(value):
            lines += _table(value, (*path, name), comment)
    return lines


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _line(name: str, value: Any, remark: str | None) -> str:
    said = f"# {_key(name)} is not set" if value is None else f"{_key(name)} = {_value(value)}"
    return f"{said}  # {remark}" if remark else said


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case list():
            return "[" + ", ".join(_value(item) for item in value if item is not None) + "]"
        case Mapping():
            pairs = ", ".join(f"{_key(name)} = {_value(item)}" for name, item in value.items() if item is not None)
            return f"{{ {pairs} }}" if pairs else "{}"
        case _:
            return repr(value)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(text: str) -> str:
    """A JSON string is a TOML basic string, but for DEL, which TOML wants escaped."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

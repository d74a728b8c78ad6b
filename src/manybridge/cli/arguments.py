"""Arguments of a call as they are typed: `text=hi`, `epochs:=3`, `page=@notes.txt`, `--args JSON`, `-`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from manybridge.errors import InvalidArgumentError

STDIN: Final = "-"

_PAIR: Final = re.compile(r"(?P<name>[^=:@\s]+)(?P<sign>:=|=)(?P<value>.*)", re.DOTALL)


def parse_arguments(pairs: Sequence[str], whole: str | None = None) -> dict[str, Any]:
    """Return the arguments of one call.

    Args:
        pairs: `name=text`, `name:=json`, `name=@file` (its text), `name:=@file` (its JSON), or `-` (a JSON object from
            standard input). Later ones win.
        whole: the value of `--args`: a JSON object, or `@file` with one. Pairs are laid over it.

    Raises:
        InvalidArgumentError: something can't be read; the message shows what it must look like.
    """
    arguments = parse_object(whole, "--args") if whole is not None else {}
    for pair in pairs:
        if pair == STDIN:
            arguments.update(_object(sys.stdin.read(), "standard input"))
        else:
            name, value = _pair(pair)
            arguments[name] = value
    return arguments


def parse_object(text: str, what: str) -> dict[str, Any]:
    """Return a JSON object that was typed, or that lies in the file named by `@file`, or `-` for standard input.

    Raises:
        InvalidArgumentError: it is no JSON object, or the file can't be read.
    """
    if text == STDIN:
        return _object(sys.stdin.read(), "standard input")
    if text.startswith("@"):
        return _object(_file(text[1:], what), text[1:])
    return _object(text, what)


def _pair(pair: str) -> tuple[str, Any]:
    match = _PAIR.fullmatch(pair)
    if match is None:
        text = f'expected name=text, name:=json, name=@file or "-", found "{pair}"'
        raise InvalidArgumentError(text, details={"argument": pair})
    name, value = match["name"], match["value"]
    if value.startswith("@"):
        value = _file(value[1:], name)
    return name, _json(value, f"{name}:=") if match["sign"] == ":=" else value


def _object(text: str, what: str) -> dict[str, Any]:
    value = _json(text, what)
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{what}: expected a JSON object, found {json.dumps(value)[:60]}")
    return value


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        shown = text if len(text) <= 60 else text[:57] + "..."
        hint = "; a string is written name=text or name:='\"text\"'" if what.endswith(":=") else ""
        raise InvalidArgumentError(f"{what}: expected JSON, found {shown!r}: {error}{hint}") from error


def _file(name: str, what: str) -> str:
    try:
        return Path(name).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidArgumentError(f"{what}: the file {name} can't be read: {reason}") from error

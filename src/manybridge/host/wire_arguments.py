"""The arguments of commands that the host answers itself. They came as JSON, so errors tell JSON's types."""

from __future__ import annotations

from typing import Any

from manybridge.errors import InvalidArgumentError
from manybridge.protocol.messages import json_type


def text_argument(args: dict[str, Any], name: str) -> str:
    """Return an argument that is a text and not empty.

    Raises:
        InvalidArgumentError: it is neither, or not there.
    """
    value = args.get(name)
    if isinstance(value, str) and value:
        return value
    raise _wrong(args, name, "a non-empty string")


def object_argument(args: dict[str, Any], name: str) -> dict[str, Any]:
    """Return an argument that is an object; an empty one where it is not there.

    Raises:
        InvalidArgumentError: it is none.
    """
    value = args.get(name, {})
    if isinstance(value, dict):
        return value
    raise _wrong(args, name, "an object")


def _wrong(args: dict[str, Any], name: str, expected: str) -> InvalidArgumentError:
    found = json_type(args[name]) if name in args else "nothing"
    problem = {"argument": name, "expected": expected, "found": found}
    return InvalidArgumentError(f"{name}: expected {expected}, found {found}", details={"problems": [problem]})

"""The calls of one `common:batch`, checked before any of them is made."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from manybridge.protocol.messages import json_type

ITEM_KEYS: Final = frozenset({"command", "args"})
"""What one call of a batch may say."""


class BatchError(ValueError):
    """The argument `calls` is none; the text says where, what was expected and what was found."""


class BatchItem(NamedTuple):
    """One call of a batch."""

    command: str
    args: dict[str, Any]


def batch_items(calls: Any) -> list[BatchItem]:
    """Read the argument `calls`.

    Raises:
        BatchError: it is no array of `{command, args}`, or one of them is a batch again.
    """
    if not isinstance(calls, list):
        raise BatchError(f"calls: expected an array of {{command, args}}, found {json_type(calls)}")
    return [_item(item, f"calls[{index}]") for index, item in enumerate(calls)]


def _item(item: Any, place: str) -> BatchItem:
    if not isinstance(item, dict) or not isinstance(item.get("command"), str):
        raise BatchError(f"{place}: expected an object with a command")
    if unknown := unknown_key(item):
        raise BatchError(f"{place}: expected only the keys command and args, found {unknown}")
    command, args = item["command"], item.get("args")
    if not isinstance(args, dict | None):
        raise BatchError(f"{place}.args: expected an object, found {json_type(args)}")
    if command == "common:batch":
        raise BatchError(f"{place}: expected a call that is no batch itself")
    return BatchItem(command, args or {})


def unknown_key(item: Any) -> str | None:
    """Return the first key of a mapping, as text, that no call of a batch has; None if it has none."""
    return min(map(repr, item.keys() - ITEM_KEYS), default=None)

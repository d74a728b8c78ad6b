"""Between Python values and what JSON carries: results go out, arguments come in.

What JSON carries goes by value (tuples as lists, NumPy scalars as numbers). Anything else goes by reference. A
container keeps its shape and only the foreign values inside it become references, up to `MAX_NESTED_REFERENCES`:
beyond that, or when it contains itself, the container goes by reference as a whole.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from manybridge.bridge import BridgeError

from .objects import REFERENCE_KEY, ObjectStore

MAX_NESTED_REFERENCES: Final = 100
"""A list of 10,000 dates must not push everything else out of the store."""
MAX_DEPTH: Final = 100
"""Deeper than any document that people write, and far from Python's recursion limit."""

_SCALARS: Final = frozenset({str, int, float, bool, type(None)})


class _ByReference(Exception):  # noqa: N818  # a way out, not an error
    """The value as a whole can't go by value."""


def outgoing(
    value: Any, objects: ObjectStore, owner: str | None, *, store: bool = False, ttl: float | None = None
) -> Any:
    """What the caller gets for `value`.

    Args:
        store: keep the value and return a reference even if JSON could carry it.
        ttl: seconds without use after which references made here expire.
    """
    if store:
        return objects.put(value, owner, ttl)
    foreign: list[tuple[dict[str, Any], Any]] = []
    try:
        plain = _plain(value, foreign, 0)
    except _ByReference:
        return objects.put(value, owner, ttl)
    for placeholder, item in foreign:
        placeholder.update(objects.put(item, owner, ttl))
    return plain


def _plain(value: Any, foreign: list[tuple[dict[str, Any], Any]], depth: int) -> Any:
    if type(value) in _SCALARS:
        return value
    if depth > MAX_DEPTH:
        raise _ByReference
    if isinstance(value, (list, tuple)):
        if _SCALARS.issuperset(map(type, value)):  # the long lists of numbers, at the speed of C
            return list(value)
        return [_plain(item, foreign, depth + 1) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            return _placeholder(value, foreign)
        return {key: _plain(item, foreign, depth + 1) for key, item in value.items()}
    return _plain_scalar(value, foreign)


def _plain_scalar(value: Any, foreign: list[tuple[dict[str, Any], Any]]) -> Any:
    if isinstance(value, str):  # a subclass, such as a StrEnum
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    numpy = sys.modules.get("numpy")  # never imported here: without it there can be no NumPy scalar
    if numpy is not None and isinstance(value, numpy.generic):
        item = value.item()
        if type(item) in _SCALARS:
            return item
    return _placeholder(value, foreign)


def _placeholder(value: Any, foreign: list[tuple[dict[str, Any], Any]]) -> dict[str, Any]:
    if len(foreign) >= MAX_NESTED_REFERENCES:
        raise _ByReference
    placeholder: dict[str, Any] = {}
    foreign.append((placeholder, value))
    return placeholder


def incoming(value: Any, objects: ObjectStore, owner: str | None) -> Any:
    """`value` with every `{"$object": id}` replaced by the object, at any depth.

    Raises:
        BridgeError: `resource_not_found` or `resource_lost`, as `ObjectStore.get`; `invalid_argument` for a
            malformed reference.
    """
    if isinstance(value, list):
        if _SCALARS.issuperset(map(type, value)):
            return value
        return [incoming(item, objects, owner) for item in value]
    if isinstance(value, dict):
        if REFERENCE_KEY in value:
            return objects.get(reference_id(value), owner)
        return {key: incoming(item, objects, owner) for key, item in value.items()}
    return value


def contains_reference(value: Any) -> bool:
    """Whether a reference stands anywhere in `value`."""
    if isinstance(value, list):
        return any(contains_reference(item) for item in value)
    if isinstance(value, dict):
        return REFERENCE_KEY in value or any(contains_reference(item) for item in value.values())
    return False


def reference_id(reference: str | dict[str, Any]) -> str:
    """The id in a reference, which may be given as the whole object or as its id alone.

    Raises:
        BridgeError: `invalid_argument`.
    """
    found = reference.get(REFERENCE_KEY) if isinstance(reference, dict) else reference
    if isinstance(found, str) and found:
        return found
    raise BridgeError(
        "invalid_argument",
        f'expected an object reference, {{"{REFERENCE_KEY}": "obj_..."}} or its id',
        details={"argument": "object"},
    )

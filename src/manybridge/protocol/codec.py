"""JSON in and out, strict in both directions.

Strict out: what we write is JSON as RFC 8259 has it (https://www.rfc-editor.org/rfc/rfc8259): no `NaN`, no lone
surrogates, string keys. A value that JSON can't carry becomes a *marker* that names its type and shows nothing of its
content, because a `repr` may hold a key or a customer's text.

Strict in: UTF-8, one JSON value, and no `NaN`. As with every JSON reader of the standard library, of two equal keys
the last counts, and a number beyond the range of a double is infinite (and leaves as `null`).

`msgspec` is used where the environment happens to have it (it is faster and agrees with the standard
library on every value that the tests compare); the worker side never requires it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, Final, TypeAlias

Field: TypeAlias = tuple[str, Any] | tuple[str, Any, Any]
ObjectDecoder: TypeAlias = Callable[[bytes | bytearray], Any]

MARKER_KEY: Final = "$unserializable"
"""`{"$unserializable": "module.Type"}` stands for a value that JSON can't carry."""

MAX_DEPTH: Final = 200
"""Nesting beyond this is cut with a marker when we sanitise; the standard parser gives up near 1,000."""

MAX_INT_BITS: Final = 14_000
"""4,215 digits: Python refuses to write or read integers of more than 4,300
(https://docs.python.org/3/library/stdtypes.html#int-max-str-digits)."""


class InvalidJSONError(ValueError):
    """The bytes are not one strict JSON value. The message never quotes the bytes."""


class NotSerializableError(TypeError):
    """`encode_strict` met a value that JSON can't carry; the message is the standard library's."""


def marker_for(value: object) -> dict[str, str]:
    """The marker that stands for `value`: its type's full name and nothing else."""
    return {MARKER_KEY: _type_name(value)}


def encode_strict(message: Any) -> bytes:
    """Encode `message` with the standard library's rules; nothing is replaced.

    Raises:
        NotSerializableError: with the text that `json.dumps` gives, which is what a version 1 client was told.
    """
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializableError(str(error)) from None


def _encode_request_portable(message: Any) -> bytes:
    clean = sanitize(message)
    kind = _marked_type(clean)
    if kind is not None:
        raise NotSerializableError(f"a value of type {kind} has no JSON form")
    return encode(clean)


def _marked_type(value: Any) -> str | None:
    """The type that the first marker in a sanitised value stands for."""
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get(MARKER_KEY), str):
            return str(value[MARKER_KEY])
        return next((kind for item in value.values() if (kind := _marked_type(item)) is not None), None)
    if isinstance(value, list):
        return next((kind for item in value if (kind := _marked_type(item)) is not None), None)
    return None


# ---------------------------------------------------------------- what JSON can't carry


def sanitize(value: Any) -> Any:
    """Return `value` with everything that JSON can't carry replaced. Never raises, whatever objects are in it.

    Tuples and sets become lists; read-only views, user dictionaries and chains of dictionaries objects; dates, times,
    durations, UUIDs, decimals and paths strings; bytes base64 text; enums their value; dataclasses and their like
    objects; `NaN` and infinities `null`; other keys strings; lone surrogates a question mark; anything else a marker,
    also a container inside itself and what is nested deeper than `MAX_DEPTH`.
    """
    return _sanitize(value, set())


def _sanitize(value: Any, path: set[int]) -> Any:
    """Sanitise `value`, which lies inside the containers whose identities are `path`."""
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return _clean_text(value)
    if kind is int:
        return value if value.bit_length() <= MAX_INT_BITS else marker_for(value)
    if kind is float:
        return value if value - value == 0.0 else None
    if len(path) >= MAX_DEPTH or id(value) in path:
        return marker_for(value)
    path.add(id(value))
    try:
        return _sanitize_object(value, path)
    except Exception:  # noqa: BLE001  # a border: properties and methods of objects that user code returned
        return marker_for(value)
    finally:
        path.discard(id(value))


def _sanitize_object(value: Any, path: set[int]) -> Any:
    if isinstance(value, dict):
        # A copy of the items, because another thread of the user's may go on changing the dictionary.
        return {_key(key): _sanitize(item, path) for key, item in list(value.items())}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_sanitize(item, path) for item in value]
    for kinds, convert in _conversions():
        if isinstance(value, kinds):
            return _sanitize(convert(value), path)
    names = _field_names(value)
    if names is not None:
        # A field that was deleted, or never set, is left out.
        return {name: _sanitize(getattr(value, name), path) for name in names if hasattr(value, name)}
    # numpy's and torch's zero-dimensional scalars carry their number in item(); anything larger is a marker.
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        return _sanitize(value.item(), path)
    return marker_for(value)


@cache
def _conversions() -> tuple[tuple[Any, Callable[[Any], Any]], ...]:
    """Types, with what turns their values into something simpler. Imported here because most workers never ask."""
    from base64 import b64encode
    from collections import ChainMap, UserDict
    from datetime import date, time, timedelta
    from decimal import Decimal
    from enum import Enum
    from os import PathLike, fspath
    from types import MappingProxyType
    from uuid import UUID

    return (
        (Enum, lambda value: value.value),
        # Subclasses, such as numpy.float64 and the string types of frameworks, become what they extend.
        (str, str.__str__),
        (int, int),
        (float, float),
        ((date, time), _iso_moment),
        (timedelta, _iso_duration),
        ((UUID, Decimal), str),
        ((bytes, bytearray, memoryview), lambda value: b64encode(value).decode()),
        (PathLike, fspath),
        # Not every mapping: one that looks its values up somewhere, as `os.environ` does, stays a marker.
        ((MappingProxyType, UserDict, ChainMap), dict),
    )


def _field_names(value: Any) -> Iterable[str] | None:
    """The fields of a dataclass instance, or of the like made with attrs or msgspec; None for anything else."""
    kind = type(value)
    if hasattr(kind, "__dataclass_fields__"):
        from dataclasses import fields

        return [field.name for field in fields(kind)]
    if hasattr(kind, "__attrs_attrs__"):
        return [attribute.name for attribute in kind.__attrs_attrs__]
    return getattr(kind, "__struct_fields__", None)


def _clean_text(text: str) -> str:
    # Surrogates can't be encoded as UTF-8; isascii() is a flag test, so ordinary text costs nothing.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _key(key: Any) -> str:
    """The string that stands for a key: its own text, that of its value, or its type's name in angle brackets."""
    if isinstance(key, str):
        return _clean_text(str.__str__(key))
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, float):
        return float.__repr__(key)
    plain = sanitize(key)
    if type(plain) in (str, int, float):
        return str(plain)
    return f"<{_type_name(key)}>"


def _type_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _iso_moment(value: Any) -> str:
    text: str = value.isoformat()
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _iso_duration(value: Any) -> str:
    """ISO 8601 duration in days and seconds, as msgspec writes it: `P1DT3.5S`, `-PT0.001S`, `P0D`."""
    sign = "-" if value.days < 0 else ""
    value = abs(value)
    seconds = f"{value.seconds}.{value.microseconds:06}".rstrip("0").rstrip(".")
    time = f"T{seconds}S" if seconds != "0" else ""
    days = f"{value.days}D" if value.days or not time else ""
    return f"{sign}P{days}{time}"


# ---------------------------------------------------------------- with the standard library alone


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


# Made once: json.dumps and json.loads make a new coder for each message that does not want their defaults.
_dump: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=sanitize).encode
_load: Final = json.JSONDecoder(parse_constant=_refuse_constant).decode


def _encode_portable(message: Any) -> bytes:
    """Encode with the standard library, replacing what JSON can't carry."""
    try:
        return _dump(message).encode()
    except Exception:  # noqa: BLE001  # ValueError, TypeError, RecursionError, and what user code in a subclass raises
        return _dump(sanitize(message)).encode()


def _decode_portable(data: bytes | bytearray) -> Any:
    try:
        return _load(data.decode())
    except (ValueError, RecursionError):
        # The parser's own text quotes its input; ours says only where to look.
        raise InvalidJSONError(f"the {len(data)} bytes are not one strict UTF-8 JSON value") from None


encode: Callable[[Any], bytes] = _encode_portable
"""Encode a message; never raises for a value of any type (see `sanitize`)."""

encode_request: Callable[[Any], bytes] = _encode_request_portable
"""Encode what a caller sends: usual types get their JSON form as in `sanitize`, but nothing becomes a marker.

A caller can mend what it sends; a marker in its place would be a wrong argument that nobody notices.

Raises:
    NotSerializableError: names the type of a value that has no JSON form.
"""

decode: Callable[[bytes | bytearray], Any] = _decode_portable
"""Decode one JSON value.

Raises:
    InvalidJSONError: not UTF-8, not JSON, more than one value, `NaN`, or nested too deeply.
"""


def _no_object_decoder(name: str, fields: Sequence[Field]) -> ObjectDecoder | None:  # noqa: ARG001  # see below
    return None


object_decoder: Callable[[str, Sequence[Field]], ObjectDecoder | None] = _no_object_decoder
"""Make a decoder of JSON objects whose members are known: of bytes it makes an object with these attributes.

It is faster than decoding to a dictionary and checking its members, and it is choosy: it raises, whatever it meets,
unless the bytes are one object that has every field without a default, each with a value of its type. Other members
are skipped. So whoever uses it decodes again with `decode` after an exception, to say what is wrong.

Args: a name for the type, and its fields as `(name, type)` or `(name, type, default)`. Returns None where no fast
decoder is to be had.
"""

# ---------------------------------------------------------------- with msgspec

try:
    import msgspec
except ImportError:
    pass
else:
    # No enc_hook: it would run Python, and so other threads, while msgspec walks containers that they may change.
    _fast_encode = msgspec.json.Encoder().encode
    _fast_decode = msgspec.json.Decoder().decode

    def _encode_fast(message: Any) -> bytes:
        """Encode with msgspec where it agrees with `sanitize`, which is asked for the rest."""
        try:
            return _fast_encode(message)
        except Exception:  # noqa: BLE001  # TypeError, ValueError, RecursionError, UnicodeEncodeError and user code's
            return _encode_portable(message)

    def _encode_request_fast(message: Any) -> bytes:
        """Encode with msgspec; what it refuses is looked at closely."""
        try:
            return _fast_encode(message)
        except Exception:  # noqa: BLE001  # as above
            return _encode_request_portable(message)

    def _decode_fast(data: bytes | bytearray) -> Any:
        """Decode with msgspec; what it refuses, the standard library judges, so that both environments agree."""
        try:
            return _fast_decode(data)
        except Exception:  # noqa: BLE001  # MsgspecError and RecursionError; the portable decoder says what they mean
            return _decode_portable(data)

    def _fast_object_decoder(name: str, fields: Sequence[Field]) -> ObjectDecoder | None:
        return msgspec.json.Decoder(msgspec.defstruct(name, fields)).decode

    encode = _encode_fast
    encode_request = _encode_request_fast
    decode = _decode_fast
    object_decoder = _fast_object_decoder

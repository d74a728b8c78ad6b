"""JSON in and out, strict in both directions.

Strict out: what we write is JSON as RFC 8259 has it (https://www.rfc-editor.org/rfc/rfc8259): no `NaN`, no lone
surrogates, string keys. A value that JSON can't carry becomes a *marker* that names its type and shows nothing of its
content, because a `repr` may hold a key or a customer's text.

Strict in: UTF-8, one JSON value, and no `NaN`.

`msgspec` is used where the environment happens to have it (it is 5 to 10 times faster and agrees with the standard
library on every value that the tests compare); the worker side never requires it.
"""

from __future__ import annotations

import json
from typing import Any, Final

MARKER_KEY: Final = "$unserializable"
"""`{"$unserializable": "module.Type"}` stands for a value that JSON can't carry."""

MAX_DEPTH: Final = 200
"""Nesting beyond this is cut with a marker when we sanitise; the standard parser gives up near 1,000."""


class InvalidJSONError(ValueError):
    """The bytes are not one strict JSON value. The message never quotes the bytes."""


class NotSerializableError(TypeError):
    """`encode_strict` met a value that JSON can't carry; the message is the standard library's."""


def marker_for(value: object) -> dict[str, str]:
    """The marker that stands for `value`: its type's full name and nothing else."""
    kind = type(value)
    return {MARKER_KEY: f"{kind.__module__}.{kind.__qualname__}"}


def encode_strict(message: Any) -> bytes:
    """Encode `message` with the standard library's rules; nothing is replaced.

    Raises:
        NotSerializableError: with the text that `json.dumps` gives, which is what a version 1 client was told.
    """
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise NotSerializableError(str(error)) from None


def sanitize(value: Any, depth: int = 0) -> Any:
    """Return `value` with everything that JSON can't carry replaced.

    Tuples and sets become lists; dates, UUIDs, decimals and paths strings; bytes base64 text; enums their value;
    dataclasses objects; `NaN` and infinities `null`; non-string keys strings; lone surrogates a question mark; anything
    else a marker.
    """
    if value is None or value is True or value is False:
        return value
    kind = type(value)
    if kind is str:
        return _clean_text(value)
    if kind is int:
        return value
    if kind is float:
        return value if value - value == 0.0 else None
    if depth >= MAX_DEPTH:
        return marker_for(value)
    if isinstance(value, dict):
        return {_key(key): sanitize(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [sanitize(item, depth + 1) for item in value]
    return _sanitize_object(value, depth)


def _clean_text(text: str) -> str:
    # Surrogates can't be encoded as UTF-8; isascii() is a flag test, so ordinary text costs nothing.
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def _key(key: object) -> str:
    if isinstance(key, str):
        return _clean_text(str(key))
    if key is None or key is True or key is False:
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, (int, float)):
        return str(key)
    return f"<{type(key).__module__}.{type(key).__qualname__}>"


def _sanitize_object(value: Any, depth: int) -> Any:
    from base64 import b64encode
    from datetime import date, datetime, time
    from decimal import Decimal
    from enum import Enum
    from os import PathLike, fspath
    from uuid import UUID

    if isinstance(value, Enum):
        return sanitize(value.value, depth + 1)
    if isinstance(value, (str, int, float)):
        return sanitize(_plain(value), depth + 1)
    if isinstance(value, (date, time)):
        text = value.isoformat()
        return f"{text[:-6]}Z" if isinstance(value, (datetime, time)) and text.endswith("+00:00") else text
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(value).decode()
    if isinstance(value, PathLike):
        return sanitize(fspath(value), depth + 1)
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None and not isinstance(value, type):
        return {name: sanitize(getattr(value, name, None), depth + 1) for name in fields}
    return _sanitize_scalar(value)


def _plain(value: str | int | float) -> str | int | float:
    """Strip a subclass (numpy.float64, IntEnum members already gone, framework string types) to its base."""
    if isinstance(value, str):
        return str.__str__(value)
    return int(value) if isinstance(value, int) else float(value)


def _sanitize_scalar(value: Any) -> Any:
    # numpy's and torch's zero-dimensional scalars carry their number in item(); anything larger is a marker.
    if getattr(value, "shape", None) == () and callable(getattr(value, "item", None)):
        item = value.item()
        if isinstance(item, (bool, int, float, str)):
            return sanitize(item)
    return marker_for(value)


def _encode_portable(message: Any) -> bytes:
    """Encode with the standard library, replacing what JSON can't carry."""
    try:
        return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        return json.dumps(sanitize(message), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _decode_portable(data: bytes) -> Any:
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        # The parser's own text quotes its input; ours says only where to look.
        raise InvalidJSONError(f"the {len(data)} bytes are not one strict UTF-8 JSON value") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


encode = _encode_portable
"""Encode a message; never raises for a value of any type (see `sanitize`)."""

decode = _decode_portable
"""Decode one JSON value.

Raises:
    InvalidJSONError: not UTF-8, not JSON, more than one value, `NaN`, or nested too deeply.
"""

try:
    import msgspec
except ImportError:
    pass
else:
    _fast_encode = msgspec.json.Encoder().encode
    _fast_decode = msgspec.json.Decoder().decode

    def _encode_fast(message: Any) -> bytes:
        """Encode with msgspec where it agrees with `sanitize`, which is asked for the rest."""
        try:
            return _fast_encode(message)
        except Exception:  # msgspec raises TypeError, ValueError, RecursionError and UnicodeEncodeError here
            return _encode_portable(message)

    def _decode_fast(data: bytes) -> Any:
        """Decode with msgspec; what it refuses, the standard library judges, so that both environments agree."""
        try:
            return _fast_decode(data)
        except Exception:  # MsgspecError and RecursionError; the portable decoder decides what they mean
            return _decode_portable(data)

    encode = _encode_fast
    decode = _decode_fast

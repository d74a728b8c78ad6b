"""Values that a bridge may return, with what a client reads. Standard library only: also runs under `python -I -S`.

As a program, `python -I -S values.py SRC` encodes every value with the codec that it finds in SRC and prints the names
with the bytes, one JSON object.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque, namedtuple
from dataclasses import InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import PurePosixPath
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

INDIA = timezone(timedelta(hours=5, minutes=30))


class Color(Enum):
    RED = "red"
    NESTED = (1, date(2024, 2, 29))
    NOTHING = None


class Mixed(str, Enum):  # noqa: UP042  # frameworks still have such enums; their str() is not their value
    RED = "red"


class Word(StrEnum):
    RED = "red"


class Number(IntEnum):
    THREE = 3


class Text(str):
    """A string type as frameworks have them; it shows something else than it is."""

    __slots__ = ()

    def __str__(self) -> str:
        return "shown"


class Whole(int):
    def __repr__(self) -> str:
        return "shown"


class Real(float):
    def __repr__(self) -> str:
        return "shown"


class Point(NamedTuple):
    x: int
    y: int


Old = namedtuple("Old", "a b")  # noqa: PYI024  # the untyped kind is what is tested


@dataclass
class Record:
    name: str
    parts: list[Any] = field(default_factory=list)
    shared: ClassVar[int] = 5
    given: InitVar[int] = 6
    _private: int = 7


@dataclass(slots=True)
class Slotted:
    name: str
    missing: int = field(init=False)


class Scalar:
    """What numpy and torch have for one number."""

    shape = ()

    def __init__(self, item: Any) -> None:
        self._item = item

    def item(self) -> Any:
        """Return the number."""
        return self if self._item is Scalar else self._item


class Array:
    """What numpy and torch have for several."""

    shape = (3,)

    def item(self) -> Any:
        """Refuse: there is no one number."""
        raise ValueError("only one element")


class Bad:
    """Raises whatever it is asked."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class BadPath:
    def __fspath__(self) -> str:
        raise OSError("no path")


class BadDict(dict[str, Any]):
    def items(self) -> Any:
        """Refuse, as user code may."""
        raise RuntimeError("no items")


class SecretRepr:
    def __repr__(self) -> str:
        return "sk-secret"

    __str__ = __repr__


def circular_list() -> list[Any]:
    """A list that holds itself twice: following it to any depth would take 2**depth steps."""
    loop: list[Any] = [1]
    loop += [loop, loop]
    return loop


def circular_dict() -> dict[str, Any]:
    """A dictionary that holds itself."""
    loop: dict[str, Any] = {"n": 1}
    loop["self"] = [loop]
    return loop


def nested(depth: int) -> list[Any]:
    """Lists in a list, `depth` of them."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def shared() -> list[Any]:
    """One list twice, side by side: that is no circle."""
    part = [SimpleNamespace, 1]
    return [part, part]


def marker(name: str) -> dict[str, str]:
    """What stands for a value of a type that JSON can't carry."""
    return {"$unserializable": name}


def own(value: object) -> str:
    """The full name of a type of this module, whatever the module is called in this process."""
    return f"{__name__}.{getattr(value, '__qualname__', '?')}"


# name -> (value, what a client reads)
VALUES: dict[str, tuple[Any, Any]] = {
    "null": (None, None),
    "true": (True, True),
    "false": (False, False),
    "text": ('naïve 😀 \x00 \u2028 "\\/', 'naïve 😀 \x00 \u2028 "\\/'),
    "lone surrogate": ("a\ud800b", "a?b"),
    "lone surrogate key": ({"\udfff": "x"}, {"?": "x"}),
    "integer": (-7, -7),
    "largest uint64": (2**64 - 1, 2**64 - 1),
    "beyond uint64": (2**64, 2**64),
    "beyond int64": (-(2**63) - 1, -(2**63) - 1),
    "4,000 digits": (10**3999, 10**3999),
    "5,000 digits": ([10**4999], [marker("builtins.int")]),
    "float": (0.1, 0.1),
    "whole float": (1.0, 1.0),
    "negative zero": (-0.0, -0.0),
    "smallest float": (5e-324, 5e-324),
    "largest float": (sys.float_info.max, sys.float_info.max),
    "nan": (math.nan, None),
    "infinity": ([math.inf, -math.inf], [None, None]),
    "nan beside others": ({"a": [math.nan, date(2024, 2, 29), {1}]}, {"a": [None, "2024-02-29", [1]]}),
    "list": ([1, [2.5, "x"], []], [1, [2.5, "x"], []]),
    "tuple": ((1, (2,)), [1, [2]]),
    "named tuple": (Point(1, 2), [1, 2]),
    "old named tuple": (Old(1, 2), [1, 2]),
    "set": ({1}, [1]),
    "frozenset": (frozenset("x"), ["x"]),
    "dict": ({"b": 1, "a": {}}, {"b": 1, "a": {}}),
    "ordered dict": (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
    "default dict": (defaultdict(int, a=1), {"a": 1}),
    "counter": (Counter("aa"), {"a": 2}),
    "user dict": (UserDict(a=1), {"a": 1}),
    "chain of dicts": (ChainMap({"a": 1}, {"a": 2, "b": 3}), {"a": 1, "b": 3}),
    "environment": (os.environ, marker("os._Environ")),
    "shared list": (shared(), [[marker("builtins.type"), 1]] * 2),
    "date": (date(2024, 2, 29), "2024-02-29"),
    "naive moment": (datetime(2024, 2, 29, 1, 2, 3), "2024-02-29T01:02:03"),  # noqa: DTZ001
    "moment in UTC": (datetime(2024, 2, 29, 1, 2, 3, 4, UTC), "2024-02-29T01:02:03.000004Z"),
    "moment elsewhere": (datetime(2024, 2, 29, tzinfo=INDIA), "2024-02-29T00:00:00+05:30"),
    "time": (time(1, 2, 3), "01:02:03"),
    "time in UTC": (time(1, 2, tzinfo=UTC), "01:02:00Z"),
    "no duration": (timedelta(), "P0D"),
    "duration": (timedelta(days=1, seconds=3, microseconds=500_000), "P1DT3.5S"),
    "days": (timedelta(days=30), "P30D"),
    "ten seconds": (timedelta(seconds=10), "PT10S"),
    "microseconds": (timedelta(microseconds=20), "PT0.00002S"),
    "negative duration": (timedelta(seconds=-1.5), "-PT1.5S"),
    "longest duration": (timedelta.max, "P999999999DT86399.999999S"),
    "shortest duration": (timedelta.min, "-P999999999D"),
    "uuid": (UUID(int=5), "00000000-0000-0000-0000-000000000005"),
    "decimal": (Decimal("1.50"), "1.50"),
    "decimal nan": (Decimal("NaN"), "NaN"),
    "bytes": (b"\xff\x00", "/wA="),
    "bytearray": (bytearray(b"x"), "eA=="),
    "memoryview": (memoryview(b"xy"), "eHk="),
    "path": (PurePosixPath("/a/b"), "/a/b"),
    "enum": (Color.RED, "red"),
    "enum of values": (Color.NESTED, [1, "2024-02-29"]),
    "enum of null": (Color.NOTHING, None),
    "mixed enum": (Mixed.RED, "red"),
    "string enum": (Word.RED, "red"),
    "integer enum": (Number.THREE, 3),
    "string type": (Text("text"), "text"),
    "integer type": (Whole(4), 4),
    "float type": ([Real(1.5), Real("nan")], [1.5, None]),
    "dataclass": (Record("a", [b"x", {2}], 1), {"name": "a", "parts": ["eA==", [2]], "_private": 7}),
    "slotted dataclass": (Slotted("a"), {"name": "a"}),
    "dataclass type": (Record, marker("builtins.type")),
    "integer key": ({1: "x"}, {"1": "x"}),
    "float key": ({1.5: "x", math.inf: "y"}, {"1.5": "x", "inf": "y"}),
    "null key": ({None: "x"}, {"null": "x"}),
    "boolean keys": ({True: 1, False: 2}, {"true": 1, "false": 2}),
    "date key": ({date(2024, 2, 29): "x"}, {"2024-02-29": "x"}),
    "uuid key": ({UUID(int=5): "x"}, {"00000000-0000-0000-0000-000000000005": "x"}),
    "decimal key": ({Decimal("1.5"): "x"}, {"1.5": "x"}),
    "bytes key": ({b"a": "x"}, {"YQ==": "x"}),
    "duration key": ({timedelta(1): "x"}, {"P1D": "x"}),
    "path key": ({PurePosixPath("/a"): "x"}, {"/a": "x"}),
    "enum key": ({Color.RED: 1}, {"red": 1}),
    "mixed enum key": ({Mixed.RED: 1}, {"red": 1}),
    "integer enum key": ({Number.THREE: 1}, {"3": 1}),
    "string type key": ({Text("text"): 1}, {"text": 1}),
    "tuple key": ({(1, 2): "x"}, {"<builtins.tuple>": "x"}),
    "object key": ({SecretRepr(): "x"}, {f"<{own(SecretRepr)}>": "x"}),
    "5,000 digits key": ({10**4999: "x"}, {"<builtins.int>": "x"}),
    "scalar": ([Scalar(1.5), Scalar(2), Scalar(True)], [1.5, 2, True]),
    "scalar nan": (Scalar(math.nan), None),
    "scalar of a moment": (Scalar(date(2024, 2, 29)), "2024-02-29"),
    "scalar of itself": (Scalar(Scalar), marker(own(Scalar))),
    "array": (Array(), marker(own(Array))),
    "object": (object(), marker("builtins.object")),
    "secret object": ({"key": SecretRepr()}, {"key": marker(own(SecretRepr))}),
    "exception": (ValueError("sk-secret"), marker("builtins.ValueError")),
    "complex": (1j, marker("builtins.complex")),
    "range": (range(3), marker("builtins.range")),
    "deque": (deque([1]), marker("collections.deque")),
    "dict view": ({"a": 1}.keys(), marker("builtins.dict_keys")),
    "mapping proxy": (MappingProxyType({"a": (1,)}), {"a": [1]}),
    "fraction": (Fraction(1, 3), marker("fractions.Fraction")),
    "function": (len, marker("builtins.builtin_function_or_method")),
    "bad object": ([Bad(), 1], [marker(own(Bad)), 1]),
    "bad path": (BadPath(), marker(own(BadPath))),
    "circular list": (circular_list(), [1, marker("builtins.list"), marker("builtins.list")]),
    "circular dict": (circular_dict(), {"n": 1, "self": [marker("builtins.dict")]}),
    "nested 150 deep": (nested(150), nested(150)),
}

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from manybridge.protocol import codec

    assert "msgspec" not in sys.modules
    sys.stdout.write(json.dumps({name: codec.encode(value).decode() for name, (value, _) in VALUES.items()}))

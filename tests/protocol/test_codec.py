"""The codec: strict JSON, whatever a bridge returns, and the same with and without msgspec."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.protocol import codec
from manybridge.protocol.codec import InvalidJSONError, NotSerializableError
from tests.protocol import values
from tests.protocol.strategies import json_values
from tests.protocol.values import VALUES, BadDict, nested
from tests.support import SOURCE

PORTABLE = (codec._encode_portable, codec._decode_portable)
FAST = (codec.encode, codec.decode)

Codec = tuple[Callable[[Any], bytes], Callable[[bytes | bytearray], Any]]
both_codecs = pytest.mark.parametrize("path", [PORTABLE, FAST], ids=["portable", "msgspec"])


def refuse(constant: str) -> Any:
    """Fail on `NaN` and the infinities, which json.loads would take."""
    raise AssertionError(f"{constant} is not JSON")


def read(data: bytes) -> Any:
    """Read strict JSON with the standard library."""
    return json.loads(data.decode(), parse_constant=refuse)


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal in type too: 1, 1.0 and True are three values, and so are 0.0 and -0.0."""
    return repr(left) == repr(right)


def test_msgspec_is_used_where_it_is_there() -> None:
    """The environment of the tests has msgspec, so that the two paths really differ."""
    assert codec.encode is not codec._encode_portable
    assert codec.decode is not codec._decode_portable


# ---------------------------------------------------------------- encoding


@both_codecs
@pytest.mark.parametrize("name", VALUES)
def test_every_value_leaves_as_the_documented_json(path: Codec, name: str) -> None:
    """The table says what a client reads; both paths give it, as strict JSON."""
    encode, decode = path
    value, expected = VALUES[name]
    assert same(read(encode(value)), expected)
    assert same(decode(encode({"result": value})), {"result": expected})


def test_the_portable_path_needs_nothing_but_python() -> None:
    """Under `python -I -S` every value of the table leaves as it does here with msgspec."""
    printed = subprocess.run(
        [sys.executable, "-I", "-S", str(Path(values.__file__)), str(SOURCE)], capture_output=True, check=True
    ).stdout
    there = {name: read(text.encode()) for name, text in json.loads(printed).items()}
    here = {name: read(codec.encode(value)) for name, (value, _) in VALUES.items()}
    # The types of the table belong to another module there, the one that runs.
    assert json.dumps(there) == json.dumps(here).replace(values.__name__, "__main__")


@both_codecs
@given(value=json_values)
def test_json_values_survive(path: Codec, value: Any) -> None:
    """What is JSON already comes back equal in value and type."""
    encode, decode = path
    assert same(decode(encode(value)), value)


@given(json_values)
def test_both_paths_agree_on_json_values(value: Any) -> None:
    """Each path reads what the other wrote."""
    assert same(codec._decode_portable(codec.encode(value)), codec.decode(codec._encode_portable(value)))


@given(json_values)
def test_sanitize_leaves_json_values_alone(value: Any) -> None:
    """What JSON can carry is not replaced."""
    assert same(codec.sanitize(value), value)


@both_codecs
@pytest.mark.parametrize("depth", [10_000, 100_000])
def test_what_is_nested_too_deeply_is_cut_with_a_marker(path: Codec, depth: int) -> None:
    """No depth overflows the stack; the cut is where the constant says."""
    found = read(path[0](nested(depth)))
    levels = 0
    while isinstance(found, list):
        [found] = found
        levels += 1
    assert found == values.marker("builtins.list")
    assert levels == codec.MAX_DEPTH


@both_codecs
def test_a_container_that_raises_becomes_a_marker(path: Codec) -> None:
    """User code in a subclass does not reach the sender; here sanitize is asked because of the NaN's key."""
    found = codec.sanitize([BadDict(a=1), 1])
    assert found == [values.marker(values.own(BadDict)), 1]
    assert read(path[0]({(): BadDict(a=1)}))["<builtins.tuple>"] in ({"a": 1}, values.marker(values.own(BadDict)))


def test_structs_leave_as_objects_on_both_paths() -> None:
    """A framework's msgspec structs are read by their fields, also where a neighbour needs sanitising."""

    class Point(msgspec.Struct):
        x: int
        y: int = 2

    expected = {"x": 1, "y": 2}
    assert read(codec.encode(Point(1))) == expected
    assert read(codec._encode_portable(Point(1))) == expected
    assert read(codec.encode({None: Point(1)})) == {"null": expected}


def test_classes_made_with_attrs_leave_as_objects_on_both_paths() -> None:
    """Their fields are found without importing attrs."""

    class Attribute:
        name = "x"

    class Point:
        __attrs_attrs__ = (Attribute,)
        x = 1

    assert codec.sanitize(Point()) == {"x": 1}


@both_codecs
def test_containers_that_change_meanwhile_are_encoded(path: Codec) -> None:
    """Another thread of the user's may go on changing what was returned; here the value itself does it."""
    grown: dict[Any, Any] = {}
    emptied: list[Any] = []

    class Changing:
        shape = ()

        def item(self) -> int:
            grown[f"new {len(grown)}"] = 1
            emptied.clear()
            return 7

    grown |= {(): math.nan, "a": Changing(), "b": 2}
    emptied += [Changing(), 2, 3]
    found = read(path[0]({"grown": grown, "emptied": emptied}))
    assert found["grown"].items() >= {"<builtins.tuple>": None, "a": 7, "b": 2}.items()
    assert found["emptied"] in ([], [7], [7, 2, 3])


def test_markers_show_nothing_of_the_value() -> None:
    """A repr may hold a key; the marker and the keys have the type's name alone."""
    text = codec.encode({values.SecretRepr(): [values.SecretRepr(), ValueError("sk-secret")]}).decode()
    assert "sk-secret" not in text
    assert codec.MARKER_KEY in text


# ---------------------------------------------------------------- encoding, version 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": object()}, "Object of type object is not JSON serializable"),
        ({(1, 2): 3}, "keys must be str, int, float, bool or None, not tuple"),
        (math.nan, "Out of range float values are not JSON compliant"),
        (values.circular_list(), "Circular reference detected"),
    ],
)
def test_strict_encoding_fails_with_the_text_of_the_standard_library(value: Any, text: str) -> None:
    """A version 1 client is told what json.dumps says."""
    with pytest.raises(NotSerializableError) as caught:
        codec.encode_strict(value)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize("value", ["\ud800", nested(100_000)], ids=["surrogate", "deep"])
def test_strict_encoding_fails_in_one_way(value: Any) -> None:
    """Also what fails outside of json's own checks."""
    with pytest.raises(NotSerializableError):
        codec.encode_strict(value)


def test_strict_encoding_gives_compact_unescaped_json() -> None:
    """Bytes as the other encoders give them."""
    assert codec.encode_strict({"a": ["é", 1]}) == '{"a":["é",1]}'.encode()


# ---------------------------------------------------------------- decoding

ACCEPTED = {
    b"1": 1,
    b"-0": 0,
    b"-0.0": -0.0,
    b"1e5": 100000.0,
    b"1E+5": 100000.0,
    b"1e-400": 0.0,
    b"5e-324": 5e-324,
    b"1e400": math.inf,
    b"-1.8e308": -math.inf,
    b"18446744073709551616": 2**64,
    b"-9223372036854775809": -(2**63) - 1,
    b"1" + b"0" * 4000: 10**4000,
    b" \t\r\n1 \t\r\n": 1,
    b'"\x7f"': "\x7f",
    b'"\\u00e9\\/\\b\\u0000"': "é/\b\x00",
    b'"\\ud83d\\ude00"': "😀",
    b'"\\ud800"': "\ud800",
    b'"\\udc00\\ud800"': "\udc00\ud800",
    '"é😀\u2028"'.encode(): "é😀\u2028",
    b'{"a":1,"a":2}': {"a": 2},
    b'{"":{"":[]}}': {"": {"": []}},
    b"[" * 150 + b"]" * 150: nested(150),
    b"true": True,
    b"null": None,
}

REFUSED = [
    b"",
    b" ",
    b"\x00",
    b"nul",
    b"True",
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"[NaN]",
    b"01",
    b"1.",
    b".5",
    b"+1",
    b"-",
    b"1.5e",
    b"0x10",
    b"1_0",
    b"1" * 4301,
    b"1 2",
    b"1\x00",
    b"[1,]",
    b"[1 2]",
    b"[1",
    b'{"a":1,}',
    b"{a:1}",
    b"{1:2}",
    b"'a'",
    b'"a',
    b'"\n"',
    b'"\x01"',
    b'{"\x01":1}',
    b'"\\x41"',
    b'"\\u12"',
    b"// comment\n1",
    b"\x0c1",
    b"\xc2\xa01",
    b"\xef\xbb\xbf1",
    b'"\xff"',
    b'"\xc0\xaf"',
    b'"\xed\xa0\x80"',
    b'{"\xff":1}',
    "1".encode("utf-16"),
    "1".encode("utf-32"),
    b"[" * 100_000,
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
]


def shown(data: object) -> str:
    """A test's name from its bytes."""
    return repr(data)[:30]


@both_codecs
@pytest.mark.parametrize("data", ACCEPTED, ids=shown)
def test_both_paths_read_json_alike(path: Codec, data: bytes) -> None:
    """JSON at the borders of the grammar has one value, whatever reads it, from bytes and from a bytearray."""
    assert same(path[1](data), ACCEPTED[data])
    assert same(path[1](bytearray(data)), ACCEPTED[data])


@both_codecs
@pytest.mark.parametrize("data", REFUSED, ids=shown)
def test_both_paths_refuse_what_is_not_strict_json(path: Codec, data: bytes) -> None:
    """One error class for all of it, and the text tells the length, never the bytes."""
    with pytest.raises(InvalidJSONError) as caught:
        path[1](data)
    assert str(caught.value) == f"the {len(data)} bytes are not one strict UTF-8 JSON value"
    assert caught.value.__cause__ is None


@both_codecs
@given(
    data=st.binary(max_size=30) | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\ud8 ', max_size=30).map(str.encode)
)
def test_garbage_raises_nothing_but_the_one_error(path: Codec, data: bytes) -> None:
    """Any bytes are a JSON value or InvalidJSONError, and the two paths agree on which."""
    try:
        value = path[1](data)
    except InvalidJSONError:
        with pytest.raises(InvalidJSONError):
            codec._decode_portable(data)
    else:
        assert same(value, codec._decode_portable(data))


@pytest.mark.parametrize("value", [object(), {"deep": [print]}, lambda: None, {"a": 1j}])
def test_an_argument_that_json_cannot_carry_is_refused_by_its_type(value: object) -> None:
    """A caller can mend what it sends; a marker would be a wrong argument that nobody notices."""
    with pytest.raises(codec.NotSerializableError, match="has no JSON form"):
        codec.encode_request({"args": {"value": value}})


def test_usual_types_in_a_request_get_their_json_form() -> None:
    """Tuples, sets, dates and keys that are numbers need no help from the caller."""
    message = {"args": {"t": (1, 2), "s": {3}, 4: "four", "text": "\ud800"}}

    assert codec.decode(codec.encode_request(message)) == {"args": {"t": [1, 2], "s": [3], "4": "four", "text": "?"}}

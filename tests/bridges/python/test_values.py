"""What goes by value, and what by reference."""

from __future__ import annotations

import enum
import json
from collections import Counter
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.bridge import BridgeError
from manybridge.bridges.python.objects import ObjectStore
from manybridge.bridges.python.values import MAX_NESTED_REFERENCES, incoming, outgoing

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text().filter(lambda key: key != "$object"), inner),
    max_leaves=20,
)


class Colour(enum.StrEnum):
    """A str that is not exactly a str."""

    RED = "red"


class Point(NamedTuple):
    """A tuple that is not exactly a tuple."""

    x: float
    y: float


def send(value: Any) -> Any:
    """What a caller gets for `value`, with a store of its own."""
    return outgoing(value, ObjectStore(), None)


@given(JSON)
def test_what_json_carries_goes_by_value_and_comes_back_the_same(value: Any) -> None:
    """No reference is made for plain data, in either direction."""
    store = ObjectStore()
    assert incoming(outgoing(value, store, None), store, None) == value
    assert len(store) == 0


def test_tuples_counters_and_enums_go_by_value() -> None:
    """Subclasses of what JSON carries are carried."""
    assert send((1, (2, "a"))) == [1, [2, "a"]]
    assert send(Point(1, 2.5)) == [1, 2.5]
    assert send(Counter("aab")) == {"a": 2, "b": 1}
    assert json.dumps(send(Colour.RED)) == '"red"'


@pytest.mark.parametrize("value", [object(), b"bytes", {1, 2}, {1: "key is no text"}, 2 + 3j, len, ValueError("x")])
def test_what_json_can_not_carry_goes_by_reference(value: Any) -> None:
    """And comes back as the very same object."""
    store = ObjectStore()
    reference = outgoing(value, store, "s")
    assert set(reference) >= {"$object", "type", "expires_at"}
    assert incoming(reference, store, "s") is value


def test_a_container_keeps_its_shape_around_foreign_values() -> None:
    """Only what must go by reference does."""
    store = ObjectStore()
    sent = outgoing({"model": object(), "scores": [1, 2]}, store, None)
    assert sent["scores"] == [1, 2]
    assert sent["model"]["type"] == "object"
    assert json.dumps(sent)


def test_too_many_foreign_values_send_the_whole_container_by_reference() -> None:
    """A long list of dates does not push everything else out of the store."""
    store = ObjectStore()
    assert outgoing([object() for _ in range(MAX_NESTED_REFERENCES + 1)], store, None)["type"] == "list"
    assert len(store) == 1


def test_a_container_that_holds_itself_goes_by_reference() -> None:
    """And does not end in a recursion error."""
    loop: list[Any] = []
    loop.append(loop)
    assert send(loop)["type"] == "list"


def test_store_sends_even_plain_values_by_reference() -> None:
    """A caller may want to keep a result on this side."""
    store = ObjectStore()
    assert outgoing([1, 2], store, None, store=True)["type"] == "list"


def test_references_are_resolved_at_any_depth() -> None:
    """In lists and in objects."""
    store, value = ObjectStore(), object()
    reference = store.put(value, "s")
    assert incoming({"a": [1, {"b": reference}]}, store, "s") == {"a": [1, {"b": value}]}


@pytest.mark.parametrize("reference", [{"$object": 3}, {"$object": ""}, {"$object": None}])
def test_a_malformed_reference_is_an_invalid_argument(reference: dict[str, Any]) -> None:
    """It is told apart from one that leads nowhere."""
    with pytest.raises(BridgeError) as caught:
        incoming([reference], ObjectStore(), None)
    assert caught.value.code == "invalid_argument"

"""The shared document: operations, versions and compare-and-set."""

from __future__ import annotations

from typing import Any

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridges.python.state import StateDocument


@pytest.fixture
def state() -> StateDocument:
    """A document with something in it."""
    return StateDocument({"user": {"name": "Ada", "visits": 2}, "tags": ["a"]})


def code_of(state: StateDocument, *args: Any, **kwargs: Any) -> str:
    """The code with which an operation fails; it must leave the document as it was."""
    before = (state.version, state.apply("get", "")["value"])
    with pytest.raises(BridgeError) as caught:
        state.apply(*args, **kwargs)
    assert (state.version, state.document) == before
    return caught.value.code


def test_get_reads_at_a_path_or_gives_the_default(state: StateDocument) -> None:
    """Reading changes no version."""
    assert state.apply("get", "user.name") == {"value": "Ada", "version": 0}
    assert state.apply("get", ["user", "name"])["value"] == "Ada"
    assert state.apply("get", "user.age", default=7)["value"] == 7
    assert state.apply("get", "tags.x.y")["value"] is None


def test_set_makes_the_way_that_is_missing(state: StateDocument) -> None:
    """Every change is one version."""
    assert state.apply("set", "a.b.c", value=1) == {"value": 1, "version": 1}
    assert state.document["a"] == {"b": {"c": 1}}


def test_update_merges_key_by_key(state: StateDocument) -> None:
    """What is not named stays."""
    assert state.apply("update", "user", value={"visits": 3})["value"] == {"name": "Ada", "visits": 3}
    assert state.apply("update", "", value={"new": True})["value"]["tags"] == ["a"]


def test_delete_says_whether_there_was_something(state: StateDocument) -> None:
    """Deleting nothing is no change."""
    assert state.apply("delete", "user.name") == {"value": "Ada", "version": 1, "deleted": True}
    assert state.apply("delete", "user.name") == {"value": None, "version": 1, "deleted": False}
    assert state.apply("delete", "")["deleted"]
    assert state.document == {}


def test_increment_counts_from_what_is_there(state: StateDocument) -> None:
    """Or from the default, or from zero."""
    assert state.apply("increment", "user.visits", by=3)["value"] == 5
    assert state.apply("increment", "fresh")["value"] == 1
    assert state.apply("increment", "fresher", by=0.5, default=10)["value"] == 10.5


def test_compare_and_set_wins_while_the_value_is_the_expected_one(state: StateDocument) -> None:
    """And loses, with what was found, once it is not."""
    assert state.apply("compare_and_set", "user.visits", expected=2, value=3)["version"] == 1
    with pytest.raises(BridgeError) as caught:
        state.apply("compare_and_set", "user.visits", expected=2, value=4)
    assert caught.value.code == "conflict"
    assert caught.value.retryable
    assert caught.value.details == {"expected": 2, "found": 3, "version": 1}


def test_compare_and_set_of_what_is_not_there_expects_null(state: StateDocument) -> None:
    """The first writer wins."""
    assert state.apply("compare_and_set", "lock", value="me")["value"] == "me"
    assert code_of(state, "compare_and_set", "lock", value="you") == "conflict"


def test_compare_and_set_by_version_guards_the_whole_document(state: StateDocument) -> None:
    """Any change in between makes it lose."""
    state.apply("set", "tags", value=[])
    assert code_of(state, "compare_and_set", "user.name", version=0, value="Bob") == "conflict"
    assert state.apply("compare_and_set", "user.name", version=1, value="Bob")["version"] == 2


@pytest.mark.parametrize(
    ("op", "path", "more"),
    [
        ("set", "user.name.first", {"value": 1}),
        ("update", "user", {"value": 3}),
        ("update", "tags", {"value": {}}),
        ("increment", "user.name", {}),
        ("increment", "tags", {}),
    ],
)
def test_an_operation_that_does_not_fit_changes_nothing(
    state: StateDocument, op: Any, path: str, more: dict[str, Any]
) -> None:
    """The document is as before after every error."""
    assert code_of(state, op, path, **more) == "invalid_argument"


def test_values_are_copied_in_and_out(state: StateDocument) -> None:
    """Nobody changes the document but through an operation."""
    given = {"list": [1]}
    state.apply("set", "x", value=given)
    given["list"].append(2)
    state.apply("get", "x")["value"]["list"].append(3)
    assert state.apply("get", "x.list")["value"] == [1]

"""Names of a bridge as names of Python."""

from __future__ import annotations

import ast
import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.stubs.names import Names, class_name, identifier, literal


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("count", "count"),
        ("load-model", "load_model"),
        ("a.b.c", "a_b_c"),
        ("class", "class_"),
        ("None", "None_"),
        ("2fast", "n2fast"),
        ("_private", "private"),
        ("größe", "größe"),
        ("ﬁle", "file"),
        ("名前", "名前"),
        ("!?", "x21_x3f"),
        ("", "empty"),
    ],
)
def test_a_name_is_kept_as_far_as_it_can_be(text: str, name: str) -> None:
    """Python's own rules say what has to change."""
    assert identifier(text) == name


@given(st.text(max_size=40))
def test_any_text_gives_valid_names(text: str) -> None:
    """For functions and for classes."""
    for name in (identifier(text), class_name(text)):
        assert name.isidentifier()
        assert not keyword.iskeyword(name)
        assert not name.startswith("_")


@given(st.one_of(st.text(), st.integers(), st.booleans(), st.none()))
def test_a_literal_is_what_it_stands_for(value: str | int | bool | None) -> None:
    """Also text that no file can hold as it is."""
    text = literal(value)
    assert ast.literal_eval(text) == value
    text.encode()


def test_a_name_is_handed_out_once() -> None:
    """The next one gets an underscore, then numbers."""
    names = Names({"list"})
    assert [names.take("list"), names.take("list"), names.take("a"), names.take("a")] == ["list_", "list_2", "a", "a_"]


@pytest.mark.parametrize(
    ("texts", "name"), [(("load_model", "result"), "LoadModelResult"), (("LMUsage",), "LMUsage"), (("a-b",), "AB")]
)
def test_a_class_is_named_in_camel_case(texts: tuple[str, ...], name: str) -> None:
    """Only first letters change."""
    assert class_name(*texts) == name

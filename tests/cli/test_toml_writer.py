"""TOML that is written is read again as the same."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manybridge.cli.toml_writer import write_toml

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = texts | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@given(st.dictionaries(texts, values, max_size=4))
def test_every_tree_survives(tree: dict[str, Any]) -> None:
    """Whatever the keys and texts are, reading gives the same tree."""
    assert tomllib.loads(write_toml(tree)) == tree


def test_none_is_a_comment_and_remarks_stand_behind_keys() -> None:
    """TOML has no null, so the line says so; a remark follows its key."""
    text = write_toml({"a": None, "t": {"b": 1}}, lambda path: "why" if path == ("t", "b") else None)

    assert text == "# a is not set\n\n[t]\nb = 1  # why\n"

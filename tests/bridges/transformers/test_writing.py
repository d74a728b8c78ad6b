"""Text that grows token by token: nothing half, nothing of a stop string, nothing lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.bridges.transformers.writing import TextWriter

# A "tokenizer" whose tokens are bytes: the worst case for characters of several bytes.
SPACED = {1: " a", 2: " b", 3: "c"}


def from_bytes(ids: list[int]) -> str:
    """Decode bytes as a byte-level tokenizer does."""
    return bytes(ids).decode("utf-8", errors="replace")


def words(ids: list[int]) -> str:
    """Decode words as tokenizers do that leave out the first space."""
    return "".join(SPACED[each] for each in ids).removeprefix(" ")


def pieces(writer: TextWriter, ids: list[int]) -> list[str]:
    """Write tokens until the writer stops, and return what came out each time."""
    found = []
    for each in ids:
        found.append(writer.add(each))
        if writer.stopped_by is not None:
            return found
    return [*found, writer.finish()]


@given(st.text())
def test_the_pieces_add_up_to_the_whole_text(text: str) -> None:
    """Whatever the characters."""
    ids = list(text.encode())
    writer = TextWriter(from_bytes)
    assert "".join(pieces(writer, ids)) == writer.text == text
    assert writer.token_ids == ids


@given(
    st.text(alphabet="ab\N{FOX FACE}", max_size=30),
    st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
)
def test_a_stop_string_ends_the_text_before_it_wherever_tokens_are_cut(text: str, stops: list[str]) -> None:
    """No piece ever shows the beginning of one that came true; the earliest wins."""
    writer = TextWriter(from_bytes, stops)
    given_out = "".join(pieces(writer, list(text.encode())))
    # The first that is complete, as a reader of the tokens meets them.
    expected = text
    for end in range(1, len(text) + 1):
        found = [(text[:end].find(stop), stop) for stop in stops if text[:end].find(stop) >= 0]
        if found:
            expected = text[: min(found)[0]]
            break
    assert given_out == writer.text == expected
    assert (writer.stopped_by is None) == (expected == text and not any(stop in text for stop in stops))


def test_a_character_of_several_tokens_comes_whole() -> None:
    """Nothing for its first bytes."""
    writer = TextWriter(from_bytes)
    assert pieces(writer, list("a\N{FOX FACE}".encode())) == ["a", "", "", "", "\N{FOX FACE}", ""]


def test_half_a_character_at_the_end_is_shown_as_one_that_is_broken() -> None:
    """As decoding the whole would."""
    writer = TextWriter(from_bytes)
    assert "".join(pieces(writer, [97, 0xF0, 0x9F])) == from_bytes([97, 0xF0, 0x9F])


def test_a_space_in_front_of_a_token_is_kept_between_pieces() -> None:
    """Though the decoder drops the first one."""
    assert pieces(TextWriter(words), [1, 2, 3, 1]) == ["a", " b", "c", " a", ""]


@pytest.mark.parametrize(("text", "held"), [("abx", ""), ("ab", "ab"), ("xa", "a")])
def test_what_may_begin_a_stop_string_is_held_back_and_given_at_the_end(text: str, held: str) -> None:
    """The stop string is abc."""
    writer = TextWriter(from_bytes, ["abc"])
    *before, last = pieces(writer, list(text.encode()))
    assert ("".join(before), last) == (text.removesuffix(held) if held else text, held)

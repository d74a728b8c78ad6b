"""Arguments of a call as they are typed."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from manybridge.cli.arguments import parse_arguments, parse_object
from manybridge.errors import InvalidArgumentError


def test_text_json_and_files_are_told_apart(tmp_path: Path) -> None:
    """`=` is text, `:=` is JSON, `@` reads a file as either."""
    (tmp_path / "a.txt").write_text("from a file")
    (tmp_path / "a.json").write_text('{"x": [1]}')

    arguments = parse_arguments(
        ["text=a=b:=c", "empty=", "n:=3", "flag:=true", f"page=@{tmp_path}/a.txt", f"config:=@{tmp_path}/a.json"]
    )

    assert arguments == {
        "text": "a=b:=c",
        "empty": "",
        "n": 3,
        "flag": True,
        "page": "from a file",
        "config": {"x": [1]},
    }


def test_pairs_are_laid_over_the_whole() -> None:
    """`--args` comes first, what is typed singly wins."""
    assert parse_arguments(["b=2"], '{"a": 1, "b": 1}') == {"a": 1, "b": "2"}


def test_a_dash_reads_an_object_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe can carry all arguments."""
    monkeypatch.setattr("sys.stdin", io.StringIO('{"a": 1}'))

    assert parse_arguments(["-", "b=x"]) == {"a": 1, "b": "x"}


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("text", 'expected name=text, name:=json, name=@file or "-", found "text"'),
        ("=x", "expected name=text"),
        ("n:=three", "n:=: expected JSON, found 'three'"),
        ("n=@/no/such/file", "n: the file /no/such/file can't be read: No such file"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_shows_the_form(pair: str, said: str) -> None:
    """Each mistake says what it must look like."""
    with pytest.raises(InvalidArgumentError) as caught:
        parse_arguments([pair])

    assert said in caught.value.message


def test_the_whole_must_be_an_object() -> None:
    """A list has no argument names."""
    with pytest.raises(InvalidArgumentError, match=r"--args: expected a JSON object, found \[1\]"):
        parse_object("[1]", "--args")

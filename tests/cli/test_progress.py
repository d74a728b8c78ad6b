"""How a running call is shown."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import Any

import pytest
from rich.console import Console

from manybridge.cli.progress import CallView


@dataclass(frozen=True)
class Event:
    """An event as the host gives it."""

    event: str
    data: Any
    seq: int = 0


def shown(events: list[Event], *, terminal: bool = False, stream: bool = False, as_json: bool = False) -> str:
    """Show events and return what went to the console beside the result."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, highlight=False)
    with CallView(stream=stream, as_json=as_json, console=console) as view:
        for event in events:
            view.show(event)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above
    return text


def progress(current: int, total: int | None = 3) -> Event:
    """Return a progress event."""
    return Event("progress", {"current": current, "total": total, "message": "training"})


def test_without_a_terminal_progress_is_plain_lines_that_do_not_flood() -> None:
    """The first and the last are always written, those in between twice a second at most."""
    assert shown([progress(n) for n in (1, 2, 3)]) == "1/3 training\n3/3 training\n"


def test_on_a_terminal_progress_is_a_bar() -> None:
    """The bar shows message and count."""
    text = shown([progress(1), progress(3)], terminal=True)

    assert "training" in text
    assert "3/3" in text


def test_a_total_that_is_not_known_is_left_out() -> None:
    """Only the count so far is known."""
    assert shown([progress(7, None)]) == "7 training\n"


def test_logs_are_notes() -> None:
    """Brackets in a message are text, not markup."""
    assert shown([Event("log", {"level": "warning", "message": "[red]hot"})]) == "[warning] [red]hot\n"


def test_text_chunks_grow_into_a_line_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Tokens are written as they come, and the line is ended before the result follows."""
    assert shown([Event("chunk", "Hel"), Event("chunk", "lo")], stream=True) == ""
    assert capsys.readouterr().out == "Hello\n"


def test_other_chunks_are_lines_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """A chunk that is no text is one line."""
    shown([Event("chunk", {"a": 1}), Event("chunk", 2)], stream=True)

    assert capsys.readouterr().out == '{"a": 1}\n2\n'


def test_json_prints_every_event_if_streaming_and_none_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    """Machine-readable output has one form."""
    assert shown([progress(1)], as_json=True) == ""
    assert capsys.readouterr().out == ""
    shown([progress(1), Event("chunk", "x", 1)], as_json=True, stream=True)

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["event"], line["seq"]) for line in lines] == [("progress", 0), ("chunk", 1)]

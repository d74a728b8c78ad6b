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


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("message", ["reading [/srv/data]", "[red]hot", "[1/2] first half"])
def test_brackets_in_a_message_are_text(message: str, terminal: bool) -> None:
    """To Rich they would be markup, and a tag that closes nothing an error in the middle of the call."""
    event = Event("progress", {"current": 1, "total": 3, "message": message})

    assert message in shown([event], terminal=terminal)


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("count", ["a", None, True, float("nan"), float("inf"), 10**400, [1]])
def test_what_is_no_count_is_left_out(count: Any, terminal: bool) -> None:
    """A handler's mistake is not the end of the call that it reports on."""
    events = [Event("progress", {"current": current, "total": count, "message": "at work"}) for current in (count, 1)]

    assert "at work" in shown(events, terminal=terminal)


def test_control_characters_do_not_reach_the_terminal() -> None:
    """A worker could clear the screen, or write over what stands there."""
    events = [
        Event("progress", {"current": 3, "total": 3, "message": "a\nb\x1b[2J\x9b2J\r"}),
        Event("log", {"level": "info", "message": "one\ntwo\x1b[2J"}),
    ]

    assert shown(events) == "3/3 a b[2J2J\n[info] one\ntwo[2J\n"


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

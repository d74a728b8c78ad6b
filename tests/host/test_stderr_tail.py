"""The tail of a worker's standard error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from manybridge.host.stderr_tail import LINE_BYTES, TAIL_BYTES, TAIL_LINES, StderrTail


@given(st.lists(st.binary(max_size=200), max_size=30))
def test_it_keeps_the_last_lines_however_the_stream_is_cut(pieces: list[bytes]) -> None:
    """Chunks have nothing to do with lines."""
    tail = StderrTail()
    for piece in pieces:
        tail.feed(piece)
    lines = b"".join(pieces).split(b"\n")
    whole = lines if lines[-1] else lines[:-1]

    assert tail.lines() == [line.decode("utf-8", "replace") for line in whole[-TAIL_LINES - bool(lines[-1]) :]]


def test_it_is_bounded_in_lines_and_bytes() -> None:
    """A flood of long lines can't fill the host's memory."""
    tail = StderrTail()
    for number in range(1000):
        tail.feed(b"%d " % number + b"x" * 100_000 + b"\n")

    lines = tail.lines()
    assert len(lines) <= TAIL_LINES
    assert sum(map(len, lines)) <= TAIL_BYTES
    assert lines[-1].startswith("999 ")


def test_a_line_without_an_end_is_bounded_too() -> None:
    """What comes before the first newline is cut."""
    tail = StderrTail()
    for _ in range(100):
        tail.feed(b"x" * 10_000)

    assert len(tail.lines()[0]) <= LINE_BYTES


def test_a_long_line_keeps_its_beginning_and_its_end() -> None:
    """However it came: a progress bar is one line, and a crash is told at its end."""
    tail = StderrTail()
    tail.feed(b"begin")
    for _ in range(1000):
        tail.feed(b"\r 50% |#####     |")
    tail.feed(b"Fatal Python error: Aborted\nnext\n")

    line, following = tail.lines()
    assert (line[:5], len(line) <= LINE_BYTES, following) == ("begin", True, "next")
    assert line.endswith("|Fatal Python error: Aborted")


def test_each_complete_line_is_told() -> None:
    """For the host's log."""
    told: list[str] = []
    tail = StderrTail(told.append)
    tail.feed(b"one\ntw")
    tail.feed(b"o\nthree")

    assert (told, tail.lines()) == (["one", "two"], ["one", "two", "three"])

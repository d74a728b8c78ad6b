"""How a running call is shown: a bar on a terminal, plain lines elsewhere, events as JSON where that was asked for."""

from __future__ import annotations

import math
import sys
import time
import unicodedata
from types import TracebackType
from typing import Any, Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from manybridge.cli.output import print_json_line, stderr_console

SECONDS_BETWEEN_LINES: Final = 0.5
"""A log keeps every line: twice a second says that something moves, and doesn't fill a disk."""


class StreamEvent(Protocol):
    """What this module needs of an event of the host."""

    @property
    def event(self) -> str:
        """`chunk`, `progress` or `log`."""

    @property
    def seq(self) -> int:
        """Counts from 0."""

    @property
    def data(self) -> Any:
        """What was emitted."""


class CallView:
    """Shows the events of one call. Owns the progress bar while it is entered."""

    def __init__(self, *, stream: bool, as_json: bool, console: Console | None = None) -> None:
        """Choose what is shown.

        Args:
            stream: print chunks on standard output as they come.
            as_json: print every event as a line of JSON if `stream`, and nothing otherwise.
            console: where progress goes; standard error if left out.
        """
        self._stream = stream
        self._as_json = as_json
        self._console = console or stderr_console()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_line = 0.0
        self._partial_line = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if self._partial_line:
            sys.stdout.write("\n")
            sys.stdout.flush()

    def show(self, event: StreamEvent) -> None:
        """Show one event."""
        if self._as_json:
            if self._stream:
                print_json_line({"event": event.event, "seq": event.seq, "data": event.data})
        elif event.event == "progress":
            self._show_progress(event.data)
        elif event.event == "log":
            self._note(f"[{event.data.get('level', 'info')}] {event.data.get('message', '')}")
        elif event.event == "chunk" and self._stream:
            self._show_chunk(event.data)

    def _show_chunk(self, chunk: Any) -> None:
        """Text is written as it is, so that tokens grow into sentences; anything else is a line of JSON."""
        if not isinstance(chunk, str):
            print_json_line(chunk)
            return
        sys.stdout.write(chunk)
        sys.stdout.flush()
        self._partial_line = not chunk.endswith("\n")

    def _show_progress(self, data: dict[str, Any]) -> None:
        current, total = count_of(data.get("current")), count_of(data.get("total"))
        message = plain(data.get("message") or "").replace("\n", " ")
        if self._console.is_terminal:
            self._move_bar(current, total, message)
        else:
            self._write_line(current, total, message)

    def _move_bar(self, current: Any, total: Any, message: str) -> None:
        if self._bar is None or self._task is None:
            said = TextColumn("{task.description}", markup=False)
            columns = (SpinnerColumn(), said, BarColumn(), MofNCompleteColumn())
            self._bar = Progress(*columns, TimeElapsedColumn(), console=self._console, transient=True)
            self._task = self._bar.add_task(message, total=total)
            self._bar.start()
        self._bar.update(self._task, completed=current or 0, total=total, description=message)

    def _write_line(self, current: Any, total: Any, message: str) -> None:
        now = time.monotonic()
        if current != total and now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        of_total = "" if current is None else f"{current}/{total}" if total is not None else f"{current}"
        self._note(f"{of_total} {message}".strip())

    def _note(self, text: str) -> None:
        console = self._bar.console if self._bar is not None else self._console
        console.print(Text(plain(text)), soft_wrap=True)


def count_of(value: Any) -> int | float | None:
    """Return a count that can be shown; None for what a handler reported in its place, such as a text or infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # a whole number of more than three hundred digits
        return None


def plain(text: Any) -> str:
    """Return a text without control characters: what a worker says must not move the cursor or clear the screen."""
    return "".join(each for each in str(text) if each in "\n\t" or unicodedata.category(each) != "Cc")

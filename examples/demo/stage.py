"""What the demo prints: numbered steps, facts, and claims that are checked before they are printed."""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

WIDTH = 92
"""Columns: fits a terminal beside an editor. A narrower terminal is respected."""

INDENT = 3


class DemoError(Exception):
    """Something that the demo claims did not hold."""


class Stage:
    """Owner of the console. Plain lines where standard output is no terminal."""

    def __init__(self) -> None:
        """Take standard output; characters that its encoding lacks become `?`, not a crash."""
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")
        self.console = Console(highlight=False)
        self.console.width = min(self.console.width, WIDTH) if self.console.is_terminal else WIDTH
        self._step = 0

    def title(self, text: str, subtitle: str) -> None:
        """Open the demo."""
        self.console.print()
        self._print(Text(text, style="bold"))
        self._print(Text(subtitle, style="dim"))

    def step(self, title: str) -> None:
        """Begin a step."""
        self._step += 1
        heading = Text.assemble((f" {self._step} ", "bold cyan"), (title, "bold"), " ")
        self.console.print()
        self.console.print(Rule(heading, align="left", style="dim"))
        self.console.print()

    def say(self, text: str | Text) -> None:
        """Explain, in a sentence."""
        self._print(text if isinstance(text, Text) else Text(text))

    def note(self, text: str) -> None:
        """Say something that may be skipped."""
        self._print(Text(text, style="dim"))

    def gap(self) -> None:
        """Leave a line free."""
        self.console.print()

    def command(self, text: str) -> None:
        """Show what is done, as one would type it."""
        self._marked("> " if text.startswith("ml.") else "$ ", "dim", Text(text, style="yellow"))

    def quote(self, text: str) -> None:
        """Show somebody's words."""
        for line in textwrap.wrap(text, self.console.width - 2 * INDENT):
            self._print(Text.assemble(("│ ", "red"), line))

    def failed(self, error: Exception) -> None:
        """End the demo with what did not hold."""
        self.console.print()
        self._marked("✗ ", "bold red", Text(f"FAILED: {str(error) or type(error).__name__}"))

    def holds(self, condition: object, claim: str) -> None:
        """Print a claim with a tick, if it holds.

        Raises:
            DemoError: it does not.
        """
        if not condition:
            raise DemoError(claim)
        self._marked("✓ ", "bold green", Text(claim))

    def table(self, columns: Iterable[str], rows: Iterable[Iterable[str]], right: Iterable[str] = ()) -> None:
        """Print a table without vertical lines."""
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        for name in columns:
            table.add_column(name, justify="right" if name in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text.from_markup(cell) for cell in row))
        self._print(table)

    def beside(self, blocks: list[list[str]]) -> None:
        """Print blocks of lines next to each other, as far as they fit."""
        table = Table.grid(padding=(0, 2))
        for _ in blocks:
            table.add_column(no_wrap=True)
        for line in zip(*blocks, strict=True):
            table.add_row(*(Text(part) for part in line))
        self._print(table)

    @contextmanager
    def progress(self, label: str, lines: int = 6) -> Iterator[Any]:
        """Give a function `show(current, total, message)`: a bar on a terminal, about `lines` lines elsewhere."""
        if self.console.is_terminal:
            bar = Progress(
                TextColumn(" " * INDENT + label), BarColumn(28), TaskProgressColumn(),
                TextColumn("{task.fields[message]}"), TimeElapsedColumn(), console=self.console,
            )  # fmt: skip
            task = bar.add_task(label, total=None, message="")
            with bar:
                yield lambda current, total, message: bar.update(task, completed=current, total=total, message=message)
            return

        def show(current: float, total: float, message: str) -> None:
            if current == total or current % max(1, total // lines) == 0:
                self._print(Text(f"{label}  {current:>3.0f}/{total:.0f}  {message}"))

        yield show

    @contextmanager
    def growing(self) -> Iterator[Any]:
        """Give a function `add(text)` that appends to a paragraph, as text arrives."""
        column, space = 0, False

        def add(text: str) -> None:
            nonlocal column, space
            for part in re.findall(r"\s+|\S+", text):
                if part.isspace():
                    space = column > 0
                    continue
                before = " " if space else ""
                if column == 0 or column + len(before + part) > self.console.width - 2 * INDENT:
                    before = ("\n" if column else "") + " " * INDENT
                    column = 0
                self.console.print(before + part, end="", markup=False, style="italic", soft_wrap=True)
                column += len(part) + (1 if space else 0)
                space = False

        yield add
        self.console.print()

    def _marked(self, mark: str, style: str, text: Text) -> None:
        """Print a paragraph with a mark in front, that no line of it runs under."""
        grid = Table.grid()
        grid.add_column(no_wrap=True)
        grid.add_column()
        grid.add_row(Text(mark, style=style), text)
        self._print(grid)

    def _print(self, what: Any) -> None:
        self.console.print(Padding(what, (0, 0, 0, INDENT), expand=False))

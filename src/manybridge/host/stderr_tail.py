"""The last lines that a worker wrote on its standard error: the first thing that a person asks for after a crash."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

TAIL_LINES: Final = 50
"""A Python traceback and faulthandler's dump of a few threads fit; more would drown the error that carries them."""

TAIL_BYTES: Final = 64 * 1024
"""Bound of the whole tail, so that a worker that writes one endless line can't fill the host's memory."""

LINE_BYTES: Final = 8 * 1024
"""Of a longer line the tail keeps as much of its beginning, which says what it is, as of its end: a progress bar is one
line for as long as it is drawn, and what the interpreter says of a crash is written behind it."""

_CUT: Final = b" ... "
_HALF: Final = (LINE_BYTES - len(_CUT)) // 2


class StderrTail:
    """Keeps the end of a byte stream as lines. Owner of those lines.

    Args:
        on_line: called with each complete line as text, without its newline; None where nobody listens.
    """

    __slots__ = ("_bytes", "_lines", "_on_line", "_partial")

    def __init__(self, on_line: Callable[[str], None] | None = None) -> None:
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._partial = b""
        self._on_line = on_line

    def feed(self, data: bytes) -> None:
        """Take what was read from the stream."""
        lines = (self._partial + data).split(b"\n")
        self._partial = _shortened(lines.pop())
        if self._on_line is None and len(lines) > TAIL_LINES:
            del lines[:-TAIL_LINES]  # a flood costs the host no work for each of its lines
        for line in lines:
            self._keep(_shortened(line))
            if self._on_line is not None:
                self._on_line(line.decode("utf-8", "replace"))

    def lines(self) -> list[str]:
        """Return the tail, newest line last."""
        lines = [*self._lines, self._partial] if self._partial else self._lines
        return [line.decode("utf-8", "replace") for line in lines]

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._bytes += len(line)
        while len(self._lines) > TAIL_LINES or self._bytes > TAIL_BYTES:
            self._bytes -= len(self._lines.popleft())


def _shortened(line: bytes) -> bytes:
    return line if len(line) <= LINE_BYTES else line[:_HALF] + _CUT + line[-_HALF:]

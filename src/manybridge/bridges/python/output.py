"""Catches what code prints, sends it on while the code runs, and keeps it up to a limit.

`sys.stdout` and `sys.stderr` are replaced once, by streams that ask at every write whose text it is: that of the
execution whose context this is (threads of a concurrent bridge, coroutines), else that of the only one that runs (a
thread that the code started), else nobody's, and then it goes to the log as before. Replacing them for the time of one
execution would not do: what the code keeps (a logging handler, a progress bar) outlives it.

Not caught: what C code and other programs write to descriptors 1 and 2. It goes to the worker's log.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal, TextIO

StreamName = Literal["stdout", "stderr"]
Send = Callable[[dict[str, str]], None]

DEFAULT_MAX_BYTES: Final = 1_000_000
"""A screenful a thousand times over; a loop that prints for ever must not fill the memory of host and worker."""

CHUNK_BYTES: Final = 8_192
"""A line that is not finished is sent when it has grown to this size: a dot per step is a sign of life."""


class Capture:
    """The output of one execution. Owns what was kept of it.

    Args:
        send: takes `{"stream": name, "text": text}`, one line or more at a time.
        max_bytes: of both streams together, in UTF-8; what comes after is counted and dropped.
    """

    def __init__(self, send: Send, max_bytes: int) -> None:
        self._send = send
        self._left = max_bytes
        self._kept: dict[StreamName, list[str]] = {"stdout": [], "stderr": []}
        self._unsent: dict[StreamName, list[str]] = {"stdout": [], "stderr": []}
        self._lock = threading.RLock()  # of this execution alone, so that an interrupted one can hold up no other
        self.dropped_bytes = 0

    def write(self, name: StreamName, text: str) -> None:
        """Keep text, and send it when a line is complete."""
        with self._lock:
            fitting = self._fitting(text)
            if not fitting:
                return
            self._kept[name].append(fitting)
            self._unsent[name].append(fitting)
            if "\n" in fitting or sum(map(len, self._unsent[name])) >= CHUNK_BYTES:
                self.flush(name)

    def flush(self, name: StreamName) -> None:
        """Send what was not sent yet."""
        with self._lock:
            text = "".join(self._unsent[name])
            self._unsent[name].clear()
            if text:
                self._send({"stream": name, "text": text})

    def close(self) -> dict[str, Any]:
        """Send the rest and return `{stdout, stderr, dropped_bytes}`."""
        self.flush("stdout")
        self.flush("stderr")
        stdout, stderr = "".join(self._kept["stdout"]), "".join(self._kept["stderr"])
        return {"stdout": stdout, "stderr": stderr, "dropped_bytes": self.dropped_bytes}

    def _fitting(self, text: str) -> str:
        """What of the text is still within the limit. Half a surrogate pair, which JSON can't carry, is written out."""
        data = text.encode("utf-8", "backslashreplace")
        if len(data) <= self._left:
            self._left -= len(data)
            return data.decode()
        fitting = data[: self._left].decode("utf-8", "ignore")
        self._left = 0  # nothing after a gap, even if it would fit
        self.dropped_bytes += len(data) - len(fitting.encode())
        return fitting


class Outputs:
    """Whose output it is. Owner of the streams that stand in for `sys.stdout` and `sys.stderr`."""

    def __init__(self) -> None:
        self._running: list[Capture] = []
        self._current: ContextVar[Capture | None] = ContextVar("manybridge_output", default=None)
        self._streams: dict[StreamName, _Stream] = {}

    @contextmanager
    def caught(self, capture: Capture) -> Iterator[None]:
        """Everything that is printed inside goes to `capture`."""
        self._install("stdout")
        self._install("stderr")
        token = self._current.set(capture)
        self._running.append(capture)
        try:
            yield
        finally:
            self._running.remove(capture)
            self._current.reset(token)

    def close(self) -> None:
        """Put the streams back that were there before."""
        for name, stream in self._streams.items():
            if getattr(sys, name) is stream:
                setattr(sys, name, stream.log)
        self._streams.clear()

    def find(self) -> Capture | None:
        """Whose text is written here and now; None for nobody's."""
        mine = self._current.get()
        if mine is not None:
            return mine
        running = self._running
        return running[0] if len(running) == 1 else None

    def _install(self, name: StreamName) -> None:
        if name not in self._streams:
            self._streams[name] = _Stream(self, name, getattr(sys, name))
        setattr(sys, name, self._streams[name])  # code before may have put something else there


class _Stream(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr`."""

    def __init__(self, outputs: Outputs, name: StreamName, log: TextIO) -> None:
        self._outputs = outputs
        self._name: StreamName = name
        self.log = log

    @property
    def encoding(self) -> str:  # type: ignore[override]  # the base declares an attribute
        return "utf-8"

    @property
    def buffer(self) -> Any:
        """The log's: bytes can't be told to belong to somebody."""
        return self.log.buffer

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        """The log's descriptor, which is what another program inherits anyway."""
        return self.log.fileno()

    def write(self, text: str, /) -> int:
        capture = self._outputs.find()
        if capture is None:
            return self.log.write(text)
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        capture.write(self._name, text)
        return len(text)

    def flush(self) -> None:
        capture = self._outputs.find()
        if capture is None:
            self.log.flush()
        else:
            capture.flush(self._name)

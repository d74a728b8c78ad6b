"""Faults of a store's file, of its server and of the clock: each is put in place, and taken back."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event

from tests.store.postgresql import Server

DAY: Final = 86_400.0

AtBegin = Callable[[sqlite3.Connection], object]
_at_begin: list[AtBegin] = []
"""What is done to every connection to SQLite of this process at the beginning of each transaction."""

_real_time: Final = time.time
_ahead = [0.0]
"""Seconds by which the clock has jumped."""


def _time() -> float:
    return _real_time() + _ahead[0]


def _julian_day(_moment: str) -> float:
    return _time() / DAY + 2_440_587.5


@contextmanager
def watched_connections() -> Iterator[None]:
    """Have the faults of this module reach connections. Taking a fault back reaches them too, until this ends."""

    @event.listens_for(Engine, "begin")
    def begun(connection: Any) -> None:
        if connection.dialect.name == "sqlite":
            # Before the first statement: those that are prepared keep the function that they were prepared with.
            connection.connection.driver_connection.create_function("julianday", 1, _julian_day)
            for action in _at_begin:
                action(connection.connection.driver_connection)

    yield
    event.remove(Engine, "begin", begun)
    _at_begin.clear()


@contextmanager
def healthy(_file: Path) -> Iterator[None]:
    """No fault."""
    yield


_MOST_PAGES: Final = 1_073_741_823
"""SQLite's own limit on the pages of a database."""


@contextmanager
def missing(file: Path) -> Iterator[None]:
    """The folder is moved away with everything in it."""
    away = file.parent.with_name("away")
    file.parent.rename(away)
    yield
    away.rename(file.parent)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Another program writes, and does not end."""
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@contextmanager
def full(_file: Path) -> Iterator[None]:
    """No page more than there are. To a disk that is full SQLite answers with the same code."""
    with _pragma("max_page_count", 1, _MOST_PAGES):
        yield


@contextmanager
def read_only(_file: Path) -> Iterator[None]:
    """Every write is refused. By permissions it can't be had for root, nor for a file that is open."""
    with _pragma("query_only", 1, 0):
        yield


@contextmanager
def corrupted(file: Path) -> Iterator[None]:
    """Everything behind the header is overwritten, in the file and in its log; what was read before is forgotten."""
    paths = [path for path in (file, file.with_name(f"{file.name}-wal")) if path.exists()]
    good = {path: path.read_bytes() for path in paths}
    for path, content in good.items():
        _overwrite(path, content[:100] + b"\xff" * (len(content) - 100))
    with _pragma("shrink_memory"):
        yield
    for path, content in good.items():
        _overwrite(path, content)


@contextmanager
def newer_schema(file: Path) -> Iterator[None]:
    """Another release was here."""
    before = _set_version(file, "9999")
    yield
    _set_version(file, before)


@contextmanager
def restarted(server: Server) -> Iterator[None]:
    """The server is restarted, now."""
    server.restart()
    yield


@contextmanager
def gone(server: Server) -> Iterator[None]:
    """The server ends, and nobody starts it again for a while."""
    server.halt()
    yield
    server.resume()


@contextmanager
def clock_jumps(seconds: float) -> Iterator[None]:
    """The time of day is another one, for us and for SQLite; what measures durations goes on as before."""
    ours = [module for name, module in sys.modules.items() if name.startswith("manybridge.")]
    changed = [module for module in ours if getattr(module, "time", None) is _real_time]
    for module in changed:
        module.time = _time  # type: ignore[attr-defined]  # it has one, which is the clock
    _ahead[0] = seconds
    yield
    _ahead[0] = 0.0
    for module in changed:
        module.time = _real_time  # type: ignore[attr-defined]  # the same


@contextmanager
def _pragma(name: str, *values: int) -> Iterator[None]:
    """Have every connection say so at the beginning of each transaction; with a second value, that one afterwards."""
    said = [f"PRAGMA {name} = {value}" for value in values] or [f"PRAGMA {name}"]
    _at_begin.append(lambda connection: connection.execute(said[0]))
    yield
    del said[:-1]


def _overwrite(path: Path, content: bytes) -> None:
    with path.open("r+b" if path.exists() else "xb") as file:  # the same file: it is open
        file.write(content)


def _set_version(file: Path, version: str) -> str:
    connection = sqlite3.connect(file)
    (before,) = connection.execute("SELECT version_num FROM manybridge_version").fetchone()
    connection.execute("UPDATE manybridge_version SET version_num = ?", (version,))
    connection.commit()
    connection.close()
    return str(before)

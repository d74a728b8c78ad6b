"""What a database says went wrong, as a `StoreError` that says what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
from typing import Any, Final, NamedTuple

from manybridge.errors import StoreError
from manybridge.protocol.errors import ErrorCode
from manybridge.store.urls import StoreUrl


class Reason(NamedTuple):
    """One way in which a store fails."""

    reason: str
    text: str
    code: ErrorCode = ErrorCode.STORE_UNAVAILABLE
    retryable: bool = False


_LOCKED: Final = Reason(
    "locked",
    "another process has held its lock for too long; find out which (`fuser FILE`), or try again",
    retryable=True,
)
_FULL: Final = Reason("full", "there is no room to write; free some, or raise the limit on its size", retryable=True)
_READ_ONLY: Final = Reason("read_only", "it can't be written; check the rights on the file, its folder and the disk")
_MISSING: Final = Reason("missing_folder", "the folder of the file does not exist; make it, or correct store.url")
_CANT_OPEN: Final = Reason("cant_open", "the file can't be opened; check that it is a file and that you may use it")
_IO: Final = Reason("io_error", "the disk reports an error; check it and the kernel's log", retryable=True)
_CORRUPTED: Final = Reason(
    "corrupted",
    "the file is damaged, or is no SQLite database; move it away and restore a copy (`sqlite3 FILE .recover` may help)",
    ErrorCode.STORE_CORRUPTED,
)
_UNREACHABLE: Final = Reason("unreachable", "the database server does not answer; check that it runs", retryable=True)
_REFUSED: Final = Reason("refused", "the database server refuses us; check user, password, database and rights")
_MOVED: Final = Reason(
    "moved",
    "its file was moved, deleted or replaced while it was open; put it back, or start again with what is there now",
)
_CLOSED: Final = Reason("closed", "the store was closed")
_UNFIT: Final = Reason(
    "unfit_value", "a text can't be kept (a lone surrogate, or a NUL character)", ErrorCode.INVALID_ARGUMENT
)

# sqlite3 has names for extended codes too (SQLITE_READONLY_DBMOVED, SQLITE_IOERR_WRITE): the beginning decides.
_OF_SQLITE: Final[tuple[tuple[str, Reason], ...]] = (
    ("SQLITE_BUSY", _LOCKED),
    ("SQLITE_LOCKED", _LOCKED),
    ("SQLITE_FULL", _FULL),
    ("SQLITE_READONLY", _READ_ONLY),
    ("SQLITE_PERM", _READ_ONLY),
    ("SQLITE_AUTH", _READ_ONLY),
    ("SQLITE_CANTOPEN", _CANT_OPEN),
    ("SQLITE_CORRUPT", _CORRUPTED),
    ("SQLITE_NOTADB", _CORRUPTED),
    ("SQLITE_IOERR", _IO),
)

# Classes of SQLSTATE, https://www.postgresql.org/docs/current/errcodes-appendix.html
_OF_POSTGRESQL: Final[tuple[tuple[str, Reason], ...]] = (
    ("08", _UNREACHABLE),
    ("57P", _UNREACHABLE),
    (
        "53300",
        Reason("too_many_connections", "the database server has no free connection; raise its limit", retryable=True),
    ),
    ("53", _FULL),
    ("55P03", _LOCKED),
    ("40", Reason("contended", "other hosts changed the same records at the same time; try again", retryable=True)),
    ("25006", Reason("read_only", "the database server is read-only (a standby?); connect to the primary")),
    ("22", _UNFIT),
    ("28", _REFUSED),
    ("3D", _REFUSED),
    ("42501", _REFUSED),
    ("58", _IO),
    ("XX001", Reason("corrupted", "the database's files are damaged", ErrorCode.STORE_CORRUPTED)),
    ("XX002", Reason("corrupted", "an index of the database is damaged", ErrorCode.STORE_CORRUPTED)),
)

_OF_OS: Final[dict[int, Reason]] = {
    errno.ENOENT: _MISSING,
    errno.ENOTDIR: _MISSING,
    errno.EACCES: _READ_ONLY,
    errno.EPERM: _READ_ONLY,
    errno.EROFS: _READ_ONLY,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EISDIR: _CANT_OPEN,
}


def store_error(error: BaseException, url: StoreUrl, doing: str) -> StoreError:
    """The error for a caller; `doing` says what was tried."""
    cause = root_of(error)
    reason = _reason_of(cause, url)
    if reason is None:
        reason = Reason("failed", f"{type(cause).__name__}: {_one_line(cause)}")
    said = "" if reason.reason == "failed" else f" ({type(cause).__name__}: {_one_line(cause)})"
    return made_error(reason, url, doing, said)


def made_error(reason: Reason, url: StoreUrl, doing: str, said: str = "", **details: Any) -> StoreError:
    """The error for a reason that we know ourselves."""
    text = f"{doing}: the store {url.shown} can't do it: {reason.text}{said}"
    facts = {"store": url.shown, "reason": reason.reason, **details}
    return StoreError(text, code=reason.code, retryable=reason.retryable, details=facts)


def closed_error(url: StoreUrl, doing: str) -> StoreError:
    """The error after `close`."""
    return made_error(_CLOSED, url, doing)


def moved_error(url: StoreUrl, doing: str) -> StoreError:
    """The error where the path leads to another file than the one that is open, or to none."""
    return made_error(_MOVED, url, doing)


def root_of(error: BaseException) -> BaseException:
    """Return what the driver said, below what SQLAlchemy made of it."""
    for _ in range(8):  # a chain of errors has no loops in practice; a bound costs nothing
        below = getattr(error, "orig", None) or (error.__cause__ if _sqlstate(error) is None else None)
        if not isinstance(below, BaseException) or isinstance(error, sqlite3.Error):
            return error
        error = below
    return error


def lost_connection(error: BaseException) -> bool:
    """Whether the server has gone away, so that the same work may succeed over a new connection."""
    cause = root_of(error)
    state = _sqlstate(cause)
    if state is not None:
        return state.startswith(("08", "57P", "40"))
    if type(cause).__module__.startswith("asyncpg"):
        return "connection" in _one_line(cause).lower()  # InterfaceError has no code: "connection is closed"
    return isinstance(cause, (ConnectionError, TimeoutError, OSError))


def _reason_of(cause: BaseException, url: StoreUrl) -> Reason | None:
    name = getattr(cause, "sqlite_errorname", None)
    if name is not None:
        reason = _by_prefix(name, _OF_SQLITE)
        # SQLite has files of its own beside the database: where it may not make them, it is "unable to open" it.
        return _READ_ONLY if reason is _CANT_OPEN and _is_read_only(url) else reason
    if isinstance(cause, sqlite3.DatabaseError) and "malformed" in str(cause):
        return _CORRUPTED  # raised by the module itself, without a code
    state = _sqlstate(cause)
    if state is not None:
        return _by_prefix(state, _OF_POSTGRESQL)
    if isinstance(cause, (ValueError, OverflowError)):  # asyncpg's errors about arguments are ValueErrors
        return _UNFIT
    if url.kind == "postgresql" and lost_connection(cause):
        return _UNREACHABLE
    return _OF_OS.get(cause.errno or 0) if isinstance(cause, OSError) else None


def _is_read_only(url: StoreUrl) -> bool:
    # Of a folder that we may not even enter, `access` says no to everything, and does not raise.
    folder, path = url.path.parent, url.path
    may_read = os.access(folder, os.X_OK) and path.is_file() and os.access(path, os.R_OK)
    return may_read and not (os.access(path, os.W_OK) and os.access(folder, os.W_OK))


def _by_prefix(code: str, table: tuple[tuple[str, Reason], ...]) -> Reason | None:
    return next((reason for prefix, reason in table if code.startswith(prefix)), None)


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]

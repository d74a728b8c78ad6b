"""Where a store is, as text: `memory:`, `sqlite:///path?synchronous=full`, `postgresql://user@host/database`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from manybridge.errors import ConfigError

EXPECTED: Final = "`memory:`, `sqlite:///FILE` (four slashes for an absolute path) or `postgresql://USER@HOST/DATABASE`"

Synchronous = Literal["normal", "full"]


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """One checked address."""

    kind: Literal["memory", "sqlite", "postgresql"]
    shown: str
    """Without a password: for messages."""
    path: Path = Path()
    """The file of SQLite."""
    synchronous: Synchronous = "normal"
    """Whether SQLite waits for the disk at each commit; see docs/architecture on the store."""
    dsn: str = ""
    """What PostgreSQL's driver is given."""


def parse_store_url(text: str, folder: Path | None = None) -> StoreUrl:
    """Check the address of a store.

    Args:
        text: the address.
        folder: what a relative path of a file is relative to; the working folder if left out.

    Raises:
        ConfigError: it is none that is known; the message shows no password.
    """
    try:
        parts = urlsplit(text)
    except ValueError:  # whose text may quote a part of the password
        raise _wrong("brackets that hold no IPv6 address; in a password they are written %5B and %5D") from None
    scheme = parts.scheme.partition("+")[0]
    if text in {"memory:", "memory://"}:
        return StoreUrl("memory", "memory:")
    if scheme == "sqlite":
        return _sqlite(parts.netloc, parts.path, parts.query, folder or Path.cwd())
    if scheme in {"postgresql", "postgres"}:
        shown = f"postgresql://{parts.netloc.rpartition('@')[2]}{parts.path}"
        return StoreUrl("postgresql", shown, dsn=urlunsplit(parts._replace(scheme="postgresql")))
    raise _wrong(f"{scheme}:..." if scheme else "no scheme")


def _sqlite(netloc: str, path: str, query: str, folder: Path) -> StoreUrl:
    name = unquote(path.removeprefix("/"))
    if netloc:
        raise _wrong(f"sqlite://{netloc}..., which names a machine; a file has three slashes before it")
    if name in {"", ":memory:"}:
        raise _wrong("a SQLite database in memory; use `memory:`")
    options = dict(parse_qsl(query, keep_blank_values=True))
    synchronous = options.pop("synchronous", "normal")
    if synchronous not in get_args(Synchronous) or options:
        raise _wrong(f"?{query}; SQLite takes ?synchronous=normal or ?synchronous=full")
    file = folder / name  # an absolute name stays as it is
    return StoreUrl("sqlite", f"sqlite:///{file}", file, synchronous)  # type: ignore[arg-type]  # checked above


def _wrong(found: str) -> ConfigError:
    return ConfigError(f"store.url: expected {EXPECTED}, found {found}", details={"key": "store.url"})

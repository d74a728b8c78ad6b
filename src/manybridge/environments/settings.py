"""What the functions of this package are told: plain values, so that this package needs nothing of the host's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """Where environments lie, and what is allowed in them."""

    root: Path
    """The folder that holds the built environments."""
    python: str | None = None
    """The interpreter that environments are built from; None is the one below the host's own."""
    uv: str | None = None
    """The uv to run; None is the one that was installed with manybridge."""
    find_links: tuple[str, ...] = ()
    """Further folders with wheels."""
    build_from_source: tuple[str, ...] = ()
    """Packages whose own build code may run; of all others wheels alone are taken."""
    denylist: Mapping[str, str] = field(default_factory=dict)
    """Further known-bad versions: requirement -> reason."""
    allowed_startup: frozenset[str] = frozenset()
    """SHA-256 of lines in `.pth` files, and of sitecustomize files, that may run at the start of an interpreter."""
    advisories: str | None = None
    """A snapshot of an advisory database, or the URL of an OSV server."""


def default_root(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where environments lie if nothing is configured: the user's data folder."""
    base = environ.get("XDG_DATA_HOME", "")
    # The specification: a relative path in the variable is not valid and must be ignored.
    folder = Path(base) if base.startswith("/") else Path.home() / ".local" / "share"
    return folder / "manybridge" / "environments"

"""Built environments on the disk: what is there, whether it is whole, how it is removed.

An environment is one folder, named by its lock. It comes into being by a rename of a finished one, so a folder with
that name is whole; while it is built, it has another name. `environment.json` in it says what it is.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from manybridge.environments.claims import try_exclusive

FACTS: Final = "environment.json"
LOCK_COPY: Final = "lock.txt"
BUILDING: Final = ".building-"
REMOVED: Final = ".removed-"

_NAME_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class Environment:
    """One built environment."""

    folder: Path
    bridge: str
    """The bridge that it was built for first; others with an equal lock share it."""
    packages: dict[str, str]
    python: str
    """The whole version, 3.11.7."""
    size: int
    """Bytes on the disk when it was built, shared ones counted too."""
    created: float
    """Seconds since the epoch."""

    @property
    def name(self) -> str:
        """The hash that names it."""
        return self.folder.name

    @property
    def interpreter(self) -> Path:
        """What its workers run under."""
        return self.folder / "bin" / "python"


def find_environment(root: Path, name: str) -> Environment | None:
    """Return a built environment, or None if it is not there or can't be used any more."""
    environment = read_environment(root / name)
    # The interpreter is a link to the Python that it was built from, and that may have been removed.
    return environment if environment is not None and environment.interpreter.exists() else None


def read_environment(folder: Path) -> Environment | None:
    """Return what a folder says about itself, or None if it is no environment."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        return Environment(
            folder, facts["bridge"], facts["packages"], facts["python"], int(facts["size"]), float(facts["created"])
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def all_environments(root: Path) -> list[Environment]:
    """Return every environment, the oldest first."""
    found = (read_environment(folder) for folder in _folders(root) if not folder.name.startswith("."))
    return sorted((each for each in found if each is not None), key=lambda each: each.created)


def leftovers(root: Path, name: str | None = None) -> list[Path]:
    """Return the folders of builds and removals that did not get to their end, or are still at it."""
    starts = tuple(f"{kind}{name or ''}" for kind in (BUILDING, REMOVED))
    return [folder for folder in _folders(root) if folder.name.startswith(starts)]


def environment_of_leftover(folder: Path) -> str:
    """Return the name of the environment that a leftover folder was to become, or was."""
    return folder.name.removeprefix(BUILDING).removeprefix(REMOVED)[:_NAME_LENGTH]


def scratch_name(kind: str, name: str) -> str:
    """Return a new name for a folder that is not an environment yet, or no longer."""
    return f"{kind}{name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def remove_environment(root: Path, name: str) -> None:
    """Remove an environment of which an exclusive claim is held: out of sight at once, then off the disk.

    Raises:
        OSError: it can't be renamed.
    """
    aside = root / scratch_name(REMOVED, name)
    (root / name).rename(aside)
    remove_tree(aside)


def remove_tree(folder: Path) -> None:
    """Delete a folder with all that is in it, as far as it can be."""
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(root: Path, *, dry_run: bool = False) -> list[Path]:
    """Remove what killed builds and removals left, unless one of them still runs. Returns what was, or would be."""
    removed: list[Path] = []
    for folder in leftovers(root):
        claim = try_exclusive(root, environment_of_leftover(folder), "cleans up")
        if claim is None:
            continue
        with claim:
            if not dry_run:
                remove_tree(folder)
            removed.append(folder)
    return removed


def tree_size(folder: Path) -> int:
    """Return the bytes that a folder's files hold on the disk."""
    return sum(_stored(Path(parent) / name) for parent, _, names in os.walk(folder) for name in names)


def _stored(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:
        return 0


def _folders(root: Path) -> Iterator[Path]:
    try:
        entries = sorted(root.iterdir())
    except OSError:
        return
    yield from (each for each in entries if each.is_dir() and each.name != ".claims")

"""Removing environments that nobody needs: no lock of a known configuration describes them, no process uses them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from manybridge.environments.claims import try_exclusive, users_of
from manybridge.environments.failures import failed
from manybridge.environments.folders import (
    Environment,
    all_environments,
    remove_environment,
    remove_leftovers,
    tree_size,
)
from manybridge.environments.locks import read_lock

KNOWN: Final = ".known"
"""Folder of small files, each of which holds the path of a folder of locks that an environment was built from."""


@dataclass(frozen=True, slots=True)
class Collected:
    """What became of one folder."""

    folder: Path
    outcome: Literal["removed", "kept"]
    reason: str
    size: int


def remember_locks(root: Path, locks: Path) -> None:
    """Remember that a configuration with its locks there uses environments of `root`.

    Raises:
        OSError: it can't be written.
    """
    folder = root / KNOWN
    folder.mkdir(parents=True, exist_ok=True)
    content = os.fsencode(f"{locks}\n")
    path = folder / hashlib.sha256(os.fsencode(locks)).hexdigest()[:16]
    if _content(path) == content:
        return
    # As a whole or not at all: half a path, left by a full disk, would be another folder, or none.
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def known_locks(root: Path) -> list[Path]:
    """Return every folder of locks that is remembered and still there."""
    found = []
    for path in sorted((root / KNOWN).glob("[!.]*")):
        folder = Path(os.fsdecode(_content(path).rstrip(b"\n")))
        if folder.is_absolute() and folder.is_dir():  # what is no absolute path was never one of ours
            found.append(folder)
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def needed_environments(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Return the environments that locks describe, each with the locks.

    Raises:
        BridgeEnvironmentError: `lock_unreadable` or `lock_incomplete`; which environment it needs can't be told.
    """
    needed: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.glob("*.txt")):
            needed.setdefault(read_lock(path).environment, []).append(path)
    return needed


def collect(root: Path, locks: Path | None, *, dry_run: bool) -> list[Collected]:
    """Remove the environments that nobody needs, and what killed builds left.

    Args:
        root: the folder of the environments.
        locks: the folder of locks of the configuration at hand.
        dry_run: only say what would be removed.

    Raises:
        BridgeEnvironmentError: a lock of a known configuration can't be read; nothing was removed.
    """
    needed = needed_environments([*known_locks(root), *([locks] if locks is not None else [])])
    results: list[Collected] = []
    for environment in all_environments(root):
        if users := needed.get(environment.name):
            reason = f"{users[0]} describes it"
            results.append(Collected(environment.folder, "kept", reason, environment.size))
        else:
            results.append(_remove(root, environment, dry_run=dry_run))
    left = remove_leftovers(root, dry_run=dry_run)
    return [
        *results,
        *(Collected(folder, "removed", "a build or removal that was killed left it", 0) for folder in left),
    ]


def processes_in(root: Path, environment: Environment) -> list[int]:
    """Return the processes that hold a claim on an environment or were started from it, as far as it can be told."""
    claims = users_of(root, environment.name) or []
    return sorted({*claims, *_started_from(environment.folder)})


def _remove(root: Path, environment: Environment, *, dry_run: bool) -> Collected:
    folder, size = environment.folder, environment.size
    claim = try_exclusive(root, environment.name, "removes it")
    if claim is None:
        return Collected(folder, "kept", "a host or a build uses it", size)
    with claim:
        # A worker that somebody started by hand has no claim.
        if pids := _started_from(folder):
            return Collected(folder, "kept", f"process {pids[0]} runs in it", size)
        if not dry_run:
            try:
                size = tree_size(folder)
                remove_environment(root, environment.name)
            except OSError as error:
                raise failed("uv_failed", f"can't remove {folder}: {error.strerror}", folder=str(folder)) from error
    return Collected(folder, "removed", "no lock of a known configuration describes it", size)


def _started_from(folder: Path) -> list[int]:
    """Return the processes whose command line begins with a program of the environment."""
    start = os.fsencode(folder) + b"/"
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(start):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended
    return sorted(found)

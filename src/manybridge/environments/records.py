"""Installed files against the RECORD that each distribution brought: what is missing, changed, or nobody's.

A RECORD is not signed: this finds damage, files that two packages both wrote, and files that were put there later. It
does not stop somebody who may write in the environment and knows what he does; nothing inside the environment could.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manybridge.environments.failures import Finding

_CHUNK: Final = 1 << 20
_WRITTEN_LATER: Final = frozenset({"RECORD", "RECORD.jws", "RECORD.p7s", "INSTALLER", "REQUESTED", "direct_url.json"})
"""Files of a metadata folder that may stand in a RECORD without a hash, or not at all."""

Progress = Callable[[int, int], None]
"""Told how many distributions of how many are done."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was compared."""

    findings: list[Finding]
    unverified: list[str]
    """Distributions and files that could not be compared, each with why."""
    files: int


def verify(folder: Path, *, is_ours: bool, progress: Progress | None = None) -> Verification:
    """Compare the files of one site-packages with the RECORDs in it.

    Args:
        folder: a site-packages folder.
        is_ours: nothing but what uv installed may be in it, so a file that no RECORD lists is a finding.
        progress: told after each distribution.
    """
    findings: list[Finding] = []
    unverified: list[str] = []
    listed: set[str] = set()
    metadata = sorted(each for each in folder.iterdir() if each.suffix in {".dist-info", ".egg-info"})
    for number, each in enumerate(metadata, 1):
        record = each / "RECORD"
        if not record.is_file():
            unverified.append(f"{each.name}: it has no RECORD")
        else:
            findings += _verify_one(folder, record, listed, unverified)
        if progress is not None:
            progress(number, len(metadata))
    if is_ours:
        findings += [
            Finding("corrupted", str(path), "no installed package lists this file")
            for path in _unlisted(folder, listed)
        ]
    return Verification(findings, unverified, len(listed))


def _verify_one(folder: Path, record: Path, listed: set[str], unverified: list[str]) -> Iterator[Finding]:
    try:
        with record.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        yield Finding("corrupted", str(record), f"can't be read: {error}")
        return
    for row in rows:
        if len(row) != 3 or not row[0]:
            yield Finding("corrupted", str(record), f"a line of it can't be read: {','.join(row)[:80]!r}")
            continue
        path = os.path.normpath(folder / row[0])
        listed.add(path)
        yield from _verify_file(Path(path), row[1], record.parent, folder, unverified)


def _verify_file(path: Path, expected: str, metadata: Path, folder: Path, unverified: list[str]) -> Iterator[Finding]:
    owner = metadata.name
    inside = path.relative_to(folder).parts if path.is_relative_to(folder) else ()
    if inside and inside[0].endswith(".dist-info") and inside[0] != owner:
        yield Finding("corrupted", str(path), f"{owner} writes into the metadata of another package")
    if not expected:
        if not (path.parent == metadata and path.name in _WRITTEN_LATER) and path.suffix != ".pyc":
            unverified.append(f"{path}: {owner} lists it without a hash")
        return
    algorithm, _, digest = expected.partition("=")
    try:
        found = _digest(path, algorithm)
    except FileNotFoundError:
        yield Finding("corrupted", str(path), f"{owner} lists this file, and it is missing")
    except (ValueError, TypeError):  # TypeError: one without a length of its own, which no RECORD may have
        unverified.append(f"{path}: {owner} lists it with the unknown hash {algorithm}")
    except OSError as error:
        yield Finding("corrupted", str(path), f"can't be read: {error.strerror}")
    else:
        if found != digest:
            yield Finding("corrupted", str(path), f"is not what {owner} installed: its hash differs")


def _digest(path: Path, algorithm: str) -> str:
    hashed = hashlib.new(algorithm)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            hashed.update(chunk)
    return base64.urlsafe_b64encode(hashed.digest()).rstrip(b"=").decode()


def _unlisted(folder: Path, listed: set[str]) -> Iterator[Path]:
    """Yield files that no RECORD lists. Compiled bytecode beside a listed source is the build's own."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)  # noqa: PTH118  # a hundred thousand files
            if path not in listed and not _is_bytecode_of_listed(parent, name, listed):
                yield Path(path)


def _is_bytecode_of_listed(parent: str, name: str, listed: set[str]) -> bool:
    above, _, last = parent.rpartition("/")
    return last == "__pycache__" and name.endswith(".pyc") and f"{above}/{name.partition('.')[0]}.py" in listed

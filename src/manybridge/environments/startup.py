"""Code that runs at every start of an interpreter, before anybody asked for it: `.pth` lines and sitecustomize.

Read the way the standard library's `site` reads it. A `.pth` file may also name folders and archives, in which a
sitecustomize is found too, so those are looked into as well. Nothing is imported or run here.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import os
import re
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from packaging.utils import canonicalize_name

from manybridge.environments.denylist import Release
from manybridge.environments.failures import Finding
from manybridge.environments.interpreters import Layout

KNOWN_STARTUP: Final = Path(__file__).parent / "data" / "known_startup.toml"

_CUSTOM_MODULES: Final = frozenset({"sitecustomize", "usercustomize"})
_RUN: Final = (b"import ", b"import\t")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_METADATA: Final = re.compile(r"(?P<name>.+?)-(?P<version>[^-]+)(?:-py[\d.]+.*)?\.(?:dist-info|egg-info|egg)$")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Contents:
    """What one look into a folder tells."""

    folder: Path
    releases: tuple[Release, ...]
    path_files: tuple[Path, ...]
    """Files that end in .pth."""
    custom_modules: tuple[Path, ...]


def look_into(folder: Path) -> Contents:
    """Read the names in a folder. One that can't be read is as empty to Python as to us."""
    releases: list[Release] = []
    path_files: list[Path] = []
    custom: list[Path] = []
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208  # half the time of Path.iterdir, at every start of a worker
    except OSError:
        names = []
    for name in names:
        if name.endswith(".pth"):
            path_files.append(folder / name)
        elif name.partition(".")[0] in _CUSTOM_MODULES:
            custom.append(folder / name)
        elif match := _METADATA.match(name):
            releases.append(Release(canonicalize_name(match["name"]), match["version"]))
    return Contents(folder, tuple(releases), tuple(path_files), tuple(custom))


def releases_of(layout: Layout) -> list[Release]:
    """Return what is installed, by the names of the metadata folders."""
    return [release for folder in layout.packages for release in look_into(folder).releases]


def startup_findings(layout: Layout, contents: Iterable[Contents], allowed: frozenset[str]) -> list[Finding]:
    """Return every piece of code that an interpreter would run at its start and that is not known.

    Args:
        layout: the interpreter.
        contents: of each of `layout.packages`.
        allowed: SHA-256 of lines and files that somebody has looked at.
    """
    findings: list[Finding] = []
    places: list[Path] = list(layout.library)
    for each in contents:
        findings += _customize_findings(each.custom_modules, allowed)
        for path_file in each.path_files:
            lines, added = _read_path_file(path_file)
            places += added
            findings += _line_findings(path_file, lines, allowed)
    for place in dict.fromkeys(places):
        findings += _customize_findings(_custom_modules_in(place), allowed)
    return findings


def _read_path_file(path: Path) -> tuple[list[bytes], list[Path]]:
    """Return the lines that are run, and the existing folders and archives that are put on the path."""
    try:
        data = path.read_bytes()
    except OSError:
        return [], []  # site skips it too
    run: list[bytes] = []
    added: list[Path] = []
    for line in _lines(data):
        if line.startswith(_RUN):
            run.append(line.strip())
        elif line.strip() and not line.startswith(b"#"):
            place = path.parent / os.fsdecode(line.rstrip())
            if _is_there(place):
                added.append(place)
    return run, added


def _lines(data: bytes) -> list[bytes]:
    """Return what any release of Python takes for a line.

    Up to 3.12 a file's line ends count. From 3.13 on a byte order mark is skipped, so that a line behind it runs, and
    `str.splitlines` splits, so that a line also begins behind a form feed or a line separator of Unicode.
    """
    data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        newer = [line.encode() for line in data.decode().splitlines()]
    except UnicodeDecodeError:
        newer = [line.encode("latin-1") for line in data.decode("latin-1").splitlines()]
    lines = _LINE_END.split(data)
    seen = frozenset(lines)
    return lines + [line for line in newer if line not in seen]


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # longer than a name may be, or with a null in it
        return False


def _line_findings(path: Path, lines: list[bytes], allowed: frozenset[str]) -> Iterator[Finding]:
    for line in lines:
        digest = hashlib.sha256(line).hexdigest()
        if digest in allowed or _is_known(path, line):
            continue
        shown = line[:100].decode(errors="backslashreplace") + ("..." if len(line) > 100 else "")
        yield Finding(
            "startup_code", str(path), f"would run at every start of Python: {shown} (sha256 {digest})", digest
        )


def _is_known(path: Path, line: bytes) -> bool:
    for entry in _known()["line"]:
        if path.name == entry["file"] and line == entry["text"].encode():
            return _module_is_known(path.parent, entry)
    return False


def _module_is_known(folder: Path, entry: dict[str, Any]) -> bool:
    """Whether the module that a known line runs is the real one, and not another of the same name."""
    try:
        digest = hashlib.sha256((folder / entry["module"]).read_bytes())
    except OSError:
        return False
    if digest.hexdigest() in entry["modules"]:
        return True
    recorded = "sha256=" + base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
    for record in folder.glob(f"{entry['distribution']}-*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as file:
            if any(row[:2] == [entry["module"], recorded] for row in csv.reader(file)):
                return True
    return False


def _custom_modules_in(place: Path) -> list[Path]:
    if place.is_dir():
        return list(look_into(place).custom_modules)
    try:
        with zipfile.ZipFile(place) as archive:
            names = {name.partition("/")[0] for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return []  # Python can't import from it either
    return [place / name for name in sorted(names) if name.partition(".")[0] in _CUSTOM_MODULES]


def _customize_findings(paths: Iterable[Path], allowed: frozenset[str]) -> Iterator[Finding]:
    known = {entry["sha256"] for entry in _known()["customize"]}
    for path in paths:
        digest = _file_digest(path)
        if digest is None or digest not in allowed | known:
            shown = f" (sha256 {digest})" if digest else ""
            yield Finding("startup_code", str(path), f"would be imported at every start of Python{shown}", digest)


def _file_digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None  # a folder, or inside an archive


@cache
def _known() -> dict[str, Any]:
    return tomllib.loads(KNOWN_STARTUP.read_text(encoding="utf-8"))

"""Where an interpreter looks for code when it starts, found out by reading files alone.

This follows what Python itself does before its first line of code (the standard library's `getpath` and `site`): a
`pyvenv.cfg` beside the executable or one folder up makes it a virtual environment; otherwise the prefix is above the
folder of the real executable. Where several answers are possible all of them are returned: looking into a folder too
many does no harm.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manybridge.environments.failures import failed

_VERSIONED: Final = re.compile(r"(?:python|pypy)(\d+\.\d+)t?$")
_ANY_PYTHON: Final = ("python3.*", "pypy3.*")

DISTRIBUTION_FOLDERS: Final = (Path("/usr/lib/python3/dist-packages"),)
"""Debian's own place for packages, used by /usr/bin/python3 alone."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one interpreter."""

    executable: Path
    prefix: Path
    packages: tuple[Path, ...]
    """Folders whose `.pth` files are run at every start."""
    library: tuple[Path, ...]
    """Folders and archives of the standard library: a sitecustomize is found there first."""


def locate(executable: Path) -> Layout:
    """Find the folders of an interpreter without starting it.

    Args:
        executable: an absolute path; links in it are kept, since a virtual environment's interpreter is one.

    Raises:
        BridgeEnvironmentError: `unlocatable`; it is a script, or no folder of packages is where one should be.
    """
    _require_program(executable)
    settings = _virtual_environment(executable)
    if settings is None:
        return _base_layout(executable)
    prefix, values = settings
    packages = _package_folders(prefix)
    base = _base_layout(_base_executable(executable, values))
    if values.get("include-system-site-packages", "").lower() == "true":
        packages += base.packages
    if not packages:
        raise _unlocatable(executable, f"there is no lib/python*/site-packages in {prefix}")
    return Layout(executable, prefix, packages, base.library)


def _virtual_environment(executable: Path) -> tuple[Path, dict[str, str]] | None:
    for folder in (executable.parent, executable.parent.parent):
        try:
            text = (folder / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
        return executable.parent.parent, {name.strip().lower(): value.strip() for name, _, value in pairs}
    return None


def _base_executable(executable: Path, values: dict[str, str]) -> Path:
    """The interpreter that a virtual environment was made from: what its link leads to, else what its home says."""
    if executable.is_symlink():
        return executable.resolve()
    return Path(values.get("home", "")) / executable.name


def _base_layout(executable: Path) -> Layout:
    real = executable.resolve()
    match = _VERSIONED.search(real.name)
    patterns = (f"{match[0]}*",) if match else _ANY_PYTHON
    prefixes = [real.parent.parent]
    if real.parent == Path("/bin"):
        prefixes.append(Path("/usr"))
    library: list[Path] = []
    packages: list[Path] = []
    for prefix in prefixes:
        for lib in (prefix / "lib", prefix / "lib64"):
            folders = [each for pattern in patterns for each in sorted(lib.glob(pattern)) if each.is_dir()]
            library += [each for folder in folders for each in (folder, folder / "lib-dynload")]
            library += sorted(lib.glob("python3*.zip"))
            packages += [folder / name for folder in folders for name in ("site-packages", "dist-packages")]
        packages += sorted(prefix.glob("local/lib/python3*/dist-packages"))
    if real.is_relative_to("/usr/bin") or real.is_relative_to("/bin"):
        packages += DISTRIBUTION_FOLDERS
    if not library:
        raise _unlocatable(executable, f"there is no lib/python* in {' or '.join(map(str, prefixes))}")
    return Layout(executable, prefixes[0], _existing(packages), _existing(library))


def _package_folders(prefix: Path) -> tuple[Path, ...]:
    found = [
        each
        for lib in ("lib", "lib64")
        for pattern in _ANY_PYTHON
        for each in sorted(prefix.glob(f"{lib}/{pattern}/site-packages"))
    ]
    return _existing(found)


def _existing(folders: list[Path]) -> tuple[Path, ...]:
    """Keep what is there, once each: lib64 is often a link to lib."""
    return tuple({path.resolve(): path for path in reversed(folders) if path.exists()}.values())[::-1]


def _require_program(executable: Path) -> None:
    try:
        with executable.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise failed(
            "interpreter", f"can't read the interpreter {executable}: {error.strerror}", python=str(executable)
        ) from error
    if start == b"#!":
        raise _unlocatable(executable, "it is a script that starts something else")


def _unlocatable(executable: Path, reason: str) -> Exception:
    return failed(
        "unlocatable",
        f"can't check {executable} before it is started: {reason}. Name the interpreter itself "
        '(python -c "import sys; print(sys.executable)" tells it), or set check_python = false for this bridge',
        python=str(executable),
    )

"""Where a configuration comes from: found by search, read from TOML, with errors that name line and column.

The search goes from the working folder upward, `manybridge.toml` before `[tool.manybridge]` of a `pyproject.toml`.
A configuration names code to run, so a file that was only found by searching counts if its owner is this user or
root: otherwise anybody could leave a `manybridge.toml` in a shared folder above ours.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from manybridge.host.config_problems import KeyPath, Problem, config_error, show_value

CONFIG_NAME: Final = "manybridge.toml"
PYPROJECT_NAME: Final = "pyproject.toml"
CONFIG_VARIABLE: Final = "MANYBRIDGE_CONFIG"

_TOML_POSITION: Final = re.compile(r"\s*\(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\)$")
_TABLE_LINE: Final = re.compile(r"\s*\[(?P<name>[^\[\]]+)\]")
_KEY_LINE: Final = re.compile(r"\s*(?P<name>[\w\"'. -]+?)\s*=")


@dataclass(frozen=True, slots=True)
class Document:
    """One configuration as it was written, before overrides and checks."""

    values: dict[str, Any]
    label: str
    """How messages name it."""
    folder: Path
    """What relative paths in it are relative to."""
    path: Path | None = None
    text: str = ""
    prefix: KeyPath = ()
    """Where in the file our tables lie: ("tool", "manybridge") in a pyproject.toml."""

    def where(self, path: KeyPath) -> str:
        """Return the file and, where it can be told, the line that says the key."""
        line = _line_of(self.text, self.prefix + path)
        return f"{self.label}:{line}" if line else self.label


def read_document(source: Mapping[str, Any] | str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Document:
    """Read the configuration that `source` names.

    Args:
        source: a mapping, the path of a TOML file, a folder that holds one, or None: the file that the variable
            MANYBRIDGE_CONFIG names, else the first found from the working folder upward, else nothing at all.
        environ: where MANYBRIDGE_CONFIG is looked up.

    Raises:
        ConfigError: the file is missing, unreadable or not TOML; or it is none of these.
    """
    if isinstance(source, Mapping):
        return Document(dict(source), "the given mapping", working_folder())
    if isinstance(source, (str, os.PathLike)):
        return read_file(Path(source).expanduser())
    if source is not None:
        text = f"expected a mapping, the path of a file, or None, found {type(source).__name__}"
        raise config_error([Problem("the given configuration", "", text)])
    if named := environ.get(CONFIG_VARIABLE):
        return read_file(Path(named).expanduser())
    found = find_config(working_folder())
    if found is None:
        return Document({}, "no configuration file", working_folder())
    _require_own(found)
    return read_file(found)


def working_folder() -> Path:
    """Return the working folder; where it was deleted, a stand-in: not everybody needs a file of it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/proc/self/cwd")


def find_config(start: Path) -> Path | None:
    """Return the nearest configuration file from `start` upward, or None."""
    for folder in (start, *start.parents):
        if (folder / CONFIG_NAME).is_file():
            return folder / CONFIG_NAME
        if _configures_us(folder / PYPROJECT_NAME):
            return folder / PYPROJECT_NAME
    return None


def read_file(path: Path) -> Document:
    """Read one TOML file; a folder stands for the configuration file in it.

    Raises:
        ConfigError: the file is missing, unreadable, not TOML, or a pyproject.toml without our table.
    """
    path = working_folder() / path
    if path.is_dir():
        path = next(
            (path / name for name in (CONFIG_NAME, PYPROJECT_NAME) if (path / name).is_file()), path / CONFIG_NAME
        )
    text = _read_text(path)
    values = _parse(path, text)
    if path.name != PYPROJECT_NAME:
        return Document(values, str(path), path.parent, path, text)
    section = values.get("tool", {}).get("manybridge") if isinstance(values.get("tool", {}), dict) else None
    if section is None:
        raise config_error([Problem(str(path), "tool.manybridge", "expected this table, found none")])
    if not isinstance(section, dict):
        raise config_error([Problem(str(path), "tool.manybridge", f"expected a table, found {show_value(section)}")])
    return Document(section, str(path), path.parent, path, text, ("tool", "manybridge"))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        near = find_config(path.parent)
        hint = f"; there is one at {near}" if near else '; "manybridge init" writes one'
        raise config_error([Problem(str(path), "", f"no such configuration file{hint}")]) from None
    except UnicodeDecodeError as error:
        raise config_error([Problem(str(path), "", f"not UTF-8 text: {error}")]) from error
    except OSError as error:
        raise config_error([Problem(str(path), "", f"can't be read: {error.strerror}")]) from error


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message = str(error)
        position = _TOML_POSITION.search(message)
        reason = message[: position.start()] if position else message
        line = int(position["line"]) if position and position["line"] else text.count("\n") + 1
        column = int(position["column"]) if position and position["column"] else 1
        raise config_error([Problem(f"{path}:{line}:{column}", "", _syntax(reason, text, line, column))]) from error


def _syntax(reason: str, text: str, line: int, column: int) -> str:
    lines = text.splitlines()
    quoted = lines[line - 1] if line <= len(lines) else ""
    return f"not valid TOML: {reason}\n    {quoted}\n    {' ' * (column - 1)}^"


def _configures_us(path: Path) -> bool:
    """Whether a pyproject.toml has our table. A broken one counts only if it mentions us: it may be nobody's."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    if "tool.manybridge" not in text:
        return False
    try:
        return "manybridge" in tomllib.loads(text).get("tool", {})
    except tomllib.TOMLDecodeError:
        return True


def _require_own(path: Path) -> None:
    owner = _owner(path)
    if owner not in (0, os.geteuid()):
        text = (
            f"found by searching upward, but it belongs to user {owner}: a configuration names code to run. "
            f"If you trust it, name it with --config or {CONFIG_VARIABLE}"
        )
        raise config_error([Problem(str(path), "", text)])


def _owner(path: Path) -> int:
    return path.stat().st_uid


def _line_of(text: str, path: KeyPath) -> int | None:
    """Find the line that says a key, or the nearest table around it. Best effort: TOML parsers keep no positions."""
    table: KeyPath = ()
    best: tuple[int, int] | None = None  # (how many parts of the path the line covers, line)
    for number, line in enumerate(text.splitlines(), 1):
        if match := _TABLE_LINE.match(line):
            table = _parts(match["name"])
            covered = table
        elif match := _KEY_LINE.match(line):
            covered = table + _parts(match["name"])
        else:
            continue
        if covered == path[: len(covered)] and (best is None or len(covered) > best[0]):
            best = (len(covered), number)
    return best[1] if best else None


def _parts(name: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in name.split("."))

"""Environment variables that override keys: `MANYBRIDGE__BRIDGES__DSPY__POOL_SIZE=2`.

Two underscores step into a table; names are matched without regard to case, and a bridge `my-bridge` is `MY_BRIDGE`.
A value is read as JSON, then as TOML, then as the text itself; where the key takes a string, always as the text.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from msgspec import Struct, inspect

from manybridge.host.config_keys import Key, keys_of
from manybridge.host.config_model import HostConfig
from manybridge.host.config_problems import KeyPath, Problem, did_you_mean, dotted

PREFIX: Final = "MANYBRIDGE__"
SEPARATOR: Final = "__"

Table = dict[str, Any]


class _RefusedError(Exception):
    """This variable can't be applied; the text says why."""


def apply_overrides(values: Table, environ: Mapping[str, str]) -> tuple[Table, dict[KeyPath, str], list[Problem]]:
    """Lay the overrides of `environ` over `values`.

    Returns:
        The merged values (a copy), which variable set which key path, and what was wrong with variables.
    """
    merged: Table = _copy(values)
    origins: dict[KeyPath, str] = {}
    problems: list[Problem] = []
    for variable in sorted(name for name in environ if name.upper().startswith(PREFIX)):
        parts = tuple(variable[len(PREFIX) :].split(SEPARATOR))
        try:
            origins[_apply(merged, HostConfig, parts, environ[variable])] = variable
        except _RefusedError as refusal:
            problems.append(Problem(f"environment variable {variable}", "", str(refusal)))
    return merged, origins, problems


def _apply(table: Table, struct: type[Struct], parts: KeyPath, text: str, path: KeyPath = ()) -> KeyPath:
    """Set the key that `parts` name within a table, and return its path."""
    if not all(parts):
        raise _RefusedError(f"expected names between the double underscores, as in {PREFIX}BRIDGES__DSPY__POOL_SIZE")
    keys = keys_of(struct)
    name = parts[0].lower()
    if name not in keys:
        raise _RefusedError(f"unknown key {dotted((*path, name))}{did_you_mean(name, keys)}")
    key, rest, here = keys[name], parts[1:], (*path, name)
    if not rest:
        table[name] = parse_value(text, key.node)
        return here
    if key.table is not None:
        return _apply(_inside(table, name), key.table, rest, text, here)
    if key.table_of is not None:
        return _apply_named(_inside(table, name), key.table_of, rest, text, here)
    if key.is_mapping:
        return _apply_free(_inside(table, name), key, rest, text, here)
    raise _RefusedError(f"{dotted(here)} is not a table, so nothing can follow it; it takes {key.expected}")


def _apply_named(tables: Table, struct: type[Struct], parts: KeyPath, text: str, path: KeyPath) -> KeyPath:
    """Step into one entry of a table of named tables, which is made if no name matches."""
    name = _matching(parts[0], tables) or parts[0].lower()
    if len(parts) == 1:
        tables[name] = _parse_any(text)
        return (*path, name)
    return _apply(_inside(tables, name), struct, parts[1:], text, (*path, name))


def _apply_free(table: Table, key: Key, parts: KeyPath, text: str, path: KeyPath) -> KeyPath:
    """Set a key of the user's own tables (`options`, `environment`)."""
    *steps, last = parts
    for step in steps:
        name = _matching(step, table) or step.lower()
        table, path = _inside(table, name), (*path, name)
    # Environment variables are written in capitals, options are not.
    name = _matching(last, table) or (last if key.holds_strings else last.lower())
    table[name] = text if key.holds_strings else _parse_any(text)
    return (*path, name)


def parse_value(text: str, node: inspect.Type) -> Any:
    """Read the text of a variable as the type of its key asks."""
    if isinstance(node, (inspect.StrType, inspect.LiteralType)):
        return text
    if isinstance(node, inspect.BoolType) and text.lower() in {"true", "false"}:
        return text.lower() == "true"
    return _parse_any(text)


def _parse_any(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


def _matching(part: str, names: Iterable[str]) -> str | None:
    """Return the name that a part of a variable means: the exact one, else the one that differs in case or dash."""
    candidates = list(names)
    if part in candidates:
        return part
    same = [name for name in candidates if _plain(name) == _plain(part)]
    if len(same) > 1:
        raise _RefusedError(f"{part} may mean {' or '.join(sorted(same))}; set it in the file")
    return same[0] if same else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").replace(".", "_")


def _inside(table: Table, name: str) -> Table:
    inner = table.setdefault(name, {})
    if not isinstance(inner, dict):
        raise _RefusedError(f'the configuration says "{name}" as something other than a table')
    return inner


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copy(item) for name, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value

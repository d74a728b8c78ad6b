"""Configuration of a host: what `manybridge.toml` may say, and how it is read.

`load_config` is the way in. The structs come from config_model.py; reading, overriding and checking are the modules
config_sources.py, config_overrides.py and config_checks.py. Every error names the file, the key, what was expected
and what was found, and all problems are reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from manybridge.host.config_checks import Checker, bundled_bridges, fallback_problems
from manybridge.host.config_model import (
    BridgeConfig,
    EnvironmentsConfig,
    HostConfig,
    LimitsConfig,
    RestartConfig,
    RetryConfig,
    StoreConfig,
)
from manybridge.host.config_overrides import apply_overrides
from manybridge.host.config_problems import KeyPath, Problems
from manybridge.host.config_sources import PYPROJECT_NAME, Document, read_document, working_folder

__all__ = [
    "BridgeConfig",
    "ConfigSource",
    "EnvironmentsConfig",
    "HostConfig",
    "LimitsConfig",
    "LoadedConfig",
    "RestartConfig",
    "RetryConfig",
    "StoreConfig",
    "bundled_bridges",
    "check_fallback",
    "load_config",
    "make_bridge_config",
    "read_config",
    "update_bridge_config",
]

ConfigSource = HostConfig | Mapping[str, Any] | str | os.PathLike[str] | None
"""What a configuration can be made from; see `load_config`."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A checked configuration together with where it came from."""

    config: HostConfig
    path: Path | None = None
    """The file, or None for a mapping, or where no file was found."""
    values: dict[str, Any] = field(default_factory=dict)
    """What was said, with overrides, before `${VARIABLE}` was replaced: safe to show once it is masked."""
    overrides: dict[KeyPath, str] = field(default_factory=dict)
    """Which environment variable set which key path."""


def load_config(source: ConfigSource = None, environ: Mapping[str, str] = os.environ) -> HostConfig:
    """Read and check a configuration.

    Args:
        source: a mapping, the path of a TOML file (or of a folder with a `manybridge.toml`), a `HostConfig` (returned
            as it is), or None: the file that MANYBRIDGE_CONFIG names, else the nearest `manybridge.toml` or
            `[tool.manybridge]` of a `pyproject.toml` from the working folder upward, else an empty configuration.
        environ: where overrides (`MANYBRIDGE__...`) and `${VARIABLE}` are looked up.

    Raises:
        ConfigError: anything is wrong; `details["problems"]` lists every problem.
    """
    return read_config(source, environ).config


def read_config(source: ConfigSource = None, environ: Mapping[str, str] = os.environ) -> LoadedConfig:
    """Do what `load_config` does, and tell where each value came from.

    Raises:
        ConfigError: as `load_config`.
    """
    if isinstance(source, HostConfig):
        return LoadedConfig(source)
    document = read_document(source, environ)
    values, origins, wrong_variables = apply_overrides(document.values, environ)
    problems = Problems(lambda path: _source_of(path, document, origins), wrong_variables)
    config = Checker(problems, environ, document.folder).host(values)
    return LoadedConfig(_with_locks(problems.settle(config), document.path), document.path, values, origins)


def make_bridge_config(
    name: str,
    values: BridgeConfig | Mapping[str, Any],
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> BridgeConfig:
    """Check the configuration of one bridge that was given in a call.

    Args:
        name: the bridge's name.
        values: the keys of its table. A `BridgeConfig` is checked too, since a struct does not check itself.
        folder: what relative paths are relative to; the working folder if left out.
        environ: where `${VARIABLE}` is looked up.

    Raises:
        ConfigError: anything is wrong.
    """
    problems = _problems_of_call(name)
    checker = Checker(problems, environ, folder or working_folder())
    return problems.settle(checker.bridge(name, values, ("bridges", name)))


def update_bridge_config(
    name: str,
    config: BridgeConfig,
    changes: Mapping[str, Any],
    *,
    folder: Path | None = None,
    environ: Mapping[str, str] = os.environ,
) -> BridgeConfig:
    """Return `config` with some keys changed. Keys of `restart` and `retry` that are not given stay.

    Raises:
        ConfigError: a change is wrong; `config` is as it was.
    """
    problems = _problems_of_call(name)
    checker = Checker(problems, environ, folder or working_folder())
    path = ("bridges", name)
    changes = dict(changes)
    for table in ("restart", "retry"):
        if isinstance(changes.get(table), Mapping):
            changes[table] = {**msgspec.to_builtins(getattr(config, table)), **changes[table]}
    fields = checker.bridge_fields(changes, path)
    problems.raise_if_any()
    updated = msgspec.structs.replace(config, **fields)
    if "bridge" in fields:
        updated = checker.with_search_path(updated)
    checker.bridge_as_a_whole(updated, path)
    problems.raise_if_any()
    return updated


def check_fallback(name: str, bridges: Mapping[str, BridgeConfig]) -> None:
    """Check that the fallback of a bridge is one of `bridges`, and that no way leads back from it.

    Raises:
        ConfigError: it is none, or one does.
    """
    problems = _problems_of_call(name)
    for found, text in fallback_problems(bridges, bridges):
        if found == name:
            problems.add(("bridges", name, "fallback"), text)
    problems.raise_if_any()


def _with_locks(config: HostConfig, path: Path | None) -> HostConfig:
    """Say where the locks lie: beside the file, under its name, so that two files in one folder do not share them."""
    if path is None or config.environments.locks is not None:
        return config
    stem = "manybridge" if path.name == PYPROJECT_NAME else path.stem
    environments = msgspec.structs.replace(config.environments, locks=str(path.with_name(f"{stem}.locks")))
    return msgspec.structs.replace(config, environments=environments)


def _problems_of_call(name: str) -> Problems:
    return Problems(lambda _path: f"the configuration given for bridge {name}")


def _source_of(path: KeyPath, document: Document, origins: dict[KeyPath, str]) -> str:
    """Name the variable that set the key or the table around it, else the file and line."""
    for length in range(len(path), 0, -1):
        if variable := origins.get(path[:length]):
            return f"environment variable {variable}"
    return document.where(path)

"""`manybridge config`: what is in force, and where it comes from."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Struct

from manybridge.cli.context import ConfigOption, JsonOption, reported
from manybridge.cli.output import print_json_line
from manybridge.cli.toml_writer import KeyPath, write_toml
from manybridge.host.config import LoadedConfig, read_config
from manybridge.host.config_keys import NONE_WORD, keys_of
from manybridge.host.config_model import BridgeConfig, HostConfig
from manybridge.host.config_secrets import mask_tree

config_app = typer.Typer(no_args_is_help=True, help="Look at the configuration.", rich_markup_mode=None)


@config_app.callback()
def config_group() -> None:
    """Look at the configuration."""


@config_app.command("show")
def show(
    source: Annotated[bool, typer.Option("--source", help="Say behind each key where its value comes from.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Print the effective configuration, defaults included, with secrets masked.

    Without --json it is TOML that can be read again, where nothing is masked.
    """
    with reported(as_json=as_json):
        loaded = read_config(config)
        values = masked_values(loaded, os.environ)
        origins = origins_of(loaded, values)
    if as_json:
        sources = {".".join(path): origin for path, origin in origins.items()}
        found = {"path": str(loaded.path) if loaded.path else None, "config": values}
        print_json_line({**found, "sources": sources} if source else found)
        return
    remark: Callable[[KeyPath], str | None] = origins.get if source else lambda _path: None
    print(f"# {loaded.path or 'no configuration file was found; these are the defaults'}")
    print(write_toml(_with_none_words(values), remark), end="")


def masked_values(loaded: LoadedConfig, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the effective configuration as plain values, masked.

    Options and environments are shown as they were written: `${VARIABLE}` instead of what it stands for.
    """
    values: dict[str, Any] = msgspec.to_builtins(loaded.config)
    said_bridges = loaded.values.get("bridges", {})
    for name, bridge in values["bridges"].items():
        for key in ("options", "environment"):
            bridge[key] = _said(said_bridges, name, key, bridge[key])
    secrets = {
        environ[variable]
        for bridge in loaded.config.bridges.values()
        for variable in bridge.required_env
        if variable in environ
    }
    # The keys of a bridge's own table are ours and known: none is a secret, whatever its name sounds like.
    return {name: _masked(value, secrets, name) for name, value in values.items()}


def origins_of(loaded: LoadedConfig, values: Mapping[str, Any]) -> dict[KeyPath, str]:
    """Return for every key where its value comes from: a variable, the file, or the default."""
    file = str(loaded.path) if loaded.path else "given"
    return {path: _origin(path, loaded, file) for path in _leaves(values, ())}


def _origin(path: KeyPath, loaded: LoadedConfig, file: str) -> str:
    for length in range(len(path), 0, -1):
        if variable := loaded.overrides.get(path[:length]):
            return f"environment variable {variable}"
    said: Any = loaded.values
    for part in path:
        if not isinstance(said, Mapping) or part not in said:
            return "default"
        said = said[part]
    return file


def _leaves(values: Mapping[str, Any], path: KeyPath) -> list[KeyPath]:
    found: list[KeyPath] = []
    for name, value in values.items():
        found += _leaves(value, (*path, name)) if isinstance(value, Mapping) else [(*path, name)]
    return found


def _said(bridges: Any, name: str, key: str, otherwise: Any) -> Any:
    said = bridges.get(name, {}) if isinstance(bridges, Mapping) else {}
    return said.get(key, otherwise) if isinstance(said, Mapping) else otherwise


def _masked(value: Any, secrets: set[str], name: str) -> Any:
    if name != "bridges":
        return mask_tree(value, secrets)
    return {bridge: {key: mask_tree(item, secrets) for key, item in table.items()} for bridge, table in value.items()}


def _with_none_words(values: dict[str, Any]) -> dict[str, Any]:
    """Write "none" where None differs from the default, so that reading it again gives the same."""
    bridges = {name: _none_words(BridgeConfig, table) for name, table in values["bridges"].items()}
    return {**_none_words(HostConfig, values), "bridges": bridges}


def _none_words(struct: type[Struct], table: dict[str, Any]) -> dict[str, Any]:
    keys = keys_of(struct)
    return {
        name: NONE_WORD if value is None and keys[name].default is not None else value for name, value in table.items()
    }

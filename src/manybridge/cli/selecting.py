"""Which bridge a command line means: a configured one, a bundled one, a file or a class."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import msgspec

from manybridge.errors import RegistryError
from manybridge.host.config import (
    BridgeConfig,
    EnvironmentsConfig,
    HostConfig,
    StoreConfig,
    bundled_bridges,
    make_bridge_config,
    read_config,
)
from manybridge.host.config_problems import closest, did_you_mean
from manybridge.host.store_access import locate_store

ENTRY_POINT_GROUP: Final = "manybridge.bridges"
"""As in bridge/loading.py, which belongs to the worker side."""

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class Selected:
    """One bridge, by the name that calls use."""

    name: str
    bridge: BridgeConfig
    environments: EnvironmentsConfig = field(default_factory=EnvironmentsConfig)
    store: StoreConfig = field(default_factory=StoreConfig)

    def host_config(self, *, show_output: bool = False, keep: bool = False) -> HostConfig:
        """Return the configuration of a host that has this bridge alone, with one worker, as one command needs.

        Args:
            show_output: let the person at the terminal see what the worker prints.
            keep: keep resources in the configured store, so that the next command finds them.
        """
        bridge = msgspec.structs.replace(
            self.bridge,
            pool_size=1,
            max_overflow=0,
            eager=True,
            zygote=self._zygote,
            capture_output=self.bridge.capture_output and not show_output,
        )
        store = self.store if keep else StoreConfig()
        return HostConfig(default=self.name, bridges={self.name: bridge}, environments=self.environments, store=store)

    @property
    def _zygote(self) -> Any:
        # Forking one worker from a zygote takes longer than starting it, and ends with the command.
        return "never" if self.bridge.zygote == "auto" else self.bridge.zygote


def select_bridge(target: str, config_path: Path | None = None) -> Selected:
    """Find the bridge that `target` names.

    Args:
        target: the name of a configured bridge, of a bundled one, of an entry point that is installed beside us, the
            path of a Python file (`file.py`, `file.py:Class`), or `package.module:Class`.
        config_path: the configuration file; found by search if left out.

    Raises:
        ConfigError: the configuration is wrong, or the file does not exist.
        RegistryError: `unknown_bridge`; known ones are listed.
    """
    loaded = read_config(config_path)
    name, bridge = _find(target, loaded.config.bridges)
    return Selected(name, bridge, loaded.config.environments, locate_store(loaded))


def _find(target: str, configured: Mapping[str, BridgeConfig]) -> tuple[str, BridgeConfig]:
    if target in configured:
        return target, configured[target]
    if ".py" in target or "/" in target:
        return _made(_name_of(Path(target.partition(":")[0]).stem), {"python_script": target})
    if ":" in target:
        return _made(_name_of(target.rpartition(":")[0].rpartition(".")[2]), {"bridge": target})
    if target in bundled_bridges():
        return _made(target, {})
    if target in {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}:
        return _made(_name_of(target), {"bridge": target})
    raise _unknown(target, configured)


def _made(name: str, values: Mapping[str, Any]) -> tuple[str, BridgeConfig]:
    return name, make_bridge_config(name, values)


def _name_of(text: str) -> str:
    return _NOT_IN_NAMES.sub("_", text).lstrip("_.-") or "bridge"


def _unknown(target: str, configured: Mapping[str, BridgeConfig]) -> RegistryError:
    known = sorted({*configured, *bundled_bridges()})
    text = f'there is no bridge "{target}"{did_you_mean(target, known)}'
    if closest(target, known):
        text += f"; known: {', '.join(known)}"
    return RegistryError(text, details={"bridge": target, "known": known})

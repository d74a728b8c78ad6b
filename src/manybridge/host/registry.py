"""The registry: which bridges there are, by name, changeable while the host runs.

It holds configurations and nothing else. Pools follow by subscribing: every change is told with what was before and
what is now, after it has been validated and made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from manybridge.errors import RegistryError
from manybridge.host.arguments import checked_name, checked_text
from manybridge.host.config import (
    BridgeConfig,
    HostConfig,
    check_fallback,
    make_bridge_config,
    update_bridge_config,
)
from manybridge.host.config_problems import closest, did_you_mean
from manybridge.protocol.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class RegistryChange:
    """One change, as subscribers see it. `old` is None for a new bridge, `new` for one that is gone."""

    kind: Literal["registered", "updated", "unregistered"]
    name: str
    old: BridgeConfig | None
    new: BridgeConfig | None
    generation: int
    """The registry's generation after this change."""


Subscriber = Callable[[RegistryChange], None]
"""Called by the registry after each change, in the order of subscription, on the caller's thread. Must neither block
nor raise: what takes time is started as a task."""


class Registry:
    """Name to bridge configuration.

    The only owner of that mapping. Not thread-safe by contract: the host's event loop is the only caller.
    """

    def __init__(self, config: HostConfig | None = None, *, folder: Path | None = None) -> None:
        """Begin with the bridges of a checked configuration.

        Args:
            config: the checked configuration; empty if left out.
            folder: what relative paths in later changes are relative to; the working folder if left out.
        """
        config = config or HostConfig()
        self._bridges: dict[str, BridgeConfig] = dict(config.bridges)
        self._default = config.default
        self._folder = folder
        self._subscribers: list[Subscriber] = []
        self._generation = 0

    @property
    def generation(self) -> int:
        """How many changes there were; a cache that remembers it knows when it is stale."""
        return self._generation

    @property
    def default(self) -> str | None:
        """The bridge of calls that name none: the configured one, else the only one, else None."""
        if self._default in self._bridges:
            return self._default
        return next(iter(self._bridges)) if len(self._bridges) == 1 else None

    def __contains__(self, name: object) -> bool:
        return name in self._bridges

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._bridges))

    def __len__(self) -> int:
        return len(self._bridges)

    def items(self) -> tuple[tuple[str, BridgeConfig], ...]:
        """Return names and configurations as they are now."""
        return tuple(self._bridges.items())

    def resolve(self, name: str | None) -> str:
        """Return the name of the bridge that a call means; None means the default.

        Raises:
            RegistryError: `unknown_bridge`; details hold `bridge`, `known` and, if one is near, `closest`.
            InvalidArgumentError: the name is no text.
        """
        if name is None:
            if self.default is None:
                raise self._unknown(None, "the call names no bridge and no default is configured")
            return self.default
        if checked_text(name, "bridge") not in self._bridges:
            raise self._unknown(name, f'no bridge is registered as "{name}"{did_you_mean(name, self._bridges)}')
        return name

    def get(self, name: str | None) -> BridgeConfig:
        """Return the configuration of a bridge; None means the default.

        Raises:
            RegistryError: `unknown_bridge`, as `resolve`.
        """
        return self._bridges[self.resolve(name)]

    def register(self, name: str, values: BridgeConfig | Mapping[str, Any], *, replace: bool = False) -> BridgeConfig:
        """Add a bridge.

        Args:
            name: its name in every call.
            values: its configuration, or the keys of its table.
            replace: take the place of a bridge of the same name instead of refusing.

        Raises:
            ConfigError: the values are wrong; the registry is as it was.
            RegistryError: the name is taken (`config_error`).
            InvalidArgumentError: the name is no text, or empty.
        """
        old = self._bridges.get(checked_name(name, "name"))
        if old is not None and not replace:
            text = f'a bridge is registered as "{name}" already; change it with update_bridge, or unregister it first'
            raise RegistryError(text, code=ErrorCode.CONFIG_ERROR, details={"bridge": name})
        new = make_bridge_config(name, values, folder=self._folder)
        check_fallback(name, {**self._bridges, name: new})
        self._bridges[name] = new
        if new != old:
            self._changed("registered" if old is None else "updated", name, old, new)
        return new

    def update(self, name: str, changes: Mapping[str, Any]) -> BridgeConfig:
        """Change some keys of a bridge and return its new configuration. No difference is no change.

        Raises:
            ConfigError: a change is wrong; the registry is as it was.
            RegistryError: `unknown_bridge`.
        """
        old = self._bridges[self.resolve(name)]
        new = update_bridge_config(name, old, changes, folder=self._folder)
        if new.fallback != old.fallback:
            check_fallback(name, {**self._bridges, name: new})
        if new != old:
            self._bridges[name] = new
            self._changed("updated", name, old, new)
        return new

    def unregister(self, name: str) -> BridgeConfig:
        """Remove a bridge and return the configuration that it had.

        Raises:
            RegistryError: `unknown_bridge`.
        """
        old = self._bridges.pop(self.resolve(name))
        self._changed("unregistered", name, old, None)
        return old

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have `subscriber` told of every later change. Returns the function that ends it."""
        self._subscribers.append(subscriber)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    def _changed(
        self,
        kind: Literal["registered", "updated", "unregistered"],
        name: str,
        old: BridgeConfig | None,
        new: BridgeConfig | None,
    ) -> None:
        self._generation += 1
        change = RegistryChange(kind, name, old, new, self._generation)
        for subscriber in tuple(self._subscribers):
            subscriber(change)

    def _unknown(self, name: str | None, text: str) -> RegistryError:
        known = sorted(self._bridges)
        details: dict[str, Any] = {"bridge": name, "known": known}
        if name is not None and (near := closest(name, known)):
            details["closest"] = near
        if not known:
            text += "; no bridges are configured at all (no manybridge.toml was found, or it has no [bridges.NAME])"
        elif "; known: " not in text:
            text += f"; known: {', '.join(known)}"
        return RegistryError(text, details=details)

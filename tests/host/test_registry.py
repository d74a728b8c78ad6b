"""The registry: names, default, changes while running."""

from __future__ import annotations

import pytest

from manybridge.errors import ConfigError, RegistryError
from manybridge.host.config import BridgeConfig, HostConfig
from manybridge.host.registry import Registry, RegistryChange


def bridge(**values: int) -> BridgeConfig:
    """Return some bridge."""
    return BridgeConfig(bridge="m:B", **values)  # type: ignore[arg-type]  # the tests pass int keys only


def registry_of(*names: str, default: str | None = None) -> tuple[Registry, list[RegistryChange]]:
    """Return a registry with these bridges and the list into which its changes go."""
    registry = Registry(HostConfig(default=default, bridges={name: bridge() for name in names}))
    changes: list[RegistryChange] = []
    registry.subscribe(changes.append)
    return registry, changes


class TestResolving:
    def test_no_name_means_the_configured_default(self) -> None:
        """None is the default."""
        registry, _ = registry_of("a", "b", default="b")

        assert registry.resolve(None) == "b"

    def test_the_only_bridge_is_the_default(self) -> None:
        """Where there is one bridge, nobody needs to say which."""
        registry, _ = registry_of("a")

        assert registry.resolve(None) == "a"

    def test_no_name_among_several_is_an_error(self) -> None:
        """Without a default, several bridges leave the question open."""
        registry, _ = registry_of("a", "b")

        with pytest.raises(RegistryError, match="names no bridge and no default is configured; known: a, b"):
            registry.resolve(None)

    def test_an_unknown_name_lists_the_known_ones_and_the_closest(self) -> None:
        """The error is `unknown_bridge` and teaches."""
        registry, _ = registry_of("dspy", "langchain")

        with pytest.raises(RegistryError, match='did you mean "langchain"') as caught:
            registry.get("langchian")

        assert (caught.value.code, caught.value.retryable) == ("unknown_bridge", False)
        assert caught.value.details == {
            "bridge": "langchian",
            "known": ["dspy", "langchain"],
            "closest": "langchain",
        }

    def test_an_empty_registry_says_that_nothing_is_configured(self) -> None:
        """The usual cause is a configuration that was not found."""
        with pytest.raises(RegistryError, match="no bridges are configured at all"):
            Registry().resolve("dspy")


class TestChanges:
    def test_register_is_told_with_the_new_configuration(self) -> None:
        """A new bridge is there at once, and subscribers know it."""
        registry, changes = registry_of("a")

        new = registry.register("b", {"bridge": "m:B", "pool_size": 2})

        assert [RegistryChange("registered", "b", None, new, 1)] == changes
        assert (registry.generation, registry.get("b").pool_size, "b" in registry) == (1, 2, True)

    def test_a_taken_name_is_refused_unless_replaced(self) -> None:
        """Replacing a running bridge must be meant."""
        registry, changes = registry_of("a")

        with pytest.raises(RegistryError, match="already"):
            registry.register("a", {"bridge": "m:C"})
        registry.register("a", {"bridge": "m:C"}, replace=True)

        assert [(each.kind, each.old and each.old.bridge, each.new and each.new.bridge) for each in changes] == [
            ("updated", "m:B", "m:C")
        ]

    def test_update_changes_some_keys_and_keeps_the_others(self) -> None:
        """Nested restart keys that are not given stay."""
        registry, changes = registry_of("a")
        registry.update("a", {"restart": {"window": 7}})

        registry.update("a", {"pool_size": 4, "restart": {"max_crashes": 9}})

        config = registry.get("a")
        assert (
            config.pool_size,
            config.restart.window,
            config.restart.max_crashes,
            config.bridge,
        ) == (4, 7.0, 9, "m:B")
        assert [each.generation for each in changes] == [1, 2]

    def test_an_update_without_difference_is_no_change(self) -> None:
        """Nobody restarts a pool for nothing."""
        registry, changes = registry_of("a")

        registry.update("a", {"pool_size": 1})

        assert (changes, registry.generation) == ([], 0)

    def test_a_wrong_change_leaves_everything_as_it_was(self) -> None:
        """Validation comes before the change."""
        registry, changes = registry_of("a")

        with pytest.raises(ConfigError, match=r"bridges\.a\.pool_size: expected a whole number"):
            registry.update("a", {"pool_size": 0})
        with pytest.raises(ConfigError, match='did you mean "pool_size"'):
            registry.register("b", {"bridge": "m:B", "poolsize": 1})

        assert (changes, list(registry), registry.get("a").pool_size) == ([], ["a"], 1)

    def test_unregister_tells_the_old_configuration(self) -> None:
        """The bridge is gone for the next call."""
        registry, changes = registry_of("a", "b", default="b")

        old = registry.unregister("b")

        assert [RegistryChange("unregistered", "b", old, None, 1)] == changes
        assert registry.default == "a"

    def test_who_unsubscribed_is_not_told(self) -> None:
        """Ending a subscription twice is harmless."""
        registry = Registry()
        changes: list[RegistryChange] = []
        unsubscribe = registry.subscribe(changes.append)
        unsubscribe()
        unsubscribe()

        registry.register("a", bridge())

        assert changes == []

    def test_iteration_survives_changes(self) -> None:
        """The host closes bridges while it walks over them."""
        registry, _ = registry_of("a", "b")

        for name in registry:
            registry.unregister(name)

        assert (len(registry), registry.items()) == (0, ())

"""Bridges change what they offer while they run; their hooks have harmless defaults."""

# ruff: noqa: D102  # handlers of sample bridges

from __future__ import annotations

from threading import Barrier, Thread
from typing import Any

import pytest

from manybridge.bridge import Bridge, BridgeDeclarationError, V1Context, WorkerInfo, command, resource


class LiveBridge(Bridge):
    name = "live"

    @command
    def fixed(self) -> str:
        return "fixed"

    def helper(self, a: int) -> int:
        """Double."""
        return a * 2


class Note:
    """A note."""

    def create(self, text: str) -> None:
        self.text = text

    def execute(self) -> str:
        return self.text


def shout(text: str, times: int = 1) -> str:
    """Shout."""
    return text.upper() * times


def test_a_command_can_be_added_and_removed_while_running() -> None:
    """Calls find a registered command at once, and no longer after it is gone."""
    bridge = LiveBridge()
    before = bridge.spec.commands
    bridge.register_command("shout", shout)
    bridge.register_command("double", bridge.helper, description="Twice.", idempotent=True)
    added = bridge.spec.commands

    assert list(before) == ["fixed"]
    assert list(added) == ["fixed", "shout", "double"]
    assert added["shout"].function(**added["shout"].validate({"text": "a", "times": 2})) == "AA"
    assert added["double"].function(**added["double"].validate({"a": 2})) == 4
    assert [(added[name].description, added[name].idempotent) for name in ("shout", "double")] == [
        ("Shout.", False),
        ("Twice.", True),
    ]
    assert "live:shout" in bridge.spec.describe()["commands"]

    bridge.unregister_command("shout")
    bridge.unregister_command("fixed")

    assert list(bridge.spec.commands) == ["double"]


def test_what_one_bridge_registers_no_other_one_has() -> None:
    """Registrations belong to the object, not to the class."""
    one, other = LiveBridge(), LiveBridge()
    one.register_command("shout", shout)

    assert "shout" not in other.spec.commands


def test_a_taken_name_is_refused_unless_it_is_to_be_replaced() -> None:
    """Two commands of one name would make one of them vanish in silence."""
    bridge = LiveBridge()

    with pytest.raises(BridgeDeclarationError, match=r"command live:fixed exists already.*replace=True"):
        bridge.register_command("fixed", shout)
    bridge.register_command("fixed", shout, replace=True)

    assert bridge.spec.commands["fixed"].description == "Shout."


@pytest.mark.parametrize(
    ("name", "function", "words"),
    [
        ("bad name", shout, "the name 'bad name' is not allowed"),
        ("raw", lambda data: data, ""),
        ("many", lambda *items: items, "\\*items can't be called by name"),
        ("none", 3, "3 can't be called"),
    ],
)
def test_a_registered_function_is_checked_like_a_declared_one(name: str, function: Any, words: str) -> None:
    """Registration raises what a declaration would, and leaves everything as it was."""
    bridge = LiveBridge()
    if not words:
        bridge.register_command(name, function)
        return

    with pytest.raises(BridgeDeclarationError, match=words) as caught:
        bridge.register_command(name, function)

    assert str(caught.value).startswith(f"LiveBridge.register_command({name!r})")
    assert list(bridge.spec.commands) == ["fixed"]


def test_removing_what_is_not_there_says_what_comes_close() -> None:
    """A typing mistake is told as one."""
    bridge = LiveBridge()

    with pytest.raises(LookupError, match="no command live:fixd; did you mean 'fixed'"):
        bridge.unregister_command("fixd")
    with pytest.raises(LookupError, match="no resource type model"):
        bridge.unregister_resource("model")


def test_a_resource_type_can_be_added_and_removed_while_running() -> None:
    """The decorator is optional there; the name given at registration wins."""
    bridge = LiveBridge()
    bridge.register_resource("note", Note)
    bridge.register_resource("pin", resource("other", policy="pinned", description="Pinned.")(type("P", (Note,), {})))

    assert list(bridge.spec.resources) == ["note", "pin"]
    assert [(kind.policy, kind.description) for kind in bridge.spec.resources.values()] == [
        ("recreate", "A note."),
        ("pinned", "Pinned."),
    ]
    note = bridge.spec.resources["note"].new(bridge, "n1")
    note.create("text")
    assert ("text", bridge, None) == (note.execute(), note.bridge, note.session_id)

    bridge.unregister_resource("note")

    assert list(bridge.spec.resources) == ["pin"]


def test_registration_from_many_threads_loses_nothing() -> None:
    """Each change is made under a lock, while readers take none."""
    bridge = LiveBridge()
    barrier = Barrier(8)

    def register(number: int) -> None:
        barrier.wait()
        for n in range(50):
            bridge.register_command(f"c{number}.{n}", shout)
            assert f"c{number}.{n}" in bridge.spec.commands

    threads = [Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(bridge.spec.commands) == 1 + 8 * 50


def test_the_mappings_of_a_spec_cannot_be_changed_from_outside() -> None:
    """Only the spec itself changes them, by putting new ones in their place."""
    with pytest.raises(TypeError):
        LiveBridge().spec.commands["x"] = None  # type: ignore[index]  # the mistake under test


def test_hooks_do_nothing_by_default() -> None:
    """A bridge overrides what it needs."""
    bridge = LiveBridge()
    bridge.preload()
    bridge.setup({})
    bridge.close()

    assert (bridge.cleanup(None), bridge.ping_info(), bridge.stats()) == ({}, {}, {})
    assert bridge.translate_error(ValueError()) is None
    assert bridge.handle_v1("ping", {}, V1Context()) is None
    assert WorkerInfo() == bridge.worker

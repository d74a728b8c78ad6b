"""The contract check itself: it passes good bridges and names what is wrong with others."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge.bridge import Bridge, BridgeError, Cancelled, Context, command, resource
from manybridge.testing import BridgeHarness, check_bridge, contract_problems


class GoodBridge(Bridge):
    """One of everything."""

    name = "good"

    @command
    def add(self, a: int, b: int = 1) -> int:
        """Add."""
        return a + b

    @command
    def stream(self, n: int, *, ctx: Context) -> Iterator[int]:
        """Stream."""
        for number in range(n):
            ctx.check()
            ctx.progress(number, n)
            yield number

    @resource("memory")
    class Memory:
        """Remembers."""

        def create(self, value: Any = None) -> None:
            """Keep."""
            self.value = value

        def execute(self) -> Any:
            """Tell."""
            return self.value

        def snapshot(self) -> Any:
            """Save."""
            return {"value": self.value}

        def restore(self, state: dict[str, Any]) -> None:
            """Load."""
            self.value = state["value"]


class BadBridge(Bridge):
    """Something wrong with each part."""

    name = "bad"

    @command
    def silent(self) -> int:  # noqa: D102  # what the check is to find
        return 1

    @command
    def opaque(self) -> object:
        """Return what can't be sent."""
        return object()

    @command
    def broken(self) -> None:
        """Fail."""
        raise KeyError("sample")

    @resource("forgetful")
    class Forgetful:
        """Restores to something else."""

        def create(self) -> None:
            """Start."""
            self.value = 0

        def execute(self) -> int:
            """Count."""
            self.value += 1
            return self.value

        def snapshot(self) -> dict[str, int]:
            """Save."""
            return {"value": self.value}

        def restore(self, state: dict[str, int]) -> None:
            """Forget."""
            self.value = state["value"] + 1

    def close(self) -> None:
        """Close only once."""
        if self.__dict__.setdefault("closed", False):
            raise RuntimeError("closed twice")
        self.closed = True


def test_a_good_bridge_passes() -> None:
    """With samples of everything."""
    check_bridge(GoodBridge, samples={"add": {"a": 1}, "stream": {"n": 2}}, resources={"memory": ({"value": [1]}, {})})


def test_every_problem_of_a_bad_bridge_is_named() -> None:
    """All of them at once, so that the author fixes them at once."""
    problems = contract_problems(
        BadBridge, samples={"opaque": {}, "broken": {}, "nothing": {}}, resources={"forgetful": ({}, {})}
    )
    found = "\n".join(problems)
    for words in (
        "command silent has no description",
        "a result of command opaque is not JSON",
        "the sample of broken fails: KeyError",
        "the sample of nothing fails: BridgeError: Unknown command",
        "a restored forgetful gives another snapshot",
        "a second close fails",
    ):
        assert words in found
    with pytest.raises(AssertionError, match="BadBridge breaks the contract"):
        check_bridge(BadBridge)


HASTY = '''
import sqlite3, threading
from manybridge.bridge import Bridge

class HastyBridge(Bridge):
    """Imports early and starts threads in preload."""
    name = "hasty"
    required_modules = ("sqlite3",)
    zygote_safe = True

    @classmethod
    def preload(cls):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        cls.socket = __import__("socket").socket()
'''


def test_an_early_import_and_an_unsafe_preload_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh interpreter, because this one has imported everything already."""
    (tmp_path / "hasty_bridge.py").write_text(HASTY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import hasty_bridge  # type: ignore[import-not-found]  # written by this test

    monkeypatch.setattr(hasty_bridge.HastyBridge, "preload", classmethod(lambda cls: None))
    found = "\n".join(contract_problems(hasty_bridge.HastyBridge))
    assert "importing its module imports sqlite3" in found
    assert "leaves 1 threads running" in found
    assert "leaves 1 sockets open" in found
    del sys.modules["hasty_bridge"]


def test_the_harness_answers_as_a_worker_does() -> None:
    """Unknown names and wrong arguments have the codes of the wire."""
    with BridgeHarness(GoodBridge) as good:
        for code, attempt in (
            ("unknown_command", lambda: good.call("ad", a=1)),
            ("unknown_resource_type", lambda: good.create("memories")),
            ("invalid_argument", lambda: good.call("add", a="1")),
            ("invalid_argument", lambda: good.call("add")),
            ("invalid_argument", lambda: good.create("memory", {"values": 1})),
        ):
            with pytest.raises(BridgeError) as caught:
                attempt()
            assert caught.value.code == code


def test_the_harness_cancels_after_a_number_of_events() -> None:
    """So that cancelling half-way needs no clock."""
    with BridgeHarness(GoodBridge) as good, pytest.raises(Cancelled):
        good.run("good:stream", {"n": 100}, cancel_after=10)

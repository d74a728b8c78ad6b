"""One resource type of each policy, and one that fails where it is told to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from manybridge.bridge import Context, resource

from .faults import FailKind, fail

if TYPE_CHECKING:
    from .bridge import MockBridge


@resource("echo", policy="recreate")
class EchoResource:
    """Holds its config; executing it returns exactly `{"config": ..., "inputs": ...}`."""

    bridge: MockBridge

    def create(self, config: dict[str, Any]) -> None:
        """Keeps any config."""
        self.config = config

    def execute(self, inputs: dict[str, Any], *, ctx: Context) -> dict[str, Any]:
        """Returns config and inputs."""
        self.bridge.script.record("echo.execute", inputs, ctx)
        return {"config": self.config, "inputs": inputs}


@resource("counter", policy="restore")
class CounterResource:
    """Counts. Its value survives its worker through a snapshot."""

    def create(self, start: int = 0) -> None:
        """Counts from `start`."""
        self.value = start
        self.restored = False

    def execute(self, add: int = 1) -> dict[str, Any]:
        """Adds and returns the value, the worker that holds it, and whether it was restored."""
        self.value += add
        return {"value": self.value, "pid": os.getpid(), "restored": self.restored}

    def snapshot(self) -> dict[str, Any]:
        """The value."""
        return {"value": self.value}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on from a snapshot."""
        self.value = state["value"]
        self.restored = True


@resource("pinned", policy="pinned")
class PinnedResource:
    """Can't be made again: it is lost with its worker."""

    def create(self, value: Any = None) -> None:
        """Keeps a value in this process only."""
        self.value = value

    def execute(self) -> dict[str, Any]:
        """Returns the value and the worker that holds it."""
        return {"value": self.value, "pid": os.getpid()}


@resource("faulty", policy="restore")
class FaultyResource:
    """Fails in one of its methods, in the way that its config says."""

    def create(
        self, fails_in: Literal["create", "execute", "snapshot", "restore", "close"], kind: FailKind = "raise"
    ) -> None:
        """Fails here, or remembers where to fail."""
        self.fails_in, self.kind = fails_in, kind
        self._reach("create")

    def execute(self) -> Any:
        """Returns `{"ok": true}`, or what failing gives."""
        return self._reach("execute") or {"ok": True}

    def snapshot(self) -> Any:
        """The config."""
        return self._reach("snapshot") or {"fails_in": self.fails_in, "kind": self.kind}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes the config back."""
        self.fails_in, self.kind = state["fails_in"], state["kind"]
        self._reach("restore")

    def close(self) -> None:
        """Closes, or fails to."""
        self._reach("close")

    def _reach(self, place: str) -> Any:
        return fail(self.kind) if self.fails_in == place else None

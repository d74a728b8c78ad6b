"""Commands that fail for a while: each call says how its attempts go, and a file counts them across workers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manybridge.bridge import Bridge, BridgeError, command


class FlakyBridge(Bridge):
    name = "flaky"

    def setup(self, options: dict[str, Any]) -> None:
        needed = options.get("needs")
        if needed is not None and not Path(needed).exists():
            raise RuntimeError(f"{needed} is not there")

    @command(idempotent=True)
    def read(self, counter: str, failures: list[str] = []) -> dict[str, Any]:  # noqa: B006  # never changed
        return self._attempt(counter, failures)

    @command
    def write(self, counter: str, failures: list[str] = []) -> dict[str, Any]:  # noqa: B006  # never changed
        return self._attempt(counter, failures)

    @command(idempotent=True)
    def stream(self, counter: str, failures: list[str] = [], early: bool = False) -> Iterator[int]:  # noqa: B006  # never changed
        if early:
            self._attempt(counter, failures)
        yield 1
        time.sleep(0.05)  # chunks share writes: let this one go
        if not early:
            self._attempt(counter, failures)
        yield 2

    def _attempt(self, counter: str, failures: list[str]) -> dict[str, Any]:
        """Fails in the way that is due: `kill`, or an error code, `:` and what retry_after says."""
        path = Path(counter)
        with path.open("a") as file:
            file.write("x")
        number = path.stat().st_size
        if number <= len(failures):
            failure, _, retry_after = failures[number - 1].partition(":")
            if failure == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(60)
            raise BridgeError(failure, "not now", details={"retry_after": float(retry_after)} if retry_after else None)
        return {"attempt": number, "bridge": self.worker.id}

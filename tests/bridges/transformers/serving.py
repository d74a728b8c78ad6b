"""A worker of the Transformers bridge, spoken to over the raw wire."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bridges.raw_worker import RawWorker
from tests.support import MS, framework_python

PATIENCE = 60_000 * MS
"""For a reply that waits for an import of PyTorch, or of a model's code."""


class Serving:
    """One worker and what its resources are called."""

    def __init__(self, raw: RawWorker) -> None:
        self.raw = raw
        self._made: dict[str, str] = {}

    def ask(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send one request and return its reply."""
        return self.raw.receive(self.raw.send(command, args, **fields), PATIENCE)

    def result(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> Any:
        """Send one request and return its result."""
        reply = self.ask(command, args, **fields)
        assert reply["success"], reply
        return reply["result"]

    def error(self, command: str, args: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
        """Send one request that fails and return its `error_info`."""
        reply = self.ask(command, args, **fields)
        assert not reply["success"], reply
        info: dict[str, Any] = reply["error_info"]
        return info

    def make(self, kind: str, **config: Any) -> str:
        """Make a resource and return its id."""
        id: str = self.result("common:create_resource", {"type": kind, "config": config})["id"]
        return id

    def model(self, name: str) -> str:
        """Return the id of a model that the tests share."""
        if name not in self._made:
            self._made[name] = self.make("model", model=name)
        return self._made[name]

    def refused(self, kind: str, **config: Any) -> dict[str, Any]:
        """Return why a resource can't be made."""
        return self.error("common:create_resource", {"type": kind, "config": config})

    def run(self, id: str, *, stream: bool = False, **inputs: Any) -> Any:
        """Execute a resource and return its result."""
        return self.result("common:execute_resource", {"id": id, "inputs": inputs}, stream=stream)

    def fails(self, id: str, **inputs: Any) -> dict[str, Any]:
        """Return why an execution failed."""
        return self.error("common:execute_resource", {"id": id, "inputs": inputs})

    def begin(self, id: str, *, stream: bool = False, **inputs: Any) -> int:
        """Begin an execution and return its number."""
        return self.raw.send("common:execute_resource", {"id": id, "inputs": inputs}, stream=stream)

    def all(self, numbers: list[int]) -> list[dict[str, Any]]:
        """Return the replies to several requests, in the order of the numbers."""
        replies: dict[int, dict[str, Any]] = {}
        while len(replies) < len(numbers):
            message = self.raw.read(PATIENCE)
            if "event" in message:
                self.raw.events.append(message)
            else:
                replies[message["id"]] = message
        return [replies[number] for number in numbers]

    def chunks(self) -> list[dict[str, Any]]:
        """Return the chunks that came so far."""
        return [event["data"] for event in self.raw.events if event["event"] == "chunk"]

    def unshared(self) -> int:
        """Return the memory that the worker has for itself, in bytes, as the kernel counts it."""
        text = Path(f"/proc/{self.raw.process.pid}/smaps_rollup").read_text(encoding="ascii")
        return 1024 * sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


@contextmanager
def serving(*arguments: str, environment: dict[str, str] | None = None, **options: Any) -> Iterator[Serving]:
    """Start a worker, wait until it is ready, end it with the block."""
    raw = RawWorker(
        "transformers", options, *arguments, python=framework_python("transformers"), environment=environment
    )
    # What the libraries say would fill the pipe, and nobody would read it.
    assert raw.process.stderr is not None
    reading = threading.Thread(target=raw.process.stderr.read)
    reading.start()
    try:
        worker = Serving(raw)
        worker.result("common:warm_up")
        yield worker
    finally:
        raw.process.kill()
        raw.process.wait()
        reading.join()
        raw.close()

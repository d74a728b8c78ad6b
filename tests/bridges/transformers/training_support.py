"""A worker for datasets and training, with a tiny model; shared by the tests of a module."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bridges.raw_worker import RawWorker
from tests.support import MS, REPOSITORY, framework_python

MAKE_MODEL = REPOSITORY / "examples" / "finetune" / "make_model.py"
PATIENCE = 60_000 * MS
"""For a reply that waits for an import of PyTorch."""

SENTENCES = [f"the {a} {b} sees the {c} in the {d}" for a, b, c, d in zip(
    ["old", "young", "quick", "lazy", "brown"] * 8,
    ["fox", "dog", "cat", "bird"] * 10,
    ["house", "tree", "river", "stone", "field", "road", "hill", "lake"] * 5,
    ["morning", "evening"] * 20, strict=True,
)]  # fmt: skip
DATA: dict[str, Any] = {"rows": [{"text": sentence} for sentence in SENTENCES]}
STEPS = 30
"""Of a whole run: so many that a cancel at the fifth comes in time on a loaded machine too."""
SETTINGS: dict[str, Any] = {
    "max_steps": STEPS,
    "batch_size": 4,
    "learning_rate": 2e-3,
    "save_every": 4,
    "max_length": 32,
}


class Bench:
    """Folders and workers of the Transformers bridge."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = framework_python("transformers")
        self.models, self.runs, self.data = folder / "models", folder / "runs", folder / "data"
        for each in (self.models, self.runs, self.data):
            each.mkdir()
        self.options: dict[str, Any] = {
            "models_folder": str(self.models), "runs_folder": str(self.runs), "data_folders": [str(self.data)],
        }  # fmt: skip

    def make_model(self) -> None:
        """Make the model `tiny`."""
        text = self.folder / "text.txt"
        text.write_text("\n".join(SENTENCES), encoding="utf-8")
        size = ("--vocabulary", "320", "--width", "32", "--layers", "2")
        command = [str(self.python), str(MAKE_MODEL), str(self.models / "tiny"), str(text), *size]
        subprocess.run(command, check=True, capture_output=True)

    @contextmanager
    def worker(self, *arguments: str, bridge: str | Path = "transformers", **options: Any) -> Iterator[Caller]:
        """Start a worker, wait until it is ready, end it with the block."""
        raw = RawWorker(bridge, {**self.options, **options}, *arguments, python=self.python)
        # What the libraries say would fill the pipe, and nobody would read it.
        assert raw.process.stderr is not None
        log: list[bytes] = []
        reading = threading.Thread(target=log.extend, args=(raw.process.stderr,))
        reading.start()
        try:
            caller = Caller(raw, log)
            caller.ask("transformers:list_runs", {})
            yield caller
        finally:
            raw.process.kill()
            reading.join()
            raw.close()


class Caller:
    """Speaks with one worker."""

    def __init__(self, raw: RawWorker, log: list[bytes]) -> None:
        self.raw = raw
        self.log = log

    def ask(self, command: str, args: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Send one request and return its reply; events are in `events`."""
        self.raw.events.clear()
        return self.raw.receive(self.raw.send(command, args, **fields), PATIENCE)

    def result(self, command: str, args: dict[str, Any], **fields: Any) -> Any:
        """Send one request and return its result."""
        reply = self.ask(command, args, **fields)
        assert reply["success"], reply
        return reply["result"]

    def error(self, command: str, args: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Send one request that fails and return its error."""
        reply = self.ask(command, args, **fields)
        assert not reply["success"], reply
        error: dict[str, Any] = reply["error_info"]
        return error

    def events(self, kind: str) -> list[Any]:
        """What came with the last reply."""
        return [event["data"] for event in self.raw.events if event["event"] == kind]

    def train(self, run: str | None, settings: dict[str, Any] | None = None, **args: Any) -> Any:
        """Train `tiny` on the sentences."""
        named = {} if run is None else {"run": run}
        given = {"model": "tiny", "dataset": DATA, "settings": {**SETTINGS, **(settings or {})}}
        return self.result("transformers:train", {**named, **given, **args}, stream=True)

    def begin(self, run: str, until: Callable[[dict[str, Any]], bool], **settings: Any) -> int:
        """Begin to train, and return the call's id when an event comes for which `until` is true."""
        args = {"run": run, "model": "tiny", "dataset": DATA, "settings": {**SETTINGS, **settings}}
        number = self.raw.send("transformers:train", args, stream=True)
        while True:
            message = self.raw.read(PATIENCE)
            assert message["id"] == number, message
            assert "event" in message, message
            if until(message):
                return number

    def run(self, name: str, **args: Any) -> dict[str, Any]:
        """Describe a run."""
        found: dict[str, Any] = self.result("transformers:get_run", {"run": name, **args})
        return found


def at_step(step: int) -> Callable[[dict[str, Any]], bool]:
    """For `begin`: the metrics of that step have come."""
    return lambda message: message["event"] == "chunk" and message["data"]["step"] >= step

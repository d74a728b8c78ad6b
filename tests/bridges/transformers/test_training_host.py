"""Datasets and training runs through Python and the command line, with the host in between."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.errors import CallCancelledError, ResourceError, WorkerCrashedError
from tests.bridges.transformers.training_support import DATA, SETTINGS, STEPS, Bench
from tests.cli.support import CommandLine
from tests.support import eventually

pytestmark = [pytest.mark.framework, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Folders with a tiny model."""
    made = Bench(tmp_path_factory.mktemp("hosted"))
    made.make_model()
    return made


def config(bench: Bench, **more: Any) -> dict[str, Any]:
    """A configuration with the Transformers bridge."""
    bridge = {"python": str(bench.python), "options": bench.options, "start_timeout": 120.0, "default_timeout": 120.0}
    return {"bridges": {"transformers": {**bridge, **more}}, "store": {"url": "memory:"}}


@pytest.fixture(scope="module")
def ml(bench: Bench) -> Iterator[MLBridge]:
    """One host with one worker for the tests of Python."""
    with MLBridge.from_config(config(bench, cancel_grace=20.0)) as host:
        host.wait_ready("transformers", timeout=120)
        yield host


def test_datasets_in_python(ml: MLBridge) -> None:
    """Created, executed, streamed, listed, deleted."""
    made = ml.create_resource("transformers", "dataset", DATA)
    assert ml.execute_resource("transformers", made.id, {"limit": 1})["rows"] == DATA["rows"][:1]
    args = {"id": made.id, "inputs": {"stream": True}}
    with ml.stream("transformers", "common:execute_resource", args) as events:
        rows = [row for event in events if event.event == "chunk" for row in event.data["rows"]]
    assert rows == DATA["rows"]
    assert made.id in [each.id for each in ml.list_resources("transformers", "dataset")]
    ml.delete_resource("transformers", made.id)
    with pytest.raises(ResourceError):
        ml.execute_resource("transformers", made.id, {})


def test_trainings_in_python(ml: MLBridge) -> None:
    """Created, streamed, listed, deleted."""
    made = ml.create_resource("transformers", "training", {"model": "tiny", "dataset": DATA, "settings": SETTINGS})
    with ml.stream("transformers", "common:execute_resource", {"id": made.id, "inputs": {}}) as events:
        steps = [event.data["step"] for event in events if event.event == "chunk"]
    assert steps == list(range(1, STEPS + 1))
    assert events.result["run"] == made.id
    assert made.id in [each.id for each in ml.list_resources("transformers", "training")]
    ml.delete_resource("transformers", made.id)


def test_a_job_of_training_is_cancelled_and_resumed(ml: MLBridge) -> None:
    """Its progress has step, total and loss."""
    args = {"run": "job", "model": "tiny", "dataset": DATA, "settings": {**SETTINGS, "max_steps": 60}}
    job = ml.submit("transformers", "transformers:train", args)
    for event in job.events():
        if event.event == "chunk" and event.data["step"] == 10:
            job.cancel()
    with pytest.raises(CallCancelledError):
        job.result()
    assert job.progress is not None
    assert (job.progress.total, job.progress.message.startswith("loss ")) == (60, True)
    kept = ml.call("transformers", "transformers:get_run", {"run": "job"})["checkpoints"][-1]
    assert kept >= 10
    done = ml.submit("transformers", "transformers:train", {"run": "job", "resume": True}).result(timeout=60)
    assert (done["steps"], done["resumed_from"]) == (60, kept)


def test_what_a_caller_leaves_stops(ml: MLBridge) -> None:
    """Nobody trains for a stream that nobody reads."""
    args = {"run": "left", "model": "tiny", "dataset": DATA, "settings": {**SETTINGS, "max_steps": 100_000}}
    with ml.stream("transformers", "transformers:train", args) as events:
        for event in events:
            if event.event == "chunk":
                break

    def stopped() -> Any:
        run = ml.call("transformers", "transformers:get_run", {"run": "left"})
        return run["state"] == "cancelled" and run["checkpoints"]

    eventually(stopped)


def test_a_killed_workers_run_goes_on_in_its_replacement(bench: Bench) -> None:
    """The call fails, and says so; the run is not lost."""
    args = {"run": "killed", "model": "tiny", "dataset": DATA, "settings": {**SETTINGS, "max_steps": 60}}
    with MLBridge.from_config(config(bench)) as ml:
        pid = ml.call("transformers", "common:ping", {})["pid"]
        job = ml.submit("transformers", "transformers:train", args)
        for event in job.events():
            if event.event == "chunk" and event.data["step"] == 10:
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerCrashedError):
            job.result()
        done = ml.submit("transformers", "transformers:train", {"run": "killed", "resume": True}).result(timeout=120)
    assert done["steps"] == 60
    assert done["resumed_from"] >= 8


# ---------------------------------------------------------------- the command line


@pytest.fixture
def manybridge(
    bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> CommandLine:
    """The command line, in a folder with a configuration."""
    lines = ["[bridges.transformers]", f'python = "{bench.python}"', "eager = false", "start_timeout = 120.0"]
    lines += [
        "[bridges.transformers.options]",
        *(f"{name} = {json.dumps(value)}" for name, value in bench.options.items()),
    ]
    lines += ["[store]", f'url = "sqlite:///{tmp_path}/store.db"']
    (tmp_path / "manybridge.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")
    return CommandLine(capsys)


def test_datasets_and_trainings_on_the_command_line(manybridge: CommandLine) -> None:
    """Created, executed, streamed, listed, deleted; each command is a host of its own."""
    data = json.dumps(DATA)
    made = manybridge(
        "resources", "create", "transformers", "dataset", "--args", data, "--execute", '{"limit": 1}', "--json"
    )
    assert made.code == 0, made.err
    assert made.json["results"][0]["rows"] == DATA["rows"][:1]
    training = json.dumps({"model": "tiny", "dataset": DATA, "settings": {**SETTINGS, "max_steps": 2}, "run": "cli"})
    trained = manybridge(
        "resources", "create", "transformers", "training", "--args", training, "--execute", "{}", "--stream",
        "--timeout", "120",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    assert '"step": 2' in trained.out or '"step":2' in trained.out
    listed = manybridge("resources", "list", "transformers", "--json").json
    assert sorted(each["type"] for each in listed) == ["dataset", "training"]
    for each in listed:
        assert manybridge("resources", "delete", "transformers", each["id"]).code == 0
    assert manybridge("resources", "list", "transformers", "--json").json == []

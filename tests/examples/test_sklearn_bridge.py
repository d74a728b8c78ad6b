"""The scikit-learn example: a framework added in one file, on real digits, in its own environment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.bridges.raw_worker import RawWorker, raw_worker
from tests.support import REPOSITORY, framework_python

SKLEARN_BRIDGE = REPOSITORY / "examples" / "sklearn_bridge.py"
FRAMEWORK_START = 30.0
"""Seconds that a cold import of scikit-learn may take."""

pytestmark = pytest.mark.framework


@pytest.fixture
def worker() -> Iterator[RawWorker]:
    """A worker in the environment of scikit-learn, loaded."""
    with raw_worker(SKLEARN_BRIDGE, None, "--cancel-grace-ms", "20000", python=framework_python("sklearn")) as started:
        number = started.send("sklearn:picture", {"row": 0})
        assert started.receive(number, FRAMEWORK_START)["success"]
        yield started


def test_it_is_one_short_file() -> None:
    """Adding a framework takes no more."""
    assert len(SKLEARN_BRIDGE.read_text().splitlines()) <= 120


def test_it_trains_with_live_progress_and_reads_digits(worker: RawWorker) -> None:
    """One event for each epoch; nine in ten digits right."""
    result = worker.result("sklearn:train", {"epochs": 30}, stream=True)
    progress = [event["data"] for event in worker.events if event["event"] == "progress"]
    assert progress[-1]["current"] == progress[-1]["total"] == 30
    assert "accuracy" in progress[-1]["message"]
    assert result["accuracy"] > 0.9
    read = worker.result("sklearn:predict", {"rows": list(range(20))})
    right = sum(seen == label for seen, label in zip(read["digits"], read["labels"], strict=True))
    assert right >= 16


def test_training_is_cancelled_half_way_and_the_worker_goes_on(worker: RawWorker) -> None:
    """At the next epoch, without losing the worker."""
    number = worker.send("sklearn:train", {"epochs": 100_000}, stream=True)
    while not (message := worker.read()).get("event"):
        pass
    assert message["data"]["total"] == 100_000
    worker.send("common:cancel", {"id": number})
    info = worker.receive(number)["error_info"]
    assert (info["code"], info["details"]["stopped_by"]) == ("cancelled", "cooperative")
    assert worker.result("sklearn:picture", {"row": 1})["row"] == 1


def test_a_model_reads_the_same_in_another_worker(worker: RawWorker) -> None:
    """Its snapshot is JSON, and the restored model answers alike."""
    rows = {"rows": list(range(30))}
    config = {"type": "model", "config": {"epochs": 5}}
    worker.result("common:create_resource", {**config, "id": "m"})
    read = worker.result("common:execute_resource", {"id": "m", "inputs": rows})
    state = worker.result("common:snapshot_resource", {"id": "m"})["state"]
    worker.result("common:create_resource", {**config, "id": "again", "state": json.loads(json.dumps(state))})
    assert worker.result("common:execute_resource", {"id": "again", "inputs": rows}) == read


def test_mistakes_are_told_in_words(worker: RawWorker) -> None:
    """Nothing trained yet, and rows that are not there."""
    assert worker.code("sklearn:predict", {"rows": [0]}, stream=False) == "invalid_request"
    assert worker.code("sklearn:picture", {"row": 100_000}, stream=False) == "invalid_argument"


def test_it_holds_to_the_contract() -> None:
    """Including that its preload leaves nothing behind that a fork would break."""
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from manybridge.testing import check_bridge\n"
        "from sklearn_bridge import SklearnBridge\n"
        "check_bridge(SklearnBridge, samples={'train': {'epochs': 1}, 'predict': {'rows': [0]}, 'picture': {'row': 0}},"
        " resources={'model': ({'epochs': 1}, {'rows': [0]})})\n"
    )
    paths = [str(REPOSITORY / "src"), str(SKLEARN_BRIDGE.parent)]
    subprocess.run([framework_python("sklearn"), "-I", "-c", program, *paths], check=True)


def test_without_scikit_learn_the_error_names_what_to_install() -> None:
    """The same file in an environment that lacks the framework."""
    with raw_worker(SKLEARN_BRIDGE) as bare:
        reply = bare.ask("sklearn:picture", {"row": 0}, stream=False)
        assert reply["error_info"]["code"] == "missing_package"
        assert "scikit-learn" in reply["error"]

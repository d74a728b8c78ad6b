"""DSPy programs on a host with a store: what was learned is there after the worker's death and after a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge.host.sync import MLBridge
from tests.bridges.dspy.endpoint import Endpoint
from tests.bridges.test_session_models import DSPY, KEY, host, kill_workers

pytestmark = pytest.mark.framework

COLOURS = [{"question": f"word{n} colour", "answer": "red" if n % 2 else "blue"} for n in range(6)]


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A model server that wants the key."""
    monkeypatch.setenv("LOCAL_API_KEY", KEY)
    with Endpoint(KEY) as started:
        yield started


def answer(ml: MLBridge, id: str) -> Any:
    """What the program says; without examples it knows no colours."""
    return ml.execute_resource("dspy", id, {"question": "word3 colour"})["outputs"]["answer"]


def test_what_an_optimiser_taught_a_program_survives(endpoint: Endpoint, tmp_path: Path) -> None:
    """The worker is killed right after the optimiser's reply, and then the host is started again."""
    with host(DSPY, endpoint, tmp_path) as ml:
        program = ml.create_resource("dspy", "program", {"signature": "question -> answer"})
        assert answer(ml, program.id) != "red"
        args = {"program_id": program.id, "trainset": COLOURS, "optimizer": "LabeledFewShot"}
        state = ml.call("dspy", "optimize", args)["state"]
        kill_workers(ml, "dspy")
        assert answer(ml, program.id) == "red"

        other = ml.create_resource("dspy", "program", {"signature": "question -> answer"})
        ml.call("dspy", "load_state", {"program_id": other.id, "state": state})
        kill_workers(ml, "dspy")
        assert answer(ml, other.id) == "red"
    with host(DSPY, endpoint, tmp_path) as ml:
        assert (answer(ml, program.id), answer(ml, other.id)) == ("red", "red")

"""The fine-tuning example, as a person runs it: what it claims is in what it prints."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import REPOSITORY, TIME_FACTOR, framework_python

EXAMPLE = REPOSITORY / "examples" / "finetune" / "run.py"
STEPS = 60
"""A quarter of what a person sees: enough for the loss to fall."""
LONGEST = 150 * TIME_FACTOR
"""Seconds on a machine with other work: two processes import PyTorch, and one trains."""

pytestmark = [pytest.mark.framework, pytest.mark.timeout(LONGEST + 30)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it keeps model and run."""
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    """What it prints, run once, into a pipe."""
    framework_python("transformers")
    command = [sys.executable, str(EXAMPLE), "--steps", str(STEPS), "--folder", str(folder)]
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < LONGEST
    return done.stdout


def test_it_is_cancelled_half_way_with_a_checkpoint_of_that_step(printed: str) -> None:
    """Not of an earlier one."""
    steps = re.search(r"the run is cancelled, checkpoints of steps \[(.*)\]", printed)
    assert steps
    assert STEPS // 2 <= int(steps[1].split(", ")[-1]) <= STEPS // 2 + 5


def test_it_goes_on_where_it_was_cancelled(printed: str) -> None:
    """And ends with the last step."""
    resumed = re.search(r"it went on behind step (\d+) and is done", printed)
    assert resumed
    assert STEPS // 2 <= int(resumed[1]) <= STEPS // 2 + 5
    assert f"step {STEPS}/{STEPS}" in printed


def test_the_loss_falls(printed: str) -> None:
    """On what it learns, and on text that it never saw."""
    curve = re.search(r"loss (\d\.\d\d) .* (\d\.\d\d)\n", printed)
    held_back = re.search(r"held-back text: loss (\d\.\d\d)", printed)
    assert curve
    assert held_back
    assert float(curve[2]) < float(curve[1]) - 0.7
    assert float(held_back[1]) < float(curve[1]) - 0.7


def test_it_writes_something_else_afterwards(printed: str) -> None:
    """From the same prompts and the same seed."""
    written = re.findall(r"^  The worker(.*)$", printed, re.MULTILINE)
    assert len(written) == 2
    assert written[0] != written[1]


def test_the_result_is_a_model_folder(printed: str, folder: Path) -> None:
    """With its weights as safetensors, and a tokenizer."""
    files = {path.name for path in (folder / "runs" / "docs" / "model").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= files

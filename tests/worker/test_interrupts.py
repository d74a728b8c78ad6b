"""What an interrupt of the stop ladder can strike: our own code, and never the inside of somebody's lock.

A thread that is interrupted inside `threading.Semaphore`, `Event` or `Condition`, which are written in Python, may
leave their lock taken for ever. So what handlers run through, and other threads need, must not be made of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import MS

SCRIPT = Path(__file__).parents[1] / "workers" / "interrupts.py"


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What the script saw: which files' code ran in Python."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=15_000 * MS, check=False)
    assert done.returncode == 0, done.stderr
    read: dict[str, Any] = json.loads(done.stdout)
    return read


def test_waking_the_watch_runs_through_no_lock(found: dict[str, Any]) -> None:
    """A handler that emits does it, and so does the beginning of every call; the watch finds the wake-up."""
    assert found["waking"] == {"wake": ["lane.py"], "woken": 1, "left": 0}


def test_waiting_for_a_tool_runs_through_no_lock(found: dict[str, Any]) -> None:
    """The watch delivers the answer, and must never be kept by a handler that has left."""
    assert found["tool"] == {"call": ["host_calls.py"], "answers": [7]}


def test_the_end_of_a_call_runs_through_no_lock(found: dict[str, Any]) -> None:
    """Also where somebody waits for it: a worker that drains."""
    assert found["end_of_a_call"] == {"remove": ["calls.py"], "open": 0}


def test_a_profiler_works_after_an_interrupt_was_taken_back(found: dict[str, Any]) -> None:
    """In CPython 3.11 it hung at its first function."""
    assert found["profiled"]["seen"] == ["interrupted", "went on"]
    assert "pathlib.py" in found["profiled"]["files"]

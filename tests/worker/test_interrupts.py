"""What an interrupt of the stop ladder can strike: our own code, and never the inside of somebody's lock.

A thread that is interrupted inside `threading.Semaphore`, `Event` or `Condition`, which are written in Python, may
leave their lock taken for ever. So what handlers run through, and other threads need, must not be made of them.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

import pytest

from manybridge.protocol.messages import Request
from manybridge.worker.calls import CallTable, WorkerCall
from manybridge.worker.host_calls import HostCalls
from manybridge.worker.lane import Lane
from manybridge.worker.outbox import Outbox


def files_that_run(function: Callable[[], object]) -> set[str]:
    """Names of the files whose code in Python runs while `function` does, its own left out."""
    found: set[str] = set()

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    gc.disable()  # a finaliser of somebody else's object is not what we look at
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return {Path(name).name for name in found if name != __file__}


@pytest.fixture
def lane() -> Iterator[Lane]:
    """A lane whose watch is the test."""
    made = Lane(
        0,
        receive=lambda _: None,
        end_of_input=lambda: None,
        tick=lambda _: None,
        in_frame=lambda: False,
        nudged=lambda _: None,
        failed=lambda _: None,
    )
    made._started = True
    yield made
    os.close(made._nudge)
    os.close(made.nudge_fd)


def call() -> WorkerCall:
    """A call that takes events."""
    return WorkerCall(Request(1, "x:y", stream=True), True, cast("Outbox", None), cast("HostCalls", None))


def test_waking_the_watch_runs_through_no_lock(lane: Lane) -> None:
    """A handler that emits does it, and so does the beginning of every call; the watch finds the wake-up."""
    assert files_that_run(lane.wake) == {"lane.py"}
    assert lane._wake.qsize() == 1
    assert files_that_run(lambda: lane._wait(None)) <= {"lane.py", "contextlib.py"}
    assert lane._wake.empty()


def test_waiting_for_a_tool_runs_through_no_lock() -> None:
    """The watch delivers the answer, and must never be kept by a handler that has left."""

    class Answers:
        """The client: answers every call of a tool at once."""

        def send_event(self, _id: Any, _event: str, data: dict[str, Any]) -> None:
            host_calls.receive_result({"call_id": data["call_id"], "result": 7})

    host_calls = HostCalls(cast("Outbox", Answers()), lambda: None)
    waiting = call()
    found: list[Any] = []

    assert files_that_run(lambda: found.append(host_calls.call(waiting, "tool", {}, 5.0))) == {"host_calls.py"}
    assert found == [7]


def test_the_end_of_a_call_runs_through_no_lock() -> None:
    """Also where somebody waits for it: a worker that drains."""
    table, ending = CallTable(), call()
    table.add(ending)
    table.wait_for_change(0.0)

    assert files_that_run(lambda: table.remove(ending)) == {"calls.py"}
    assert not len(table)

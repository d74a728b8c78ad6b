"""An interrupt may strike between any two steps of the interpreter: what the worker shares between threads survives it.

`Cancelled` is raised at the first, the second, the third ... step of a function, until there is no such step. After
each time everything must go on as if nothing had been: a lock that stayed taken would hang the test.
"""

from __future__ import annotations

import os
from typing import Any, cast

import pytest

from manybridge.protocol.messages import Request
from manybridge.worker.calls import CallTable, WorkerCall
from manybridge.worker.host_calls import HostCalls
from manybridge.worker.lane import Lane
from manybridge.worker.outbox import Outbox
from tests.interrupts import interrupted_everywhere


@pytest.fixture
def lane() -> Lane:
    """A lane whose watch is this test."""
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
    return made


def test_waking_the_watch(lane: Lane) -> None:
    """A handler that emits does it, and so does the beginning of every call."""

    def goes_on() -> None:
        lane.wake()
        lane._wait(None)

    try:
        interrupted_everywhere(lane.wake, goes_on)
    finally:
        os.close(lane._nudge)
        os.close(lane.nudge_fd)


def test_waiting_for_a_tool() -> None:
    """Its answer comes from another thread, which must never be kept by one that has left."""
    call = WorkerCall(Request(1, "x:y", stream=True), True, cast("Outbox", None), cast("HostCalls", None))

    class Answers:
        """The client: answers every call of a tool at once."""

        def send_event(self, _id: Any, _event: str, data: dict[str, Any]) -> None:
            host_calls.receive_result({"call_id": data["call_id"], "result": 7})

    host_calls = HostCalls(cast("Outbox", Answers()), lambda: None)

    def ask() -> None:
        assert host_calls.call(call, "tool", {}, 5.0) == 7

    interrupted_everywhere(ask, ask)


def test_the_end_of_a_call_that_somebody_waits_for() -> None:
    """A worker that drains is told of each."""
    table = CallTable()
    call = WorkerCall(Request(1, "x:y"), True, cast("Outbox", None), cast("HostCalls", None))

    def ends() -> None:
        table.add(call)
        table.remove(call)

    def goes_on() -> None:
        table.add(call)
        table.wait_for_change(0.0)
        ends()

    goes_on()
    interrupted_everywhere(ends, goes_on)

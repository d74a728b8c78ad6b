"""Which requests are held to have killed workers."""

from __future__ import annotations

from concurrent.futures import Future
from time import monotonic

import pytest

from manybridge.host.calls import Call
from manybridge.host.quarantine import Quarantine


def call(command: str) -> Call:
    """A call that nobody waits for."""
    return Call(command, {"n": 1}, Future())


@pytest.mark.parametrize("command", ["mock:fail", "common:execute_resource", "common:batch"])
def test_a_request_that_runs_code_of_the_bridge_is_blamed(command: str) -> None:
    """Two deaths are enough."""
    quarantine = Quarantine(60.0)
    for _ in range(2):
        quarantine.blame([call(command)], "segfault", monotonic())

    refusal = quarantine.examine(call(command))

    assert refusal is not None
    assert refusal.code == "quarantined"


@pytest.mark.parametrize("command", ["common:ping", "common:get_stats", "common:health", "common:cancel"])
def test_a_request_that_the_control_lane_answers_is_never_to_blame(command: str) -> None:
    """It met a dying worker; it ran nothing that could kill one."""
    quarantine = Quarantine(60.0)
    for _ in range(5):
        quarantine.blame([call(command)], "segfault", monotonic())

    assert quarantine.examine(call(command)) is None

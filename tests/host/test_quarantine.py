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


def test_one_death_blames_a_request_once_however_many_callers_made_it() -> None:
    """Eight equal calls in one worker are one request and one death."""
    quarantine = Quarantine(60.0)
    quarantine.blame([call("mock:read") for _ in range(8)], "segfault", monotonic())

    assert quarantine.examine(call("mock:read")) is None
    assert quarantine.describe() == []


def test_a_request_that_was_not_alone_gets_half_the_blame() -> None:
    """Nobody knows which of two it was: four deaths are needed."""
    quarantine = Quarantine(60.0)
    for deaths in range(1, 5):
        quarantine.blame([call("mock:read"), call("mock:write")], "killed", monotonic())
        refused = quarantine.examine(call("mock:read")) is not None
        assert refused == (deaths == 4)


def test_a_request_that_is_answered_is_cleared() -> None:
    """It was only there when a worker died; another death begins to count anew."""
    quarantine = Quarantine(60.0)
    quarantine.blame([call("mock:read")], "killed", monotonic())
    second = call("mock:read")
    assert quarantine.examine(second) is None
    second.succeed({})
    quarantine.blame([call("mock:read")], "killed", monotonic())

    assert quarantine.examine(call("mock:read")) is None


def test_the_refusal_says_what_the_workers_died_of() -> None:
    """And how long it lasts; health lists it."""
    quarantine = Quarantine(60.0)
    for _ in range(2):
        quarantine.blame([call("mock:read")], "segfault", monotonic())

    error = quarantine.examine(call("mock:read"))

    assert error is not None
    assert (error.details["cause"], error.details["deaths"]) == ("segfault", 2)
    assert [(each["command"], each["deaths"]) for each in quarantine.describe()] == [("mock:read", 2)]


def test_a_death_is_forgotten_after_a_while() -> None:
    """Two deaths that lie far apart are two accidents."""
    quarantine = Quarantine(60.0)
    for now in (monotonic() - 120.0, monotonic()):
        quarantine.blame([call("mock:read")], "killed", now)

    assert quarantine.examine(call("mock:read")) is None

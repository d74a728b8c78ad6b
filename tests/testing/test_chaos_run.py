"""Whole runs: the report accounts for every call and every fault, and knows which promises were broken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.testing.chaos import Chaos, ChaosError, ChaosReport, Injection, Tally, load_scenario

UNBROKEN = {"initial_backoff": 0.0, "max_backoff": 0.2, "max_crashes": 10_000}
ECHO = {"name": "echo", "command": "mock:echo", "args": {"n": "$n"}, "expect": "$args", "retriable": True}


def scenario(**changes: Any) -> dict[str, Any]:
    """One second of load with two kills."""
    kill = {"fault": "kill", "at": [0.2, 0.6]}
    return {"bridge": "mock", "duration": 1, "rate": 100, "calls": [ECHO], "faults": [kill], **changes}


def host_of(pool_size: int) -> MLBridge:
    """A host that never gives up."""
    graces = {"cancel_grace": 0.1, "term_grace": 0.1}
    return MLBridge({"bridges": {"mock": {"pool_size": pool_size, "restart": UNBROKEN, **graces}}})


@pytest.fixture
def ml() -> Iterator[MLBridge]:
    """A host of two workers."""
    with host_of(2) as host:
        yield host


def test_a_run_loses_nothing_and_says_so(ml: MLBridge) -> None:
    """Calls, wire faults and kills together; each fault with its time to recover."""
    cut = {"fault": "cut", "at": [0.4]}
    told: list[str] = []
    with Chaos(ml, seed=3) as chaos:
        report = chaos.run(scenario(faults=[*scenario()["faults"], cut]), told=told.append)

    assert report.total.sent == 100
    assert report.broken == [], report.render()
    assert [injection.fault for injection in report.injections] == ["kill", "cut", "kill"]
    assert all(injection.recovered_in is not None for injection in report.injections)
    assert len(told) == 6
    text = report.render()
    assert "seed 3" in text
    assert "promises kept" in text
    assert report.describe()["passed"] is True


def test_the_host_goes_on_after_a_run(ml: MLBridge) -> None:
    """A second run on the same host is as good as the first."""
    for seed in (1, 2):
        with Chaos(ml, seed=seed) as chaos:
            assert chaos.run(scenario(duration=0.5, faults=[{"fault": "kill", "at": [0.1]}])).broken == []
    assert ml.call("mock", "mock:echo", {"n": 1}) == {"n": 1}


def test_codes_that_nobody_agreed_to_break_a_promise() -> None:
    """The report names them, with an example."""
    stop = {"fault": "stop", "seconds": 30, "at": [0.2]}
    calls = [ECHO | {"timeout": 0.05}]
    # One worker: of two, the one that gets no call might be stopped, and nobody would notice for 30 s.
    with host_of(1) as ml, Chaos(ml) as chaos:
        report = chaos.run(scenario(calls=calls, faults=[stop], promises={"codes": []}))

    assert any("failed with timeout, which is not one of the codes" in text for text in report.broken), report.render()


def test_a_scenario_whose_answers_are_wrong_from_the_start_is_refused(ml: MLBridge) -> None:
    """A mistake in the scenario is told before a fault could be blamed for it."""
    with Chaos(ml) as chaos, pytest.raises(ChaosError, match="before any fault; the scenario expects"):
        chaos.run(scenario(calls=[ECHO | {"expect": {"n": "other"}}]))


def test_every_broken_promise_is_in_the_report() -> None:
    """Lost, wrong, untyped, too few, not recovered, not injected, leaked."""
    total = Tally(sent=10, answered=4, wrong=1, untyped=1, lost=2)
    total.failed["timeout"] = 2
    loaded = load_scenario(scenario(promises={"success": 0.99, "recovery": 1}))
    slow = Injection("kill", "mock", {"worker": "mock-1"}, recovered_in=2.0)
    report = ChaosReport(loaded, [], total, {"echo": total}, total, [slow], ["flood: no worker"], 0.0, ["1 processes"])

    assert report.broken == [
        "2 calls were lost",
        "1 calls were answered wrongly",
        "1 calls were ended by an untyped error",
        "40.00% of the calls that may be repeated succeeded; promised: 99.00%",
        "kill of mock-1: not well again within 1 s",
        "a fault could not be injected: flood: no worker",
        "leaked: 1 processes",
    ]
    assert "PROMISES BROKEN" in report.render()

"""The breaker: when a worker may be started again."""

from __future__ import annotations

from manybridge.errors import WorkerCrashedError, WorkerStartError
from manybridge.host.breaker import Breaker, BreakerState
from manybridge.host.config import RestartConfig

CRASH = WorkerCrashedError("died", details={"signal": "SIGKILL"})
MISSING = WorkerStartError("dspy is not installed; run: uv pip install dspy", code="missing_package")


def breaker(**policy: float) -> Breaker:
    """Return one with a policy that is easy to count with."""
    values = {"initial_backoff": 1.0, "max_backoff": 4.0, "max_crashes": 5, "window": 60.0, **policy}
    return Breaker(RestartConfig(**values))  # type: ignore[arg-type]  # max_crashes is a whole number here


def test_the_first_replacement_starts_at_once() -> None:
    """One crash costs no wait."""
    tested = breaker()
    tested.crashed(100.0, CRASH)

    assert tested.wait(100.0) == 0.0


def test_the_wait_doubles_with_every_crash_up_to_the_limit() -> None:
    """1, 2, 4, 4 seconds."""
    tested = breaker(max_crashes=9)
    waits = []
    for now in (100.0, 101.0, 102.0, 103.0, 104.0):
        tested.crashed(now, CRASH)
        waits.append(tested.wait(now))

    assert waits == [0.0, 1.0, 2.0, 4.0, 4.0]


def test_no_number_of_crashes_is_too_large_to_count_with() -> None:
    """A bridge that can't start for a night is started again when its cause is gone."""
    crashing = breaker(max_crashes=10_000)
    for _ in range(2_000):
        crashing.crashed(100.0, CRASH)
    assert crashing.wait(100.0) == 4.0

    failing = breaker()
    for night in range(2_000):
        now = 100.0 * night
        assert failing.state is BreakerState.CLOSED or failing.probe(now)
        failing.crashed(now, MISSING)
    assert failing.remaining(now) == 4.0


def test_a_worker_that_had_served_is_replaced_at_once() -> None:
    """Starting works; many such crashes open the breaker all the same."""
    tested = breaker(max_crashes=3)
    for now in (100.0, 101.0):
        tested.crashed(now, CRASH, served=True)
        assert tested.wait(now) == 0.0
    tested.crashed(102.0, CRASH, served=True)

    assert tested.state is BreakerState.OPEN


def test_crashes_that_are_older_than_the_window_are_forgotten() -> None:
    """After a quiet window the next crash is the first one again."""
    tested = breaker()
    for now in (0.0, 1.0, 2.0):
        tested.crashed(now, CRASH)
    tested.crashed(70.0, CRASH)

    assert tested.wait(70.0) == 0.0


def test_too_many_crashes_within_the_window_open_it() -> None:
    """Calls are refused with circuit_open and the cause of the last crash."""
    tested = breaker(max_crashes=2)
    tested.crashed(0.0, CRASH)
    tested.crashed(1.0, CRASH)
    error = tested.refusal(1.0, "mine")

    assert (tested.state, tested.wait(1.0)) == (BreakerState.OPEN, None)
    assert (error.code, error.retryable, error.details["retry_after"]) == ("circuit_open", True, 60.0)
    assert error.details["last_failure"]["details"] == {"signal": "SIGKILL"}


def test_one_start_is_tried_when_the_wait_is_over() -> None:
    """Half open: the first who asks may try, nobody else."""
    tested = breaker(max_crashes=1)
    tested.crashed(0.0, CRASH)

    assert [tested.probe(59.0), tested.probe(60.0), tested.probe(60.0)] == [False, True, False]
    assert tested.state is BreakerState.HALF_OPEN


def test_a_worker_that_becomes_ready_closes_it() -> None:
    """And the crashes before are forgotten."""
    tested = breaker(max_crashes=1)
    tested.crashed(0.0, CRASH)
    tested.probe(60.0)
    tested.ready()

    assert (tested.state, tested.wait(60.0), tested.cause) == (BreakerState.CLOSED, 0.0, None)


def test_a_failed_try_opens_it_again() -> None:
    """Half open and one more crash: another window."""
    tested = breaker(max_crashes=1)
    tested.crashed(0.0, CRASH)
    tested.probe(60.0)
    tested.crashed(60.0, CRASH)

    assert (tested.state, tested.remaining(60.0)) == (BreakerState.OPEN, 60.0)


def test_a_lasting_reason_is_given_to_callers_as_it_is() -> None:
    """A missing package is not "circuit open": the caller gets the command that installs it."""
    tested = breaker()
    tested.crashed(0.0, MISSING)
    error = tested.refusal(0.0, "mine")

    assert (error.code, error.message) == ("missing_package", MISSING.message)
    assert error is not MISSING


def test_a_lasting_reason_is_tried_again_after_ever_longer_waits() -> None:
    """0.5, 1, 2, 4, 4 seconds: somebody may install the package meanwhile."""
    tested = breaker()
    waits, now = [], 0.0
    for _ in range(5):
        tested.crashed(now, MISSING)
        waits.append(tested.remaining(now))
        now += waits[-1]
        assert tested.probe(now)

    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0]


def test_workers_that_fail_together_count_once_while_it_is_open() -> None:
    """A pool of eight that lacks a package does not wait 2**8 times as long."""
    tested = breaker()
    for _ in range(8):
        tested.crashed(0.0, MISSING)

    assert tested.remaining(0.0) == 0.5

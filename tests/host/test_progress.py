"""Rate and time left, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.host.progress import JobProgress, ProgressMeter


def reported(*reports: tuple[float, float, float | None]) -> ProgressMeter:
    """Return a meter that got reports of (time, current, total)."""
    meter = ProgressMeter()
    for now, current, total in reports:
        meter.report({"current": current, "total": total, "message": "m"}, now)
    return meter


def measured(meter: ProgressMeter, now: float) -> JobProgress:
    """Return what a meter says."""
    found = meter.measure(now)
    assert found is not None
    return found


def test_there_is_no_progress_before_the_first_report() -> None:
    """And no rate before the second."""
    assert ProgressMeter().measure(0.0) is None
    assert measured(reported((0, 1, 10)), 0).rate is None


def test_rate_and_time_left_follow_from_reports() -> None:
    """Ten steps in ten seconds, ten steps left."""
    found = measured(reported(*((float(n), n, 20) for n in range(11))), 10)

    assert found == JobProgress(10, 20, "m", 1.0, 10.0)


def test_time_left_goes_down_between_reports() -> None:
    """By the clock, but never below zero."""
    meter = reported((0, 0, 20), (10, 10, 20))

    assert measured(meter, 14).time_left == pytest.approx(6)
    assert measured(meter, 10_000).time_left is not None
    assert measured(meter, 10_000).time_left >= 0  # type: ignore[operator]  # not None, as the line before says


def test_the_rate_is_of_late_and_not_since_the_beginning() -> None:
    """A job that becomes ten times slower shows it within the window."""
    fast = [(n / 10, float(n), 10_000.0) for n in range(1000)]
    slow = [(100 + n, 1000.0 + n, 10_000.0) for n in range(20)]

    assert measured(reported(*fast), 99.9).rate == pytest.approx(10, rel=0.05)
    assert measured(reported(*fast, *slow), 119).rate == pytest.approx(1, rel=0.15)


def test_a_job_that_says_nothing_becomes_slower() -> None:
    """Nobody believes the old rate for ever."""
    meter = reported(*((float(n), n, 100) for n in range(11)))

    assert measured(meter, 11).rate == pytest.approx(1)
    assert measured(meter, 111).rate == pytest.approx(10 / 110, rel=0.05)


def test_slow_jobs_have_a_rate_too() -> None:
    """Their reports are further apart than the window is long."""
    assert measured(reported(*((60.0 * n, n, 10) for n in range(4))), 180).rate == pytest.approx(1 / 60)


def test_a_step_back_begins_a_new_rate() -> None:
    """As the next epoch does: no negative rate, no negative time."""
    found = measured(reported((0, 0, 100), (10, 100, 100), (11, 1, 100)), 11)

    assert (found.current, found.rate, found.time_left) == (1, None, None)


def test_another_total_keeps_the_rate() -> None:
    """More work was found."""
    found = measured(reported((0, 0, 10), (5, 5, 10), (10, 10, 40)), 10)

    assert (found.rate, found.time_left) == (1.0, 30.0)


def test_a_total_that_was_passed_is_not_known() -> None:
    """No bar shows 120 %."""
    found = measured(reported((0, 0, 10), (10, 12, 10)), 10)

    assert (found.total, found.time_left) == (None, None)


def test_reports_of_one_moment_have_no_rate() -> None:
    """Ten of them in one read of the pipe are no million steps a second."""
    assert measured(reported(*((1.0 + n * 1e-6, n, 100) for n in range(10))), 1.0).rate is None


def test_the_end_has_no_time_left() -> None:
    """Whatever the rate."""
    assert measured(reported((0, 7, 7)), 0).time_left == 0.0


@pytest.mark.parametrize("data", [None, [], {}, {"current": "3"}, {"current": None}, {"current": float("nan")}, 5])
def test_a_report_without_a_number_is_ignored(data: object) -> None:
    """What a worker of another make may send."""
    meter = ProgressMeter()
    meter.report(data, 0.0)

    assert meter.measure(0.0) is None


@given(
    st.lists(
        st.tuples(
            st.floats(0, 1e6),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
            st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        ),
        min_size=1,
    ),
    st.floats(0, 1e6),
)
def test_nothing_absurd_is_ever_said(reports: list[tuple[float, float, float | None]], later: float) -> None:
    """Rate and time left are absent, or finite and not negative."""
    now, meter = 0.0, ProgressMeter()
    for step, current, total in reports:
        now += step
        meter.report({"current": current, "total": total}, now)
    found = measured(meter, now + later)

    assert found.rate is None or 0 < found.rate < float("inf")
    assert found.time_left is None or 0 <= found.time_left < float("inf")
    assert found.total is None or found.current <= found.total


def test_what_was_stored_comes_back() -> None:
    """Also from a record of another release."""
    progress = JobProgress(1, 2, "m", 0.5, 2.0)

    assert JobProgress.from_object(progress.to_object()) == progress
    assert JobProgress.from_object({"current": "x", "more": 1}) == JobProgress(0, None, "", None, None)

"""The deadline wheel."""

from __future__ import annotations

from math import inf
from time import monotonic

from manybridge.host.calls import Call, loop_future
from manybridge.host.deadlines import DeadlineWheel
from tests.support import MS, aeventually


def call() -> Call:
    """Return some call."""
    return Call("fake:echo", {}, loop_future())


async def test_a_call_is_told_of_its_deadline_once_and_not_before() -> None:
    """Within the width of a bucket after it."""
    expired: list[tuple[Call, float]] = []
    wheel = DeadlineWheel(lambda each: expired.append((each, monotonic())))
    late, early = call(), call()
    deadline = monotonic() + 30 * MS
    wheel.add(late, deadline + 40 * MS)
    wheel.add(early, deadline)

    await aeventually(lambda: len(expired) == 2)
    assert [each for each, _ in expired] == [early, late]
    assert expired[0][1] >= deadline
    wheel.close()


async def test_a_call_that_was_discarded_is_not_told() -> None:
    """Nearly every call ends before its deadline."""
    expired: list[Call] = []
    wheel = DeadlineWheel(expired.append)
    ended, other = call(), call()
    wheel.add(ended, monotonic() + 20 * MS)
    wheel.add(other, monotonic() + 40 * MS)
    wheel.discard(ended)

    await aeventually(lambda: expired)
    assert expired == [other]
    wheel.close()


async def test_no_deadline_is_never() -> None:
    """It is not kept at all."""
    wheel = DeadlineWheel(lambda _: None)
    unlimited = call()
    wheel.add(unlimited, inf)

    assert unlimited.bucket is None
    wheel.discard(unlimited)
    wheel.close()


async def test_buckets_of_ended_calls_are_dropped() -> None:
    """Thousands of calls with a far deadline leave nothing behind once the wheel has turned."""
    expired: list[Call] = []
    wheel = DeadlineWheel(expired.append)
    wheel.add(call(), monotonic() + 10 * MS)
    for number in range(100):
        ended = call()
        wheel.add(ended, monotonic() + 1 + number)
        wheel.discard(ended)

    await aeventually(lambda: expired)
    assert wheel._buckets == {}
    wheel.close()

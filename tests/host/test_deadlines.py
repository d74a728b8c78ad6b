"""The watch over deadlines."""

from __future__ import annotations

from math import inf
from time import monotonic

from manybridge.host.calls import SENT, Call, loop_future
from manybridge.host.deadlines import DeadlineWatch
from tests.support import MS, aeventually


def call(timeout: float = inf) -> Call:
    """Return some call that a worker has."""
    made = Call("fake:echo", {}, loop_future(), timeout)
    made.stage = SENT
    return made


class Calls:
    """Open calls, and those that were told of their deadline."""

    def __init__(self) -> None:
        self.open: list[Call] = []
        self.told: list[tuple[Call, float]] = []
        self.watch = DeadlineWatch(lambda: self.open, self._expired)

    def add(self, call: Call) -> Call:
        """Open a call."""
        self.open.append(call)
        self.watch.announce(call.due)
        return call

    def _expired(self, call: Call) -> None:
        self.told.append((call, monotonic()))
        self.open.remove(call)


async def test_a_call_is_told_of_its_deadline_once_and_not_before() -> None:
    """Whatever the order in which calls came."""
    calls = Calls()
    late, early = calls.add(call(70 * MS)), calls.add(call(30 * MS))

    await aeventually(lambda: len(calls.told) == 2)
    assert [each for each, _ in calls.told] == [early, late]
    assert all(moment >= each.deadline for each, moment in calls.told)
    calls.watch.close()


async def test_a_call_that_ended_is_not_told() -> None:
    """Nearly every call ends before its deadline, and nobody has to say so."""
    calls = Calls()
    ended, other = calls.add(call(20 * MS)), calls.add(call(40 * MS))
    calls.open.remove(ended)

    await aeventually(lambda: calls.told)
    assert [each for each, _ in calls.told] == [other]
    calls.watch.close()


async def test_a_call_that_is_being_stopped_is_not_told_again() -> None:
    """The ladder has it already."""
    calls = Calls()
    calls.add(call(20 * MS)).stop_reason = "cancelled"
    other = calls.add(call(40 * MS))

    await aeventually(lambda: calls.told)
    assert [each for each, _ in calls.told] == [other]
    calls.watch.close()


async def test_no_deadline_is_never() -> None:
    """No timer is set for it."""
    calls = Calls()
    calls.add(call())

    assert calls.watch.next == inf
    calls.watch.close()


async def test_a_waiting_call_is_told_when_it_has_waited_too_long() -> None:
    """Its place in the queue may expire before its deadline does."""
    calls = Calls()
    waiting = Call("fake:echo", {}, loop_future(), 10.0)
    waiting.queue_expires = monotonic() + 20 * MS
    calls.add(waiting)

    await aeventually(lambda: calls.told)
    assert calls.told[0][1] < waiting.deadline
    calls.watch.close()


async def test_a_closed_watch_tells_nobody() -> None:
    """Not even of calls that come later."""
    calls = Calls()
    calls.add(call(10 * MS))
    calls.watch.close()
    calls.add(call(10 * MS))

    assert calls.watch.next == -inf

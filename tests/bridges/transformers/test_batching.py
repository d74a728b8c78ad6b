"""Batching without a framework: which items run together, when, and what becomes of those that fail or leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from manybridge.bridges.transformers.batching import MEMORY_SECONDS, Batcher, Gatherer, Item, Submission, run
from tests.support import DEFAULT_TIMEOUT, MS, eventually

WAIT = 0.005


@dataclass(frozen=True)
class Doubling:
    """Doubles numbers; equal ones share a run."""

    name: str = "double"
    most: int | None = None
    sizes: list[int] = field(default_factory=list, compare=False)
    before: Callable[[], object] | None = field(default=None, compare=False)

    def limit(self, max_batch: int) -> int:
        """Return the limit of this operation."""
        return self.most or max_batch

    def run(self, items: Sequence[Item]) -> Sequence[Any]:
        """Double, refuse negative numbers alone, and fail as a whole over a 13."""
        if self.before is not None:
            self.before()
        self.sizes.append(len(items))
        if any(item.payload == 13 for item in items):
            raise ArithmeticError("13")
        return [ValueError(item.payload) if item.payload < 0 else item.payload * 2 for item in items]


DOUBLE = Doubling()


def call(*numbers: int, operation: Doubling = DOUBLE) -> Submission:
    """Make a submission of numbers."""
    return Submission(operation, numbers)


def taken(gatherer: Gatherer, now: float) -> list[int]:
    """Return the numbers of the batch that is due now."""
    found = gatherer.next(now)
    assert isinstance(found, list), found
    return [item.payload for item in found]


# ---------------------------------------------------------------- which items, and when


def test_an_empty_queue_has_no_batch() -> None:
    """None: there is nothing to wait for either."""
    assert Gatherer(4, WAIT).next(0.0) is None


def test_a_lone_caller_does_not_wait() -> None:
    """Neither the first nor any later time."""
    gatherer = Gatherer(4, WAIT)
    for now in (0.0, 0.1, 0.2):
        gatherer.add(call(1).items, now)
        assert taken(gatherer, now) == [1]
        gatherer.finished(now + 0.01)


def test_what_came_while_the_model_ran_runs_together() -> None:
    """Up to the limit; the rest is next."""
    gatherer = Gatherer(3, WAIT)
    for number in range(4):
        gatherer.add(call(number).items, 0.0)
    assert taken(gatherer, 0.0) == [0, 1, 2]
    gatherer.finished(0.1)
    assert taken(gatherer, 0.1) == [3]


def test_callers_who_were_there_are_waited_for_but_not_longer_than_the_bound() -> None:
    """Two were in the last run; one is back, so the other may come."""
    gatherer = Gatherer(8, WAIT)
    for number in range(2):
        gatherer.add(call(number).items, 0.0)
    assert taken(gatherer, 0.0) == [0, 1]
    gatherer.finished(0.010)
    gatherer.add(call(2).items, 0.011)
    assert gatherer.next(0.012) == pytest.approx(WAIT - 0.001)
    gatherer.add(call(3).items, 0.013)
    assert taken(gatherer, 0.013) == [2, 3]
    gatherer.finished(0.020)
    gatherer.add(call(4).items, 0.021)
    assert isinstance(gatherer.next(0.022), float)
    assert taken(gatherer, 0.021 + WAIT) == [4]


def test_callers_who_do_not_come_back_are_forgotten() -> None:
    """After one wait in vain, and after a while without one."""
    gatherer = Gatherer(8, WAIT)
    gatherer.add([*call(1).items, *call(2).items], 0.0)
    gatherer.next(0.0)
    gatherer.finished(0.0)
    gatherer.add(call(3).items, MEMORY_SECONDS)
    assert taken(gatherer, MEMORY_SECONDS) == [3]


def test_items_of_one_call_are_one_caller() -> None:
    """A list of texts does not make a later lone caller wait."""
    gatherer = Gatherer(8, WAIT)
    gatherer.add(call(1, 2, 3).items, 0.0)
    assert taken(gatherer, 0.0) == [1, 2, 3]
    gatherer.finished(0.001)
    gatherer.add(call(4).items, 0.002)
    assert taken(gatherer, 0.002) == [4]


def test_only_equal_operations_share_a_run_and_the_oldest_goes_first() -> None:
    """So nobody starves, and nobody waits for callers of something else."""
    gatherer = Gatherer(8, WAIT)
    other = Doubling("other")
    gatherer.add(call(1).items, 0.0)
    gatherer.add(call(2, operation=other).items, 0.0)
    gatherer.add(call(3).items, 0.0)
    assert taken(gatherer, 0.0) == [1, 3]
    gatherer.finished(0.001)
    assert taken(gatherer, 0.001) == [2]
    gatherer.finished(0.002)
    gatherer.add(call(4, operation=other).items, 0.003)
    assert taken(gatherer, 0.003) == [4]


def test_an_operation_may_take_fewer_items_than_the_model() -> None:
    """A pipeline takes one prompt at a time."""
    gatherer = Gatherer(8, WAIT)
    gatherer.add(call(1, 2, operation=Doubling(most=1)).items, 0.0)
    assert taken(gatherer, 0.0) == [1]


def test_items_of_callers_who_left_are_dropped() -> None:
    """They are handed out once, to be finished."""
    gatherer = Gatherer(8, WAIT)
    leaving, staying = call(1), call(2)
    gatherer.add([*leaving.items, *staying.items], 0.0)
    leaving.cancel()
    assert [item.payload for item in gatherer.drop_cancelled()] == [1]
    assert gatherer.drop_cancelled() == []
    assert taken(gatherer, 0.0) == [2]


# ---------------------------------------------------------------- what becomes of them


def test_an_item_that_is_refused_fails_alone() -> None:
    """The operation answers for each."""
    submission = call(1, -1, 3)
    run(submission.items)
    assert [submission.outcomes[0], submission.outcomes[2]] == [2, 6]
    assert isinstance(submission.outcomes[1], ValueError)


def test_a_run_that_fails_is_repeated_in_halves() -> None:
    """Until the one that can't be run is alone."""
    operation = Doubling("halves")
    submission = call(*range(10, 18), operation=operation)
    run(submission.items)
    assert submission.outcomes[:3] == [20, 22, 24]
    assert isinstance(submission.outcomes[3], ArithmeticError)
    assert submission.outcomes[4:] == [28, 30, 32, 34]
    assert operation.sizes[:3] == [8, 4, 2]


def test_an_item_whose_answer_was_seen_in_part_is_not_run_again() -> None:
    """Its caller would get the same tokens twice."""
    submission = call(1, 13)
    submission.items[0].is_visible = True
    run(submission.items)
    assert all(isinstance(outcome, ArithmeticError) for outcome in submission.outcomes)


def test_the_first_outcome_of_an_item_counts() -> None:
    """An operation may answer a row early, and return something for it at the end."""
    submission = call(1)
    submission.items[0].finish("early")
    run(submission.items)
    assert submission.outcomes == ["early"]


def test_progress_counts_items() -> None:
    """With the total."""
    seen: list[tuple[int, int]] = []
    submission = Submission(DOUBLE, [1, 2, 3], lambda done, total: seen.append((done, total)))
    run(submission.items)
    assert seen == [(1, 3), (2, 3), (3, 3)]


# ---------------------------------------------------------------- the thread


@contextmanager
def batcher(max_batch: int = 8, max_wait: float = 0.05) -> Iterator[Batcher]:
    """Give a batcher that is closed afterwards."""
    made = Batcher(Gatherer(max_batch, max_wait))
    try:
        yield made
    finally:
        made.close()


async def test_concurrent_callers_share_runs() -> None:
    """The first is alone; those who come meanwhile run together."""
    gate, begun = threading.Event(), threading.Event()

    def before() -> None:
        begun.set()
        gate.wait(DEFAULT_TIMEOUT)

    operation = Doubling("shared", before=before)
    with batcher() as model:
        first = asyncio.create_task(model.submit(call(0, operation=operation)).wait())
        await asyncio.to_thread(begun.wait, DEFAULT_TIMEOUT)
        others = [model.submit(call(number, operation=operation)) for number in range(1, 6)]
        assert model.is_busy
        gate.set()
        assert await first == [0]
        assert [await other.wait() for other in others] == [[2], [4], [6], [8], [10]]
        assert operation.sizes == [1, 5]
        assert model.stats() == {"batches": 2, "items": 6, "largest_batch": 5}


def test_a_model_is_free_when_its_last_caller_has_the_answer() -> None:
    """Whoever looks then is not told that it is in use, although the run needs a moment more to be over."""
    seen: list[bool] = []
    with batcher() as model:
        asked = call(1)
        asked.when_done(lambda: seen.append(model.is_busy))
        model.submit(asked)
        eventually(lambda: seen)
    assert seen == [False]


async def test_a_cancelled_caller_leaves_at_once_and_its_waiting_item_never_runs() -> None:
    """The others do not notice."""
    gate, begun = threading.Event(), threading.Event()

    def before() -> None:
        begun.set()
        gate.wait(DEFAULT_TIMEOUT)

    operation = Doubling("leaving", before=before)
    with batcher() as model:
        first = asyncio.create_task(model.submit(call(1, operation=operation)).wait())
        await asyncio.to_thread(begun.wait, DEFAULT_TIMEOUT)
        leaving, staying = call(2, operation=operation), call(3, operation=operation)
        gone = asyncio.create_task(model.submit(leaving).wait())
        kept = asyncio.create_task(model.submit(staying).wait())
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert not leaving.is_done
        gate.set()
        assert (await first, await kept) == ([2], [6])
        eventually(lambda: leaving.is_done)
        assert operation.sizes == [1, 1]


def test_when_done_is_told_only_when_the_thread_holds_no_item_any_more() -> None:
    """This is when a model may be unloaded, also under a caller that has left."""
    gate, begun, told = threading.Event(), threading.Event(), threading.Event()

    def before() -> None:
        begun.set()
        gate.wait(DEFAULT_TIMEOUT)

    with batcher() as model:
        submission = model.submit(call(1, operation=Doubling("held", before=before)))
        submission.when_done(told.set)
        assert begun.wait(DEFAULT_TIMEOUT)
        submission.cancel()
        assert not told.wait(20 * MS)
        gate.set()
        assert told.wait(DEFAULT_TIMEOUT)
        assert submission.outcomes != [None]
        late = threading.Event()
        submission.when_done(late.set)
        assert late.is_set()


def test_closing_tells_what_runs_and_fails_what_waits() -> None:
    """So that a worker ends in the middle of a long text."""
    begun, told = threading.Event(), threading.Event()

    @dataclass(frozen=True)
    class Long(Doubling):
        def run(self, items: Sequence[Item]) -> Sequence[Any]:
            begun.set()
            eventually(lambda: items[0].cancelled)
            told.set()
            return ["stopped"]

    with batcher() as model:
        running = model.submit(call(1, operation=Long("long")))
        assert begun.wait(DEFAULT_TIMEOUT)
        waiting = model.submit(call(2))
    assert told.is_set()
    assert running.outcomes == ["stopped"]
    assert isinstance(waiting.outcomes[0], RuntimeError)


def test_a_closed_batcher_takes_nothing_and_leaves_no_thread() -> None:
    """The fixture of all tests looks for the thread."""
    with batcher() as model:
        done = threading.Event()
        model.submit(call(1)).when_done(done.set)
        assert done.wait(DEFAULT_TIMEOUT)
    with pytest.raises(RuntimeError, match="unloaded"):
        model.submit(call(2))

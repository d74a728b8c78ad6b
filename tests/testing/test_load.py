"""A load counts every call once, whatever becomes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manybridge.errors import CallError, WorkerCrashedError
from manybridge.testing.chaos import ANYTHING, Load, Tally, Work, call_work, job_work, resource_work, stream_work
from manybridge.testing.chaos.works import Expectation, fill
from manybridge.testing.memory import AsyncInMemoryMLBridge


def load_of(perform: Any, **options: Any) -> Load:
    """A load of one kind of call that needs no host."""
    work = Work("it", perform, codes=options.pop("codes", None))
    return Load(None, [work], rate=200, patience=options.pop("patience", 5.0), **options)  # type: ignore[arg-type]


async def test_each_call_ends_in_one_place_of_the_account() -> None:
    """Answered, wrong, failed, untyped: they add up to what was sent."""

    async def perform(_: Any, number: int) -> Expectation:
        if number % 4 == 1:
            return Expectation("another's", number)
        if number % 4 == 2:
            raise WorkerCrashedError("it died")
        if number % 4 == 3:
            raise ZeroDivisionError("no error of ours")
        return Expectation(number, number)

    tally = await load_of(perform).run(0.2)

    assert tally.sent == 40
    assert (tally.answered, tally.wrong, tally.untyped, tally.lost) == (10, 10, 10, 0)
    assert tally.failed == {"worker_crashed": 10}
    assert tally.open == 0


async def test_a_call_that_never_ends_is_lost() -> None:
    """It is told which one, and its task is ended."""

    async def perform(_: Any, number: int) -> Expectation:
        if number == 2:
            await asyncio.Event().wait()
        return Expectation(0, 0)

    before = asyncio.all_tasks()
    tally = await load_of(perform, patience=0.05).run(0.05)

    assert (tally.sent, tally.answered, tally.lost, tally.untyped) == (10, 9, 1, 0)
    assert [sample.number for sample in tally.samples] == [2]
    assert asyncio.all_tasks() == before


async def test_a_code_that_nobody_agreed_to_is_unexpected() -> None:
    """It counts as failed, and apart."""

    async def perform(_: Any, number: int) -> Expectation:
        raise (WorkerCrashedError("it died") if number % 2 else CallError("it raised"))

    tally = await load_of(perform, codes=frozenset({"worker_crashed"})).run(0.02)

    assert tally.failed == {"handler_error": 2, "worker_crashed": 2}
    assert tally.unexpected == {"handler_error": 2}


async def test_an_error_without_a_code_of_the_taxonomy_is_untyped() -> None:
    """So is `internal_error`: a bug."""

    async def perform(_: Any, number: int) -> Expectation:
        raise CallError("what?", code="internal_error" if number else "sunspots")

    assert (await load_of(perform).run(0.01)).untyped == 2


async def test_the_same_seed_sends_the_same_calls() -> None:
    """Which kind of call is the n-th is drawn from the seed."""

    async def order(seed: int) -> list[tuple[str, int]]:
        sent: list[tuple[str, int]] = []

        def work(name: str) -> Work:
            async def perform(_: Any, number: int) -> Expectation:
                sent.append((name, number))
                return Expectation(0, 0)

            return Work(name, perform)

        await Load(None, [work("a"), work("b")], rate=1000, seed=seed).run(0.05)  # type: ignore[arg-type]
        return sent

    assert await order(3) == await order(3) != await order(4)


async def test_every_kind_of_work_knows_its_right_answer() -> None:
    """Calls, streams, resources and jobs, with the call's number in them."""
    works = [
        call_work("mock:echo", {"n": "$n", "text": "call $n"}, expect="$args", bridge="mock"),
        stream_work("mock:count", {"n": 3}, chunks=[0, 1, 2], expect={"count": 3}, bridge="mock"),
        resource_work("echo", {"n": "$n"}, {"m": 1}, expect={"config": {"n": "$n"}, "inputs": {"m": 1}}, bridge="mock"),
        job_work("mock:echo", {"n": "$n"}, expect={"n": "$n"}, bridge="mock"),
    ]
    async with AsyncInMemoryMLBridge({"mock": {}}) as ml:
        for number, work in enumerate(works):
            assert (await work.perform(ml, number)).is_right, work.name
        wrong = call_work("mock:echo", {"n": "$n"}, expect={"n": 5}, bridge="mock")
        assert not (await wrong.perform(ml, 1)).is_right


def test_templates_carry_the_number() -> None:
    """As a number where it stands alone, as digits inside a text."""
    template = {"n": "$n", "list": ["a$n", 1], "deep": {"x": None}}

    assert fill(template, 7) == {"n": 7, "list": ["a7", 1], "deep": {"x": None}}


def test_anything_fits_wherever_it_stands() -> None:
    """For answers of which only a part is known."""
    assert Expectation({"text": "x", "pid": 4711}, {"text": "x", "pid": ANYTHING}).is_right
    assert not Expectation({"text": "y", "pid": 4711}, {"text": "x", "pid": ANYTHING}).is_right


def test_tallies_add_up() -> None:
    """The sum of all kinds is the whole."""
    one, two = Tally(sent=2, answered=1), Tally(sent=1)
    one.failed["timeout"] += 1
    two.failed["timeout"] += 1
    one.add(two)

    assert (one.sent, one.failed, one.open) == (3, {"timeout": 2}, 0)
    assert one.describe()["failed"] == {"timeout": 2}


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"works": []}])
def test_a_load_that_makes_no_sense_says_so(wrong: dict[str, Any]) -> None:
    """At once, and not as an endless loop."""
    given: dict[str, Any] = {"works": [call_work("mock:echo")], "rate": 1.0, **wrong}
    with pytest.raises(ValueError, match="a load"):
        Load(None, given["works"], rate=given["rate"])  # type: ignore[arg-type]

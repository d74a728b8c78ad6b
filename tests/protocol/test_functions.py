"""Functions of somebody else, called from an event loop: none can end it, be lost in it, or take it from the others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from manybridge.protocol.functions import FunctionEndedError, FunctionThreads, NoThreadError


async def twice(number: int) -> int:
    """Return twice the number."""
    return 2 * number


@pytest.mark.parametrize(
    "function", [twice, lambda number: 2 * number, partial(lambda later, number: later(number), twice)]
)
async def test_a_coroutine_function_or_any_other_gives_its_result(function: Callable[..., Any]) -> None:
    """Also one that returns something to be awaited."""
    assert await FunctionThreads(1).call(function, {"number": 21}) == 42


async def test_what_a_function_raises_is_raised() -> None:
    """Itself, where an event loop can carry it."""
    with pytest.raises(ZeroDivisionError):
        await FunctionThreads(1).call(lambda: 1 / 0, {})


@pytest.mark.parametrize("kind", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_what_an_event_loop_can_not_carry_is_named(kind: type[BaseException]) -> None:
    """It would end the loop, be lost in a future, or look like the end of our own task."""

    def odd() -> None:
        raise kind("why")

    with pytest.raises(FunctionEndedError, match="why") as caught:
        await FunctionThreads(1).call(odd, {})
    assert caught.value.kind == kind.__name__


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError])
async def test_a_coroutine_ends_nothing_but_itself(kind: type[BaseException]) -> None:
    """Neither the loop nor the task that waits for it."""

    async def odd() -> None:
        raise kind("why")

    with pytest.raises(FunctionEndedError, match="why"):
        await FunctionThreads(1).call(odd, {})


async def test_a_caller_that_is_cancelled_leaves() -> None:
    """That cancellation is its own."""
    gate = threading.Event()
    threads = FunctionThreads(1)
    waiting = asyncio.ensure_future(threads.call(gate.wait, {}))
    await asyncio.sleep(0)
    waiting.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await waiting
    finally:
        gate.set()


async def test_there_is_an_end_to_the_threads() -> None:
    """Functions that hang at every call would fill the memory."""
    gate = threading.Event()
    threads = FunctionThreads(1)
    hanging = asyncio.ensure_future(threads.call(gate.wait, {}))
    await asyncio.sleep(0)
    try:
        with pytest.raises(NoThreadError, match="1 functions run at the same time"):
            await threads.call(gate.wait, {})
    finally:
        gate.set()
    await hanging

    assert await threads.call(partial(pow, 2, 5), {}) == 32

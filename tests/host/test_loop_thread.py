"""Whose thread acts for a blocking host: its own, or a caller's while that one stands aside."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from manybridge.host import loop_thread
from manybridge.host.calls import Call
from manybridge.host.loop_thread import Answer, LoopThread
from manybridge.host.pool import Pool
from tests.support import DEFAULT_TIMEOUT, eventually


class OnePool:
    """Stands in for a pool: notes on which thread it gets a call, and does with it what the test says."""

    def __init__(self) -> None:
        self.is_quiet = True
        self.threads: list[str] = []
        self.loops: list[asyncio.AbstractEventLoop] = []
        self.on_submit: Callable[[Call], None] = lambda call: call.succeed(call.command)

    def submit(self, call: Call) -> None:
        """Take a call."""
        self.threads.append(threading.current_thread().name)
        self.loops.append(asyncio.get_running_loop())
        self.on_submit(call)


OWN = "manybridge-host"


@pytest.fixture
def pool() -> OnePool:
    """A pool that answers at once."""
    return OnePool()


@pytest.fixture
def thread(pool: OnePool, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopThread]:
    """A thread that stands aside until somebody wants it back."""
    monkeypatch.setattr(loop_thread, "ASIDE_SECONDS", 2 * DEFAULT_TIMEOUT)
    monkeypatch.setattr(loop_thread, "BRIEF_SECONDS", 2 * DEFAULT_TIMEOUT)
    made = LoopThread(lambda: pool.is_quiet)
    yield made
    made.stop()
    assert not made._thread.is_alive()


def call(thread: LoopThread, pool: OnePool, command: str = "a:b") -> Any:
    """Make a call and wait for its answer."""
    answer = Answer()
    thread.submit(cast(Pool, pool), Call(command, {}, answer), answer)
    return answer.wait()


def stand_aside(thread: LoopThread, pool: OnePool) -> None:
    """Have the thread stand aside for a pool."""
    assert call(thread, pool, "first") == "first"
    eventually(lambda: thread._aside_for is cast(Pool, pool) and not thread._turn.locked())
    pool.threads.clear()


def test_after_a_short_call_the_next_one_is_made_on_its_callers_thread(thread: LoopThread, pool: OnePool) -> None:
    """As if it was the loop's; and the thread that makes it is as it was afterwards."""
    stand_aside(thread, pool)

    assert [call(thread, pool, each) for each in ("second", "third")] == ["second", "third"]
    assert pool.threads == [threading.current_thread().name] * 2
    assert set(pool.loops) == {thread.loop}
    assert asyncio._get_running_loop() is None


async def test_a_caller_with_a_loop_of_its_own_gets_it_back(thread: LoopThread, pool: OnePool) -> None:
    """A notebook, for example."""
    stand_aside(thread, pool)
    own = asyncio.get_running_loop()

    assert call(thread, pool) == "a:b"
    assert pool.loops[-1] is thread.loop
    assert asyncio.get_running_loop() is own


def test_an_answer_that_does_not_come_at_once_is_waited_for_by_the_thread(thread: LoopThread, pool: OnePool) -> None:
    """Its timers and sockets run again."""
    stand_aside(thread, pool)

    def later(call: Call) -> None:
        thread.loop.call_soon(call.succeed, 7)

    pool.on_submit = later

    assert call(thread, pool) == 7
    assert pool.threads == [threading.current_thread().name]


def test_whatever_is_posted_ends_it(thread: LoopThread, pool: OnePool) -> None:
    """A coroutine, and a call for another pool."""
    other = OnePool()

    async def work() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    stand_aside(thread, pool)
    assert thread.run(work()) == OWN
    stand_aside(thread, pool)
    assert call(thread, other) == "a:b"
    assert other.threads == [OWN]


def test_what_was_posted_before_is_done_first(thread: LoopThread, pool: OnePool) -> None:
    """The thread does not stand aside while something is on its way to it."""
    done = threading.Event()

    def submit(call: Call) -> None:
        thread.loop.call_soon_threadsafe(lambda: None)
        thread.post(done.set)
        call.succeed(1)

    pool.on_submit = submit
    assert call(thread, pool) == 1
    assert done.wait(DEFAULT_TIMEOUT)


def test_a_host_with_more_to_do_keeps_the_thread(thread: LoopThread, pool: OnePool) -> None:
    """Other calls' answers are to come."""
    pool.is_quiet = False
    for _ in range(3):
        call(thread, pool)
        assert thread.run(_nothing()) is None

    assert set(pool.threads) == {OWN}


def test_a_coroutine_that_is_waited_for_keeps_the_thread(thread: LoopThread, pool: OnePool) -> None:
    """It may wait for something that only the loop hears of."""
    ends: list[asyncio.Future[None]] = []

    async def work() -> None:
        ends.append(thread.loop.create_future())
        await ends[0]

    waiting = threading.Thread(target=lambda: thread.run(work()))
    waiting.start()
    eventually(lambda: ends)
    for _ in range(3):
        call(thread, pool)
        thread.run(_nothing())
    thread.loop.call_soon_threadsafe(ends[0].set_result, None)
    waiting.join(DEFAULT_TIMEOUT)

    assert (set(pool.threads), waiting.is_alive()) == ({OWN}, False)


def test_a_call_that_takes_its_time_keeps_the_thread(
    thread: LoopThread, pool: OnePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waking the thread is little beside it."""
    monkeypatch.setattr(loop_thread, "BRIEF_SECONDS", 0.0)
    for _ in range(3):
        call(thread, pool)
        thread.run(_nothing())

    assert set(pool.threads) == {OWN}


def test_the_thread_comes_back_by_itself(thread: LoopThread, pool: OnePool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its timers run, also while a caller keeps it aside: then it goes aside again."""
    monkeypatch.setattr(loop_thread, "ASIDE_SECONDS", 0.001)
    rung = threading.Event()
    thread.loop.call_soon_threadsafe(thread.loop.call_later, 0.01, rung.set)

    def went_on() -> bool:
        for _ in range(100):
            assert call(thread, pool) == "a:b"
        return rung.is_set() and set(pool.threads) == {OWN, threading.current_thread().name}

    eventually(went_on)


def test_a_loop_in_debug_mode_stays_on_its_thread(thread: LoopThread, pool: OnePool) -> None:
    """Asyncio looks there at who uses it."""
    thread.loop.set_debug(True)
    for _ in range(3):
        call(thread, pool)
        thread.run(_nothing())

    assert set(pool.threads) == {OWN}


def test_two_callers_do_not_act_at_the_same_time(thread: LoopThread, pool: OnePool) -> None:
    """The one who comes second is served by the thread, when the first has done."""
    stand_aside(thread, pool)
    inside, go_on = threading.Event(), threading.Event()
    answers: list[Any] = []

    def slowly(call: Call) -> None:
        if call.command == "slow":
            inside.set()
            assert go_on.wait(DEFAULT_TIMEOUT)
        call.succeed(call.command)

    pool.on_submit = slowly
    callers = [threading.Thread(target=lambda name=name: answers.append(call(thread, pool, name)), name=name)
               for name in ("slow", "other")]  # fmt: skip
    callers[0].start()
    assert inside.wait(DEFAULT_TIMEOUT)
    callers[1].start()
    eventually(lambda: thread._on_way)
    assert pool.threads == ["slow"]
    go_on.set()
    for caller in callers:
        caller.join(DEFAULT_TIMEOUT)

    assert (sorted(answers), pool.threads) == (["other", "slow"], ["slow", OWN])


def test_ctrl_c_waits_until_the_host_is_in_order_again(thread: LoopThread, pool: OnePool) -> None:
    """The interrupt comes after the change, and the next call finds everything as it should be."""
    stand_aside(thread, pool)
    finished: list[str] = []

    def interrupted(call: Call) -> None:
        signal.raise_signal(signal.SIGINT)
        finished.append(call.command)
        call.succeed(None)

    pool.on_submit = interrupted
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        call(thread, pool, "x")

    assert (finished, signal.getsignal(signal.SIGINT)) == (["x"], handler)
    pool.on_submit = lambda call: call.succeed(2)
    assert call(thread, pool) == 2


def test_an_ignored_ctrl_c_stays_ignored(thread: LoopThread, pool: OnePool) -> None:
    """As in a program that a shell started in the background."""

    def interrupted(call: Call) -> None:
        signal.raise_signal(signal.SIGINT)
        call.succeed(3)

    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stand_aside(thread, pool)
        pool.on_submit = interrupted
        assert call(thread, pool) == 3
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)


def test_an_error_of_ours_leaves_the_turn_free(thread: LoopThread, pool: OnePool) -> None:
    """The caller gets it, and the host goes on."""
    stand_aside(thread, pool)

    def broken(_call: Call) -> None:
        raise AssertionError("a bug")

    pool.on_submit = broken
    with pytest.raises(AssertionError, match="a bug"):
        call(thread, pool)
    pool.on_submit = lambda call: call.succeed(4)
    assert call(thread, pool) == 4
    assert thread.run(_nothing()) is None


def test_a_loop_that_has_ended_takes_nothing(pool: OnePool) -> None:
    """And says so at once."""
    made = LoopThread(lambda: True)
    made.stop()

    with pytest.raises(RuntimeError, match="closed"):
        call(made, pool)
    assert not made._on_way


async def _nothing() -> None:
    """Do nothing."""

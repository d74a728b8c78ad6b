"""The pool: queue, order, deadlines, back-pressure."""

from __future__ import annotations

import asyncio

import pytest

from manybridge.errors import CallCancelledError, CallTimeoutError, ClosedError, OverloadedError
from tests.host.conftest import HostMaker, PoolMaker
from tests.support import MS, aeventually
from tests.timing import bounded, within


async def test_calls_made_before_any_worker_is_ready_wait_for_it(fake_pool: PoolMaker) -> None:
    """Nobody has to wait for a pool before calling."""
    fake = fake_pool()

    assert await fake.call("echo", {"a": 1}) == {"a": 1}


async def test_the_worker_gets_what_remains_of_the_deadline_and_the_context(fake_pool: PoolMaker) -> None:
    """deadline_ms is time remaining, so clocks need not agree."""
    fake = fake_pool()
    call = fake.make("whole", {"x": 1}, 5.0)
    call.session_id, call.traceparent = "s-1", "00-abc-def-01"
    seen = await fake.pool.run(call)

    assert seen["command"] == "fake:whole"
    assert 0 < seen["deadline_ms"] <= 5000
    assert (seen["session_id"], seen["traceparent"]) == ("s-1", "00-abc-def-01")


async def test_waiting_calls_are_served_in_their_order(fake_pool: PoolMaker) -> None:
    """First come, first served."""
    fake = fake_pool()
    order: list[int] = []

    async def one(number: int) -> None:
        await fake.call("echo")
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(50)))
    assert order == sorted(order)


async def test_a_call_goes_to_a_worker_that_is_free(fake_pool: PoolMaker) -> None:
    """One long call does not hold up the others."""
    fake = fake_pool(pool_size=2)
    await fake.pool.wait_ready(5)
    long = asyncio.ensure_future(fake.call("sleep", {"seconds": 0.4}))
    await asyncio.sleep(0)

    for number in range(10):
        await fake.call("echo", {"n": number})
    assert not long.done()
    await long


async def test_a_full_queue_refuses_with_a_hint(fake_pool: PoolMaker) -> None:
    """`overloaded` at once, with seconds after which a retry makes sense."""
    fake = fake_pool(max_queue=2)
    await fake.call("echo")
    running = asyncio.ensure_future(fake.call("sleep", {"seconds": 0.3}))
    await aeventually(lambda: fake.pool.running)
    fake.pool.ready[0].capacity = 1
    waiting = [asyncio.ensure_future(fake.call("echo")) for _ in range(2)]
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError) as caught:
        await fake.call("echo")

    assert (caught.value.code, caught.value.retryable) == ("overloaded", True)
    assert caught.value.details["retry_after"] > 0
    await asyncio.gather(running, *waiting)


async def test_a_call_that_waits_too_long_is_refused(fake_pool: PoolMaker) -> None:
    """queue_timeout bounds the wait, whatever the call's own timeout is."""
    fake = fake_pool(queue_timeout=50 * MS)
    await fake.pool.wait_ready(5)
    running = asyncio.ensure_future(fake.call("sleep", {"seconds": 0.4}))
    await aeventually(lambda: fake.pool.running)
    fake.pool.ready[0].capacity = 1

    with pytest.raises(OverloadedError, match="no worker was free within"):
        await fake.call("echo", timeout=10)
    await running


async def test_a_deadline_that_passes_in_the_queue_touches_no_worker(fake_pool: PoolMaker) -> None:
    """stopped_by says `queue`."""
    fake = fake_pool()
    await fake.call("echo")
    running = asyncio.ensure_future(fake.call("sleep", {"seconds": 0.4}))
    await aeventually(lambda: fake.pool.running)
    fake.pool.ready[0].capacity = 1

    with pytest.raises(CallTimeoutError) as caught:
        await fake.call("echo", timeout=50 * MS)

    assert caught.value.details["stopped_by"] == "queue"
    assert fake.pool.running == 1
    await running


async def test_a_call_can_be_cancelled_in_the_queue(fake_pool: PoolMaker) -> None:
    """It leaves at once, and the next one moves up."""
    fake = fake_pool()
    await fake.call("echo")
    running = asyncio.ensure_future(fake.call("sleep", {"seconds": 0.3}))
    await aeventually(lambda: fake.pool.running)
    fake.pool.ready[0].capacity = 1
    call = fake.make("echo")
    waiting = asyncio.ensure_future(fake.pool.run(call))
    await asyncio.sleep(0)
    fake.pool.stop_call(call, "cancelled")

    with pytest.raises(CallCancelledError) as caught:
        await waiting
    assert (caught.value.details["stopped_by"], fake.pool.waiting) == ("queue", 0)
    await running


async def test_short_calls_are_sent_ahead_and_long_ones_are_not(fake_pool: PoolMaker) -> None:
    """A worker whose calls are short may have several; one slow call takes that back."""
    fake = fake_pool()
    for _ in range(30):
        await fake.call("echo")
    worker = fake.pool.ready[0]
    assert worker.capacity > 1

    await fake.call("sleep", {"seconds": 0.1})
    assert worker.capacity == 1


async def test_closing_lets_running_calls_end_and_refuses_new_ones(fake_pool: PoolMaker) -> None:
    """Within the given time."""
    fake = fake_pool()
    await fake.call("echo")
    running = asyncio.ensure_future(fake.call("sleep", {"seconds": 0.2}))
    await aeventually(lambda: fake.pool.running)
    closing = asyncio.ensure_future(fake.pool.close(5.0))
    await asyncio.sleep(0)

    with pytest.raises(ClosedError):
        await fake.call("echo")
    assert await running == {"slept": True}
    await closing
    assert fake.pool.workers == []


@bounded
async def test_closing_does_not_wait_longer_than_it_may(fake_pool: PoolMaker) -> None:
    """A call that does not end is failed, its worker killed."""
    fake = fake_pool()
    await fake.call("echo")
    stuck = asyncio.ensure_future(fake.call("ignore_term"))
    await aeventually(lambda: fake.pool.running)
    with within(3_000):
        await fake.pool.close(50 * MS)

        with pytest.raises(ClosedError):
            await stuck


async def test_a_worker_gets_a_small_environment_and_its_own_variables(
    fake_pool: PoolMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A secret of the host reaches no worker that did not declare it."""
    monkeypatch.setenv("OTHER_SECRET", "1")
    monkeypatch.setenv("MY_KEY", "2")
    fake = fake_pool(required_env=["MY_KEY"], environment={"PLAIN": "3"})
    seen = await fake.call("environment")

    assert "OTHER_SECRET" not in seen
    assert (seen["MY_KEY"], seen["PLAIN"], seen["OMP_NUM_THREADS"]) == ("2", "3", "1")
    assert seen["PATH"]


async def test_options_are_not_on_the_command_line(fake_pool: PoolMaker) -> None:
    """A command line is readable for everybody on the machine."""
    fake = fake_pool(options={"api_key": "top-secret-value"})
    arguments = await fake.call("arguments")

    assert "top-secret-value" not in " ".join(arguments)
    assert "--options-fd" in arguments


@bounded
async def test_short_calls_behind_a_long_one_move_to_a_worker_that_is_free(mock_host: HostMaker) -> None:
    """They were sent ahead because calls had been short until then."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock", 10)
    pool = ml.pool("mock")
    for _ in range(50):
        await asyncio.gather(*(ml.call("mock", "echo") for _ in range(8)))
    assert all(worker.capacity > 2 for worker in pool.ready)
    long = [asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": seconds})) for seconds in (3.0, 0.1)]
    await asyncio.sleep(0)
    with within(2_000):
        answers = await asyncio.gather(*(ml.call("mock", "echo", {"n": n}) for n in range(6)))

        assert answers == [{"n": n} for n in range(6)]
    assert not long[0].done()
    for call in long:
        call.cancel()
    await asyncio.gather(*long, return_exceptions=True)

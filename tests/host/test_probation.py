"""The half-open breaker: one worker, one call, and the others wait for what becomes of it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from manybridge.errors import ManybridgeError
from manybridge.host.breaker import BreakerState
from manybridge.host.config import update_bridge_config
from tests.host.conftest import FakePool, PoolMaker
from tests.support import MS, aeventually

POLICY = {"max_crashes": 2, "initial_backoff": 0.0, "window": 0.4}


async def opened(fake_pool: PoolMaker, pool_size: int = 1) -> FakePool:
    """Return a pool without workers, whose breaker was opened by calls that kill, and whose wait is over."""
    fake = fake_pool(restart=POLICY)
    for code in range(2):
        with pytest.raises(ManybridgeError):
            await fake.call("exit", {"code": code})
    breaker = fake.pool.supervisor.breaker
    assert breaker.state is BreakerState.OPEN
    fake.pool.supervisor.reconfigure(update_bridge_config("fake", fake.pool.config, {"pool_size": pool_size}))
    await aeventually(lambda: breaker.remaining(monotonic()) == 0)
    return fake


async def test_exactly_one_call_is_lost_to_a_bridge_that_still_crashes(fake_pool: PoolMaker) -> None:
    """Of many that come at once; the others are refused, since their workers would die of the same."""
    fake = await opened(fake_pool, pool_size=3)
    crashed = fake.pool.stats.crashed
    started = fake.pool.stats.started

    outcomes = await asyncio.gather(*(fake.call("exit", {"code": n}) for n in range(20)), return_exceptions=True)

    codes = [each.code for each in outcomes if isinstance(each, ManybridgeError)]
    assert sorted(codes) == ["circuit_open"] * 19 + ["worker_crashed"]
    assert (fake.pool.stats.crashed - crashed, fake.pool.stats.started - started) == (1, 1)
    assert fake.pool.supervisor.breaker.state is BreakerState.OPEN


async def test_the_first_answer_closes_it_and_the_pool_fills_up(fake_pool: PoolMaker) -> None:
    """Everybody who waited is served."""
    fake = await opened(fake_pool, pool_size=3)

    results = await asyncio.gather(*(fake.call("echo", {"n": n}) for n in range(20)))

    assert results == [{"n": n} for n in range(20)]
    assert fake.pool.supervisor.breaker.state is BreakerState.CLOSED
    await aeventually(lambda: len(fake.pool.ready) == 3)


async def test_a_worker_on_trial_that_nobody_calls_proves_itself_by_living(fake_pool: PoolMaker) -> None:
    """Else a pool would stay at one worker until the next call."""
    fake = await opened(fake_pool, pool_size=2)

    await fake.pool.wait_ready(10)

    assert fake.pool.supervisor.breaker.state is BreakerState.CLOSED
    assert len(fake.pool.ready) == 2


async def test_a_trial_that_was_stopped_is_followed_by_another(fake_pool: PoolMaker) -> None:
    """Its call ran into its timeout and its worker was killed: that says nothing about the bridge."""
    fake = await opened(fake_pool)
    with pytest.raises(ManybridgeError) as caught:
        await fake.call("ignore_term", timeout=300 * MS)
    assert caught.value.code == "timeout"

    assert await fake.call("echo", {"a": 1}, timeout=5) == {"a": 1}
    assert fake.pool.supervisor.breaker.state is BreakerState.CLOSED


async def test_a_bridge_that_could_not_start_is_proven_by_starting(fake_pool: PoolMaker, tmp_path: Path) -> None:
    """No call is needed: what was missing is there."""
    flag = tmp_path / "installed"
    fake = fake_pool(f"sometimes:{flag}", restart={**POLICY, "max_crashes": 1})
    with pytest.raises(ManybridgeError):
        await fake.call("echo", timeout=5)
    flag.touch()

    async def is_ready() -> bool:
        try:
            await fake.pool.wait_ready(5)
        except ManybridgeError:
            return False
        return True

    await aeventually(is_ready)
    assert fake.pool.supervisor.breaker.state is BreakerState.CLOSED

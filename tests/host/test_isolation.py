"""One bridge down: the others do not notice."""

from __future__ import annotations

import asyncio
from statistics import median
from time import perf_counter

import pytest

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from tests.host.conftest import HostMaker
from tests.support import MS


async def latencies(ml: AsyncMLBridge, calls: int) -> list[float]:
    """Call a bridge, one call after the other; seconds of each."""
    found = []
    for number in range(calls):
        began = perf_counter()
        assert await ml.call("mock", "echo", {"n": number}) == {"n": number}
        found.append(perf_counter() - began)
    return found


async def test_a_bridge_that_dies_again_and_again_leaves_the_others_alone(mock_host: HostMaker) -> None:
    """Every call of the other one is answered, and as fast as before."""
    ml = await mock_host()
    await ml.register_bridge("bad", {"bridge": "mock", "zygote": "never", "restart": {"max_crashes": 2, "window": 2.0}})
    await ml.wait_ready("mock")
    await latencies(ml, 200)
    before = median(await latencies(ml, 500))
    done = asyncio.Event()
    codes: set[str] = set()

    async def trouble() -> None:
        number = 0
        while not done.is_set():
            number += 1
            try:
                await ml.call("bad", "mock:fail", {"kind": "segfault", "message": str(number)})
            except ManybridgeError as error:
                codes.add(error.code)
                await asyncio.sleep(0)

    task = asyncio.ensure_future(trouble())
    during: list[float] = []
    try:
        while "circuit_open" not in codes or len(during) < 2_000:  # the test's time limit bounds it
            during += await latencies(ml, 100)
        health = await ml.health()
    finally:
        done.set()
        await task

    assert {"worker_crashed", "circuit_open"} <= codes
    assert (await ml.stats())["bridges"]["mock"]["failed"] == 0
    assert health["bridges"]["mock"]["state"] == "ready"
    assert health["status"] == "degraded"
    assert median(during) < 5 * before + 5 * MS
    assert max(during) < 1_000 * MS


async def test_a_bridge_that_can_not_start_leaves_the_others_alone(mock_host: HostMaker) -> None:
    """Its error is its own, and readiness says which one it is."""
    ml = await mock_host()
    await ml.register_bridge("bad", {"bridge": "mock", "options": {"setup_error": "no such model"}, "zygote": "never"})
    with pytest.raises(ManybridgeError, match="no such model"):
        await ml.wait_ready("bad")

    assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}
    health = await ml.health()
    assert (health["status"], health["live"], health["ready"]) == ("degraded", True, False)
    assert {name: each["state"] for name, each in health["bridges"].items()} == {"mock": "ready", "bad": "failed"}
    assert "no such model" in health["bridges"]["bad"]["reason"]

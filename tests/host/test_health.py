"""Health that tells the truth, and in time: deaths, hangs, starts, limits; how fast a stopped call frees its place."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from manybridge.errors import CallCancelledError, ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from tests.host.conftest import HostMaker
from tests.support import aeventually
from tests.timing import bounded, within


async def state_of(ml: AsyncMLBridge, *, probe: bool = True) -> tuple[str, str | None]:
    """State and reason of the bridge `mock`."""
    found = (await ml.health(probe=probe))["bridges"]["mock"]
    return found["state"], found["reason"]


@bounded
async def test_a_death_shows_within_a_second(mock_host: HostMaker) -> None:
    """Without asking any worker: the host knows."""
    ml = await mock_host(options={"setup_delay_ms": 300})
    await ml.wait_ready("mock")
    assert (await state_of(ml))[0] == "ready"
    with within(1_000):
        os.kill(ml.pool("mock").ready[0].process.pid, signal.SIGKILL)

        async def shows() -> bool:
            health = await ml.health(probe=False)
            return not health["ready"] and health["bridges"]["mock"]["last_failure"] is not None

        await aeventually(shows)
    await aeventually(lambda: ml.pool("mock").ready)
    found = (await ml.health())["bridges"]["mock"]
    assert (found["state"], found["last_failure"]["cause"], found["crashes"]) == ("ready", "killed", 1)


@pytest.mark.parametrize("how", ["stopped", "hangs in C"])
@bounded
async def test_a_hang_shows_within_a_second(how: str, mock_host: HostMaker) -> None:
    """A worker that answers no ping is not healthy, whatever it was last known to be."""
    ml = await mock_host(cancel_grace=0.05, term_grace=0.05)
    await ml.wait_ready("mock")
    pid = ml.pool("mock").ready[0].process.pid
    task = None
    if how == "stopped":
        os.kill(pid, signal.SIGSTOP)
    else:
        task = asyncio.ensure_future(ml.call("mock", "busy", {"seconds": 30, "mode": "c"}))
        await aeventually(lambda: ml.pool("mock").running)
    with within(1_000):

        async def shows() -> bool:
            health = await ml.health()
            return health["bridges"]["mock"]["workers"][0]["state"] == "unresponsive" and not health["ready"]

        await aeventually(shows)
    assert "answers a ping" in ((await state_of(ml))[1] or "")
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
    else:
        os.kill(pid, signal.SIGCONT)

    async def is_well() -> bool:
        return (await state_of(ml))[0] == "ready"

    await aeventually(is_well)


async def test_a_slow_start_is_told_as_loading(mock_host: HostMaker) -> None:
    """With the time that it has taken by now, and the limit."""
    ml = await mock_host(options={"setup_delay_ms": 600})

    async def is_loading() -> bool:
        state, reason = await state_of(ml)
        return state == "loading" and "of at most 60 s" in (reason or "")

    await aeventually(is_loading)
    await ml.wait_ready("mock")
    assert (await state_of(ml)) == ("ready", None)


async def test_an_open_breaker_says_for_how_long(mock_host: HostMaker) -> None:
    """And what the last worker died of."""
    ml = await mock_host(restart={"max_crashes": 1, "window": 30.0})
    with pytest.raises(ManybridgeError):
        await ml.call("mock", "mock:fail", {"kind": "segfault"})

    found = (await ml.health())["bridges"]["mock"]
    assert (found["state"], found["breaker"], found["last_failure"]["cause"]) == ("failed", "open", "segfault")
    assert 25 < found["breaker_open_for"] <= 30
    assert "a worker is tried again for the first call after" in found["reason"]


async def test_quarantined_requests_are_listed(mock_host: HostMaker) -> None:
    """Command, deaths, and for how long."""
    ml = await mock_host(restart={"initial_backoff": 0.0})
    for _ in range(2):
        with pytest.raises(ManybridgeError):
            await ml.call("mock", "mock:fail", {"kind": "kill"})

    (found,) = (await ml.health())["bridges"]["mock"]["quarantined"]
    assert (found["command"], found["deaths"]) == ("mock:fail", 2)
    with pytest.raises(ManybridgeError) as caught:
        await ml.call("mock", "mock:fail", {"kind": "kill"})
    assert caught.value.code == "quarantined"


@bounded
async def test_calls_of_a_dead_worker_fail_within_200_ms(mock_host: HostMaker) -> None:
    """All fifty that it had."""
    ml = await mock_host(max_concurrency=50)
    calls = [asyncio.ensure_future(ml.call("mock", "asleep", {"seconds": 30 + n})) for n in range(50)]
    await aeventually(lambda: ml.pool("mock").running == 50)
    with within(200):
        os.kill(ml.pool("mock").ready[0].process.pid, signal.SIGKILL)

        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {each.code for each in outcomes if isinstance(each, ManybridgeError)} == {"worker_crashed"}
    assert len(outcomes) == 50


@bounded
async def test_a_cooperative_cancel_frees_the_place_within_100_ms(mock_host: HostMaker) -> None:
    """The only worker answers the next call."""
    ml = await mock_host(cancel_grace=5.0)
    await ml.call("mock", "echo", {})
    task = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 30}))
    await aeventually(lambda: ml.pool("mock").running)
    with within(100):
        task.cancel()

        assert await ml.call("mock", "echo", {"next": True}) == {"next": True}


@pytest.mark.parametrize("mode", ["swallow", "c"])
@bounded
async def test_a_cancel_that_is_ignored_frees_the_place_within_the_grace_and_a_second(
    mode: str, mock_host: HostMaker
) -> None:
    """Another worker answers the next call."""
    ml = await mock_host(cancel_grace=0.3, term_grace=0.3)
    await ml.call("mock", "echo", {})
    job = await ml.submit("mock", "busy", {"seconds": 30, "mode": mode})
    await aeventually(lambda: ml.pool("mock").running)
    with within(1_300):
        cancelling = asyncio.ensure_future(job.cancel())

        assert await ml.call("mock", "echo", {"next": True}) == {"next": True}
    await cancelling
    with pytest.raises(CallCancelledError):
        await job.result()


async def test_a_closed_host_is_neither_live_nor_ready(mock_host: HostMaker) -> None:
    """It says so instead of raising: a probe must get an answer."""
    ml = await mock_host()
    await ml.close(0.0)

    health = await ml.health()
    assert (health["status"], health["live"], health["ready"]) == ("closed", False, False)

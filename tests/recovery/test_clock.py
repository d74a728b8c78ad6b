"""Clocks that jump: what a host holds is measured by a clock that does not, and the store is told again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from manybridge.host.bridge import AsyncMLBridge
from tests.crash_matrix.store_faults import DAY, clock_jumps, watched_connections
from tests.store.hosts import HostMaker
from tests.support import aeventually


@pytest.fixture
def store_config(tmp_path: Path) -> dict[str, str]:
    """SQLite alone: the clock of a server is not ours to change."""
    return {"url": f"sqlite:///{tmp_path}/store.db"}


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    """Jumps reach the database."""
    with watched_connections():
        yield


async def sweep(ml: AsyncMLBridge) -> None:
    """Do what a host does every half minute: end the sessions whose leases ran out."""
    await ml._access.rest()
    ml._router.session_keeper._ticks = 0
    await ml._access._keep_up()


@pytest.mark.parametrize("seconds", [DAY, -DAY])
async def test_sessions_outlive_a_jump(seconds: float, durable_host: HostMaker) -> None:
    """With what was made in them, though the store's clock says that their leases ran out long ago."""
    ml = await durable_host()
    await ml.create_session("s", lease=3600)
    made = await ml.create_resource("mock", "counter", session="s")
    with clock_jumps(seconds):
        await sweep(ml)
        assert (await ml.execute_resource("mock", made.id, session="s"))["value"] == 1
        other = await durable_host()
        await sweep(other)
        listed = await other.list_sessions()
        assert [each.id for each in listed] == ["s"]
        assert listed[0].expires_in > 3000
        await sweep(ml)
        assert (await ml.execute_resource("mock", made.id, session="s"))["value"] == 2


@pytest.mark.parametrize("seconds", [DAY, -DAY])
async def test_a_running_job_is_not_taken_for_an_interrupted_one(seconds: float, durable_host: HostMaker) -> None:
    """By a host that starts after the jump: the first one has told the store that it lives."""
    ml = await durable_host()
    job = await ml.submit("mock", "mock:sleep", {"seconds": 0.5})
    await aeventually(lambda: job.state == "running")
    with clock_jumps(seconds):
        await ml._access._keep_up()
        other = await durable_host()
        seen = await other.get_job(job.id)
        assert not seen.done
        assert await seen.result(5) == {"slept": 0.5}
    assert await job.result(5) == {"slept": 0.5}


async def test_durations_are_not_measured_by_the_time_of_day(durable_host: HostMaker) -> None:
    """A timeout neither strikes at once nor never."""
    ml = await durable_host()
    with clock_jumps(DAY):
        sleeping = asyncio.ensure_future(ml.call("mock", "mock:sleep", {"seconds": 0.2}, timeout=10))
        await aeventually(lambda: ml.pool("mock").running)
    with clock_jumps(-DAY):
        assert await sleeping == {"slept": 0.2}

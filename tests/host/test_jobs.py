"""Jobs: state, progress, events, result."""

from __future__ import annotations

import asyncio

import pytest

from manybridge.errors import CallError
from manybridge.host.job_table import JobTable
from manybridge.host.jobs import JobState
from manybridge.host.options import CallOptions
from tests.host.conftest import HostMaker
from tests.support import aeventually


async def test_a_job_reports_progress_and_keeps_its_result(mock_host: HostMaker) -> None:
    """Asked at any time, from anywhere."""
    ml = await mock_host()
    job = await ml.submit("mock", "progress", {"steps": 4, "delay": 0.02})
    result = await job.result(10)

    assert (result, job.state) == ({"steps": 4}, JobState.DONE)
    assert job.progress is not None
    assert (job.progress.current, job.progress.total, job.progress.message) == (4, 4, "step 4")
    assert job.progress.rate is not None
    assert job.progress.rate > 0
    assert job.progress.time_left == 0
    assert ml.get_job(job.id) is job
    assert [each.id for each in ml.jobs()] == [job.id]


async def test_a_job_is_starting_until_there_is_a_worker_and_then_running(mock_host: HostMaker) -> None:
    """queued, starting, running, done."""
    ml = await mock_host(options={"setup_delay_ms": 200})
    job = await ml.submit("mock", "sleep", {"seconds": 0.2})
    assert str(job.state) == "starting"
    await aeventually(lambda: job.state == JobState.RUNNING)
    behind = await ml.submit("mock", "echo")
    assert behind.state in {JobState.QUEUED, JobState.RUNNING}

    await job.result(10)
    assert await behind.result(10) == {}
    assert job.finished_at is not None


async def test_events_can_be_read_late_and_from_the_middle(mock_host: HostMaker) -> None:
    """Past and future ones, without a gap."""
    ml = await mock_host()
    job = await ml.submit("mock", "count", {"n": 5, "delay": 0.02})
    live = [event.data async for event in job.events()]
    late = [event.data async for event in job.events(3)]

    assert (live, late) == ([0, 1, 2, 3, 4], [3, 4])


async def test_a_failed_job_keeps_its_error(mock_host: HostMaker) -> None:
    """And raises it to whoever asks for the result."""
    ml = await mock_host()
    job = await ml.submit("mock", "fail", {"kind": "raise"})

    with pytest.raises(CallError):
        await job.result(10)
    assert job.state == JobState.FAILED
    assert job.describe()["error"]["code"] == "handler_error"


async def test_waiting_for_a_job_may_end_before_it(mock_host: HostMaker) -> None:
    """It goes on."""
    ml = await mock_host()
    job = await ml.submit("mock", "sleep", {"seconds": 0.4})

    assert await job.wait(0.02) is False
    with pytest.raises(TimeoutError):
        await job.result(0.02)
    assert await job.result(10) == {"slept": 0.4}


async def test_a_waiting_job_can_be_cancelled(mock_host: HostMaker) -> None:
    """Before any worker had it."""
    ml = await mock_host()
    first = await ml.submit("mock", "sleep", {"seconds": 0.3})
    await aeventually(lambda: first.state == JobState.RUNNING)
    second = await ml.submit("mock", "sleep", {"seconds": 30})

    assert await second.cancel()
    assert second.state == JobState.CANCELLED
    assert not await second.cancel()
    await first.result(10)


async def test_a_job_that_does_not_exist_is_named(mock_host: HostMaker) -> None:
    """job_not_found."""
    ml = await mock_host()

    with pytest.raises(CallError) as caught:
        ml.get_job("job-0")
    assert caught.value.code == "job_not_found"


async def test_the_oldest_finished_jobs_are_forgotten_first() -> None:
    """max_jobs."""
    table = JobTable(2)

    async def nothing(_options: object) -> None:
        await asyncio.sleep(0)

    jobs = []
    for _ in range(4):
        job = await table.add("mock", "mock:echo", {}, lambda: False)
        job.begin(nothing, CallOptions(), lambda _: None)
        await job.wait()
        jobs.append(job)

    assert [each.id for each in table.list()] == [each.id for each in jobs[-2:]]

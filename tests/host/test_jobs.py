"""Jobs: state, progress, events, result."""

from __future__ import annotations

import asyncio

import pytest

from manybridge.errors import CallCancelledError, CallError, InvalidArgumentError, WorkerCrashedError
from manybridge.host.job_events import EVENT_GAP, KEPT_EVENTS, EventLog, with_gaps
from manybridge.host.job_table import JobTable
from manybridge.host.jobs import JobState
from manybridge.host.options import CallOptions
from manybridge.host.streams import StreamEvent
from manybridge.store.records import JobEvent
from tests.host.conftest import HostMaker
from tests.support import INTERRUPTING, PATIENT, aeventually


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
    assert await ml.get_job(job.id) is job
    assert [each.id for each in await ml.jobs()] == [job.id]


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
        await ml.get_job("job-0")
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


async def test_a_job_can_be_cancelled_while_its_bridge_starts(mock_host: HostMaker) -> None:
    """No worker is there yet, and none has to be stopped."""
    ml = await mock_host(options={"setup_delay_ms": 300})
    job = await ml.submit("mock", "sleep", {"seconds": 30})
    assert job.state == JobState.STARTING

    assert await job.cancel()
    with pytest.raises(CallCancelledError) as caught:
        await job.result()
    assert (job.state, caught.value.details["stopped_by"], caught.value.details["job"]) == (
        JobState.CANCELLED,
        "queue",
        job.id,
    )


@pytest.mark.parametrize(("mode", "rung"), [("sleep", "cooperative"), ("busy", "exception")])
async def test_a_running_job_can_be_cancelled(mock_host: HostMaker, mode: str, rung: str) -> None:
    """Its error says which rung of the ladder stopped it; the worker is free when cancel returns."""
    ml = await mock_host(**(INTERRUPTING if rung == "exception" else PATIENT))
    job = await ml.submit("mock", mode, {"seconds": 60})
    await aeventually(lambda: job.state == JobState.RUNNING)
    worker = ml.pool("mock").ready[0]
    for _ in range(1000):
        if (await worker.control("common:ping", {}))["state"] == "busy":
            break

    assert await job.cancel()
    assert job.error is not None
    assert (job.error.code, job.error.details["stopped_by"]) == ("cancelled", rung)
    assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}


async def test_a_job_that_has_ended_stays_as_it_is(mock_host: HostMaker) -> None:
    """Cancel says that there was nothing to stop."""
    ml = await mock_host()
    done, failed = await ml.submit("mock", "echo", {"a": 1}), await ml.submit("mock", "fail")
    await done.wait()
    await failed.wait()

    assert (await done.cancel(), await failed.cancel()) == (False, False)
    assert (done.state, failed.state, await done.result()) == (JobState.DONE, JobState.FAILED, {"a": 1})


async def test_a_job_that_waits_for_its_turn_in_a_session_can_be_cancelled(mock_host: HostMaker) -> None:
    """It waits between calls, where no worker knows of it."""
    ml = await mock_host()
    first = await ml.submit("mock", "sleep", {"seconds": 0.4}, session="s")
    await aeventually(lambda: first.state == JobState.RUNNING)
    second = await ml.submit("mock", "sleep", {"seconds": 30}, session="s")

    assert await second.cancel()
    assert second.error is not None
    assert (second.state, second.error.details["stopped_by"]) == (JobState.CANCELLED, "queue")
    assert await first.result(10) == {"slept": 0.4}


async def test_many_may_cancel_one_job(mock_host: HostMaker) -> None:
    """It ends once, and all learn that it did."""
    ml = await mock_host()
    job = await ml.submit("mock", "sleep", {"seconds": 30})

    assert await asyncio.gather(*(job.cancel() for _ in range(5))) == [True] * 5
    assert job.state == JobState.CANCELLED


async def test_a_cancel_that_comes_with_the_answer_keeps_the_answer(mock_host: HostMaker) -> None:
    """At every moment there is one outcome, and it is the one that cancel tells."""
    ml = await mock_host()
    await ml.wait_ready("mock")
    for _ in range(50):
        job = await ml.submit("mock", "echo", {"a": 1})
        watching = asyncio.create_task(job.wait())
        await asyncio.sleep(0)
        cancelled = await job.cancel()
        await watching

        assert cancelled == (job.state == JobState.CANCELLED)
        assert job.state in {JobState.DONE, JobState.CANCELLED}


async def test_a_killed_worker_fails_its_job(mock_host: HostMaker) -> None:
    """At once, with the cause; the next job runs in another worker."""
    ml = await mock_host()
    job = await ml.submit("mock", "fail", {"kind": "kill"})

    with pytest.raises(WorkerCrashedError) as caught:
        await job.result(10)
    assert (job.state, caught.value.details["signal"]) == (JobState.FAILED, "SIGKILL")
    assert await (await ml.submit("mock", "echo", {"a": 1})).result(10) == {"a": 1}


async def test_a_job_of_a_host_that_closes_was_interrupted(mock_host: HostMaker) -> None:
    """It failed, and was not cancelled by anybody."""
    ml = await mock_host()
    job = await ml.submit("mock", "sleep", {"seconds": 30})
    await aeventually(lambda: job.state == JobState.RUNNING)
    await ml.close(0.0)

    assert job.error is not None
    assert (job.state, job.error.details["interrupted"]) == (JobState.FAILED, True)


async def test_jobs_are_filtered(mock_host: HostMaker) -> None:
    """By bridge, by state, by number."""
    ml = await mock_host()
    await ml.register_bridge("other", {"bridge": "mock"})
    jobs = [await ml.submit("mock", "echo"), await ml.submit("other", "echo"), await ml.submit("mock", "fail")]
    for job in jobs:
        await job.wait()

    assert await ml.jobs("mock") == [jobs[0], jobs[2]]
    assert await ml.jobs(states="failed") == jobs[2:]
    assert await ml.jobs(states={JobState.DONE, JobState.CANCELLED}) == jobs[:2]
    assert await ml.jobs(limit=1) == jobs[2:]
    with pytest.raises(InvalidArgumentError, match="asleep"):
        await ml.jobs(states=["asleep"])


async def test_a_job_that_has_ended_can_be_deleted(mock_host: HostMaker) -> None:
    """One that runs is to be cancelled first."""
    ml = await mock_host()
    job = await ml.submit("mock", "sleep", {"seconds": 30})
    with pytest.raises(CallError, match="cancel it") as caught:
        await ml.delete_job(job.id)
    await job.cancel()
    await ml.delete_job(job.id)

    assert caught.value.code == "not_supported"
    assert await ml.jobs() == []
    with pytest.raises(CallError, match="no job"):
        await ml.get_job(job.id)


async def test_an_id_may_be_chosen_once(mock_host: HostMaker) -> None:
    """A second job of that id is refused."""
    ml = await mock_host()
    job = await ml.submit("mock", "echo", id="night")

    assert (job.id, await ml.get_job("night")) == ("night", job)
    with pytest.raises(InvalidArgumentError, match="night"):
        await ml.submit("mock", "echo", id="night")


async def test_a_key_makes_one_job_of_several_submits(mock_host: HostMaker) -> None:
    """Unless it failed: then a retry is one."""
    ml = await mock_host()
    first = await ml.submit("mock", "echo", {"a": 1}, idempotency_key="k")
    assert await ml.submit("mock", "echo", {"a": 1}, idempotency_key="k") is first
    with pytest.raises(CallError, match="idempotency_key") as caught:
        await ml.submit("mock", "echo", {"a": 2}, idempotency_key="k")
    assert caught.value.code == "conflict"

    several = await asyncio.gather(*(ml.submit("mock", "echo", {"a": 3}, idempotency_key="s") for _ in range(5)))
    assert all(each is several[0] for each in several)

    failed = await ml.submit("mock", "fail", idempotency_key="f")
    await failed.wait()
    assert await ml.submit("mock", "fail", idempotency_key="f") is not failed


async def test_a_keyed_submit_that_fails_leaves_the_key_free(mock_host: HostMaker) -> None:
    """What stood in the way is put right, and the same key is used again."""
    ml = await mock_host()
    await ml.submit("mock", "echo", id="taken")
    with pytest.raises(InvalidArgumentError, match="taken"):
        await ml.submit("mock", "echo", id="taken", idempotency_key="k")
    job = await ml.submit("mock", "echo", id="free", idempotency_key="k")
    assert await ml.submit("mock", "echo", idempotency_key="k") is job


async def test_a_reader_that_stops_reading_does_not_hold_up_the_job(mock_host: HostMaker) -> None:
    """Unlike a stream: the job has a life of its own."""
    ml = await mock_host()
    job = await ml.submit("mock", "count", {"n": 5000})
    reader = job.events()
    assert (await anext(reader)).data == 0
    assert await job.result(10) == {"count": 5000}
    await reader.aclose()  # type: ignore[attr-defined]  # it is an async generator

    assert len([event async for event in job.events(10)]) == 4990


async def test_a_reader_that_comes_too_late_is_told_of_the_gap(mock_host: HostMaker) -> None:
    """Where nothing keeps old events, their absence is an event."""
    ml = await mock_host()
    job = await ml.submit("mock", "count", {"n": 3 * KEPT_EVENTS})
    await job.result(15)
    events = [event async for event in job.events(5)]
    missing = events[0].data["to_seq"]

    assert (events[0].event, events[0].data["from_seq"], events[0].seq) == (EVENT_GAP, 5, missing)
    assert [event.seq for event in events[1:]] == list(range(missing + 1, 3 * KEPT_EVENTS))
    assert len(events) > KEPT_EVENTS


@pytest.mark.parametrize("from_seq", [-1, 1.0, True, "0", None])
async def test_the_number_of_an_event_is_checked(mock_host: HostMaker, from_seq: object) -> None:
    """A whole number from 0 on."""
    ml = await mock_host()
    job = await ml.submit("mock", "echo")

    with pytest.raises(InvalidArgumentError, match="from_seq"):
        await job.take_events(from_seq)  # type: ignore[arg-type]  # on purpose
    await job.wait()


def test_the_log_keeps_the_newest_events_under_their_numbers() -> None:
    """However many come."""
    log = EventLog(100)
    for number in range(2 * KEPT_EVENTS):
        log.append("chunk", number)

    assert log.next == 100 + 2 * KEPT_EVENTS
    assert KEPT_EVENTS <= log.next - log.first <= KEPT_EVENTS * 5 // 4
    assert log.read(log.next - 2) == [StreamEvent("chunk", log.next - 2 + n, log.next - 102 + n) for n in range(2)]


def test_the_log_waits_for_the_store_but_not_for_ever() -> None:
    """What is not stored yet is kept, up to a limit."""
    log = EventLog()
    log.needed_from = 0
    for number in range(4 * KEPT_EVENTS):
        log.append("chunk", number)
    waited = log.first
    for number in range(4 * KEPT_EVENTS):
        log.append("chunk", number)

    assert waited == 0
    assert KEPT_EVENTS <= log.next - log.first <= 5 * KEPT_EVENTS


def test_gaps_between_stored_events_are_told() -> None:
    """Each as an event of its own."""
    events = with_gaps(0, [JobEvent(2, "chunk", "a"), JobEvent(3, "chunk", "b"), JobEvent(6, "chunk", "c")])

    assert [(event.seq, event.event) for event in events] == [
        (1, "gap"), (2, "chunk"), (3, "chunk"), (5, "gap"), (6, "chunk"),
    ]  # fmt: skip

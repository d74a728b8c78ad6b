"""Jobs in a store: what outlives the host, what is interrupted, what runs again, and a store that fails."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import CallError, ClosedError, InvalidArgumentError, StoreError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.jobs import AsyncJob, JobState
from manybridge.store.base import Store
from manybridge.store.liveness import this_host
from manybridge.store.memory import MemoryStore
from manybridge.store.opening import open_store
from manybridge.store.records import JobEvent, JobRecord
from tests.support import SOURCE, aeventually

LEASE = 60.0

HostStarter = Callable[..., Awaitable[AsyncMLBridge]]


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Return a store of each kind."""
    opened = MemoryStore() if request.param == "memory" else open_store(f"sqlite:///{tmp_path}/jobs.db")
    yield opened
    await opened.close()


@pytest.fixture
async def start() -> AsyncIterator[HostStarter]:
    """Return a coroutine function that starts a host which keeps its jobs in a store."""
    async with AsyncExitStack() as stack:

        async def starter(store: Store, host: str = "host-1", **config: Any) -> AsyncMLBridge:
            values = {"zygote": "never", "cancel_grace": 0.2, "term_grace": 0.2, **config}
            ml = AsyncMLBridge({"bridges": {"mock": values}})
            stack.push_async_callback(ml.close, 0.0)
            await ml.start()
            await store.announce_host(this_host(host), LEASE)
            await ml.keep_jobs(store, host)
            return ml

        yield starter


async def events_of(job: AsyncJob, from_seq: int = 0) -> list[Any]:
    """Return the data of all events of a job."""
    return [event.data async for event in job.events(from_seq)]


def left_behind(**changes: Any) -> JobRecord:
    """Return the record of a job whose host was killed."""
    base = JobRecord(
        id="job-1", bridge="mock", command="mock:echo", args={"a": 1}, state="running", host="gone", created_at=1.0
    )
    return replace(base, **changes)


async def test_a_finished_job_is_there_after_a_restart(store: Store, start: HostStarter) -> None:
    """With its state, its result, its progress and its events."""
    first = await start(store)
    job = await first.submit("mock", "progress", {"steps": 3, "delay": 0.03})
    failed = await first.submit("mock", "fail", {"kind": "raise"})
    await job.result(10)
    await failed.wait(10)
    await first.close(0.0)

    second = await start(store, "host-2")
    found = await second.get_job(job.id)
    assert (found.state, await found.result()) == (JobState.DONE, {"steps": 3})
    assert found.progress is not None
    assert (found.progress.current, found.progress.total) == (3, 3)
    assert [data["current"] for data in await events_of(found)] == [1, 2, 3]
    assert [data["current"] for data in await events_of(found, 2)] == [3]
    assert (await found.cancel(), found.describe()["events"]) == (False, 3)
    with pytest.raises(CallError) as caught:
        await (await second.get_job(failed.id)).result()
    assert caught.value.code == "handler_error"
    assert [each.id for each in await second.jobs()] == [job.id, failed.id]


async def test_the_result_is_in_the_store_before_anybody_sees_it(store: Store, start: HostStarter) -> None:
    """Who has it may rely on it."""
    ml = await start(store)
    job = await ml.submit("mock", "count", {"n": 3})
    submitted = await store.get_job(job.id)
    result = await job.result(10)
    record = await store.get_job(job.id)

    assert submitted is not None
    assert submitted.state in {"queued", "starting"}
    assert record is not None
    assert (record.state, record.result, record.events) == ("done", result, 3)
    assert [event.data for event in await store.read_events(job.id)] == [0, 1, 2]


async def test_a_running_job_shows_its_progress_in_the_store(store: Store, start: HostStarter) -> None:
    """State at once, progress and events in batches."""
    ml = await start(store)
    job = await ml.submit("mock", "progress", {"steps": 1000, "delay": 0.02})

    async def record() -> JobRecord:
        found = await store.get_job(job.id)
        assert found is not None
        return found

    await aeventually(lambda: job.event_count > 3)
    for _ in range(200):
        if (found := await record()).state == "running" and found.events:
            break
        await asyncio.sleep(0.01)
    found = await record()
    assert (found.state, found.host) == ("running", "host-1")
    assert found.progress is not None
    assert len(await store.read_events(job.id)) >= found.events > 0
    await job.cancel()
    assert (await record()).state == "cancelled"


async def test_an_interrupted_job_says_so(store: Store, start: HostStarter) -> None:
    """failed, host_closed, details.interrupted; and so does the store."""
    await store.save_job(left_behind())
    ml = await start(store)
    job = await ml.get_job("job-1")

    with pytest.raises(ClosedError) as caught:
        await job.result()
    assert (job.state, caught.value.details["interrupted"], caught.value.details["host"]) == (
        JobState.FAILED,
        True,
        "gone",
    )
    record = await store.get_job("job-1")
    assert record is not None
    assert (record.state, record.finished_at is None) == ("failed", False)


async def test_an_interrupted_job_runs_again_where_the_caller_said_so(store: Store, start: HostStarter) -> None:
    """Under its id, its events numbered on behind those of the first time."""
    await store.save_job(left_behind(idempotent=True, command="mock:count", args={"n": 2}, events=1))
    await store.append_events("job-1", [JobEvent(0, "chunk", "old"), JobEvent(1, "chunk", "older")])
    ml = await start(store)
    job = await ml.get_job("job-1")

    assert await job.result(10) == {"count": 2}
    events = [event async for event in job.events()]
    assert [event.seq for event in events] == [0, 1, 2, 3, 4]
    assert [event.data for event in events if event.event == "chunk"] == ["old", "older", 0, 1]
    assert "runs again" in events[2].data["message"]
    assert job.created_at == 1.0


async def test_a_key_among_the_arguments_of_a_job_is_not_written_down(store: Store, start: HostStarter) -> None:
    """The job runs with it; one that is to run again would need it then, and is refused."""
    ml = await start(store)
    args = {"api_key": "sk-0123456789", "max_tokens": 5, "more": [{"Authorization": "Bearer 0123"}]}
    job = await ml.submit("mock", "echo", args)
    assert await job.result(10) == args
    kept = await store.get_job(job.id)
    assert kept is not None
    assert kept.args == {"api_key": "***", "max_tokens": 5, "more": [{"Authorization": "***"}]}

    with pytest.raises(InvalidArgumentError, match=r"args\.api_key: a key is not kept with a job that is to run again"):
        await ml.submit("mock", "echo", args, resume=True, id="again")
    assert await store.get_job("again") is None
    assert await (await ml.submit("mock", "echo", {"max_tokens": 5}, resume=True)).result(10) == {"max_tokens": 5}


async def test_only_one_of_two_hosts_runs_an_interrupted_job_again(store: Store, start: HostStarter) -> None:
    """Both start at the same time; the other one watches."""
    await store.save_job(left_behind(idempotent=True, command="mock:sleep", args={"seconds": 0.3}))
    first, second = await asyncio.gather(start(store, "host-1"), start(store, "host-2"))
    jobs = [await first.get_job("job-1"), await second.get_job("job-1")]

    assert sorted(type(job).__name__ for job in jobs) == ["LiveJob", "StoredJob"]
    assert [await job.result(10) for job in jobs] == [{"slept": 0.3}] * 2


async def test_a_job_waits_for_a_host_that_has_its_bridge(store: Store, start: HostStarter) -> None:
    """Another program with the same store does not decide about it; it can be cancelled."""
    await store.save_job(left_behind(idempotent=True, bridge="elsewhere", state="queued"))
    job = await (await start(store)).get_job("job-1")

    assert (job.state, await job.wait(0.01)) == (JobState.QUEUED, False)
    assert await job.cancel()
    assert job.error is not None
    assert (job.state, job.error.details["stopped_by"]) == (JobState.CANCELLED, "queue")


async def test_a_host_that_closes_leaves_what_may_run_again_to_the_next(store: Store, start: HostStarter) -> None:
    """A planned restart loses no such job."""
    first = await start(store)
    job = await first.submit("mock", "sleep", {"seconds": 60}, id="again", resume=True)
    other = await first.submit("mock", "sleep", {"seconds": 60}, id="lost")
    await aeventually(lambda: job.state == JobState.RUNNING)
    await first.close(0.0)
    await store.retire_host("host-1")
    assert (job.state, other.state) == (JobState.FAILED, JobState.FAILED)

    second = await start(store, "host-2")
    assert (await second.get_job("lost")).state == JobState.FAILED
    again = await second.get_job("again")
    await aeventually(lambda: again.state == JobState.RUNNING)
    assert await again.cancel()


async def test_a_job_of_another_living_host_can_be_watched(store: Store, start: HostStarter) -> None:
    """State, progress, events and result come through the store."""
    first = await start(store, "host-1")
    job = await first.submit("mock", "progress", {"steps": 30, "delay": 0.02})
    second = await start(store, "host-2")
    seen = await second.get_job(job.id)

    assert await seen.wait(0.01) is False
    assert [data["current"] for data in await events_of(seen)] == list(range(1, 31))
    assert await seen.result(10) == {"steps": 30}


async def test_a_job_of_another_living_host_can_be_cancelled(store: Store, start: HostStarter) -> None:
    """Asked through the store; its host looks once a second. No reader of its events sees the request."""
    first = await start(store, "host-1")
    job = await first.submit("mock", "progress", {"steps": 1000, "delay": 0.02})
    second = await start(store, "host-2")
    seen = await second.get_job(job.id)

    assert await seen.cancel()
    assert (seen.state, job.state) == (JobState.CANCELLED, JobState.CANCELLED)
    assert not await seen.cancel()
    events = [event async for event in seen.events()]
    assert [event.seq for event in events] == list(range(len(events)))


async def test_who_waits_for_a_job_of_another_host_learns_that_the_host_died(store: Store, start: HostStarter) -> None:
    """It does not wait for ever."""
    await store.announce_host(this_host("other"), LEASE)
    await store.save_job(left_behind(host="other"))
    ml = await start(store)
    job = await ml.get_job("job-1")
    assert await job.wait(0.01) is False
    await store.retire_host("other")

    assert await job.wait(5)
    assert job.error is not None
    assert job.error.details["interrupted"]


class BusyStore(MemoryStore):
    """A store in which another host does something just before this one is told what it asks for."""

    def __init__(self, question: str, happens: Callable[[MemoryStore], Awaitable[None]]) -> None:
        super().__init__()
        self._question, self._happens = question, happens

    async def list_jobs(self, **conditions: Any) -> list[JobRecord]:
        """As it is, after that."""
        await self._asked("list_jobs")
        return await super().list_jobs(**conditions)

    async def living_hosts(self) -> set[str]:
        """As they are, after that."""
        await self._asked("living_hosts")
        return await super().living_hosts()

    async def _asked(self, question: str) -> None:
        if question == self._question:
            self._question = ""
            await self._happens(self)


async def begins(store: MemoryStore) -> None:
    """Another host begins, and with it a job."""
    await store.announce_host(this_host("other"), LEASE)
    await store.save_job(left_behind(host="other"))


async def ends(store: MemoryStore) -> None:
    """The host ends, after its job."""
    await store.save_job(left_behind(host="other", state="done", result={"a": 1}, finished_at=2.0))
    await store.retire_host("other")


async def test_a_job_that_begins_while_a_host_starts_is_left_alone(start: HostStarter) -> None:
    """It was not there, nor was its host, when the starting one began to look."""
    store = BusyStore("list_jobs", begins)
    job = await (await start(store)).get_job("job-1")
    assert job.state == JobState.RUNNING
    assert await store.get_job("job-1") == left_behind(host="other")


@pytest.mark.parametrize("asks", ["start", "wait", "cancel"])
async def test_a_job_that_ends_with_its_host_while_one_looks_is_done(start: HostStarter, asks: str) -> None:
    """And not interrupted, nor cancelled: its end was written before its host went."""
    store = BusyStore("living_hosts" if asks == "start" else "", ends)
    await begins(store)
    ml = await start(store)
    job = await ml.get_job("job-1")
    if asks != "start":
        store._question = "living_hosts"
        assert not await job.cancel() if asks == "cancel" else await job.wait(10)
    assert (job.state, await job.result()) == (JobState.DONE, {"a": 1})


async def test_events_that_memory_let_go_are_read_from_the_store(store: Store, start: HostStarter) -> None:
    """No gap where there is a store."""
    ml = await start(store)
    job = await ml.submit("mock", "count", {"n": 15_000})
    await job.result(20)

    assert await events_of(job, 10) == list(range(10, 15_000))


async def test_a_deleted_job_is_gone_from_the_store(store: Store, start: HostStarter) -> None:
    """With its events, and for every host."""
    ml = await start(store)
    job = await ml.submit("mock", "count")
    await job.wait()
    await ml.delete_job(job.id)

    assert (await store.get_job(job.id), await store.read_events(job.id)) == (None, [])


class FailingStore(MemoryStore):
    """A store that can be lost and found again."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = False
        self.hangs = False

    async def save_job(self, record: JobRecord) -> None:
        """Fail, hang or save."""
        if self.hangs:
            await asyncio.Event().wait()
        if self.lost:
            raise StoreError("the store is lost")
        await super().save_job(record)


async def test_a_job_that_can_not_be_kept_is_not_begun(start: HostStarter) -> None:
    """Who asks for a durable job gets one, or an error."""
    store = FailingStore()
    ml = await start(store)
    store.lost = True

    with pytest.raises(StoreError):
        await ml.submit("mock", "echo")
    assert await ml.jobs() == []


async def test_a_store_that_is_lost_does_not_hold_up_a_job(start: HostStarter) -> None:
    """The result is delivered, and written when the store is back."""
    store = FailingStore()
    ml = await start(store)
    job = await ml.submit("mock", "count", {"n": 3, "delay": 0.02})
    store.lost = True
    assert await job.result(10) == {"count": 3}
    assert store._jobs[job.id].state != "done"
    store.lost = False

    await aeventually(lambda: store._jobs[job.id].state == "done")
    assert [event.data for event in await store.read_events(job.id)] == [0, 1, 2]


async def test_a_store_that_hangs_does_not_hold_up_a_job_for_long(
    start: HostStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as lost when it has hung for a while."""
    monkeypatch.setattr("manybridge.host.job_journal.PATIENCE", 0.2)
    store = FailingStore()
    ml = await start(store)
    job = await ml.submit("mock", "echo", {"a": 1})
    store.hangs = True

    assert await job.result(10) == {"a": 1}
    store.hangs = False
    await aeventually(lambda: store._jobs[job.id].state == "done")


KILLED_HOST = """
import asyncio, sys
from manybridge.host.bridge import AsyncMLBridge
from manybridge.store.liveness import this_host
from manybridge.store.opening import open_store

async def main(url):
    store = open_store(url)
    ml = AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}})
    await ml.start()
    await store.announce_host(this_host("killed"), 600.0)
    await ml.keep_jobs(store, "killed")
    done = await ml.submit("mock", "count", {"n": 3}, id="done")
    await done.result()
    await ml.submit("mock", "progress", {"steps": 10000, "delay": 0.02}, id="lost")
    await ml.submit("mock", "echo", {"a": 1}, id="again", resume=True)
    while (await store.get_job("lost")).events < 5:
        await asyncio.sleep(0.02)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main(sys.argv[1]))
"""


def run_until_killed(url: str) -> None:
    """Run a host, and kill it when it has one job that ended and two that did not."""
    program = [sys.executable, "-c", KILLED_HOST, url]
    host = subprocess.Popen(program, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCE)})
    assert host.stdout is not None
    with host.stdout:
        assert host.stdout.readline() == b"ready\n"
    host.send_signal(signal.SIGKILL)
    host.wait(10)


async def test_after_kill_9_of_the_host_everything_is_told(tmp_path: Path, start: HostStarter) -> None:
    """What had ended is there, what ran was interrupted or runs again, and nobody waits for the dead host's lease."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    await asyncio.to_thread(run_until_killed, url)

    store = open_store(url)
    try:
        ml = await start(store, "next")
        done, lost, again = [await ml.get_job(id) for id in ("done", "lost", "again")]
        assert (await done.result(), await events_of(done)) == ({"count": 3}, [0, 1, 2])
        assert lost.error is not None
        assert (lost.state, lost.error.code, lost.error.details["interrupted"]) == ("failed", "host_closed", True)
        assert lost.progress is not None
        assert len(await events_of(lost)) >= 5
        assert await again.result(10) == {"a": 1}
        await ml.close(0.0)
    finally:
        await store.close()


async def test_many_jobs_at_once_beyond_the_limit_are_all_done(store: Store) -> None:
    """Each that comes forgets an old one in the store, which takes a while; two must not forget the same."""
    config = {"bridges": {"mock": {"zygote": "never"}}, "limits": {"max_jobs": 5}}
    async with AsyncMLBridge(config) as ml:
        await store.announce_host(this_host("host-1"), LEASE)
        await ml.keep_jobs(store, "host-1")
        for _ in range(5):
            jobs = await asyncio.gather(*(ml.submit("mock", "mock:echo", {"n": n}) for n in range(10)))
            assert [await job.result(10) for job in jobs] == [{"n": n} for n in range(10)]


async def test_a_job_that_was_on_its_way_when_the_host_closed_is_refused(
    start: HostStarter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would write how it ends, and whoever waited for that would wait for ever."""
    store = MemoryStore()
    ml = await start(store)
    going, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        going.set()
        await go_on.wait()

    monkeypatch.setattr(ml, "_jobs_restored", slowly)
    submitting = asyncio.ensure_future(ml.submit("mock", "mock:echo", {}, resume=True))
    await going.wait()
    await ml.close(0.0)
    go_on.set()

    with pytest.raises(ClosedError):
        await submitting
    assert await store.list_jobs() == []


async def test_a_host_closes_while_a_job_can_not_be_written(start: HostStarter) -> None:
    """The job never began, so nobody waits for its end."""
    store = _Hanging()
    ml = await start(store)
    store.fails = asyncio.Event()
    submitting = asyncio.ensure_future(ml.submit("mock", "mock:echo", {}))
    await aeventually(lambda: store.hangs)
    closing = asyncio.ensure_future(ml.close(0.0))
    (job,) = await ml.jobs()
    await aeventually(lambda: getattr(job, "_cancelling"))  # noqa: B009  # of a live one: the host waits for its end
    store.fails.set()

    with pytest.raises(StoreError):
        await submitting
    await closing


class _Hanging(MemoryStore):
    """Hangs in the next write until `fails` is set, and fails then."""

    hangs = False
    fails: asyncio.Event | None = None

    async def save_job(self, record: JobRecord) -> None:
        if self.fails is not None:
            self.hangs = True
            await self.fails.wait()
            raise StoreError("gone")
        await super().save_job(record)

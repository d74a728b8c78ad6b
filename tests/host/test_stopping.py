"""The ladder that stops calls: which rung, after how long, and what is left afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from manybridge.errors import CallCancelledError, CallTimeoutError, WorkerCrashedError
from tests.host.conftest import HostMaker, PoolMaker
from tests.support import IMPATIENT, INTERRUPTING, MS, aeventually, process_is_running
from tests.timing import bounded, within


async def test_code_that_looks_at_its_flag_stops_cooperatively(mock_host: HostMaker) -> None:
    """The worker stays."""
    ml = await mock_host()
    before = await ml.call("mock", "pid")

    with pytest.raises(CallTimeoutError) as caught:
        await ml.call("mock", "sleep", {"seconds": 30}, timeout=500 * MS)

    assert caught.value.details["stopped_by"] == "cooperative"
    assert await ml.call("mock", "pid") == before


@pytest.mark.parametrize("mode", ["python", "sleep"])
async def test_code_that_does_not_look_is_interrupted(mode: str, mock_host: HostMaker) -> None:
    """An exception in Python code or in a blocking call; the worker stays."""
    ml = await mock_host(**INTERRUPTING)
    before = await ml.call("mock", "pid")

    with pytest.raises(CallTimeoutError) as caught:
        await ml.call("mock", "busy", {"seconds": 30, "mode": mode}, timeout=500 * MS)

    assert caught.value.details["stopped_by"] == "exception"
    assert await ml.call("mock", "pid") == before


@pytest.mark.parametrize("mode", ["swallow", "c"])
@bounded
async def test_code_that_can_not_be_interrupted_costs_its_worker(mode: str, mock_host: HostMaker) -> None:
    """It never returns to the pool; a replacement serves."""
    ml = await mock_host(**IMPATIENT)
    before = (await ml.call("mock", "pid"))["pid"]
    with within(3_000):
        with pytest.raises(CallTimeoutError) as caught:
            await ml.call("mock", "busy", {"seconds": 30, "mode": mode}, timeout=500 * MS)

        assert caught.value.details["stopped_by"] in {"sigterm", "sigkill"}
    assert (await ml.call("mock", "pid"))["pid"] != before
    assert not process_is_running(before)


async def test_a_worker_that_ignores_sigterm_gets_sigkill(fake_pool: PoolMaker) -> None:
    """The last rung."""
    fake = fake_pool()
    await fake.pool.wait_ready(10)

    with pytest.raises(CallTimeoutError, match="killed with SIGKILL") as caught:
        await fake.call("ignore_term", timeout=300 * MS)
    assert caught.value.details["stopped_by"] == "sigkill"
    assert await fake.call("echo", {"a": 1}) == {"a": 1}


async def test_a_worker_that_the_host_stopped_did_not_crash(fake_pool: PoolMaker) -> None:
    """The breaker does not count it."""
    fake = fake_pool(restart={"max_crashes": 1})
    await fake.pool.wait_ready(10)
    with pytest.raises(CallTimeoutError):
        await fake.call("never", timeout=300 * MS)

    assert await fake.call("echo", {"a": 1}) == {"a": 1}
    assert (fake.pool.stats.crashed, fake.pool.stats.killed) == (0, 1)


async def test_the_replacement_starts_before_the_stuck_worker_is_gone(fake_pool: PoolMaker) -> None:
    """From the first signal on."""
    fake = fake_pool(term_grace=10.0)
    await fake.pool.wait_ready(10)
    stuck = asyncio.ensure_future(fake.call("ignore_term", timeout=300 * MS))
    await aeventually(lambda: fake.pool.running)
    first = fake.pool.workers[0].process.pid

    await aeventually(lambda: fake.pool.ready and fake.pool.ready[0].process.pid != first)
    assert process_is_running(first)
    assert not stuck.done()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(CallTimeoutError):
        await stuck


async def test_cancelling_the_callers_task_stops_the_work(mock_host: HostMaker) -> None:
    """The caller does not wait for that; the worker is free soon."""
    ml = await mock_host()
    await ml.call("mock", "pid")
    task = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 30}))
    await aeventually(lambda: ml.pool("mock").running)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await aeventually(lambda: not ml.pool("mock").running)
    assert await ml.call("mock", "echo", {"a": 1}, timeout=5) == {"a": 1}


async def test_calls_behind_a_stuck_one_go_to_its_replacement(fake_pool: PoolMaker) -> None:
    """They had not begun."""
    fake = fake_pool()
    for _ in range(30):
        await fake.call("echo")
    stuck = asyncio.ensure_future(fake.call("never", timeout=300 * MS))
    behind = [asyncio.ensure_future(fake.call("echo", {"n": n})) for n in range(3)]

    # The fake answers the others out of turn: a real worker could not. What counts is that nobody is lost.
    assert await asyncio.gather(*behind) == [{"n": n} for n in range(3)]
    with pytest.raises(CallTimeoutError):
        await stuck


async def test_a_deadline_behind_a_long_call_is_kept(mock_host: HostMaker) -> None:
    """A call that was sent ahead does not wait for its turn to learn that it is late."""
    ml = await mock_host()
    for _ in range(30):
        await ml.call("mock", "echo")
    long = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 2.5}))
    await asyncio.sleep(0)

    with pytest.raises(CallTimeoutError) as caught:
        await ml.call("mock", "echo", timeout=500 * MS)

    assert caught.value.details["stopped_by"] == "queue"
    assert not long.done()
    assert await long == {"slept": 2.5}


async def test_other_calls_of_a_concurrent_worker_may_end_before_it_is_killed(mock_host: HostMaker) -> None:
    """The stuck call is answered, the others are not harmed, then the worker goes."""
    ml = await mock_host(max_concurrency=4, **IMPATIENT)
    await ml.call("mock", "pid")
    first = ml.pool("mock").ready[0].process.pid
    other = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 3_000 * MS}))
    await aeventually(lambda: ml.pool("mock").running)

    with pytest.raises(CallTimeoutError) as caught:
        await ml.call("mock", "busy", {"seconds": 30, "mode": "swallow"}, timeout=500 * MS)

    assert caught.value.details["stopped_by"] == "drain"
    assert await other == {"slept": 3_000 * MS}
    await aeventually(lambda: not process_is_running(first))


async def test_the_stacks_of_a_stuck_worker_are_in_the_log(
    mock_host: HostMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """Who killed it can say where it was stuck."""
    caplog.set_level("INFO", logger="manybridge.worker.mock")
    ml = await mock_host(**IMPATIENT)
    await ml.call("mock", "pid")

    with pytest.raises(CallTimeoutError) as caught:
        await ml.call("mock", "busy", {"seconds": 30, "mode": "c"}, timeout=500 * MS)
    assert "be_busy" in caplog.text
    assert "be_busy" in str(caught.value.details["stderr_tail"])


FAULTS: list[tuple[dict[str, Any], str, dict[str, Any]]] = [
    ({"kind": "os_exit", "exit_code": 4}, "worker_crashed", {"exit_code": 4}),
    ({"kind": "kill"}, "worker_crashed", {"signal": "SIGKILL"}),
    ({"kind": "segfault"}, "worker_crashed", {"signal": "SIGSEGV"}),
    ({"kind": "abort"}, "worker_crashed", {"signal": "SIGABRT"}),
]


@pytest.mark.parametrize(("args", "code", "details"), FAULTS)
async def test_a_handler_that_ends_the_process_fails_its_call_with_the_cause(
    args: dict[str, Any], code: str, details: dict[str, Any], mock_host: HostMaker
) -> None:
    """And the next call is served by a replacement."""
    ml = await mock_host()

    with pytest.raises(WorkerCrashedError) as caught:
        await ml.call("mock", "fail", args)

    assert caught.value.code == code
    assert details.items() <= caught.value.details.items()
    assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}


async def test_a_segfault_leaves_its_python_stack_in_the_error(mock_host: HostMaker) -> None:
    """The dump of faulthandler is in the tail."""
    ml = await mock_host()

    with pytest.raises(WorkerCrashedError) as caught:
        await ml.call("mock", "fail", {"kind": "segfault"})
    assert any("faults.py" in line for line in caught.value.details["stderr_tail"])


async def test_a_cancelled_job_says_what_stopped_it(mock_host: HostMaker) -> None:
    """Its state is `cancelled`."""
    ml = await mock_host()
    job = await ml.submit("mock", "sleep", {"seconds": 30})
    await aeventually(lambda: job.state == "running")

    assert await job.cancel()
    assert job.state == "cancelled"
    with pytest.raises(CallCancelledError):
        await job.result()

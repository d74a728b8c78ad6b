"""Sessions: affinity, one call at a time, leases."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from manybridge.errors import CallCancelledError, CallTimeoutError, InvalidArgumentError, SessionError
from manybridge.host.bridge import AsyncMLBridge
from tests.host.conftest import HostMaker
from tests.support import IMPATIENT, MS, aeventually


async def pid_of(ml: AsyncMLBridge, session: str) -> int:
    """Return the worker that serves a session now."""
    found: int = (await ml.call("mock", "pid", session=session))["pid"]
    return found


async def test_a_session_is_made_on_first_use_and_stays_with_its_worker(mock_host: HostMaker) -> None:
    """With the defaults."""
    ml = await mock_host(pool_size=3)
    await ml.wait_ready("mock", 10)
    pids = {await pid_of(ml, "s") for _ in range(10)}
    (info,) = await ml.list_sessions()

    assert len(pids) == 1
    assert (info.id, info.affinity, info.concurrency, info.calls) == ("s", "hint", "enqueue", 10)


async def test_a_hint_is_not_waited_for(mock_host: HostMaker) -> None:
    """While its worker is busy, another one serves."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock", 10)
    mine = await pid_of(ml, "s")
    worker = next(each for each in ml.pool("mock").ready if each.process.pid == mine)
    blocker = ml._router._sessions.create("blocker", "strict_queue")
    blocker.workers["mock"] = worker
    long = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.5}, session="blocker"))
    await aeventually(lambda: worker.calls)

    assert await pid_of(ml, "s") != mine
    assert not long.done()
    await long


async def test_a_strict_session_waits_for_its_worker(mock_host: HostMaker) -> None:
    """strict_queue."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock", 10)
    await ml.create_session("s", affinity="strict_queue")
    mine = await pid_of(ml, "s")
    worker = next(each for each in ml.pool("mock").ready if each.process.pid == mine)
    blocker = ml._router._sessions.create("blocker", "strict_queue")
    blocker.workers["mock"] = worker
    long = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.3}, session="blocker"))
    await aeventually(lambda: worker.calls)

    assert await pid_of(ml, "s") == mine
    assert long.done()


async def test_a_session_that_does_not_wait_is_refused(mock_host: HostMaker) -> None:
    """strict_fail_fast: session_busy."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock", 10)
    await ml.create_session("s", affinity="strict_fail_fast")
    mine = await pid_of(ml, "s")
    worker = next(each for each in ml.pool("mock").ready if each.process.pid == mine)
    blocker = ml._router._sessions.create("blocker", "strict_queue")
    blocker.workers["mock"] = worker
    long = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.5}, session="blocker"))
    await aeventually(lambda: worker.calls)

    with pytest.raises(SessionError) as caught:
        await pid_of(ml, "s")
    assert (caught.value.code, caught.value.retryable) == ("session_busy", True)
    await long


async def test_a_strict_session_moves_when_its_worker_dies(mock_host: HostMaker) -> None:
    """It does not hang."""
    ml = await mock_host()
    await ml.create_session("s", affinity="strict_queue")
    mine = await pid_of(ml, "s")
    await ml.call("mock", "fail_later", {"delay": 0.1})
    await aeventually(lambda: mine not in {each.process.pid for each in ml.pool("mock").workers})

    assert await pid_of(ml, "s") != mine


async def test_calls_of_a_session_run_one_after_the_other(mock_host: HostMaker) -> None:
    """enqueue, in the order in which they came."""
    ml = await mock_host(pool_size=3)
    await ml.wait_ready("mock", 10)
    order: list[int] = []

    async def one(number: int) -> None:
        await ml.call("mock", "sleep", {"seconds": 0.02 * (5 - number)}, session="s")
        order.append(number)

    await asyncio.gather(*(one(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_a_turn_that_does_not_come_in_time_is_a_timeout(mock_host: HostMaker) -> None:
    """stopped_by says `queue`."""
    ml = await mock_host()
    long = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.4}, session="s"))
    await aeventually(lambda: ml.pool("mock").running)

    with pytest.raises(CallTimeoutError) as caught:
        await ml.call("mock", "echo", session="s", timeout=50 * MS)
    assert caught.value.details["stopped_by"] == "queue"
    await long
    assert await ml.call("mock", "echo", {"a": 1}, session="s") == {"a": 1}


async def test_a_second_call_can_be_rejected(mock_host: HostMaker) -> None:
    """reject: session_busy at once."""
    ml = await mock_host(pool_size=2)
    await ml.create_session("s", concurrency="reject")
    long = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.3}, session="s"))
    await aeventually(lambda: ml.pool("mock").running)

    with pytest.raises(SessionError) as caught:
        await ml.call("mock", "echo", session="s")
    assert caught.value.code == "session_busy"
    await long


async def test_a_second_call_can_stop_the_first(mock_host: HostMaker) -> None:
    """interrupt: the first is cancelled, and has ended before the second begins."""
    ml = await mock_host(pool_size=2)
    await ml.create_session("s", concurrency="interrupt")
    first = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 30}, session="s"))
    await aeventually(lambda: ml.pool("mock").running)

    assert await ml.call("mock", "echo", {"a": 1}, session="s") == {"a": 1}
    with pytest.raises(CallCancelledError) as caught:
        await first
    # On a busy machine the worker may not even have begun it.
    assert caught.value.details["stopped_by"] in {"cooperative", "queue"}


async def test_the_last_call_is_the_one_that_counts(mock_host: HostMaker) -> None:
    """Those that wait are stopped, too: a third call does not wait behind the second."""
    ml = await mock_host(pool_size=2)
    await ml.create_session("s", concurrency="interrupt")
    calls = [asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 30}, session="s")) for _ in range(3)]
    await aeventually(lambda: ml.pool("mock").running)

    assert await ml.call("mock", "echo", {"a": 1}, session="s") == {"a": 1}
    for error in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(error, CallCancelledError)


@pytest.mark.parametrize("end", ["interrupt", "close"])
async def test_a_call_that_waits_for_its_next_attempt_is_stopped(end: str, mock_host: HostMaker) -> None:
    """No worker has it at that moment; the provider wants 1.5 s before it is asked again."""
    ml = await mock_host()
    await ml.create_session("s", concurrency="interrupt")
    fails = ml.call("mock", "fail", {"kind": "bridge_error"}, session="s", idempotency_key="k")
    first = asyncio.ensure_future(fails)
    await aeventually(lambda: ml._router.rescue.pauses)
    if end == "close":
        await ml.close_session("s")
    else:
        assert await ml.call("mock", "echo", {"a": 1}, session="s") == {"a": 1}

    with pytest.raises(CallCancelledError) as caught:
        await first
    assert caught.value.details["stopped_by"] == "queue"
    assert (await ml.call("mock", "calls"))["counts"]["fail"] == 1


SLOW_TO_MAKE = """\
from time import sleep

from manybridge.bridge import Bridge, command, resource


class Slow(Bridge):
    name = "slow"

    @command
    def echo(self, value: int) -> int:
        return value

    @resource("thing")
    class Thing:
        def create(self, seconds: float) -> None:
            sleep(seconds)

        def execute(self) -> str:
            return "executed"
"""


async def test_a_resource_that_is_made_again_is_not_waited_for(tmp_path: Path) -> None:
    """An interrupted call stops in the middle of that, and does not go on to execute it."""
    (tmp_path / "slow.py").write_text(SLOW_TO_MAKE)
    config = {"python_script": str(tmp_path / "slow.py"), "pool_size": 1, "cancel_grace": 0.2, "term_grace": 0.2}
    async with AsyncMLBridge({"bridges": {"slow": config}}) as ml:
        await ml.create_session("s", concurrency="interrupt")
        thing = await ml.create_resource("slow", "thing", {"seconds": 0.3}, session="s")
        (worker,) = ml.pool("slow").workers
        worker.kill()
        await aeventually(lambda: worker not in ml.pool("slow").workers)
        first = asyncio.ensure_future(ml.execute_resource("slow", thing.id, session="s"))
        await aeventually(lambda: ml.pool("slow").running)

        assert await ml.call("slow", "echo", {"value": 1}, session="s") == 1
        with pytest.raises(CallCancelledError):
            await first
        assert (await ml.get_resource("slow", thing.id, session="s")).executions == 0
        assert await ml.execute_resource("slow", thing.id, session="s") == "executed"


async def test_what_its_caller_has_left_has_ended_before_the_next_call_begins(mock_host: HostMaker) -> None:
    """Also where another worker is free: a session runs one call at a time, and code that does not stop is a call."""
    ml = await mock_host(pool_size=2, **IMPATIENT)
    await ml.wait_ready("mock", 10)
    left = asyncio.ensure_future(ml.call("mock", "busy", {"mode": "swallow"}, session="s"))
    await aeventually(lambda: ml.pool("mock").running)
    (busy,) = [worker for worker in ml.pool("mock").workers if worker.calls]
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left

    assert await ml.call("mock", "echo", {"a": 1}, session="s") == {"a": 1}
    assert not busy.calls  # on a busy machine it may not even have begun, and lives


async def test_a_turn_that_comes_too_late_is_passed_on(mock_host: HostMaker) -> None:
    """Its caller goes away in the very moment in which it is given: the session does not stay busy for ever."""
    ml = await mock_host()
    first = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.1}, session="s"))
    await aeventually(lambda: ml.pool("mock").running)
    second = asyncio.ensure_future(ml.call("mock", "echo", session="s"))
    await asyncio.sleep(0)
    session = ml._router._sessions.get("s")
    (turn,) = session.waiters
    turn.given.add_done_callback(lambda _: second.cancel())

    await first
    with pytest.raises(asyncio.CancelledError):
        await second
    assert await ml.call("mock", "echo", {"a": 1}, session="s", timeout=1_000 * MS) == {"a": 1}


@pytest.mark.parametrize("concurrency", ["enqueue", "reject", "interrupt"])
async def test_a_batch_in_a_session_runs_one_after_the_other(concurrency: str, mock_host: HostMaker) -> None:
    """Under every policy: its calls do not refuse, or stop, one another."""
    ml = await mock_host(pool_size=2)
    await ml.create_session("s", concurrency=concurrency)
    items = [{"command": "echo", "args": {"n": n}} for n in range(3)]

    assert await ml.batch("mock", items, session="s") == [{"n": 0}, {"n": 1}, {"n": 2}]


async def test_the_time_of_a_batch_is_for_all_of_its_calls(mock_host: HostMaker) -> None:
    """Also where they run one after the other."""
    ml = await mock_host()
    items = [{"command": "sleep", "args": {"seconds": seconds}} for seconds in (0, 60, 60)]
    first, second, third = await ml.batch("mock", items, session="s", timeout=300 * MS)

    assert first == {"slept": 0}
    assert (second.code, third.code) == ("timeout", "timeout")
    assert third.details["stopped_by"] == "queue"


async def test_a_session_ends_with_its_lease(mock_host: HostMaker) -> None:
    """And what was made in it."""
    ml = await mock_host()
    await ml.create_session("s", lease=0.1)
    await ml.create_resource("mock", "echo", session="s")

    await aeventually(lambda: not ml._router._sessions._sessions)
    await aeventually(lambda: len(ml._resources) == 0)
    with pytest.raises(SessionError) as caught:
        await ml.get_session("s")
    assert caught.value.code == "session_not_found"


async def test_a_lease_can_be_extended(mock_host: HostMaker) -> None:
    """With another length, too."""
    ml = await mock_host()
    await ml.create_session("s", lease=5)
    info = await ml.extend_session("s", 500)

    assert info.lease == 500
    assert info.expires_in > 400


async def test_closing_a_session_stops_its_call(mock_host: HostMaker) -> None:
    """Those that wait for a turn are told."""
    ml = await mock_host()
    running = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 30}, session="s"))
    await aeventually(lambda: ml.pool("mock").running)
    waiting = asyncio.ensure_future(ml.call("mock", "echo", session="s"))
    await asyncio.sleep(0)
    await ml.close_session("s")

    with pytest.raises(CallCancelledError):
        await running
    with pytest.raises(SessionError):
        await waiting


@pytest.mark.parametrize("wrong", [{"affinity": "sticky"}, {"concurrency": "parallel"}, {"lease": 0}])
async def test_wrong_policies_are_named(wrong: dict[str, str], mock_host: HostMaker) -> None:
    """invalid_argument."""
    ml = await mock_host()

    with pytest.raises(InvalidArgumentError):
        await ml.create_session("s", **wrong)  # type: ignore[arg-type]  # the mistakes under test


async def test_an_id_can_be_taken_once(mock_host: HostMaker) -> None:
    """The code is `conflict`."""
    ml = await mock_host()
    await ml.create_session("s")

    with pytest.raises(SessionError) as caught:
        await ml.create_session("s")
    assert caught.value.code == "conflict"

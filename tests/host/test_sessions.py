"""Sessions: affinity, one call at a time, leases."""

from __future__ import annotations

import asyncio

import pytest

from manybridge.errors import CallCancelledError, CallTimeoutError, InvalidArgumentError, SessionError
from manybridge.host.bridge import AsyncMLBridge
from tests.host.conftest import HostMaker
from tests.support import MS, aeventually


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

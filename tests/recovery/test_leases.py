"""A host that was stopped for longer than its lease, in the middle of its work, and goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from math import inf
from typing import Any

import pytest
from sqlalchemy import text

from manybridge.errors import ClosedError, OverloadedError, ResourceError, WorkerCrashedError
from manybridge.host import placement
from manybridge.host.bridge import AsyncMLBridge
from manybridge.store.liveness import this_host
from manybridge.store.sql_hosts import FORGET_SECONDS
from tests.store.hosts import HostMaker, expire
from tests.support import aeventually


async def value(ml: AsyncMLBridge, id: str) -> int:
    """Execute a counter."""
    counted: int = (await ml.execute_resource("mock", id))["value"]
    return counted


async def lapse(ml: AsyncMLBridge) -> None:
    """The lease of a host has run out, and it knows."""
    await expire(ml)
    ml._access._lease_until = -inf


async def test_what_ran_while_the_lease_lapsed_counts_if_nobody_came_between(durable_host: HostMaker) -> None:
    """What is told to callers is what has happened."""
    ml = await durable_host()
    made = await ml.create_resource("mock", "counter")
    assert await value(ml, made.id) == 1
    blocking = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.3}))
    await aeventually(lambda: ml.pool("mock").running)
    before = asyncio.ensure_future(value(ml, made.id))
    await aeventually(lambda: _waits(ml, "common:execute_resource"))
    await lapse(ml)
    after = asyncio.ensure_future(value(ml, made.id))

    assert (await before, await after) == (2, 3)
    assert await value(ml, made.id) == 4
    assert (await ml.get_resource("mock", made.id)).executions == 4
    await blocking


async def test_what_ran_while_another_host_came_between_does_not_count(durable_host: HostMaker) -> None:
    """It is told so, and what follows goes on from the other host's state."""
    ml, other = await durable_host(), await durable_host()
    made = await ml.create_resource("mock", "counter")
    assert await value(ml, made.id) == 1
    blocking = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.3}))
    await aeventually(lambda: ml.pool("mock").running)
    before = asyncio.ensure_future(value(ml, made.id))
    await aeventually(lambda: _waits(ml, "common:execute_resource"))
    await lapse(ml)
    assert await value(other, made.id) == 2
    await other.close()
    after = asyncio.ensure_future(value(ml, made.id))

    with pytest.raises(ResourceError) as caught:
        await before
    assert (caught.value.code, caught.value.retryable) == ("conflict", True)
    assert await after == 3
    assert await value(ml, made.id) == 4
    await blocking


async def test_a_lease_that_lapses_during_a_write_loses_no_later_state(
    durable_host: HostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write ends after the resource was claimed again; the next state is written all the same."""
    ml = await durable_host()
    made = await ml.create_resource("mock", "counter")
    assert await value(ml, made.id) == 1
    store: Any = ml._access.store
    written, go_on, save_state = asyncio.Event(), asyncio.Event(), store.save_state

    async def slowly(*args: Any, **keywords: Any) -> Any:
        saved = await save_state(*args, **keywords)
        written.set()
        await go_on.wait()
        return saved

    monkeypatch.setattr(store, "save_state", slowly)
    before = asyncio.ensure_future(value(ml, made.id))
    await written.wait()
    monkeypatch.setattr(store, "save_state", save_state)
    await lapse(ml)
    after = asyncio.ensure_future(value(ml, made.id))
    await aeventually(lambda: ml._access.is_announced)
    go_on.set()

    assert (await before, await after) == (2, 3)
    stored = await store.get_resource("mock", made.id)
    assert stored.state["value"] == 3
    assert await value(ml, made.id) == 4


async def test_an_execution_whose_state_could_not_be_kept_is_not_counted(
    durable_host: HostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not later either, together with one that was."""
    ml = await durable_host()
    made = await ml.create_resource("mock", "counter")
    store: Any = ml._access.store

    async def fails(*_: Any, **__: Any) -> Any:
        raise ResourceError("the disk is full", code="store_unavailable")

    monkeypatch.setattr(store, "save_state", fails)
    with pytest.raises(ResourceError):
        await value(ml, made.id)
    monkeypatch.undo()

    assert await value(ml, made.id) == 1
    stored = await store.get_resource("mock", made.id)
    assert (stored.executions, stored.version) == (1, 2)


async def test_hosts_that_were_killed_are_forgotten_some_day(durable_host: HostMaker) -> None:
    """Nobody has to ask for each of them, and a database doesn't grow with every crash."""
    ml = await durable_host()
    store: Any = ml._access.store
    for number in range(3):
        await store.announce_host(this_host(f"killed {number}"), -(number + 0.5) * FORGET_SECONDS)
    await durable_host()

    async def known(connection: Any) -> set[str]:
        return {row.id for row in await connection.execute(text("SELECT id FROM manybridge_hosts"))}

    await ml._access._renew()
    found = await store._store.database.read(known, "test")
    assert {id for id in found if id.startswith("killed")} == {"killed 0"}
    assert ml._access.host in found


async def test_a_create_that_comes_too_late_for_its_host_says_that_the_host_is_closed(
    durable_host: HostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that the resource exists: its reservation is given back with everything else."""
    ml = await durable_host()
    await ml.create_resource("mock", "echo")
    store: Any = ml._access.store
    confirm = store.confirm_resource

    async def late(*args: Any) -> Any:
        await store.retire_host(ml._access.host)
        ml._access.closing = True
        return await confirm(*args)

    monkeypatch.setattr(store, "confirm_resource", late)
    with pytest.raises(ClosedError):
        await ml.create_resource("mock", "echo", id="mine")


async def test_a_create_in_a_session_outlives_the_worker_that_it_waited_for(durable_host: HostMaker) -> None:
    """It is made in the next one, under the id that was reserved for it."""
    ml = await durable_host()
    await ml.create_session("s", affinity="strict_queue")
    pid = (await ml.call("mock", "pid", session="s"))["pid"]
    running = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 60}))
    await aeventually(lambda: ml.pool("mock").running)
    creating = asyncio.ensure_future(ml.create_resource("mock", "counter", id="mine", session="s"))
    await aeventually(lambda: _waits(ml, "common:create_resource"))
    os.kill(pid, signal.SIGKILL)

    assert (await creating).id == "mine"
    assert (await ml.execute_resource("mock", "mine", session="s"))["value"] == 1
    with pytest.raises(WorkerCrashedError):
        await running


def _waits(ml: AsyncMLBridge, command: str) -> bool:
    """Whether such a call was sent to a worker, or waits for one."""
    pool = ml.pool("mock")
    sent = [call for worker in pool.ready for call in worker.calls.values()]
    return any(call.command == command for call in sent) or pool.waiting > 0


async def test_a_stale_object_is_never_taken_for_the_resource(
    durable_host: HostMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a worker can't be made to forget an old state, the execution is an error."""
    one, two = await durable_host(), await durable_host()
    made = await one.create_resource("mock", "counter")
    assert await value(one, made.id) == 1
    await lapse(one)
    assert await value(two, made.id) == 2
    await two.close()

    async def forgets_nothing(*_: Any) -> None:
        return

    with monkeypatch.context() as patched:
        patched.setattr(placement, "release", forgets_nothing)
        with pytest.raises(ResourceError) as caught:
            await value(one, made.id)
    assert caught.value.code == "resource_exists"
    assert await value(one, made.id) == 3


async def test_a_full_queue_does_not_keep_a_worker_from_forgetting(durable_host: HostMaker) -> None:
    """What the host does for itself is not refused for want of room."""
    ml = await durable_host(max_queue=0)
    await ml.wait_ready("mock")
    made = await ml.create_resource("mock", "counter")
    await ml.call("mock", "sleep", {"seconds": 0.1})  # from now on the worker gets one call at a time
    running = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.3}))
    await aeventually(lambda: ml.pool("mock").running)
    with pytest.raises(OverloadedError):
        await ml.call("mock", "echo", {})
    await ml.delete_resource("mock", made.id)
    await running

    async def is_forgotten() -> bool:
        try:
            return bool((await ml.call("mock", "common:get_stats"))["resources"] == 0)
        except OverloadedError:
            return False  # it is just being forgotten

    await aeventually(is_forgotten)

"""Resources: recipes, policies, ownership, the death of workers."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from manybridge.errors import ManybridgeError, ResourceError, WorkerCrashedError
from manybridge.host.bridge import AsyncMLBridge
from tests.host.conftest import HostMaker
from tests.support import aeventually


async def kill_worker(ml: AsyncMLBridge, pid: int) -> None:
    """Kill a worker and wait until the host knows."""
    os.kill(pid, signal.SIGKILL)
    await aeventually(lambda: pid not in {worker.process.pid for worker in ml.pool("mock").workers})


async def test_a_resource_is_made_executed_described_and_deleted(mock_host: HostMaker) -> None:
    """The whole life of one."""
    ml = await mock_host()
    made = await ml.create_resource("mock", "echo", {"k": 1})
    result = await ml.execute_resource("mock", made.id, {"x": 2})
    described = await ml.get_resource("mock", made.id)

    assert (made.type, made.bridge, made.session, made.executions) == ("echo", "mock", None, 0)
    assert result == {"config": {"k": 1}, "inputs": {"x": 2}}
    assert described.executions == 1
    assert described.last_executed is not None
    assert [each.id for each in await ml.list_resources("mock", "echo")] == [made.id]
    assert await ml.delete_resource("mock", made.id) == {"id": made.id, "deleted": True}
    assert await ml.list_resources() == []
    with pytest.raises(ResourceError) as caught:
        await ml.execute_resource("mock", made.id)
    assert caught.value.code == "resource_not_found"


async def test_an_id_can_be_chosen_once(mock_host: HostMaker) -> None:
    """resource_exists."""
    ml = await mock_host()
    await ml.create_resource("mock", "echo", id="mine")

    with pytest.raises(ResourceError) as caught:
        await ml.create_resource("mock", "echo", id="mine")
    assert caught.value.code == "resource_exists"


async def test_an_unknown_type_lists_the_known_ones(mock_host: HostMaker) -> None:
    """unknown_resource_type."""
    ml = await mock_host()

    with pytest.raises(ResourceError, match="counter") as caught:
        await ml.create_resource("mock", "nope")
    assert caught.value.code == "unknown_resource_type"


async def test_listing_an_unknown_type_is_an_error_and_not_an_empty_list(mock_host: HostMaker) -> None:
    """As a worker answers it, for the method and for the command; a type without resources is an empty list."""
    ml = await mock_host()

    assert await ml.list_resources("mock", "counter") == []
    for listing in (
        ml.list_resources("mock", "nope"),
        ml.call("mock", "common:list_resources", {"type": "nope"}),
        ml.call("mock", "common:list_resources", {"type": "nope"}, session="s"),
    ):
        with pytest.raises(ResourceError, match=r"Unknown resource type: nope .*counter") as caught:
            await listing
        assert caught.value.code == "unknown_resource_type"
        assert caught.value.details["type"] == "nope"
        assert "counter" in caught.value.details["known"]


async def test_a_stateless_resource_is_made_wherever_it_is_needed(mock_host: HostMaker) -> None:
    """Executions at the same time use all workers."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock", 10)
    made = await ml.create_resource("mock", "echo", {"k": 1})
    long = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.5}))
    await aeventually(lambda: ml.pool("mock").running)
    record = await ml._resources.find(ml.pool("mock"), made.id, None)
    results = await asyncio.gather(*(ml.execute_resource("mock", made.id, {"n": n}) for n in range(20)))

    assert [each["inputs"] for each in results] == [{"n": n} for n in range(20)]
    assert record.holders <= set(ml.pool("mock").ready)
    await long


async def test_a_stateless_resource_survives_its_worker(mock_host: HostMaker) -> None:
    """It is made again from its recipe."""
    ml = await mock_host()
    made = await ml.create_resource("mock", "echo", {"k": 1})
    await kill_worker(ml, (await ml.call("mock", "pid"))["pid"])

    assert await ml.execute_resource("mock", made.id, {"x": 1}) == {"config": {"k": 1}, "inputs": {"x": 1}}


async def test_state_survives_the_death_of_its_worker(mock_host: HostMaker) -> None:
    """The next worker goes on from the snapshot after the last execution."""
    ml = await mock_host(pool_size=2)
    made = await ml.create_resource("mock", "counter", {"start": 10})
    for _ in range(3):
        last = await ml.execute_resource("mock", made.id)
    await kill_worker(ml, last["pid"])
    after = await ml.execute_resource("mock", made.id)

    assert (last["value"], after["value"], after["restored"]) == (13, 14, True)
    assert after["pid"] != last["pid"]


async def test_a_resource_with_state_stays_with_its_worker(mock_host: HostMaker) -> None:
    """While that lives there is one truth."""
    ml = await mock_host(pool_size=3)
    await ml.wait_ready("mock", 10)
    made = await ml.create_resource("mock", "counter")
    results = await asyncio.gather(*(ml.execute_resource("mock", made.id) for _ in range(20)))

    assert sorted(each["value"] for each in results) == list(range(1, 21))
    assert len({each["pid"] for each in results}) == 1


async def test_an_execution_whose_worker_died_did_not_happen(mock_host: HostMaker) -> None:
    """Result and state stand or fall together."""
    ml = await mock_host()
    made = await ml.create_resource("mock", "counter")
    await ml.execute_resource("mock", made.id)
    dying = asyncio.ensure_future(ml.call("mock", "fail", {"kind": "kill"}))
    with pytest.raises(WorkerCrashedError):
        await dying

    assert (await ml.execute_resource("mock", made.id))["value"] == 2


async def test_a_pinned_resource_is_lost_with_its_worker(mock_host: HostMaker) -> None:
    """resource_lost, never a wrong answer."""
    ml = await mock_host()
    made = await ml.create_resource("mock", "pinned", {"value": 7})
    first = await ml.execute_resource("mock", made.id)
    await kill_worker(ml, first["pid"])

    assert first["value"] == 7
    with pytest.raises(ResourceError) as caught:
        await ml.execute_resource("mock", made.id)
    assert (caught.value.code, caught.value.retryable) == ("resource_lost", False)


async def test_a_worker_with_a_pinned_resource_is_not_recycled(mock_host: HostMaker) -> None:
    """max_requests waits until the resource is deleted."""
    ml = await mock_host(max_requests=3)
    made = await ml.create_resource("mock", "pinned", {"value": 7})
    for _ in range(10):
        assert (await ml.execute_resource("mock", made.id))["value"] == 7

    await ml.delete_resource("mock", made.id)
    first = ml.pool("mock").ready[0]

    async def recycled() -> bool:
        await ml.call("mock", "echo")
        return first not in ml.pool("mock").ready

    await aeventually(recycled)


async def test_a_recycled_worker_takes_no_state_along(mock_host: HostMaker) -> None:
    """The value goes on in the replacement."""
    ml = await mock_host(max_requests=5)
    made = await ml.create_resource("mock", "counter")
    results = [await ml.execute_resource("mock", made.id) for _ in range(60)]

    assert [each["value"] for each in results] == list(range(1, 61))


@pytest.mark.parametrize("kind", ["raise", "kill"])
async def test_a_create_that_fails_leaves_nothing(kind: str, mock_host: HostMaker) -> None:
    """No record, and the error of the bridge."""
    ml = await mock_host()

    with pytest.raises(ManybridgeError):
        await ml.create_resource("mock", "faulty", {"fails_in": "create", "kind": kind})
    assert await ml.list_resources("mock") == []


@pytest.mark.parametrize("place", ["execute", "snapshot"])
async def test_an_execution_that_fails_half_way_is_an_error(place: str, mock_host: HostMaker) -> None:
    """The resource stays usable as an object of the caller."""
    ml = await mock_host()
    if place == "snapshot":
        with pytest.raises(ManybridgeError):
            await ml.create_resource("mock", "faulty", {"fails_in": place})
        return
    made = await ml.create_resource("mock", "faulty", {"fails_in": place})
    for _ in range(2):
        with pytest.raises(ManybridgeError) as caught:
            await ml.execute_resource("mock", made.id)
        assert caught.value.code == "handler_error"


async def test_deleting_while_it_executes_disturbs_nothing(mock_host: HostMaker) -> None:
    """The execution ends, the record is gone at once."""
    ml = await mock_host()
    made = await ml.create_resource("mock", "counter")
    blocking = asyncio.ensure_future(ml.call("mock", "sleep", {"seconds": 0.5}))
    await aeventually(lambda: ml.pool("mock").running)
    executing = asyncio.ensure_future(ml.execute_resource("mock", made.id))
    await asyncio.sleep(0)
    await ml.delete_resource("mock", made.id)

    assert await ml.list_resources() == []
    assert (await executing)["value"] == 1
    await blocking


async def test_a_session_owns_what_is_made_in_it(mock_host: HostMaker) -> None:
    """Visible there and nowhere else; gone with it."""
    ml = await mock_host()
    made = await ml.create_resource("mock", "echo", {"k": 1}, session="alice")

    assert made.session == "alice"
    assert await ml.list_resources("mock") == []
    assert [each.id for each in await ml.list_resources("mock", session="alice")] == [made.id]
    assert (await ml.execute_resource("mock", made.id, session="alice"))["config"] == {"k": 1}
    for session in (None, "bob"):
        with pytest.raises(ResourceError):
            await ml.execute_resource("mock", made.id, session=session)
    await ml.close_session("alice")
    assert await ml.list_resources("mock", session="alice") == []


async def test_the_wire_commands_do_the_same(mock_host: HostMaker) -> None:
    """common:create_resource and its family go through the host's records."""
    ml = await mock_host()
    made: dict[str, Any] = await ml.call("mock", "common:create_resource", {"type": "echo", "config": {"k": 1}})
    listed = await ml.call("mock", "common:list_resources", {})
    result = await ml.call("mock", "common:execute_resource", {"id": made["id"], "inputs": {"x": 1}})

    assert set(made) == {"id", "type", "bridge", "session", "created_at"}
    assert listed["total_count"] == 1
    assert result == {"config": {"k": 1}, "inputs": {"x": 1}}
    assert (await ml.call("mock", "common:get_resource", {"id": made["id"]}))["executions"] == 1
    assert await ml.call("mock", "common:delete_resource", {"id": made["id"]}) == {"id": made["id"], "deleted": True}


async def test_an_execution_can_be_streamed(mock_host: HostMaker) -> None:
    """The stream's result is the execution's."""
    ml = await mock_host()
    made = await ml.create_resource("mock", "echo", {"k": 1})
    stream = ml.stream("mock", "common:execute_resource", {"id": made.id, "inputs": {}})
    assert [event async for event in stream] == []

    assert stream.result == {"config": {"k": 1}, "inputs": {}}


async def test_cleaning_up_deletes_what_no_session_owns(mock_host: HostMaker) -> None:
    """common:cleanup."""
    ml = await mock_host()
    await ml.create_resource("mock", "echo")
    await ml.create_resource("mock", "echo", session="s")
    cleaned = await ml.call("mock", "common:cleanup", {})

    assert cleaned["resources_removed"] == 1
    assert len(await ml.list_resources("mock", session="s")) == 1

"""Hosts with a durable store: what is there after a restart, and what several hosts share."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships none
import pytest

from manybridge.errors import CallError, CallTimeoutError, ManybridgeError, ResourceError, SessionError
from manybridge.host.bridge import AsyncMLBridge
from tests.store.hosts import HostMaker, expire, rest, statements
from tests.support import MS, aeventually


async def value(ml: AsyncMLBridge, id: str, **options: Any) -> int:
    """Execute a counter."""
    counted: int = (await ml.execute_resource("mock", id, **options))["value"]
    return counted


# ---------------------------------------------------------------- one host after the other


async def test_resources_are_there_and_usable_after_a_restart(durable_host: HostMaker) -> None:
    """With their recipe, their state and their counts; what was pinned is lost, and says so."""
    before = await durable_host()
    echo = await before.create_resource("mock", "echo", {"k": 1})
    counter = await before.create_resource("mock", "counter", {"start": 10}, id="mine")
    pinned = await before.create_resource("mock", "pinned", {"value": 7})
    for _ in range(3):
        await before.execute_resource("mock", echo.id)
        await value(before, "mine")
    await before.close()

    after = await durable_host()
    listed = await after.list_resources("mock")
    assert [(each.id, each.type, each.executions) for each in listed] == [
        (echo.id, "echo", 3),
        (counter.id, "counter", 3),
        (pinned.id, "pinned", 0),
    ]
    assert [each.created_at for each in listed] == [echo.created_at, counter.created_at, pinned.created_at]
    assert await after.execute_resource("mock", echo.id, {"x": 1}) == {"config": {"k": 1}, "inputs": {"x": 1}}
    assert await value(after, "mine") == 14
    assert (await after.get_resource("mock", "mine")).executions == 4
    with pytest.raises(ResourceError) as caught:
        await after.execute_resource("mock", pinned.id)
    assert caught.value.code == "resource_lost"
    await after.delete_resource("mock", pinned.id)
    assert [each.id for each in await after.list_resources()] == [echo.id, "mine"]


async def test_a_worker_that_is_killed_takes_nothing_along(durable_host: HostMaker) -> None:
    """The next execution works, from the state that the store has."""
    ml = await durable_host()
    made = await ml.create_resource("mock", "counter")
    first = await ml.execute_resource("mock", made.id)
    os.kill(first["pid"], signal.SIGKILL)
    await aeventually(lambda: first["pid"] not in {each.process.pid for each in ml.pool("mock").workers})

    assert await value(ml, made.id) == 2
    stored = await ml._access.store.get_resource("mock", made.id)
    assert stored is not None
    assert (stored.state["value"], stored.executions, stored.version) == (2, 2, 3)


async def test_a_failed_create_leaves_its_id_free(durable_host: HostMaker) -> None:
    """Nothing is recorded, nothing stays reserved."""
    ml = await durable_host()
    for _ in range(2):
        with pytest.raises(ManybridgeError) as caught:
            await ml.create_resource("mock", "faulty", {"fails_in": "create"}, id="mine")
        assert caught.value.code == "handler_error"
        await aeventually(lambda: not ml.pool("mock").tasks)

    assert await ml.list_resources() == []
    assert (await ml.create_resource("mock", "echo", id="mine")).id == "mine"


async def test_a_snapshot_that_does_not_restore_is_an_error_and_the_resource_stays(durable_host: HostMaker) -> None:
    """With the cause, and what was being done."""
    before = await durable_host()
    made = await before.create_resource("mock", "faulty", {"fails_in": "restore"})
    await before.execute_resource("mock", made.id)
    await before.close()
    after = await durable_host()

    for _ in range(2):
        with pytest.raises(ManybridgeError) as caught:
            await after.execute_resource("mock", made.id)
        assert caught.value.code == "handler_error"
        assert caught.value.type == "MockError"
        assert made.id in caught.value.details["while"]
    assert [each.id for each in await after.list_resources()] == [made.id]


async def test_calls_without_state_never_touch_the_store(durable_host: HostMaker) -> None:
    """Not one statement, whether the database is open or not."""
    ml = await durable_host()
    await ml.jobs()  # what a host of before left is looked for at the start
    at_start = statements(ml)
    for _ in range(20):
        await ml.call("mock", "echo", {"x": 1})
    assert statements(ml) == at_start
    made = await ml.create_resource("mock", "echo")
    await ml.execute_resource("mock", made.id)
    await aeventually(lambda: not ml._resources._keeper._dirty)

    await rest(ml)
    before = statements(ml)
    assert before > 0
    for _ in range(50):
        await ml.call("mock", "echo", {"x": 1})
        [event async for event in ml.stream("mock", "count", {"n": 2})]
    await ml.batch("mock", [{"command": "echo", "args": {}}] * 10)
    assert statements(ml) == before


async def test_resources_beyond_a_workers_limit_are_let_go_and_made_again(durable_host: HostMaker) -> None:
    """The one that was used least recently goes first; no state is lost."""
    ml = await durable_host(max_resources=2)
    made = [await ml.create_resource("mock", "counter") for _ in range(4)]
    for wanted in range(1, 4):
        assert [await value(ml, each.id) for each in made] == [wanted] * 4
        held = (await ml.call("mock", "common:get_stats"))["resources"]
        assert held <= 3  # the last one that goes may still be on its way


async def test_memory_beyond_the_budget_lets_resources_go(durable_host: HostMaker) -> None:
    """One after the other, while it is exceeded; nothing is lost."""
    ml = await durable_host(resource_memory_mb=1)
    made = [await ml.create_resource("mock", "counter") for _ in range(3)]
    await aeventually(lambda: sum(len(held) for held in ml._resources._placement._held.values()) <= 1)

    assert [await value(ml, each.id) for each in made] == [1, 1, 1]


# ---------------------------------------------------------------- several hosts


async def test_two_hosts_share_resources(durable_host: HostMaker) -> None:
    """Made by one, executed by both, deleted by the other."""
    one, two = await durable_host(), await durable_host()
    made = await one.create_resource("mock", "echo", {"k": 1})

    assert [each.id for each in await two.list_resources("mock", "echo")] == [made.id]
    assert (await two.execute_resource("mock", made.id, {"x": 1}))["config"] == {"k": 1}
    await two.delete_resource("mock", made.id)
    assert await one.list_resources() == []

    async def unknown() -> bool:
        try:
            await one.execute_resource("mock", made.id)
        except ResourceError as error:
            return error.code == "resource_not_found"
        return False

    await aeventually(unknown)


async def test_two_hosts_take_turns_with_a_resource_that_has_state(durable_host: HostMaker) -> None:
    """No execution is lost, none is counted twice, and each goes on from the other's state."""
    one, two = await durable_host(), await durable_host()
    made = await one.create_resource("mock", "counter")
    seen = [await value(each, made.id) for each in (one, two, two, one)]

    assert seen == [1, 2, 3, 4]
    assert (await two.get_resource("mock", made.id)).executions == 4


async def test_of_two_hosts_that_make_the_same_id_one_does(durable_host: HostMaker) -> None:
    """The other is told that it exists."""
    hosts = [await durable_host() for _ in range(3)]
    outcomes = await asyncio.gather(
        *(each.create_resource("mock", "counter", {"start": n}, id="mine") for n, each in enumerate(hosts)),
        return_exceptions=True,
    )

    made = [n for n, each in enumerate(outcomes) if not isinstance(each, BaseException)]
    refused = [each.code for each in outcomes if isinstance(each, ManybridgeError)]
    assert (len(made), refused) == (1, ["resource_exists", "resource_exists"])
    assert await value(hosts[made[0]], "mine") == made[0] + 1


async def test_an_idempotency_key_makes_one_resource_on_several_hosts(durable_host: HostMaker) -> None:
    """At the same time, and again after a restart."""
    hosts = [await durable_host() for _ in range(2)]
    made = await asyncio.gather(
        *(each.create_resource("mock", "echo", {"k": 1}, idempotency_key="k") for each in hosts for _ in range(2))
    )
    assert len({each.id for each in made}) == 1
    for each in hosts:
        await each.close()
    after = await durable_host()

    assert (await after.create_resource("mock", "echo", {"k": 1}, idempotency_key="k")).id == made[0].id
    assert len(await after.list_resources()) == 1
    with pytest.raises(CallError) as caught:
        await after.create_resource("mock", "echo", {"k": 2}, idempotency_key="k")
    assert (caught.value.code, caught.value.retryable) == ("conflict", False)


async def test_a_resource_whose_key_was_not_finished_is_found_again(durable_host: HostMaker) -> None:
    """The host died between recording the resource and noting the key's result."""
    ml = await durable_host()
    made = await ml.create_resource("mock", "echo", {"k": 1}, idempotency_key="k")
    other = await durable_host()
    await _forget_result(other, "k")

    assert (await other.create_resource("mock", "echo", {"k": 1}, idempotency_key="k")).id == made.id
    assert len(await other.list_resources()) == 1


async def _forget_result(ml: AsyncMLBridge, key: str, place: str = "mock") -> None:
    """Make a key as it is when the host died that was making its call."""
    from manybridge.store.records import KeyRecord

    store = ml._access.store
    found, _ = await store.begin_key(KeyRecord(bridge=place, key=key, fingerprint="", host="nobody"))
    sql: Any = store
    from sqlalchemy import text

    async def work(connection: Any) -> None:
        await connection.execute(
            text("UPDATE manybridge_idempotency_keys SET done = false, host = 'nobody' WHERE fingerprint = :mark"),
            {"mark": found.fingerprint},
        )

    await sql._store.database.write(work, "test")


async def test_a_keyed_job_is_one_on_several_hosts_and_after_a_restart(durable_host: HostMaker) -> None:
    """One record, one execution; another command under the key is refused."""
    hosts = [await durable_host() for _ in range(2)]
    jobs = await asyncio.gather(
        *(each.submit("mock", "count", {"n": 3}, idempotency_key="k") for each in hosts for _ in range(2))
    )
    assert len({each.id for each in jobs}) == 1
    assert [await each.result() for each in jobs] == [{"count": 3}] * 4
    for each in hosts:
        await each.close()
    after = await durable_host()

    again = await after.submit("mock", "count", {"n": 3}, idempotency_key="k")
    assert (again.id, await again.result()) == (jobs[0].id, {"count": 3})
    assert [event.data async for event in again.events() if event.event == "chunk"] == [0, 1, 2]
    assert [each.id for each in await after.jobs()] == [jobs[0].id]
    with pytest.raises(CallError) as caught:
        await after.submit("mock", "count", {"n": 4}, idempotency_key="k")
    assert (caught.value.code, caught.value.retryable) == ("conflict", False)


@pytest.mark.parametrize("end", ["fail", "delete"])
async def test_a_keyed_job_that_failed_or_was_deleted_is_made_anew_once(durable_host: HostMaker, end: str) -> None:
    """Though several hosts submit it again at the same time."""
    one, two = await durable_host(), await durable_host()
    first = await one.submit("mock", *(("fail",) if end == "fail" else ("echo", {"a": 1})), idempotency_key="k")
    await first.wait()
    if end == "delete":
        await one.delete_job(first.id)
        with pytest.raises(CallError, match="idempotency_key"):  # its call was made, and stays so
            await two.submit("mock", "echo", {"a": 2}, idempotency_key="k")

    jobs = await asyncio.gather(
        *(each.submit("mock", "echo", {"a": 1}, idempotency_key="k") for each in (one, two) for _ in range(3))
    )
    assert len({each.id for each in jobs}) == 1
    assert jobs[0].id != first.id
    assert await jobs[0].result() == {"a": 1}


async def test_a_keyed_job_whose_key_was_not_finished_leaves_the_key_free(durable_host: HostMaker) -> None:
    """The host could not write which job it was, or died before: whoever submits it again gets a job."""
    ml = await durable_host()
    await ml.submit("mock", "echo", {"a": 1}, idempotency_key="k")
    await _forget_result(ml, "k", "mock:submit")
    other = await durable_host()

    job = await other.submit("mock", "echo", {"a": 1}, idempotency_key="k")
    assert await job.result() == {"a": 1}


async def test_a_keyed_call_is_made_once_by_several_hosts(durable_host: HostMaker) -> None:
    """The second host waits for the first one's answer."""
    one, two = await durable_host(), await durable_host()
    results = await asyncio.gather(
        *(each.call("mock", "pid", {}, idempotency_key="k") for each in (one, two) for _ in range(2))
    )

    assert len({each["pid"] for each in results}) == 1


async def test_a_keyed_call_that_fails_may_be_made_again(durable_host: HostMaker) -> None:
    """By any host."""
    one, two = await durable_host(), await durable_host()
    for each in (one, two, one):
        with pytest.raises(ManybridgeError) as caught:
            await each.call("mock", "fail", {"kind": "raise"}, idempotency_key="k")
        assert caught.value.code == "handler_error"
        await each._router._idempotency._reservations.close()


async def test_reading_what_is_kept_ends_with_its_timeout(shared_database: str) -> None:
    """The server holds every reader up: whoever migrates, or backs up, locks the table."""
    config = {"bridges": {"mock": {"zygote": "never"}}, "store": {"url": shared_database, "scope": "reading"}}
    async with AsyncMLBridge(config) as ml:
        made = await ml.create_resource("mock", "echo")
        connection = await asyncpg.connect(shared_database)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE manybridge_resources IN ACCESS EXCLUSIVE MODE")
                for place in ("mock", None):
                    with pytest.raises(CallTimeoutError, match="before the store"):
                        await ml.list_resources(place, timeout=50 * MS)
                with pytest.raises(CallTimeoutError, match="before the store"):
                    await ml.get_resource("mock", "unknown", timeout=50 * MS)
        finally:
            await connection.close()
        assert (await ml.get_resource("mock", made.id)).id == made.id


async def test_a_pinned_resource_is_executed_by_its_own_host_alone(durable_host: HostMaker) -> None:
    """The other says where it lives, and once that host has ended that it is lost."""
    one, two = await durable_host(), await durable_host()
    made = await one.create_resource("mock", "pinned", {"value": 7})
    with pytest.raises(ResourceError) as caught:
        await two.execute_resource("mock", made.id)
    assert caught.value.code == "not_supported"
    assert (await one.execute_resource("mock", made.id))["value"] == 7
    await one.close()

    with pytest.raises(ResourceError) as caught:
        await two.execute_resource("mock", made.id)
    assert caught.value.code == "resource_lost"


async def test_a_host_that_was_thought_dead_can_not_overwrite_state(durable_host: HostMaker) -> None:
    """Its execution does not count; the next one goes on from the other host's state."""
    one, two = await durable_host(), await durable_host()
    made = await one.create_resource("mock", "counter")
    assert await value(one, made.id) == 1
    await expire(one)
    assert await value(two, made.id) == 2

    with pytest.raises(ResourceError) as caught:
        await value(one, made.id)
    assert (caught.value.code, caught.value.retryable) == ("conflict", True)
    assert await value(two, made.id) == 3
    await one._access._renew()
    assert await value(one, made.id) == 4


async def test_deleting_on_one_host_while_another_executes_disturbs_nothing(durable_host: HostMaker) -> None:
    """The execution ends, and the resource is gone."""
    one, two = await durable_host(), await durable_host()
    made = await one.create_resource("mock", "counter")
    await value(one, made.id)
    blocking = asyncio.ensure_future(one.call("mock", "sleep", {"seconds": 0.3}))
    await aeventually(lambda: one.pool("mock").running)
    executing = asyncio.ensure_future(value(one, made.id))
    await two.delete_resource("mock", made.id)

    assert await executing == 2
    await blocking
    assert await one.list_resources() == []
    with pytest.raises(ResourceError):
        await value(one, made.id)


async def test_hosts_in_other_scopes_see_nothing(durable_host: HostMaker, store_config: dict[str, str]) -> None:
    """The same database, and none of its resources, sessions or keys."""
    mine, other = await durable_host(), await durable_host(store={**store_config, "scope": "another program"})
    made = await mine.create_resource("mock", "echo", id="mine", idempotency_key="k")
    await mine.create_session("s")

    assert await other.list_resources() == []
    assert await other.list_sessions() == []
    with pytest.raises(ResourceError):
        await other.execute_resource("mock", made.id)
    assert (await other.create_resource("mock", "counter", id="mine", idempotency_key="k")).type == "counter"
    await other.delete_resource("mock", "mine")
    assert (await mine.get_resource("mock", "mine")).type == "echo"


# ---------------------------------------------------------------- sessions


async def test_sessions_are_there_after_a_restart(durable_host: HostMaker) -> None:
    """With their policies, their settings and what was made in them."""
    before = await durable_host()
    await before.create_session("s", affinity="strict_queue", concurrency="reject", lease=60, settings={"lm": "x/y"})
    made = await before.create_resource("mock", "counter", session="s")
    await value(before, made.id, session="s")
    await before.call("mock", "echo", session="nothing made in it")
    await before.close()

    after = await durable_host()
    listed = await after.list_sessions()
    assert [(each.id, each.affinity, each.concurrency, each.lease, each.settings) for each in listed] == [
        ("s", "strict_queue", "reject", 60.0, {"lm": "x/y"})
    ]
    assert await value(after, made.id, session="s") == 2
    assert await after.list_resources("mock") == []
    await after.close_session("s")
    assert await after.list_resources("mock", session="s") == []
    with pytest.raises(SessionError):
        await after.get_session("s")


async def test_a_session_that_a_call_names_is_the_stores(durable_host: HostMaker) -> None:
    """Its policy holds on every host; one that was named first by a call is kept when something is made in it."""
    one, two = await durable_host(), await durable_host()
    await one.create_session("s", concurrency="reject")
    running = asyncio.ensure_future(two.call("mock", "sleep", {"seconds": 0.3}, session="s"))
    await aeventually(lambda: two.pool("mock").running)
    with pytest.raises(SessionError) as caught:
        await two.call("mock", "echo", session="s")
    assert caught.value.code == "session_busy"
    await running

    await one.call("mock", "echo", session="t")
    assert [each.id for each in await two.list_sessions()] == ["s"]
    await one.create_resource("mock", "echo", session="t")
    assert [each.id for each in await two.list_sessions()] == ["s", "t"]
    with pytest.raises(SessionError) as caught:
        await two.create_session("t")
    assert caught.value.code == "conflict"


async def test_a_session_whose_lease_ran_out_is_gone_with_what_was_made_in_it(durable_host: HostMaker) -> None:
    """Also after a restart, and not while another host uses it."""
    one, two = await durable_host(), await durable_host()
    # Long enough that it does not run out before the resource is there: that would make a session of an hour.
    await one.create_session("short", lease=1_000 * MS)
    made = await one.create_resource("mock", "echo", session="short")
    await one.create_session("long", lease=1_000 * MS)
    await two.extend_session("long", 60.0)

    async def gone() -> bool:
        return await two._access.store.get_resource("mock", made.id) is None

    await aeventually(gone)
    await aeventually(lambda: one._sessions.known("short") is None)
    assert (await one.get_session("long")).lease == 60.0
    assert [each.id for each in await two.list_sessions()] == ["long"]


async def test_leases_are_renewed_in_the_store(durable_host: HostMaker) -> None:
    """By the calls of a session, a moment later."""
    one, two = await durable_host(), await durable_host()
    await one.create_session("s", lease=5.0)

    async def renewed() -> bool:
        await one.call("mock", "echo", session="s")
        stored = await two._access.store.get_session("s")
        return stored is not None and stored.calls > 0

    await aeventually(renewed)

"""What every store does, in memory, in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from time import time
from typing import Any

import pytest

from manybridge.store.base import Store
from manybridge.store.liveness import this_host
from manybridge.store.records import (
    Execution,
    HostRecord,
    JobEvent,
    JobRecord,
    KeyRecord,
    ResourceRecord,
    SessionRecord,
)
from tests.store.conftest import Opener
from tests.support import MS, aeventually

# What JSON can carry and databases stumble over.
AWKWARD: Any = {
    "nul": "a\0b",
    "surrogate": "\ud800",
    "emoji": "\N{GRINNING FACE}",
    "big": 10**30,
    "nested": [{"a": None}, [], True, 1.5e-300, -0.0],
    "quotes": "'; DROP TABLE jobs; --\"",
    "long": "x" * 100_000,
}


def job(id: str, **fields: Any) -> JobRecord:
    """A job."""
    values = {"bridge": "mock", "command": "mock:work", "state": "running", "host": "here", "created_at": 1.5}
    return JobRecord(id=id, **{**values, **fields})


def resource(id: str, **fields: Any) -> ResourceRecord:
    """A resource."""
    return ResourceRecord(id=id, **{"bridge": "mock", "type": "counter", "created_at": 1.5, **fields})


def session(id: str, **fields: Any) -> SessionRecord:
    """A session."""
    values = {"affinity": "hint", "concurrency": "enqueue", "lease_seconds": 60.0, "expires_in": 60.0}
    return SessionRecord(id=id, **{"created_at": 1.5, **values, **fields})


def key(name: str, host: str = "here", **fields: Any) -> KeyRecord:
    """An idempotency key."""
    return KeyRecord(bridge="mock", key=name, host=host, **{"fingerprint": "f", **fields})


def dead_host(id: str) -> HostRecord:
    """A host on this machine whose process is gone: its pid is ours, but began at another time."""
    return replace(this_host(id), started=1)


# ---------------------------------------------------------------- jobs


async def test_a_job_comes_back_as_it_was_saved(store: Store) -> None:
    """Every field, whatever JSON it holds."""
    saved = job(
        "j",
        args=AWKWARD,
        session="s",
        idempotent=True,
        progress={"current": 1, "total": None},
        result=[AWKWARD],
        error={"code": "timeout"},
        events=7,
        started_at=2.25,
        finished_at=3.125,
    )
    await store.save_job(saved)

    assert await store.get_job("j") == saved
    assert await store.get_job("k") is None


async def test_saving_a_job_again_replaces_it_and_keeps_its_events(store: Store) -> None:
    """One record for each id."""
    await store.save_job(job("j"))
    await store.append_events("j", [JobEvent(0, "log", {"message": "m"})])
    await store.save_job(job("j", state="done", result=0))

    assert [(each.state, each.result) for each in await store.list_jobs()] == [("done", 0)]
    assert await store.read_events("j") == [JobEvent(0, "log", {"message": "m"})]


async def test_jobs_are_listed_oldest_first_and_the_newest_are_kept(store: Store) -> None:
    """By bridge, by state, at most `limit`."""
    for number in (3, 1, 2, 5, 4):
        await store.save_job(job(f"j{number}", created_at=float(number), state="done" if number % 2 else "running"))
    await store.save_job(job("other", bridge="dspy", created_at=9.0))

    assert [each.id for each in await store.list_jobs(bridge="mock")] == ["j1", "j2", "j3", "j4", "j5"]
    assert [each.id for each in await store.list_jobs(bridge="mock", limit=2)] == ["j4", "j5"]
    assert [each.id for each in await store.list_jobs(states={"done"})] == ["j1", "j3", "j5"]
    assert await store.list_jobs(states=()) == []


async def test_a_deleted_job_takes_its_events_along(store: Store) -> None:
    """Nothing is left, and late events are dropped."""
    await store.save_job(job("j"))
    await store.append_events("j", [JobEvent(0, "chunk", 1)])

    assert await store.delete_job("j")
    assert not await store.delete_job("j")
    await store.append_events("j", [JobEvent(1, "chunk", 2)])
    assert await store.read_events("j") == []


async def test_events_are_read_in_order_from_any_number_on(store: Store) -> None:
    """A number that is there already is left as it is; `null` is data too."""
    await store.save_job(job("j"))
    await store.append_events("j", [JobEvent(number, "chunk", number) for number in range(5)])
    await store.append_events("j", [JobEvent(4, "chunk", "again"), JobEvent(5, "chunk", None)])
    await store.append_events("j", [])

    assert [each.data for each in await store.read_events("j", 3)] == [3, 4, None]
    assert [each.seq for each in await store.read_events("j", 1, limit=2)] == [1, 2]
    assert await store.read_events("j", 6) == []


# ---------------------------------------------------------------- resources


async def test_a_resource_comes_back_as_it_was_added(store: Store) -> None:
    """With its recipe and state; listings leave the state out."""
    added = resource(
        "r", config=AWKWARD, policy="restore", session="s", owner="o", state=AWKWARD, version=1, executions=3,
        last_executed=2.5, holder="here", fence=1,
    )  # fmt: skip
    assert await store.add_resource(added)

    assert await store.get_resource("mock", "r") == added
    assert await store.get_resource("dspy", "r") is None
    assert await store.list_resources(session="s") == [replace(added, state=None)]


async def test_an_id_is_given_once_for_each_bridge(store: Store) -> None:
    """The first one stays as it is."""
    assert await store.add_resource(resource("r", config={"a": 1}))
    assert not await store.add_resource(resource("r", config={"a": 2}))
    assert await store.add_resource(resource("r", bridge="dspy"))

    found = await store.get_resource("mock", "r")
    assert found is not None
    assert found.config == {"a": 1}


async def test_one_of_many_hosts_gets_an_id(opener: Opener) -> None:
    """All at once, over connections of their own."""
    stores = [opener() for _ in range(5)]
    won = await asyncio.gather(*(each.add_resource(resource("r", config={"n": n})) for n, each in enumerate(stores)))

    found = await stores[0].get_resource("mock", "r")
    assert found is not None
    assert [n for n, mine in enumerate(won) if mine] == [found.config["n"]]


async def test_a_reserved_id_is_invisible_until_it_is_confirmed(store: Store) -> None:
    """Nobody sees, claims or deletes what is not made yet."""
    reserved = resource("r", ready=False, holder="here")
    assert await store.add_resource(reserved)

    assert not await store.add_resource(replace(reserved, holder="there"))
    assert await store.get_resource("mock", "r") is None
    assert await store.list_resources() == []
    assert await store.claim_resource("mock", "r", "there") is None
    assert not await store.delete_resource("mock", "r")
    assert await store.confirm_resource(reserved, replace(reserved, policy="restore", state=[1], version=1))
    found = await store.get_resource("mock", "r")
    assert found is not None
    assert (found.policy, found.state, found.ready, found.holder) == ("restore", [1], True, "here")
    assert not await store.confirm_resource(reserved, reserved)


async def test_the_reservation_of_a_dead_host_is_taken_over(store: Store) -> None:
    """And its maker, were it to come back, finds that."""
    await store.announce_host(dead_host("dead"), 60)
    first = resource("r", ready=False, holder="dead", created_at=1.0)
    assert await store.add_resource(first)
    second = replace(first, holder="here", created_at=2.0)

    assert await store.add_resource(second)
    assert not await store.confirm_resource(first, first)
    assert await store.confirm_resource(second, second)


async def test_resources_are_listed_oldest_first_for_their_session(store: Store) -> None:
    """What no session owns is everybody's."""
    await store.add_resource(resource("b", created_at=2.0))
    await store.add_resource(resource("a", created_at=3.0, type="echo"))
    await store.add_resource(resource("c", created_at=1.0, session="s"))
    await store.add_resource(resource("d", created_at=4.0, bridge="dspy"))

    assert [each.id for each in await store.list_resources()] == ["b", "a", "d"]
    assert [each.id for each in await store.list_resources(session="s", bridge="mock")] == ["c", "b", "a"]
    assert [each.id for each in await store.list_resources(type="echo")] == ["a"]


async def test_one_host_at_a_time_holds_a_resource(store: Store) -> None:
    """The other one learns who does, until it is released."""
    await store.add_resource(resource("r", policy="restore", state=[0], version=1))
    mine = await store.claim_resource("mock", "r", "here")
    assert mine is not None
    assert (mine.holder, mine.state, mine.version, mine.ready) == ("here", [0], 1, True)

    theirs = await store.claim_resource("mock", "r", "there")
    assert theirs is not None
    assert theirs.holder == "here"
    await store.release_resources("there", [("mock", "r")])
    assert (await store.get_resource("mock", "r") or mine).holder == "here"
    await store.release_resources("here", [("mock", "r"), ("mock", "unknown")])
    theirs = await store.claim_resource("mock", "r", "there")
    assert theirs is not None
    assert theirs.holder == "there"
    assert theirs.fence > mine.fence
    assert await store.claim_resource("mock", "unknown", "here") is None


async def test_of_many_hosts_that_claim_at_once_one_wins(opener: Opener) -> None:
    """All others are told the same name."""
    stores = [opener() for _ in range(4)]
    for number in range(4):
        await stores[0].announce_host(this_host(f"host {number}"), 60)
    await stores[0].add_resource(resource("r", policy="restore"))
    found = await asyncio.gather(*(each.claim_resource("mock", "r", f"host {n}") for n, each in enumerate(stores)))

    assert len({each.holder for each in found if each is not None}) == 1
    assert len([each for each in found if each is not None]) == 4


@pytest.mark.parametrize("death", ["lease", "process", "retired", "never announced"])
async def test_what_a_dead_host_held_is_free(death: str, store: Store) -> None:
    """However it is known to be dead; it can't save any more."""
    if death == "process":
        await store.announce_host(dead_host("gone"), 60)
    elif death != "never announced":
        await store.announce_host(this_host("gone"), 60)
    await store.add_resource(resource("r", policy="restore"))
    before = await store.claim_resource("mock", "r", "gone")
    assert before is not None
    assert before.holder == "gone"
    if death == "lease":
        await store.announce_host(this_host("gone"), -1)
    elif death == "retired":
        await store.retire_host("gone")

    after = await store.claim_resource("mock", "r", "here")
    assert after is not None
    assert after.holder == "here"
    late = await store.save_state(
        "mock", "r", host="gone", fence=before.fence, state="late", executions=1, last_executed=1.0
    )
    assert late is None
    assert (await store.get_resource("mock", "r") or before).state is None


async def test_a_state_is_kept_under_the_fence_alone(store: Store) -> None:
    """An older claim of the same host is refused too."""
    await store.add_resource(resource("r", policy="restore"))
    first = await store.claim_resource("mock", "r", "here")
    await store.release_resources("here", None)
    second = await store.claim_resource("mock", "r", "here")
    assert first is not None
    assert second is not None
    own: dict[str, Any] = {"host": "here", "executions": 2, "last_executed": 9.5}

    assert await store.save_state("mock", "r", fence=first.fence, state=1, **own) is None
    assert await store.save_state("mock", "r", fence=second.fence, state=AWKWARD, **own) == second.version + 1
    found = await store.get_resource("mock", "r")
    assert found is not None
    assert (found.state, found.executions, found.last_executed) == (AWKWARD, 2, 9.5)
    assert await store.delete_resource("mock", "r")
    assert await store.save_state("mock", "r", fence=second.fence, state=1, **own) is None


async def test_a_pinned_resource_stays_with_its_host(store: Store) -> None:
    """It can't live elsewhere: releasing everything leaves it, and so does the end of its host."""
    await store.add_resource(resource("p", policy="pinned", holder="here"))
    await store.add_resource(resource("r", policy="restore", holder="here"))
    await store.release_resources("here")
    await store.retire_host("here")

    assert [(each.id, each.holder) for each in await store.list_resources()] == [("p", "here"), ("r", None)]


async def test_executions_are_counted_for_those_that_are_there(store: Store) -> None:
    """Several at once."""
    await store.add_resource(resource("a", executions=1))
    await store.add_resource(resource("b"))
    counted = [("b", 2, 7.5), ("a", 3, 8.5), ("gone", 1, 9.5)]
    await store.add_executions(
        [Execution(bridge="mock", id=id, count=count, last_executed=at) for id, count, at in counted]
    )
    await store.add_executions([])

    found = [(each.id, each.executions, each.last_executed) for each in await store.list_resources()]
    assert found == [("a", 4, 8.5), ("b", 2, 7.5)]


async def test_resources_are_deleted_one_by_one_and_by_session(store: Store) -> None:
    """Nobody else's."""
    for id, owner in (("a", None), ("b", None), ("c", "s"), ("d", "t")):
        await store.add_resource(resource(id, session=owner))
    await store.add_resource(resource("e", session="s", bridge="dspy"))

    assert await store.delete_resource("mock", "a")
    assert not await store.delete_resource("mock", "a")
    assert await store.delete_resources("mock", "s") == [("mock", "c")]
    assert await store.delete_resources(None, "s") == [("dspy", "e")]
    assert await store.delete_resources("mock", None) == [("mock", "b")]
    assert [each.id for each in await store.list_resources(session="t")] == ["d"]


# ---------------------------------------------------------------- sessions


async def test_a_session_comes_back_as_it_was_added(store: Store) -> None:
    """Its lease runs."""
    added = session("s", settings=AWKWARD, owner="o", calls=3, affinity="strict_queue", concurrency="reject")
    assert await store.add_session(added)
    assert not await store.add_session(added)

    found = await store.get_session("s")
    assert found is not None
    assert replace(found, expires_in=60.0) == added
    assert 30 < found.expires_in <= 60
    assert await store.get_session("t") is None


async def test_sessions_are_listed_oldest_first_while_their_leases_run(store: Store) -> None:
    """One that has expired is not there, and its id is free."""
    await store.add_session(session("b", created_at=1.0))
    await store.add_session(session("a", created_at=2.0))
    await store.add_session(session("old", created_at=0.5, expires_in=-1.0))

    assert [each.id for each in await store.list_sessions()] == ["b", "a"]
    assert await store.get_session("old") is None
    assert await store.add_session(session("old"))


async def test_the_longer_lease_wins_when_two_hosts_use_a_session(store: Store) -> None:
    """Saving is inserting or replacing all but the settings, which another host may have changed."""
    await store.save_sessions([session("s", expires_in=50.0, calls=5, settings={"k": 1}), session("t")])
    await store.save_sessions([session("s", expires_in=10.0, calls=2, settings={"k": 2}), session("t")])
    await store.save_sessions([])

    found = await store.get_session("s")
    assert found is not None
    assert found.expires_in > 20
    assert (found.calls, found.settings) == (5, {"k": 1})


async def test_saving_a_session_whose_lease_ran_out_begins_a_new_one(store: Store) -> None:
    """The settings of the old one have ended with it."""
    await store.add_session(session("s", expires_in=-1.0, settings={"k": 1}))
    await store.save_sessions([session("s", settings={"k": 2})])

    found = await store.get_session("s")
    assert found is not None
    assert found.settings == {"k": 2}


async def test_renewing_changes_nothing_but_lease_and_calls(store: Store) -> None:
    """And tells what is not there any more, which is not made again."""
    await store.add_session(session("s", expires_in=10.0, calls=1, settings={"k": 1}))
    renewed = session("s", expires_in=50.0, calls=5, settings={}, lease_seconds=1.0)

    assert await store.renew_sessions([renewed, session("gone")]) == ["gone"]
    assert await store.renew_sessions([]) == []
    found = await store.get_session("s")
    assert found is not None
    assert (found.calls, found.settings, found.lease_seconds) == (5, {"k": 1}, 60.0)
    assert found.expires_in > 20
    assert await store.renew_sessions([session("s", expires_in=10.0)]) == []
    found = await store.get_session("s")
    assert found is not None
    assert (found.calls, found.expires_in > 20) == (5, True)
    assert await store.get_session("gone") is None


@pytest.mark.parametrize("seconds", [600.0, 30.0])
async def test_a_lease_that_is_begun_has_the_length_that_was_said(store: Store, seconds: float) -> None:
    """Also where that is shorter; what ended does not begin again, and nothing else of the session changes."""
    await store.add_session(session("s", expires_in=300.0, settings={"k": 1}))
    await store.add_session(session("old", expires_in=-1.0))

    assert await store.begin_lease("s", seconds)
    assert not await store.begin_lease("old", seconds)
    assert not await store.begin_lease("never", seconds)
    found = await store.get_session("s")
    assert found is not None
    assert (found.lease_seconds, found.settings) == (seconds, {"k": 1})
    assert seconds / 2 < found.expires_in <= seconds
    assert await store.get_session("old") is None


async def test_settings_are_changed_one_by_one(store: Store) -> None:
    """Those that are not named stay; None removes; two hosts at once lose nothing of each other's."""
    await store.add_session(session("s", settings={"a": 1, "b": AWKWARD}))
    await store.add_session(session("old", expires_in=-1.0, settings={"a": 1}))

    assert await store.change_settings("s", {"a": None, "c": {"d": None}}) == {"b": AWKWARD, "c": {"d": None}}
    await asyncio.gather(*(store.change_settings("s", {f"n{n}": n}) for n in range(8)))
    found = await store.get_session("s")
    assert found is not None
    assert found.settings == {"b": AWKWARD, "c": {"d": None}, **{f"n{n}": n for n in range(8)}}
    assert await store.change_settings("old", {"a": 2}) is None
    assert await store.change_settings("never", {"a": 2}) is None


async def test_one_session_that_expired_ends_alone(store: Store) -> None:
    """With what was made in it; one that lives, or never was, is left."""
    for id, left in (("expired", -1.0), ("other", -1.0), ("living", 60.0)):
        await store.add_session(session(id, expires_in=left))
        await store.add_resource(resource(f"of {id}", session=id))

    assert await store.end_expired_session("expired")
    assert not await store.end_expired_session("expired")
    assert not await store.end_expired_session("living")
    assert not await store.end_expired_session("never")
    assert await store.get_resource("mock", "of expired") is None
    assert await store.get_resource("mock", "of other") is not None
    assert await store.get_resource("mock", "of living") is not None


async def test_a_session_ends_with_what_was_made_in_it(store: Store) -> None:
    """Deleted or expired."""
    for id, left in (("closed", 60.0), ("expired", -1.0), ("living", 60.0)):
        await store.add_session(session(id, expires_in=left))
        await store.add_resource(resource(f"of {id}", session=id))

    assert await store.delete_session("closed")
    assert not await store.delete_session("closed")
    assert await store.end_expired_sessions() == ["expired"]
    assert await store.end_expired_sessions() == []
    assert await store.get_resource("mock", "of closed") is None
    assert await store.get_resource("mock", "of expired") is None
    assert await store.get_resource("mock", "of living") is not None


# ---------------------------------------------------------------- retention


async def test_old_resources_are_pruned_and_used_ones_are_not(store: Store) -> None:
    """Old is what was neither made nor executed for so long, unless a living host holds it."""
    now = time()
    await store.announce_host(this_host("here"), 60)
    await store.announce_host(dead_host("dead"), 60)
    made: dict[str, dict[str, Any]] = {
        "oldest": {"created_at": now - 900},
        "of a session": {"created_at": now - 800, "session": "s"},
        "of a dead host": {"created_at": now - 700, "holder": "dead", "policy": "pinned"},
        "of another bridge": {"created_at": now - 600, "bridge": "other"},
        "executed": {"created_at": now - 900, "last_executed": now - 10},
        "held": {"created_at": now - 900, "holder": "here", "policy": "pinned"},
        "new": {"created_at": now - 10},
    }
    for id, fields in made.items():
        await store.add_resource(resource(id, **fields))

    expected = [
        ("mock", "oldest"),
        ("mock", "of a session"),
        ("mock", "of a dead host"),
        ("other", "of another bridge"),
    ]
    assert await store.prune_resources(300, dry_run=True) == expected
    assert await store.prune_resources(300, bridge="mock") == expected[:3]
    assert await store.prune_resources(300) == expected[3:]
    assert await store.prune_resources(300) == []
    left = [each.id for each in await store.list_resources()]
    assert sorted(left) == ["executed", "held", "new"]


async def test_old_jobs_are_pruned_with_their_events(store: Store) -> None:
    """Those that have ended; what runs stays, however long."""
    now = time()
    kept: dict[str, dict[str, Any]] = {
        "old": {"finished_at": now - 900, "state": "done"},
        "other": {"finished_at": now - 900, "state": "failed", "bridge": "other"},
        "new": {"finished_at": now - 10, "state": "done"},
        "running": {"started_at": now - 9000},
    }
    for id, fields in kept.items():
        await store.save_job(job(id, **fields))
        await store.append_events(id, [JobEvent(0, "log", 1)])

    assert await store.prune_jobs(300, dry_run=True) == ["old", "other"]
    assert await store.prune_jobs(300, bridge="mock") == ["old"]
    assert await store.prune_jobs(300) == ["other"]
    assert sorted(each.id for each in await store.list_jobs()) == ["new", "running"]
    assert await store.read_events("old") == []
    assert await store.read_events("new") != []


# ---------------------------------------------------------------- keys


async def test_a_key_is_one_callers_until_its_result_is_there(store: Store) -> None:
    """And then everybody's."""
    assert await store.begin_key(key("k")) == (key("k"), True)
    assert await store.begin_key(key("k", "there", fingerprint="g")) == (key("k"), False)
    assert not await store.finish_key(key("k", "there"), 60)
    assert await store.finish_key(key("k", result=AWKWARD), 60)

    found, mine = await store.begin_key(key("k", "there"))
    assert not mine
    assert (found.done, found.result, found.host) == (True, AWKWARD, "here")


async def test_a_key_whose_call_failed_is_free(store: Store) -> None:
    """Its own host drops it, no other; and none that has a result."""
    await store.begin_key(key("k"))
    await store.drop_key("mock", "k", "there")
    assert not (await store.begin_key(key("k", "there")))[1]
    await store.drop_key("mock", "k", "here")
    assert (await store.begin_key(key("k", "there")))[1]
    await store.finish_key(key("k", "there"), 60)
    await store.drop_key("mock", "k", "there")
    assert not (await store.begin_key(key("k")))[1]


async def test_the_key_of_a_dead_host_is_taken_over(store: Store) -> None:
    """The call is made again: nobody knows how far it came."""
    await store.announce_host(dead_host("dead"), 60)
    await store.begin_key(key("k", "dead"))

    assert (await store.begin_key(key("k")))[1]
    assert not await store.finish_key(key("k", "dead"), 60)


async def test_a_result_is_kept_for_as_long_as_was_said(store: Store) -> None:
    """Afterwards the key is free."""
    await store.begin_key(key("k"))
    await store.finish_key(key("k", result=1), 20 * MS)

    async def free() -> bool:
        return (await store.begin_key(key("k", "there")))[1]

    await aeventually(free)


async def test_of_many_hosts_that_begin_a_key_at_once_one_wins(opener: Opener) -> None:
    """The others are told whose it is."""
    stores = [opener() for _ in range(4)]
    for number in range(4):
        await stores[0].announce_host(this_host(f"host {number}"), 60)
    found = await asyncio.gather(*(each.begin_key(key("k", f"host {n}")) for n, each in enumerate(stores)))

    assert [record.host for record, mine in found if mine] == [found[0][0].host]
    assert len({record.host for record, _ in found}) == 1


# ---------------------------------------------------------------- hosts and scopes


async def test_hosts_live_while_their_lease_and_their_process_do(store: Store) -> None:
    """A process on another machine is believed its lease."""
    await store.announce_host(dead_host("dead"), 60)
    await store.announce_host(replace(dead_host("elsewhere"), machine="another"), 60)
    await store.announce_host(this_host("expired"), -1)
    await store.retire_host("there")

    living = await store.living_hosts()
    assert living >= {"here", "elsewhere"}
    assert not living & {"dead", "expired", "there"}


async def test_the_end_of_a_host_frees_what_it_reserved(store: Store) -> None:
    """A reservation is not a resource."""
    await store.add_resource(resource("r", ready=False, holder="there"))
    await store.retire_host("there")

    assert await store.add_resource(resource("r"))


async def test_what_is_kept_is_there_for_the_next_one_who_opens(opener: Opener) -> None:
    """Another connection sees it at once."""
    first, second = opener(), opener()
    await first.save_job(job("j"))
    await first.add_resource(resource("r"))
    await first.add_session(session("s"))

    assert await second.get_job("j") == job("j")
    assert await second.get_resource("mock", "r") == resource("r")
    assert await second.get_session("s") is not None


async def test_many_writes_at_once_all_arrive(opener: Opener) -> None:
    """Over several connections."""
    stores = [opener() for _ in range(3)]
    wanted = [f"r{number}" for number in range(60)]
    await asyncio.gather(*(stores[n % 3].add_resource(resource(id)) for n, id in enumerate(wanted)))

    assert sorted(each.id for each in await stores[0].list_resources()) == sorted(wanted)


async def test_closing_twice_is_closing_once(opener: Opener) -> None:
    """Also before anything was opened."""
    unused = opener()
    await unused.close()
    await unused.close()


def test_this_process_is_known_by_its_beginning() -> None:
    """What `dead_host` relies on."""
    assert this_host("h").pid == os.getpid()
    assert this_host("h").started > 1

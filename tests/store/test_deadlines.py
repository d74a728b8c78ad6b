"""A store that does not answer holds no call beyond its time, and what nobody was told of is not left behind."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from manybridge.errors import CallTimeoutError, ResourceError
from manybridge.host import resource_keeper, session_keeper
from manybridge.host.bridge import AsyncMLBridge
from manybridge.store import database
from tests.support import MS, aeventually

SOON = 300 * MS
"""The timeout of the calls, in seconds."""

NEVER = 120.0
"""How long the store would wait for its lock."""


@pytest.fixture
async def ml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncMLBridge]:
    """A host on SQLite that has used its store."""
    monkeypatch.setattr(database, "BUSY_SECONDS", NEVER)
    config = {"bridges": {"mock": {"zygote": "never"}}, "store": {"url": f"sqlite:///{tmp_path}/own.db"}}
    async with AsyncMLBridge(config) as ml:
        await ml.create_resource("mock", "counter", {}, id="old")
        await ml.execute_resource("mock", "old")
        yield ml


@asynccontextmanager
async def locked(folder: Path) -> AsyncIterator[None]:
    """Another program writes, and does not come to an end."""
    other = sqlite3.connect(folder / "own.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


async def times_out(call: Awaitable[Any]) -> dict[str, Any]:
    """Check that a call ends with its time, or a moment later, and return the details of its error."""
    began = monotonic()
    with pytest.raises(CallTimeoutError) as caught:
        await call
    assert monotonic() - began < NEVER / 2
    assert caught.value.code == "timeout"
    return caught.value.details


async def test_every_call_about_a_resource_ends_in_time_while_the_store_is_locked(
    ml: AsyncMLBridge, tmp_path: Path
) -> None:
    """Making it, with its own id or without, executing and deleting it; calls that need no store go on meanwhile."""
    async with locked(tmp_path):
        made = await times_out(ml.create_resource("mock", "counter", {}, timeout=SOON))
        reserved = await times_out(ml.create_resource("mock", "counter", {}, id="new", timeout=SOON))
        executed = await times_out(ml.execute_resource("mock", "old", timeout=SOON))
        deleted = await times_out(ml.delete_resource("mock", "old", timeout=SOON))
        assert await ml.call("mock", "mock:echo", {"n": 1}) == {"n": 1}

    assert {each["waited_for"] for each in (made, reserved, executed, deleted)} == {"store"}
    assert reserved["stopped_by"] == deleted["stopped_by"] == "queue"


async def test_a_key_that_can_not_be_reserved_in_time_leaves_no_call_and_no_job(
    ml: AsyncMLBridge, tmp_path: Path
) -> None:
    """Neither now nor when the store is there again; the key is free for the next."""
    async with locked(tmp_path):
        await times_out(ml.call("mock", "mock:echo", {"n": 1}, timeout=SOON, idempotency_key="call"))
        await times_out(ml.submit("mock", "mock:echo", {"n": 1}, timeout=SOON, idempotency_key="job"))

    assert await ml.call("mock", "mock:echo", {"n": 2}, idempotency_key="call") == {"n": 2}
    job = await ml.submit("mock", "mock:echo", {"n": 2}, idempotency_key="job")
    assert await job.result() == {"n": 2}
    assert await ml.jobs() == [job]
    assert (await ml.call("mock", "mock:calls"))["counts"]["echo"] == 2


async def test_a_session_that_the_store_says_nothing_of_holds_its_call_no_longer_than_that_one_has(
    ml: AsyncMLBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is known here goes on as it is known; of another nobody knows the settings, so its call times out."""
    await ml.create_session("known", settings={"mock": {}})
    never = asyncio.Event()
    monkeypatch.setattr(ml._access.store, "get_session", lambda _id: never.wait())
    monkeypatch.setattr(session_keeper, "FRESH_SECONDS", -1.0)

    details = await times_out(ml.call("mock", "mock:echo", {}, session="unknown", timeout=SOON))
    answer = await ml.call("mock", "mock:echo", {"n": 1}, session="known", timeout=2_000 * MS)

    assert details == {"stopped_by": "queue", "waited_for": "store"}
    assert answer == {"n": 1}


async def test_a_resource_without_state_that_the_host_knows_goes_on_while_the_store_is_silent(
    ml: AsyncMLBridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether somebody else has deleted it can't be heard, and does not take all of the call's time."""
    await ml.create_resource("mock", "echo", {"k": 1}, id="known")
    never = asyncio.Event()
    monkeypatch.setattr(ml._access.store, "get_resource", lambda *_key: never.wait())
    monkeypatch.setattr(resource_keeper, "FRESH_SECONDS", -1.0)

    answer = await ml.execute_resource("mock", "known", {"n": 1}, timeout=2_000 * MS)
    await times_out(ml.execute_resource("mock", "unknown", timeout=SOON))

    assert answer == {"config": {"k": 1}, "inputs": {"n": 1}}


async def test_what_a_call_that_was_late_had_begun_to_make_is_not_left_in_the_store(
    ml: AsyncMLBridge, tmp_path: Path
) -> None:
    """When the lock is free, the writes that waited are undone: nothing is listed, and the id is free."""
    async with locked(tmp_path):
        await times_out(ml.create_resource("mock", "counter", {}, timeout=SOON))
        await times_out(ml.create_resource("mock", "counter", {}, id="new", timeout=SOON))

    async def is_free() -> bool:
        try:
            await ml.create_resource("mock", "counter", {}, id="new")
        except ResourceError as error:
            return error.code != "resource_exists"
        return True

    async def is_clean() -> bool:
        return {each.id for each in await ml.list_resources("mock")} == {"old", "new"}

    await aeventually(is_free)
    await aeventually(is_clean)

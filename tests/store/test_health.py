"""The store in `ml.health()`: where it is and whether it can be reached; it is not touched to find that out."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import StoreError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.store.schema import NEWEST
from tests.store.hosts import HostMaker, rest, statements
from tests.support import aeventually


async def store_of(ml: AsyncMLBridge, *, probe: bool = True) -> dict[str, Any]:
    """What health says of the store."""
    found: dict[str, Any] = (await ml.health(probe=probe))["store"]
    return found


def spoil(folder: Path) -> None:
    """Write something else into every file of a database."""
    for path in folder.glob("store.db*"):
        path.write_bytes(b"not a database" * 1000)


async def test_a_host_that_keeps_nothing_makes_no_store_to_tell_of_its_health(tmp_path: Path) -> None:
    """Whether it could be reached is not known."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}, "store": {"url": url, "scope": "mine"}}) as ml:
        await ml.call("mock", "echo")
        health = await ml.health()
        assert health["store"] == {
            "kind": "sqlite", "url": url, "scope": "mine", "used": False, "reachable": None, "schema": None,
            "last_error": None,
        }  # fmt: skip
        assert (health["status"], statements(ml)) == ("ok", 0)
    assert await asyncio.to_thread(lambda: list(tmp_path.iterdir())) == []


async def test_memory_is_always_there() -> None:
    """And has no schema."""
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}}) as ml:
        found = await store_of(ml)
    assert (found["kind"], found["url"], found["reachable"], found["schema"]) == ("memory", "memory:", True, None)


async def test_a_store_that_is_used_is_asked(durable_host: HostMaker) -> None:
    """Its schema is what it says; without a probe nothing is asked."""
    ml = await durable_host()
    await ml.create_resource("mock", "echo")
    found = await store_of(ml)
    assert (found["used"], found["reachable"], found["schema"], found["last_error"]) == (True, True, NEWEST, None)
    await rest(ml)
    before = statements(ml)
    found = await store_of(ml, probe=False)
    assert (found["reachable"], found["schema"]) == (None, NEWEST)
    assert statements(ml) == before


async def test_a_store_that_can_not_be_opened_makes_the_host_degraded(tmp_path: Path) -> None:
    """Ready all the same: what keeps nothing goes on. The last error says why."""
    url = f"sqlite:///{tmp_path}/nowhere/store.db"
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}, "store": {"url": url}}) as ml:
        await ml.wait_ready("mock")
        with pytest.raises(StoreError):
            await ml.create_resource("mock", "echo")
        health = await ml.health()
        assert (health["status"], health["ready"], health["store"]["reachable"]) == ("degraded", True, False)
        error = health["store"]["last_error"]
        assert (error["code"], error["reason"]) == ("store_unavailable", "missing_folder")
        (tmp_path / "nowhere").mkdir()
        await ml.create_resource("mock", "echo")
        health = await ml.health()
        assert (health["status"], health["store"]["reachable"]) == ("ok", True)
        assert health["store"]["last_error"] == error


async def test_a_store_that_breaks_shows_within_a_second(tmp_path: Path) -> None:
    """In the middle of a host's life."""
    url = f"sqlite:///{tmp_path}/store.db"
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}, "store": {"url": url}}) as ml:
        await ml.create_resource("mock", "echo")
        await asyncio.to_thread(spoil, tmp_path)

        async def shows() -> bool:
            return (await store_of(ml))["reachable"] is False

        await aeventually(shows)
        assert (await store_of(ml))["last_error"]["code"] in {"store_corrupted", "store_unavailable"}


async def test_a_server_that_is_not_there_is_told_in_time_and_without_its_password() -> None:
    """Health waits half a second for it, not until its own patience is over."""
    url = "postgresql://user:very-secret@127.0.0.1:1/db"
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}, "store": {"url": url}}) as ml:
        await ml.wait_ready("mock")
        with pytest.raises(StoreError):
            await ml.create_resource("mock", "echo", timeout=20)
        health = await ml.health()
        assert (health["store"]["reachable"], health["store"]["url"]) == (False, "postgresql://127.0.0.1:1/db")
        assert "very-secret" not in str(health)

"""Faults of the store: what needs it fails with `store_unavailable` or waits, what does not goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.testing.chaos import ChaosError, Faults
from tests.store.conftest import postgresql
from tests.store.postgresql import Server

__all__ = ["postgresql"]


@asynccontextmanager
async def stored(url: str) -> AsyncIterator[tuple[AsyncMLBridge, Faults]]:
    """A host with a durable store, which has faults."""
    config = {"bridges": {"mock": {"zygote": "never"}}, "store": {"url": url}}
    async with AsyncMLBridge(config) as ml, Faults(ml) as faults:
        await ml.wait_ready()
        await ml.create_resource("mock", "echo", {"n": 1}, id="first")
        yield ml, faults


async def test_a_locked_store_makes_writers_wait(tmp_path: Path) -> None:
    """Another program holds the lock for a moment: nobody gets an error for that."""
    async with stored(f"sqlite:///{tmp_path}/a.db") as (ml, faults):
        injection = await faults.store_locked(seconds=0.3)
        assert await ml.call("mock", "mock:echo", {"n": 1}) == {"n": 1}
        await ml.create_resource("mock", "echo", {"n": 2}, id="second")

        seconds = await faults.recovered(injection)
        assert seconds is not None
        assert seconds >= 0.3
        assert {each.id for each in await ml.list_resources("mock")} == {"first", "second"}


async def test_a_store_that_can_not_be_written_fails_what_must_be_kept(tmp_path: Path) -> None:
    """Typed, with the reason; plain calls go on, and afterwards everything does."""
    async with stored(f"sqlite:///{tmp_path}/a.db") as (ml, faults):
        injection = await faults.store_read_only(seconds=0.3)
        with pytest.raises(ManybridgeError) as caught:
            await ml.create_resource("mock", "echo", {"n": 2})
        assert caught.value.code == "store_unavailable"
        assert await ml.call("mock", "mock:echo", {"n": 1}) == {"n": 1}

        assert await faults.recovered(injection) is not None
        await ml.create_resource("mock", "echo", {"n": 3}, id="third")


async def test_files_that_were_moved_away_come_back(tmp_path: Path) -> None:
    """Nothing that was in them is lost."""
    file = tmp_path / "a.db"
    async with stored(f"sqlite:///{file}") as (ml, faults):
        injection = await faults.store_removed(seconds=0.2)
        assert not file.exists()

        assert await faults.recovered(injection) is not None
        assert file.exists()
        assert [each.id for each in await ml.list_resources("mock")] == ["first"]


async def test_closing_puts_the_store_back_at_once(tmp_path: Path) -> None:
    """Even before the fault has come to wait for its end."""
    file = tmp_path / "a.db"
    async with stored(f"sqlite:///{file}") as (ml, faults):
        await faults.store_read_only(seconds=60)
        await faults.store_removed(seconds=60)
        await faults.store_locked(seconds=60) if file.exists() else None
        await faults.close()

        assert file.exists()
        await ml.create_resource("mock", "echo", {"n": 3}, id="third")


async def test_a_dropped_connection_to_postgresql_is_made_again(postgresql: Server) -> None:
    """The server ends every connection; the next write has another one."""
    async with stored(postgresql.new_database()) as (ml, faults):
        injection = await faults.store_disconnected()
        assert injection.facts["connections"] >= 1

        assert await faults.recovered(injection) is not None
        await ml.create_resource("mock", "echo", {"n": 2}, id="second")
        assert {each.id for each in await ml.list_resources("mock")} == {"first", "second"}


async def test_only_postgresql_can_be_disconnected(tmp_path: Path) -> None:
    """SQLite has no connection that anybody could drop."""
    async with stored(f"sqlite:///{tmp_path}/a.db") as (_, faults):
        with pytest.raises(ChaosError, match="can only be dropped to PostgreSQL"):
            await faults.store_disconnected()

"""Stores of each kind, and a PostgreSQL server for those that need one."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from manybridge.store.base import Store
from manybridge.store.liveness import this_host
from manybridge.store.memory import MemoryStore
from manybridge.store.opening import open_store
from tests.store.hosts import durable_host, store_config
from tests.store.postgresql import Server, find_programs

__all__ = ["durable_host", "store_config"]

KINDS = ("memory", "sqlite", "postgresql")

_schemas = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A running server."""
    server = Server(find_programs())
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_database(postgresql: Server) -> str:
    """One database for all tests that each use a scope of their own: making one takes 50 ms."""
    return postgresql.new_database()


Opener = Callable[[], Store]
"""Opens one more store on the same records, as another host would."""


@pytest.fixture(params=KINDS)
async def opener(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Return a function that opens a store; what it opens sees the same records and closes with the test."""
    async with AsyncExitStack() as stack:
        shared = MemoryStore()

        def open_one() -> Store:
            if request.param == "memory":
                return shared
            store = open_store(url, scope=scope)
            stack.push_async_callback(store.close)
            return store

        scope = f"test {next(_schemas)}"
        if request.param == "postgresql":
            url = request.getfixturevalue("shared_database")
        else:
            url = f"sqlite:///{tmp_path}/store.db"
        yield open_one


@pytest.fixture
async def store(opener: Opener) -> Store:
    """A store with two living hosts, `here` and `there`."""
    opened = opener()
    for name in ("here", "there"):
        await opened.announce_host(this_host(name), 60)
    return opened

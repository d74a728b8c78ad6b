"""Hosts with a durable store, for tests: made, ended, and ended as a crash would."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from manybridge.host.bridge import AsyncMLBridge
from tests.support import aeventually

HostMaker = Callable[..., Awaitable[AsyncMLBridge]]

_scopes = itertools.count(1)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_config(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """A `[store]` table that no other test uses."""
    if request.param == "sqlite":
        return {"url": f"sqlite:///{tmp_path}/store.db"}
    return {"url": request.getfixturevalue("shared_database"), "scope": f"hosts {next(_scopes)}"}


@pytest.fixture
async def durable_host(store_config: dict[str, str]) -> AsyncIterator[HostMaker]:
    """Return a coroutine function that starts one more host on the same store; its arguments configure `mock`."""
    async with AsyncExitStack() as stack:

        async def make(store: dict[str, str] | None = None, **config: Any) -> AsyncMLBridge:
            bridge = {"zygote": "never", "cancel_grace": 0.2, "term_grace": 0.2, **config}
            ml = AsyncMLBridge({"bridges": {"mock": bridge}, "store": store or store_config})
            stack.push_async_callback(ml.close, 0.0)
            await ml.start()
            return ml

        yield make


async def expire(ml: AsyncMLBridge) -> None:
    """Have the others believe that a host is dead, though it does not know: it was stopped for too long."""
    from manybridge.store.liveness import this_host

    await ml._access.store.announce_host(this_host(ml._access.host), -1.0)


def statements(ml: AsyncMLBridge) -> int:
    """How many statements a host has sent to its database."""
    counted: int = getattr(ml._access.store, "statements")  # noqa: B009  # of LazyStore, which `Store` does not tell
    return counted


async def rest(ml: AsyncMLBridge) -> None:
    """Have a host write nothing any more that it writes by itself, and wait until what it writes is written."""
    await ml._access.rest()
    store: Any = ml._access.store
    await aeventually(lambda: not store._store.database._running)

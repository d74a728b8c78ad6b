"""Pools of misbehaving workers, and whole hosts; each closes with its test."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from math import inf
from pathlib import Path
from typing import Any, Protocol

import pytest

from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.calls import Call, loop_future
from manybridge.host.config import make_bridge_config
from manybridge.host.guardian import Guardian
from manybridge.host.launcher import WorkerPlan
from manybridge.host.pool import Pool
from tests.support import IMPATIENT, PATIENT

FAKE_WORKER = Path(__file__).parents[1] / "workers" / "fake.py"


class PoolMaker(Protocol):
    """Makes a pool of fake workers."""

    def __call__(self, boot: str = "ok", **config: Any) -> FakePool:
        """Start it."""
        ...


class FakePool:
    """A pool whose workers run tests/workers/fake.py."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    async def call(self, operation: str, args: dict[str, Any] | None = None, timeout: float = inf) -> Any:
        """Call `fake:operation`."""
        return await self.pool.run(self.make(operation, args, timeout))

    @staticmethod
    def make(operation: str, args: dict[str, Any] | None = None, timeout: float = inf) -> Call:
        """Return a call that has not been submitted."""
        return Call(f"fake:{operation}", args or {}, loop_future(), timeout)


@pytest.fixture
async def fake_pool() -> AsyncIterator[PoolMaker]:
    """Return a function that makes pools of fake workers."""
    async with AsyncExitStack() as stack:

        def make(boot: str = "ok", **config: Any) -> FakePool:
            values = {"bridge": "fake", "zygote": "never", **IMPATIENT, **config}
            checked = make_bridge_config("fake", values)
            guardian = Guardian()
            program = [sys.executable, "-I", "-S", str(FAKE_WORKER), boot]
            pool = Pool("fake", checked, guardian, plan=WorkerPlan("fake", checked, program=program))
            stack.callback(guardian.close)
            stack.push_async_callback(pool.close)
            pool.start()
            return FakePool(pool)

        yield make


HostMaker = Callable[..., Awaitable[AsyncMLBridge]]


@pytest.fixture
async def mock_host() -> AsyncIterator[HostMaker]:
    """Return a coroutine function that starts a host with the bundled bridge `mock`, configured by its arguments.

    It waits long for a call to end by itself; a test whose handler has to be killed says `**IMPATIENT`.
    """
    async with AsyncExitStack() as stack:

        async def make(**config: Any) -> AsyncMLBridge:
            values = {"zygote": "never", **PATIENT, **config}
            ml = AsyncMLBridge({"bridges": {"mock": values}})
            stack.push_async_callback(ml.close, 0.0)
            await ml.start()
            return ml

        yield make

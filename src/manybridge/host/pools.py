"""The pools of a host, one for each registered bridge, following the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from manybridge.errors import ClosedError
from manybridge.host.config import EnvironmentsConfig
from manybridge.host.guardian import Guardian
from manybridge.host.interpreters import Interpreters
from manybridge.host.launcher import WorkerPlan
from manybridge.host.pool import Pool
from manybridge.host.registry import Registry, RegistryChange
from manybridge.host.tasks import TaskSet
from manybridge.host.worker import WorkerHandle

UNREGISTER_DRAIN: Final = 5.0
"""Seconds that running calls of a bridge may take to end after it was unregistered."""


class PoolSet:
    """Owner of the pools.

    Args:
        registry: names and configurations.
        worker_gone: told of each worker that takes no calls any more.
        bridge_changed: told of each bridge that was changed (False) or removed (True).
        environments: where the environments of bridges lie.
    """

    def __init__(
        self,
        registry: Registry,
        worker_gone: Callable[[WorkerHandle], None],
        bridge_changed: Callable[[str, bool], None],
        environments: EnvironmentsConfig | None = None,
    ) -> None:
        self._registry = registry
        self._worker_gone = worker_gone
        self.special: set[str] = set()
        """Commands that are more than a call to a worker, of all pools."""
        self._bridge_changed = bridge_changed
        self._guardian = Guardian()
        self._interpreters = Interpreters(environments)
        self._tasks = TaskSet()
        self._pools: dict[str, Pool] = {}
        self._closed = False
        self._unsubscribe = registry.subscribe(self._changed)
        for name in registry:
            self._open(name)

    def all(self) -> list[Pool]:
        """Return every pool."""
        return list(self._pools.values())

    def get(self, name: str | None) -> Pool:
        """Return the pool of a bridge; None means the default.

        Raises:
            ClosedError: the host is closed.
            InvalidArgumentError: the name is no text.
            RegistryError: `unknown_bridge`.
        """
        pool = self._pools.get(name) if isinstance(name, str) else None
        if pool is None:
            if self._closed:
                raise ClosedError("the host is closed")
            pool = self._pools[self._registry.resolve(name)]
        return pool

    def start(self) -> None:
        """Start the pools that do not wait for their first call."""
        for pool in self.all():
            if pool.config.eager:
                pool.start()

    async def close(self, drain: float) -> None:
        """End every worker; running calls get `drain` seconds."""
        self._closed = True
        self._unsubscribe()
        pools = self.all()
        self._pools.clear()
        async with asyncio.TaskGroup() as group:
            for pool in pools:
                group.create_task(pool.close(drain))
        await self._tasks.join()
        self._guardian.close()
        self._interpreters.close()

    def _open(self, name: str) -> Pool:
        config = self._registry.get(name)
        pool = Pool(name, config, self._guardian, plan=WorkerPlan(name, config, interpreters=self._interpreters))
        pool.worker_gone.append(self._worker_gone)
        pool.special = self.special
        self._pools[name] = pool
        return pool

    def _changed(self, change: RegistryChange) -> None:
        if change.kind == "registered":
            pool = self._open(change.name)
            if pool.config.eager:
                pool.start()
        elif change.new is not None:
            self._pools[change.name].supervisor.reconfigure(change.new)
            self._bridge_changed(change.name, False)
        else:
            pool = self._pools.pop(change.name)
            self._bridge_changed(change.name, True)
            self._tasks.start(pool.close(UNREGISTER_DRAIN), f"close {change.name}")

"""Faults of the durable store: locked, read-only, gone, disconnected.

Each is the real thing as far as one process can have it: a second connection that holds SQLite's write lock, SQLite's
own refusal to write, files that are moved away, server processes of PostgreSQL that are ended.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.store_access import LEASE_SECONDS, StoreAccess
from manybridge.store.liveness import this_host
from manybridge.testing.chaos.injection import ChaosError, Injection
from manybridge.testing.chaos.threads import in_thread

APPLICATION: Final = "manybridge"
"""What the store calls its connections on a PostgreSQL server."""

LOCK_PATIENCE: Final = 30.0
"""Seconds that the lock may take to get; the host's own writes are short."""


class StoreFaults:
    """Injects faults into the store of one host. Everything is put back when a fault is over, and by `close`."""

    def __init__(self, ml: AsyncMLBridge) -> None:
        self._ml = ml
        self._running: set[asyncio.Task[Any]] = set()
        self._release = threading.Event()
        self._refuses = False
        """Whether SQLite refuses to write now."""
        self._listener: Callable[[], None] | None = None
        """Takes back what tells SQLite so, with each transaction."""

    async def lock(self, seconds: float) -> Injection:
        """Hold the write lock of the SQLite file, as another program would."""
        path = self._file("locked")
        held = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def hold() -> None:
            connection = sqlite3.connect(path, timeout=LOCK_PATIENCE, isolation_level=None)
            try:
                connection.execute("BEGIN IMMEDIATE")
                loop.call_soon_threadsafe(held.set_result, None)
                self._release.wait(seconds)
                connection.rollback()
            finally:
                connection.close()

        injection = self._begin("store_locked", lambda: in_thread(hold), seconds)
        assert injection.over is not None
        await asyncio.wait({held, injection.over}, return_when=asyncio.FIRST_COMPLETED)
        if injection.over.done() and (error := injection.over.exception()) is not None:
            raise ChaosError(f"the store could not be locked: {error}") from error
        return injection

    async def read_only(self, seconds: float) -> Injection:
        """Have SQLite refuse to write.

        Through `PRAGMA query_only` on the host's own connections and not through the file's permissions: a database
        that is open stays writable whatever they become, and root may write anyway.
        """
        path = self._file("read-only")
        await self._access.announce()  # opens it, if it was not needed before
        self._refuse(path, refuse=True)

        async def wait() -> None:
            try:
                await asyncio.sleep(seconds)
            finally:
                self._refuse(path, refuse=False)

        return self._begin("store_read_only", wait, seconds)

    async def remove(self, seconds: float) -> Injection:
        """Move the files of the database away, and back. Who has it open does not notice; who opens it then does."""
        path = self._file("removed")
        moved = [
            each for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))) if each.exists()
        ]
        for each in moved:
            each.rename(_away(each))

        async def wait() -> None:
            try:
                await asyncio.sleep(seconds)
            finally:
                for each in moved:
                    _away(each).replace(each)

        return self._begin("store_removed", wait, seconds)

    async def disconnect(self) -> Injection:
        """End the server process of every connection of manybridge to this PostgreSQL database."""
        url = self._access.url
        if url.kind != "postgresql":
            raise ChaosError(f"a connection can only be dropped to PostgreSQL; the store is {url.shown}")
        import asyncpg  # type: ignore[import-untyped]  # it ships none

        injection = Injection("store_disconnected", None)
        connection = await asyncpg.connect(url.dsn, server_settings={"application_name": "manybridge-chaos"})
        try:
            ended = await connection.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = $1 AND datname = current_database()",
                APPLICATION,
            )
        finally:
            await connection.close()
        injection.facts["connections"] = len(ended)
        return injection

    async def serves(self) -> bool:
        """Whether the store takes a write now."""
        access = self._access
        try:
            await access.store.announce_host(this_host(access.host), LEASE_SECONDS)
        except ManybridgeError:
            return False
        return True

    async def close(self) -> None:
        """Put everything back."""
        self._release.set()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        if self._listener is not None:
            await self.serves()  # a transaction, with which the writing connection is told that it may write again
            self._listener()

    # ------------------------------------------------------------------ inside

    @property
    def _access(self) -> StoreAccess:
        return self._ml._access  # a host does not show its store; this package tests hosts

    def _file(self, what: str) -> Path:
        url = self._access.url
        if url.kind != "sqlite":
            raise ChaosError(
                f"only a SQLite file can be {what}; the store is {url.shown}. Configure [store] url = "
                '"sqlite:///FILE"; for PostgreSQL there is the fault store_disconnected'
            )
        return url.path

    def _begin(self, fault: str, work: Callable[[], Awaitable[Any]], seconds: float) -> Injection:
        injection = Injection(fault, None, {"seconds": seconds})

        async def run() -> None:
            await work()

        injection.over = asyncio.get_running_loop().create_task(run(), name=f"chaos: {fault}")
        self._running.add(injection.over)
        injection.over.add_done_callback(self._running.discard)
        return injection

    def _refuse(self, path: Path, *, refuse: bool) -> None:
        self._refuses = refuse
        if self._listener is None:
            from sqlalchemy import Engine, event

            def begun(connection: Any) -> None:
                if connection.engine.url.database == str(path):
                    connection.exec_driver_sql(f"PRAGMA query_only = {int(self._refuses)}")

            event.listen(Engine, "begin", begun)
            self._listener = lambda: event.remove(Engine, "begin", begun)


def _away(path: Path) -> Path:
    return path.with_name(f"{path.name}.away")

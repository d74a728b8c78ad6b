"""Faults of the durable store: locked, read-only, gone, disconnected.

Each is the real thing as far as one process can have it: a second connection that holds SQLite's write lock, SQLite's
own refusal to write, files that are moved away, server processes of PostgreSQL that are ended.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from functools import partial
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

_HOLD: Final = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=float(sys.argv[2]), isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.rollback()
connection.close()
"""
"""Holds the write lock until its input ends."""


class StoreFaults:
    """Injects faults into the store of one host. Everything is put back when a fault is over, and by `close`."""

    def __init__(self, ml: AsyncMLBridge) -> None:
        self._ml = ml
        self._running: dict[asyncio.Task[None], Callable[[], None]] = {}
        """What ends a fault, by the task that waits for its time."""
        self._refuses = False
        """Whether SQLite refuses to write now."""
        self._listener: Callable[[], None] | None = None
        """Takes back what tells SQLite so, with each transaction."""

    async def lock(self, seconds: float) -> Injection:
        """Hold the write lock of the SQLite file, as another program would."""
        path = self._file("locked")
        # In a process of its own. SQLite keeps the descriptor of a connection that is closed in the process of another
        # one, and would be seen as a leak; and closing a file gives back the locks of the whole process.
        holder = subprocess.Popen(  # noqa: ASYNC220  # a few ms, as the host's own starts of workers
            [sys.executable, "-I", "-S", "-c", _HOLD, str(path), str(LOCK_PATIENCE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert holder.stdout is not None
        if not await in_thread(holder.stdout.readline):
            _, said = await in_thread(holder.communicate)
            raise ChaosError(f"the store could not be locked: {said.decode(errors='replace').strip()[-300:]}")

        # The end of its input is its end; it has nothing left to do.
        return self._begin("store_locked", seconds, partial(_end, holder))

    async def read_only(self, seconds: float) -> Injection:
        """Have SQLite refuse to write.

        Through `PRAGMA query_only` on the host's own connections and not through the file's permissions: a database
        that is open stays writable whatever they become, and root may write anyway.
        """
        path = self._file("read-only")
        await self._access.announce()  # opens it, if it was not needed before
        self._refuse(path, refuse=True)

        return self._begin("store_read_only", seconds, lambda: self._refuse(path, refuse=False))

    async def remove(self, seconds: float) -> Injection:
        """Move the files of the database away, and back. Who has it open does not notice; who opens it then does."""
        path = self._file("removed")
        moved = [
            each for each in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))) if each.exists()
        ]
        for each in moved:
            each.rename(_away(each))

        def put_back() -> None:
            for each in moved:
                _away(each).replace(each)

        return self._begin("store_removed", seconds, put_back)

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
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._listener is not None:
            await self.serves()  # a transaction, with which the writing connection is told that it may write again
            self._listener()
            self._listener = None

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

    def _begin(self, fault: str, seconds: float, undo: Callable[[], None]) -> Injection:
        """Have `undo` called once: after so many seconds, or when the faults are closed."""
        injection = Injection(fault, None, {"seconds": seconds})
        task = asyncio.get_running_loop().create_task(asyncio.sleep(seconds), name=f"chaos: {fault}")
        task.add_done_callback(self._over)
        self._running[task] = undo
        injection.over = task
        return injection

    def _over(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task)()

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


def _end(holder: subprocess.Popen[bytes]) -> None:
    holder.communicate()

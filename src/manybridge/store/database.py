"""The connections to one database, and transactions over them.

SQLite allows one writer at a time. Of one process there is one connection that writes, so that its own transactions
queue here in memory; `busy_timeout` is for the writers of other processes. Readers have connections of their own and
never wait (WAL). PostgreSQL has one pool for everything.

A transaction runs to its end even when its caller is cancelled: a commit that is cut off leaves nobody knowing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from manybridge.errors import StoreError
from manybridge.store.failures import closed_error, lost_connection, moved_error, store_error
from manybridge.store.inline import EngineThread
from manybridge.store.schema import needs_upgrade, upgrade
from manybridge.store.urls import StoreUrl

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Result = TypeVar("Result")
Work: TypeAlias = "Callable[[AsyncConnection], Awaitable[Result]]"

BUSY_SECONDS: Final = 5.0
"""How long a write waits for a writer of another process. A transaction of ours takes milliseconds; whoever holds the
lock for longer is no host."""

RECONNECT_SECONDS: Final = 5.0
"""How long work is tried again while the server is away: PostgreSQL restarts in one to three seconds."""

STATEMENT_SECONDS: Final = 30.0
"""No statement of ours takes longer, unless the server hangs."""

POOL_SIZE: Final = 5
"""Connections to PostgreSQL of one host. Its transactions are short; a server allows 100 by default."""


LOCKED_PAUSE: Final = 0.01
"""Seconds between two tries where SQLite itself does not wait."""


class Database:
    """Owner of the connections.

    Args:
        url: where it is.
    """

    def __init__(self, url: StoreUrl) -> None:
        self.url = url
        self.statements = 0
        """How many were executed; for tests and stats."""
        self._engines: list[EngineThread | AsyncEngine] = []
        """The one for writing and the one for reading, or one for both."""
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    async def open(self, *, upgrades: bool = True) -> None:
        """Connect, and bring the schema up to ours, unless `upgrades` is false.

        Raises:
            StoreError: it can't be opened.
        """
        try:
            if self.url.kind == "sqlite":
                _make_file(self.url)
                self._engines = [self._sqlite_engine(writes=True), self._sqlite_engine(writes=False)]
            else:
                self._engines = [self._postgresql_engine()]
            old = await self.read(lambda connection: connection.run_sync(needs_upgrade, self.url), "open")
            if old and upgrades:
                await self.write(lambda connection: connection.run_sync(upgrade, self.url), "open")
        except OSError as error:
            raise store_error(error, self.url, "open") from error
        except BaseException:
            await self.close()  # not only dispose: what was cancelled may still be connecting
            raise

    async def write(self, work: Work[Result], doing: str) -> Result:
        """Run `work` in a transaction that may write, and commit it.

        Args:
            work: gets the connection; run again where the server went away before the commit.
            doing: what an error says was tried.

        Raises:
            StoreError: it failed, and nothing was kept; or, where `details["unknown"]` is true, the connection broke
                in the commit and nobody knows.
        """
        return await self._shielded(self._retried(self._engines[0], work, doing), doing)

    async def read(self, work: Work[Result], doing: str) -> Result:
        """Run `work` in a transaction that only reads.

        Raises:
            StoreError: it failed.
        """
        return await self._shielded(self._retried(self._engines[-1], work, doing), doing)

    async def close(self) -> None:
        """Let what runs end, and close the connections."""
        self._closed = True
        if self._running:
            await asyncio.wait(self._running)
        await self._dispose()

    async def _shielded(self, work: Coroutine[Any, Any, Result], doing: str) -> Result:
        if self._closed:
            work.close()
            raise closed_error(self.url, doing)
        task = asyncio.get_running_loop().create_task(work, name=f"store: {doing}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # told to whoever waited; its caller may have gone

    async def _retried(self, engine: EngineThread | AsyncEngine, work: Work[Result], doing: str) -> Result:
        deadline, pause = monotonic() + RECONNECT_SECONDS, 0.02
        while True:
            transaction = _Transaction()
            try:
                return await (engine.run(work) if isinstance(engine, EngineThread) else transaction.run(engine, work))
            except StoreError:
                raise
            except (SQLAlchemyError, OSError, TimeoutError, UnicodeEncodeError, OverflowError) as error:
                gone = self.url.kind == "postgresql" and lost_connection(error)
                if transaction.committing and gone:
                    raise _unknown(error, self.url, doing) from error
                if not gone or monotonic() + pause > deadline or self._closed:
                    raise store_error(error, self.url, doing) from error
            await engine.dispose()  # its other connections are as dead as this one
            await asyncio.sleep(pause)
            pause = min(0.5, pause * 2)

    async def _dispose(self) -> None:
        engines, self._engines = self._engines, []
        for engine in engines:
            await engine.dispose()

    def _sqlite_engine(self, *, writes: bool) -> EngineThread:
        engine = create_engine(f"sqlite:///{self.url.path}", pool_size=1, connect_args={"timeout": BUSY_SECONDS})
        synchronous = self.url.synchronous

        opened: list[tuple[int, int]] = []

        @event.listens_for(engine, "connect")
        def connected(connection: Any, _record: Any) -> None:
            opened[:] = [_identity(self.url)]
            connection.isolation_level = None  # the module must not begin transactions by itself: we say which kind
            try:
                _use_write_ahead_log(connection)
                for pragma in (f"synchronous={synchronous}", "foreign_keys=on"):
                    connection.execute(f"PRAGMA {pragma}")
            except BaseException:  # it is not the pool's yet
                connection.close()
                raise

        @event.listens_for(engine, "begin")
        def begun(connection: Any) -> None:
            # SQLite would go on with a file that has no name any more, and everything would be gone with this process.
            if opened != [_identity(self.url)]:
                raise moved_error(self.url, "begin")
            # Immediate takes the one write lock at the beginning, where waiting for it is possible.
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        self._count(engine)
        return EngineThread(engine, f"store {'writer' if writes else 'reader'}")

    def _postgresql_engine(self) -> AsyncEngine:
        # SQLite needs neither of them, and each takes its tenth of a second.
        import asyncpg  # type: ignore[import-untyped]  # it ships none
        from sqlalchemy.ext.asyncio import create_async_engine

        async def connect() -> Any:
            # asyncpg reads the address itself, so that everything that libpq's addresses can say works.
            return await asyncpg.connect(
                self.url.dsn,
                timeout=RECONNECT_SECONDS,
                command_timeout=STATEMENT_SECONDS,
                server_settings={"application_name": "manybridge"},
            )

        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=connect, pool_size=POOL_SIZE, pool_timeout=STATEMENT_SECONDS
        )
        self._count(engine.sync_engine)
        return engine

    def _count(self, engine: Engine) -> None:
        @event.listens_for(engine, "before_cursor_execute")
        def executing(*_: Any) -> None:
            self.statements += 1


class _Transaction:
    """One attempt over a server. Knows whether it had come to its commit when it failed."""

    committing = False

    async def run(self, engine: AsyncEngine, work: Work[Result]) -> Result:
        """Run it."""
        async with engine.connect() as connection:
            transaction = await connection.begin()
            try:
                result = await work(connection)
            except BaseException:
                await _rolled_back(transaction)
                raise
            self.committing = True
            await transaction.commit()
            return result


async def _rolled_back(transaction: Any) -> None:
    try:
        await transaction.rollback()
    except (SQLAlchemyError, OSError):
        return  # the connection is gone, and the transaction with it; the first error says why


def _unknown(error: BaseException, url: StoreUrl, doing: str) -> StoreError:
    made = store_error(error, url, doing)
    made.details["unknown"] = True
    made.message += "; the connection broke in the commit, so nobody knows whether it was kept"
    return made


def _identity(url: StoreUrl) -> tuple[int, int]:
    """Which file the path leads to; zeros where it leads to none."""
    try:
        found = os.stat(url.path)  # noqa: PTH116  # a microsecond less in each transaction
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _make_file(url: StoreUrl) -> None:
    """Make the file ourselves where there is none: it holds what callers sent, so it is for its owner alone.

    Never open one that exists: closing it again would drop the locks that another connection of this process has on it
    (https://www.sqlite.org/howtocorrupt.html, section 2.2).

    Raises:
        OSError: it can't be made.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(url.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Have a database use a write-ahead log. Only the first connection that ever does so changes anything.

    For that change SQLite wants the file for itself and does not wait for it, whatever `busy_timeout` says
    (https://www.sqlite.org/wal.html): of two hosts that make a store at the same moment one is refused.
    """
    deadline = monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=wal")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() >= deadline:
                raise
        sleep(LOCKED_PAUSE)

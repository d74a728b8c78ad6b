"""The way in: `open_store` gives a store at once, and opens its database with the first record that is to be kept.

A program that keeps nothing gets no file and does not pay for the import of SQLAlchemy (half a second).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from importlib import import_module
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Any, Final, cast

from manybridge.errors import StoreError
from manybridge.store.base import Store
from manybridge.store.failures import closed_error
from manybridge.store.memory import MemoryStore
from manybridge.store.urls import StoreUrl, parse_store_url

if TYPE_CHECKING:
    from manybridge.store.sql import SqlStore

DEFAULT_SCOPE: Final = "default"


def open_store(url: str | StoreUrl, *, scope: str = DEFAULT_SCOPE, folder: Path | None = None) -> Store:
    """Return a store. Nothing is opened before it is needed; close it all the same.

    Args:
        url: `memory:`, `sqlite:///FILE`, `postgresql://...`, or one that was checked.
        scope: whose records it sees.
        folder: what a relative FILE is relative to.

    Raises:
        ConfigError: the url is none that is known.
    """
    checked = parse_store_url(url, folder) if isinstance(url, str) else url
    return MemoryStore() if checked.kind == "memory" else cast("Store", LazyStore(checked, scope))


_READS: Final[dict[str, Callable[[], Any]]] = {
    "get_job": lambda: None,
    "list_jobs": list,
    "read_events": list,
    "get_resource": lambda: None,
    "list_resources": list,
    "get_session": lambda: None,
    "list_sessions": list,
    "living_hosts": set,
}
"""What reading from a file that does not exist gives. It is not made only to find nothing in it."""

_EMPTY: Final[dict[str, Callable[[], Any]]] = _READS | {
    "delete_job": lambda: False,
    "delete_resource": lambda: False,
    "delete_resources": list,
    "delete_session": lambda: False,
    "end_expired_session": lambda: False,
    "end_expired_sessions": list,
    "begin_lease": lambda: False,
    "release_resources": lambda: None,
    "add_executions": lambda: None,
    "append_events": lambda: None,
    "abandon_resource": lambda: None,
    "claim_resource": lambda: None,
    "retire_host": lambda: None,
    "renew_sessions": list,
    "change_settings": lambda: None,
    "prune_resources": list,
    "prune_jobs": list,
}
"""The same for what changes nothing where there is nothing."""

_OPENS: Final = frozenset(
    {
        "read_schema",
        "save_job",
        "add_resource",
        "confirm_resource",
        "save_state",
        "add_session",
        "save_sessions",
        "begin_key",
        "finish_key",
        "drop_key",
        "announce_host",
    }
)


class LazyStore:
    """A `Store` that opens its database when it is first needed. Owner of that opening."""

    def __init__(self, url: StoreUrl, scope: str) -> None:
        self.url = url
        self._scope = scope
        self._store: SqlStore | None = None
        self._opening = asyncio.Lock()
        self._closed = False
        self.failure: tuple[StoreError, float] | None = None
        """See `Store`."""

    @property
    def is_open(self) -> bool:
        """Whether there are connections."""
        return self._store is not None

    @property
    def statements(self) -> int:
        """How many statements the database was sent."""
        return 0 if self._store is None else self._store.database.statements

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        """Every method of `Store`: opens the database, unless there is none and the answer is known without it."""
        if name not in _OPENS and name not in _EMPTY:
            raise AttributeError(name)

        async def method(*args: Any, **keywords: Any) -> Any:
            store = self._store
            try:
                if store is None:
                    if name in _EMPTY and not self._closed and self.url.kind == "sqlite" and _is_absent(self.url.path):
                        return _EMPTY[name]()
                    store = await self._opened(name)
                return await getattr(store, name)(*args, **keywords)
            except StoreError as error:
                self.failure = (error, time())
                raise

        setattr(self, name, method)
        return method

    async def close(self) -> None:
        """See `Store`."""
        self._closed = True
        async with self._opening:
            if self._store is not None:
                await self._store.close()

    async def _opened(self, name: str) -> SqlStore:
        async with self._opening:
            if self._closed:
                raise closed_error(self.url, name.replace("_", " "))
            if self._store is None:
                sql: Any = await _imported("manybridge.store.sql")
                self._store = await sql.open_sql_store(self.url, self._scope)
            return self._store


def _is_absent(path: Path) -> bool:
    """Whether there is certainly no such file. Where nobody may look, opening it will say so."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    return False


async def _imported(name: str) -> Any:
    """Import a module on a thread of its own: half a second in which this loop's calls go on."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish() -> None:
        if not done.done():
            done.set_result(None)

    def work() -> None:
        with contextlib.suppress(Exception):  # raised below, where somebody waits for it
            import_module(name)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits
            loop.call_soon_threadsafe(finish)

    thread = threading.Thread(target=work, name=f"import {name}", daemon=True)
    thread.start()
    await done
    return import_module(name)

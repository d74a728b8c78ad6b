"""Where the latest state of each thread is kept: in this process, or in an SQLite file that many workers share.

A turn runs on a copy and comes here when it has ended well, so there is nothing to undo when it has not. Replacing a
state is a compare-and-set on the id of the state that the turn began with: of two workers that worked on one thread at
the same moment, the second is told `conflict`, and what the first one kept stays.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from weakref import WeakValueDictionary

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import invalid, missing_package
from manybridge.protocol.errors import ErrorCode

BUSY_SECONDS: Final = 30.0
"""How long a write waits for other workers that write to the same file."""
MAX_FILES: Final = 64
"""SQLite files that one worker keeps open, each with a thread and three descriptors; they stay open while it lives."""

LATEST: Final = (
    "SELECT checkpoint_id FROM checkpoints WHERE thread_id = ? AND checkpoint_ns = '' "
    "ORDER BY checkpoint_id DESC LIMIT 1"
)
INSERT: Final = (
    "INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, type, checkpoint, metadata) "
    "VALUES (?, '', ?, ?, ?, ?)"
)
NAMES: Final = "SELECT DISTINCT thread_id FROM checkpoints WHERE substr(thread_id, 1, ?) = ? ORDER BY thread_id LIMIT ?"


class State(NamedTuple):
    """A thread's state, as LangGraph's checkpointers take and give it."""

    checkpoint: dict[str, Any]
    metadata: dict[str, Any]

    @property
    def id(self) -> str:
        """Another one for every state that there ever was."""
        id: str = self.checkpoint["id"]
        return id

    @property
    def messages(self) -> list[Any]:
        """LangChain's messages, oldest first."""
        found: list[Any] = self.checkpoint["channel_values"].get("messages", [])
        return found


class ThreadStore(Protocol):
    """Keeps one state for each key. Used on the event loop."""

    async def load(self, key: str) -> State | None:
        """The state of a thread; None for one that is not there."""

    async def replace(self, key: str, expected: str | None, state: State) -> None:
        """Keep `state` if the thread's state is still the one with the id `expected` (None: there is none).

        Raises:
            BridgeError: `conflict`, it is not; nothing is changed.
        """

    async def remove(self, key: str) -> bool:
        """Drop a thread; whether there was one."""

    async def keys(self, prefix: str, limit: int) -> list[str]:
        """The threads whose keys begin so, in order."""

    def lock(self, key: str) -> asyncio.Lock:
        """For turns of one thread in one worker, which wait for each other rather than lose."""


class InProcess:
    """The states of this process. Owned by one agent or memory, whose snapshots carry them."""

    def __init__(self) -> None:
        self._serde = strict_serializer()
        self._states: dict[str, tuple[str, bytes]] = {}
        """Written out, so that a snapshot can be taken at any moment, and nobody changes what is kept."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def lock(self, key: str) -> asyncio.Lock:
        """See `ThreadStore`."""
        return self._locks.setdefault(key, asyncio.Lock())

    async def load(self, key: str) -> State | None:
        """See `ThreadStore`."""
        kept = self._states.get(key)
        return None if kept is None else self._read(kept)

    def _read(self, kept: tuple[str, bytes]) -> State:
        found = self._serde.loads_typed(kept)
        return State(found["checkpoint"], found["metadata"])

    async def replace(self, key: str, expected: str | None, state: State) -> None:  # noqa: ARG002  # as in files
        """See `ThreadStore`. Turns are one after the other here, so nothing is compared."""
        self._states[key] = self._serde.dumps_typed(state._asdict())

    async def remove(self, key: str) -> bool:
        """See `ThreadStore`."""
        return self._states.pop(key, None) is not None

    async def keys(self, prefix: str, limit: int) -> list[str]:
        """See `ThreadStore`."""
        return sorted(key for key in self._states if key.startswith(prefix))[:limit]

    def snapshot(self, prefix: str) -> dict[str, str]:
        """Every state as text, by the thread's name."""
        return {
            key.removeprefix(prefix): f"{kind}:{base64.b64encode(data).decode()}"
            for key, (kind, data) in dict(self._states).items()
        }

    def restore(self, prefix: str, texts: Mapping[str, str]) -> None:
        """Put a snapshot back.

        Raises:
            BridgeError: `invalid_argument`, it is none.
        """
        try:
            for name, text in texts.items():
                kind, _, data = text.partition(":")
                kept = kind, base64.b64decode(data)
                assert self._read(kept).id
                self._states[prefix + name] = kept
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise invalid("state", f"not a snapshot of threads ({type(error).__name__})") from error


class InFile:
    """The states of one SQLite file, in the tables of LangGraph's checkpointer.

    Args:
        files: the worker's open files.
        name: of the file.
    """

    def __init__(self, files: Savers, name: str) -> None:
        self._files = files
        self._name = name

    def lock(self, key: str) -> asyncio.Lock:
        """See `ThreadStore`; shared by all agents and memories of this worker that name the file."""
        return self._files.locks.setdefault((self._name, key), asyncio.Lock())

    async def load(self, key: str) -> State | None:
        """See `ThreadStore`."""
        saver = await self._files.sqlite(self._name)
        found = await saver.aget_tuple({"configurable": {"thread_id": key, "checkpoint_ns": ""}})
        return None if found is None else State(found.checkpoint, found.metadata)

    async def replace(self, key: str, expected: str | None, state: State) -> None:
        """See `ThreadStore`."""
        saver = await self._files.sqlite(self._name)
        kind, data = saver.serde.dumps_typed(state.checkpoint)
        metadata = json.dumps(state.metadata, ensure_ascii=False).encode("utf-8", "ignore")
        async with _Transaction(saver) as connection:
            async with connection.execute(LATEST, (key,)) as rows:
                row = await rows.fetchone()
            if (row[0] if row else None) != expected:
                raise _lost()
            await _drop(connection, key)
            await connection.execute(INSERT, (key, state.id, kind, data, metadata))

    async def remove(self, key: str) -> bool:
        """See `ThreadStore`."""
        saver = await self._files.sqlite(self._name)
        async with _Transaction(saver) as connection:
            return await _drop(connection, key)

    async def keys(self, prefix: str, limit: int) -> list[str]:
        """See `ThreadStore`."""
        saver = await self._files.sqlite(self._name)
        async with saver.lock, saver.conn.execute(NAMES, (len(prefix), prefix, limit)) as rows:
            return [row[0] async for row in rows]


class _Transaction:
    """One change of a file: all of it or nothing, and alone among all processes from its first statement on."""

    def __init__(self, saver: Any) -> None:
        self._saver = saver

    async def __aenter__(self) -> Any:
        """Wait for the other writers, and return the connection."""
        await self._saver.lock.acquire()
        try:
            await self._saver.conn.execute("BEGIN IMMEDIATE")
        except BaseException:
            await self._end(self._saver.conn.rollback)
            raise
        return self._saver.conn

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        """Keep the change, or take it back if the block failed or was cancelled."""
        await self._end(self._saver.conn.commit if error is None else self._saver.conn.rollback)

    async def _end(self, how: Any) -> None:
        try:
            await how()
        except BaseException:
            await self._saver.conn.rollback()  # of a commit that failed, for example on a full disk
            raise
        finally:
            self._saver.lock.release()


async def _drop(connection: Any, key: str) -> bool:
    """Drop every row of a thread; whether it had a state."""
    await connection.execute("DELETE FROM writes WHERE thread_id = ?", (key,))
    async with connection.execute("DELETE FROM checkpoints WHERE thread_id = ?", (key,)) as dropped:
        return bool(dropped.rowcount)


def _lost() -> BridgeError:
    return BridgeError(
        ErrorCode.CONFLICT,
        "Another worker changed this thread while this turn ran. What it wrote is kept, and nothing of this turn is. "
        "Ask again, and the turn will know of the other one.",
    )


class Savers:
    """Owner of the open SQLite checkpointers of this worker, one for each name. Used on the event loop.

    Args:
        folder: where the files are; None if the bridge's options name none.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser().resolve()
        self.locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._open: dict[str, Any] = {}
        self._opening = asyncio.Lock()

    def check(self, where: str) -> None:
        """Refuse files where there can be none, before anything is run; `where` is the caller's argument.

        Raises:
            BridgeError: `config_error` without a folder, `missing_package` without the checkpointer.
        """
        if self.folder is None:
            raise BridgeError(
                ErrorCode.CONFIG_ERROR,
                f"{where}: memory of kind 'sqlite' needs a folder; set the option memory_folder of this bridge",
            )
        try:
            import langgraph.checkpoint.sqlite.aio
        except ImportError as error:
            raise _no_sqlite() from error
        assert langgraph.checkpoint.sqlite.aio is not None

    async def sqlite(self, name: str) -> Any:
        """The checkpointer of that name, opened when first asked for.

        Raises:
            BridgeError: `overloaded`, too many are open.
        """
        async with self._opening:
            if name not in self._open:
                if len(self._open) >= MAX_FILES:
                    raise BridgeError(
                        ErrorCode.OVERLOADED,
                        f"this worker has {MAX_FILES} memory files open; use fewer names, with a thread for each user",
                        retryable=False,
                    )
                self._open[name] = await self._connect(name)
            return self._open[name]

    async def _connect(self, name: str) -> Any:
        import aiosqlite
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        assert self.folder is not None
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.folder / f"{name}.sqlite"
        # Conversations are private: the file is made before SQLite would make it readable for everybody.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connecting = aiosqlite.connect(path, timeout=BUSY_SECONDS)
        # Not a reason for the worker to live on, whatever way it ends.
        thread: Any = getattr(connecting, "_thread", connecting)
        thread.daemon = True
        connection = await connecting
        try:
            saver = AsyncSqliteSaver(connection, serde=strict_serializer())
            await saver.setup()
        except BaseException as error:
            await connection.close()
            if type(error) is sqlite3.DatabaseError:  # its subclasses say other things: locked, full, read-only
                raise _damaged(path, error) from error
            raise
        return saver

    def close(self) -> None:
        """Close every file. The worker ends then; what was answered is on the disk."""
        for saver in self._open.values():
            saver.conn.stop()
        self._open.clear()


def strict_serializer() -> Any:
    """Messages and plain values; nothing else is revived, whatever stands in a file or a snapshot."""
    from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

    return JsonPlusSerializer(allowed_msgpack_modules=None)


def _damaged(path: Path, error: Exception) -> BridgeError:
    text = f"The memory file {path} is damaged ({error}). Put a copy back, or move it away: a new one is made then."
    return BridgeError(ErrorCode.HANDLER_ERROR, text, details={"file": str(path)}, type=type(error).__name__)


def _no_sqlite() -> BridgeError:
    package = "langgraph-checkpoint-sqlite"
    return missing_package(package, f"Memory of kind 'sqlite' needs the package {package}")

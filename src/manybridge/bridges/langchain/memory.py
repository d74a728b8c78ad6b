"""Memory: the threads of agents, kept by LangGraph's checkpointers, in this process or in an SQLite file.

Of each thread the latest state is kept. A run that fails or is cancelled leaves its thread as it was before: half a
turn, with tool calls that nothing answered, would make every later request of that thread fail.

A thread belongs to the session of the agent or memory that it was made through; the same name in another session is
another thread. SQLite files are shared by all workers of a pool, and by everything that names them.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote
from weakref import WeakValueDictionary

from manybridge.bridge import BridgeError
from manybridge.bridges.langchain.messages import check_messages, from_langchain, to_langchain
from manybridge.bridges.langchain.problems import expected, invalid, only_keys
from manybridge.protocol.errors import ErrorCode

KINDS: Final = ("memory", "sqlite")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
BUSY_SECONDS: Final = 30.0
"""How long a write waits for other workers that write to the same file."""
MAX_FILES: Final = 64
"""SQLite files that one worker keeps open, each with a thread and three descriptors; they stay open while it lives."""
MAX_THREAD_LENGTH: Final = 512
"""Characters of a thread's name; it is a key in every row."""


class MemorySpec(NamedTuple):
    """Where threads are kept: `memory` (this process, and snapshots of it) or `sqlite` with the name of the file."""

    kind: str
    name: str | None = None


def read_memory(given: Any, where: str) -> MemorySpec:
    """Read `"memory"`, or `{kind, name}`.

    Raises:
        BridgeError: `invalid_argument`.
    """
    described: Any = {"kind": given} if isinstance(given, str) else given
    if not isinstance(described, Mapping):
        raise expected(where, "'memory', or an object {kind, name}", given)
    only_keys(described, ("kind", "name"), where)
    kind, name = described.get("kind", "memory"), described.get("name")
    if kind not in KINDS:
        raise invalid(
            f"{where}.kind" if described is given else where, f"expected one of {', '.join(KINDS)}, found {kind!r}"
        )
    if kind == "sqlite" and not (isinstance(name, str) and NAME.fullmatch(name)):
        raise invalid(f"{where}.name", "expected the name of the file, 1 to 64 letters, digits, '_' and '-'")
    if kind == "memory" and name is not None:
        raise invalid(f"{where}.name", "threads in memory belong to what made them and have no name; use kind 'sqlite'")
    return MemorySpec(kind, name)


class Savers:
    """Owner of the open SQLite checkpointers of this worker, one for each name. Used on the event loop.

    Args:
        folder: where the files are; None if the bridge's options name none.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser().resolve()
        self._open: dict[str, Any] = {}
        self._opening = asyncio.Lock()

    def check(self, spec: MemorySpec, where: str) -> None:
        """Refuse a memory that can't be had here, before anything is run.

        Raises:
            BridgeError: `config_error` without a folder, `missing_package` without the checkpointer.
        """
        if spec.kind != "sqlite":
            return
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
        """The checkpointer of that name, opened when first asked for."""
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
        saver = AsyncSqliteSaver(await connecting, serde=strict_serializer())
        await saver.setup()
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


def _no_sqlite() -> BridgeError:
    import sys

    package = "langgraph-checkpoint-sqlite"
    install = f"{sys.executable} -m pip install {package}"
    return BridgeError(
        ErrorCode.MISSING_PACKAGE,
        f"Memory of kind 'sqlite' needs the package {package}: {install}",
        details={"package": package, "install": install},
    )


class Threads:
    """The threads of one agent or one memory. Used on the event loop, but for `restore` and `snapshot`.

    Args:
        spec: where they are kept.
        session_id: whose they are.
        savers: the worker's files.
    """

    def __init__(self, spec: MemorySpec, session_id: str | None, savers: Savers) -> None:
        self.spec = spec
        self._prefix = f"{quote(session_id or '', safe='')}/"
        self._savers = savers
        self._own: Any = None
        self._states: dict[str, str] = {}
        """For `memory`: the latest state of each thread as text; what a snapshot is made of."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._graph: Any = None
        if spec.kind == "memory":
            from langgraph.checkpoint.memory import InMemorySaver

            self._own = InMemorySaver(serde=strict_serializer())

    # ------------------------------------------------------------------ for agents

    async def saver(self) -> Any:
        """LangGraph's checkpointer."""
        return self._own or await self._savers.sqlite(self.spec.name or "")

    def config(self, thread_id: str) -> dict[str, Any]:
        """LangGraph's address of a thread.

        Raises:
            BridgeError: `invalid_argument`, the name is empty or too long.
        """
        if not thread_id or len(thread_id) > MAX_THREAD_LENGTH:
            raise invalid("thread_id", f"expected a text of 1 to {MAX_THREAD_LENGTH} characters")
        return {"configurable": {"thread_id": self._prefix + thread_id, "checkpoint_ns": ""}}

    @asynccontextmanager
    async def turn(self, thread_id: str) -> AsyncIterator[None]:
        """One change of a thread: alone in this worker, kept when it ends well, undone when it does not."""
        config = self.config(thread_id)
        async with self._lock(thread_id):
            saver = await self.saver()
            before = await saver.aget_tuple(config)
            try:
                yield
            except BaseException:
                await self._keep_only(thread_id, before)
                raise
            await self._keep_only(thread_id, await saver.aget_tuple(config))

    def _lock(self, thread_id: str) -> asyncio.Lock:
        return self._locks.setdefault(thread_id, asyncio.Lock())

    async def _keep_only(self, thread_id: str, kept: Any) -> None:
        """Drop every state of a thread but one (or all of them, for None)."""
        key = self._prefix + thread_id
        if self.spec.kind == "sqlite":
            saver = await self.saver()
            id = kept.config["configurable"]["checkpoint_id"] if kept else ""
            async with saver.lock:
                await saver.conn.execute(
                    "DELETE FROM checkpoints WHERE thread_id = ? AND checkpoint_id <> ?", (key, id)
                )
                await saver.conn.execute("DELETE FROM writes WHERE thread_id = ? AND checkpoint_id <> ?", (key, id))
                await saver.conn.commit()
            return
        self._own.delete_thread(key)
        self._states.pop(thread_id, None)
        if kept is not None:
            self._put(thread_id, kept.checkpoint, kept.metadata)
            kind, data = self._own.serde.dumps_typed({"checkpoint": kept.checkpoint, "metadata": kept.metadata})
            self._states[thread_id] = f"{kind}:{base64.b64encode(data).decode()}"

    def _put(self, thread_id: str, checkpoint: Any, metadata: Any) -> None:
        self._own.put(self.config(thread_id), checkpoint, metadata, checkpoint["channel_versions"])

    # ------------------------------------------------------------------ for people

    async def names(self, limit: int) -> list[str]:
        """The threads of this session, in order of their names."""
        if self.spec.kind == "memory":
            return sorted(self._states)[:limit]
        saver = await self.saver()
        query = (
            "SELECT DISTINCT thread_id FROM checkpoints WHERE substr(thread_id, 1, ?) = ? ORDER BY thread_id LIMIT ?"
        )
        async with saver.conn.execute(query, (len(self._prefix), self._prefix, limit)) as rows:
            return [row[0][len(self._prefix) :] async for row in rows]

    async def messages(self, thread_id: str) -> list[Any]:
        """LangChain's messages of a thread, oldest first; none for a thread that is not there."""
        state = await (await self._reader()).aget_state(self.config(thread_id))
        found: list[Any] = state.values.get("messages", [])
        return found

    async def append(self, thread_id: str, messages: list[Any]) -> None:
        """Add messages to a thread, which is made if it is not there."""
        async with self.turn(thread_id):
            await (await self._reader()).aupdate_state(self.config(thread_id), {"messages": messages}, as_node="note")

    async def delete(self, thread_id: str) -> bool:
        """Delete a thread; whether there was one."""
        saver = await self.saver()
        async with self._lock(thread_id):
            existed = await saver.aget_tuple(self.config(thread_id)) is not None
            await self._keep_only(thread_id, None)
        return existed

    async def _reader(self) -> Any:
        """A graph that does nothing but read and write messages."""
        if self._graph is None:
            from langgraph.graph import MessagesState, StateGraph

            builder = StateGraph(MessagesState)
            builder.add_node("note", lambda _state: {})
            builder.set_entry_point("note")
            self._graph = builder.compile(checkpointer=await self.saver())
        return self._graph

    # ------------------------------------------------------------------ surviving the worker

    def snapshot(self) -> dict[str, Any]:
        """The threads that live in this process, as JSON; those in a file are in the file."""
        return {"threads": dict(self._states)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a snapshot back.

        Raises:
            BridgeError: `invalid_argument`, it is none.
        """
        try:
            for thread_id, text in state["threads"].items():
                kind, _, data = text.partition(":")
                loaded = self._own.serde.loads_typed((kind, base64.b64decode(data)))
                self._put(thread_id, loaded["checkpoint"], loaded["metadata"])
                self._states[thread_id] = text
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise invalid("state", f"not a snapshot of threads ({type(error).__name__})") from error


async def manage(
    threads: Threads, action: str, thread_id: str | None, messages: Any = None, limit: int = 100
) -> dict[str, Any]:
    """Serve what people ask of threads: `threads`, `history`, `append`, `delete`.

    Raises:
        BridgeError: `invalid_argument`.
    """
    if limit < 1:
        raise invalid("limit", f"expected 1 or more, found {limit}")
    if action == "threads":
        return {"threads": await threads.names(limit)}
    if thread_id is None:
        raise invalid("thread_id", f"missing: {action} is about one thread")
    if action == "delete":
        return {"thread_id": thread_id, "deleted": await threads.delete(thread_id)}
    if action == "append":
        await threads.append(thread_id, to_langchain(check_messages(messages, "messages")))
    found = await threads.messages(thread_id)
    latest = [from_langchain(each) for each in found[-limit:]]
    return {"thread_id": thread_id, "messages": latest, "total_count": len(found)}

"""Memory: the threads of agents, kept by LangGraph's checkpointers, in this process or in an SQLite file.

Of each thread the latest state is kept. A turn runs on a copy of it, which is kept when the turn has ended well. A turn
that fails or is cancelled leaves its thread as it was: half a turn, with tool calls that nothing answered, would make
every later request of that thread fail.

A thread belongs to the session of the agent or memory that it was made through; the same name in another session is
another thread. SQLite files are shared by all workers of a pool, and by everything that names them.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from manybridge.bridges.common.problems import expected, invalid, only_keys
from manybridge.bridges.langchain.messages import check_messages, from_langchain, to_langchain
from manybridge.bridges.langchain.thread_stores import InFile, InProcess, Savers, State, ThreadStore, strict_serializer

KINDS: Final = ("memory", "sqlite")
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
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


class Turn(NamedTuple):
    """One change of a thread while it is made.

    Attributes:
        saver: LangGraph's checkpointer, which holds a copy of this one thread.
        config: LangGraph's address of the thread.
        messages: LangChain's messages before the turn.
    """

    saver: Any
    config: dict[str, Any]
    messages: list[Any]


class Threads:
    """The threads of one agent or one memory. Used on the event loop, but for `restore` and `snapshot`.

    Args:
        spec: where they are kept.
        session_id: whose they are.
        savers: the worker's files.

    Raises:
        BridgeError: `config_error` or `missing_package`, there can't be files here.
    """

    def __init__(self, spec: MemorySpec, session_id: str | None, savers: Savers) -> None:
        self._prefix = f"{quote(session_id or '', safe='')}/"
        self._own = InProcess() if spec.kind == "memory" else None
        if self._own is None:
            savers.check("memory")
        self._store: ThreadStore = self._own or InFile(savers, spec.name or "")
        self._graph: Any = None

    def _key(self, thread_id: str) -> str:
        if not thread_id or len(thread_id) > MAX_THREAD_LENGTH:
            raise invalid("thread_id", f"expected a text of 1 to {MAX_THREAD_LENGTH} characters")
        return self._prefix + thread_id

    @asynccontextmanager
    async def turn(self, thread_id: str) -> AsyncIterator[Turn]:
        """Change a thread: alone in this worker, kept when the block ends well and nothing of it when it does not.

        Raises:
            BridgeError: `conflict`, another worker kept a change meanwhile; `invalid_argument`, no name of a thread.
        """
        key = self._key(thread_id)
        async with self._store.lock(key):
            before = await self._store.load(key)
            saver, config = _copy(before, key)
            yield Turn(saver, config, [] if before is None else before.messages)
            found = saver.get_tuple(config)
            if found is not None:
                await self._store.replace(key, before and before.id, State(found.checkpoint, found.metadata))

    async def names(self, limit: int) -> list[str]:
        """The threads of this session, in order of their names."""
        return [key.removeprefix(self._prefix) for key in await self._store.keys(self._prefix, limit)]

    async def messages(self, thread_id: str) -> list[Any]:
        """LangChain's messages of a thread, oldest first; none for a thread that is not there."""
        found = await self._store.load(self._key(thread_id))
        return [] if found is None else found.messages

    async def append(self, thread_id: str, messages: list[Any]) -> None:
        """Add messages to a thread, which is made if it is not there. Raises as `turn` does."""
        if self._graph is None:
            self._graph = _graph_of_notes()
        async with self.turn(thread_id) as turn:
            writing = self._graph.copy({"checkpointer": turn.saver})
            await writing.aupdate_state(turn.config, {"messages": messages}, as_node="note")

    async def delete(self, thread_id: str) -> bool:
        """Delete a thread; whether there was one."""
        key = self._key(thread_id)
        async with self._store.lock(key):
            return await self._store.remove(key)

    def snapshot(self) -> dict[str, Any]:
        """The threads that live in this process, as JSON; those in a file are in the file."""
        return {"threads": {} if self._own is None else self._own.snapshot(self._prefix)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a snapshot back.

        Raises:
            BridgeError: `invalid_argument`, it is none.
        """
        threads = state.get("threads")
        if not isinstance(threads, Mapping):
            raise invalid("state", "not a snapshot of threads")
        if self._own is not None:
            self._own.restore(self._prefix, threads)


def _copy(state: State | None, key: str) -> tuple[Any, dict[str, Any]]:
    """A checkpointer that holds nothing but this state, and the address of the state in it."""
    from langgraph.checkpoint.memory import InMemorySaver

    saver = InMemorySaver(serde=strict_serializer())
    config: dict[str, Any] = {"configurable": {"thread_id": key, "checkpoint_ns": ""}}
    if state is not None:
        checkpoint: Any = state.checkpoint
        saver.put(config, checkpoint, state.metadata, checkpoint["channel_versions"])
    return saver, config


def _graph_of_notes() -> Any:
    """A graph that does nothing but write messages."""
    from langgraph.graph import MessagesState, StateGraph

    builder = StateGraph(MessagesState)
    builder.add_node("note", lambda _state: {})
    builder.set_entry_point("note")
    return builder.compile()


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

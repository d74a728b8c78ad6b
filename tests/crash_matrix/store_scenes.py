"""How each cell of the store's crash matrix is played: a host with a file or a database of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.store.liveness import this_host
from tests.crash_matrix import store_faults
from tests.crash_matrix.stage import FAR, GRACE
from tests.crash_matrix.store_table import StoreRow
from tests.store.postgresql import Server
from tests.support import MS, aeventually

Fault = Callable[[], AbstractContextManager[None]]

LARGE: Final = "x" * 200_000
"""What is to be kept: more than may be free in the pages that the file has."""

RUNNING: Final = 150 * MS
"""How long a call runs at least in which a fault strikes."""


class SeenOfStore(NamedTuple):
    """What the caller got, in the words of the matrix."""

    text: str
    seconds: float


async def watch(work: Awaitable[Any]) -> SeenOfStore:
    """Do what a caller does, and put what comes of it into the words of the matrix."""
    began, text = time.monotonic(), "answered"
    try:
        await work
    except ManybridgeError as error:
        reason = error.details.get("reason")
        text = error.code if reason is None else f"{error.code}, {reason}"
    return SeenOfStore(text, time.monotonic() - began)


class StoreStage:
    """Where one cell is played. Owner of the store's place and of what breaks there.

    Args:
        row: of the matrix.
        folder: for the file.
        server: for rows that are about one.
    """

    def __init__(self, row: StoreRow, folder: Path, server: Server | None) -> None:
        (folder / "store").mkdir()
        self.file = folder / "store" / "store.db"
        self._url = f"sqlite:///{self.file}" if server is None else server.new_database()
        self._row = row
        self._server = server

    @asynccontextmanager
    async def host(self) -> AsyncIterator[AsyncMLBridge]:
        """Start a host on the store."""
        bridge = {"zygote": "never", "cancel_grace": GRACE, "term_grace": GRACE, "eager": False}
        bridge |= {"restart": {"initial_backoff": 0.0}, "default_timeout": FAR}
        config = {"bridges": {"mock": bridge, "python": bridge}, "store": {"url": self._url}}
        async with AsyncMLBridge(config) as ml:
            yield ml

    def fault(self) -> AbstractContextManager[None]:
        """Have it break until the end of the context."""
        if self._server is not None:
            return SERVER_FAULTS[self._row.fault](self._server)
        if self._row.kind == "clock":
            ahead = self._row.fault.endswith("forward")
            return store_faults.clock_jumps(store_faults.DAY if ahead else -store_faults.DAY)
        return STORE_FAULTS[self._row.fault](self.file)


STORE_FAULTS: Final[dict[str, Callable[[Path], AbstractContextManager[None]]]] = {
    "missing": store_faults.missing,
    "locked": store_faults.locked,
    "full": store_faults.full,
    "read-only": store_faults.read_only,
    "corrupted": store_faults.corrupted,
    "newer schema": store_faults.newer_schema,
}


SERVER_FAULTS: Final[dict[str, Callable[[Server], AbstractContextManager[None]]]] = {
    "server restarts": store_faults.restarted,
    "server gone": store_faults.gone,
}


async def make(ml: AsyncMLBridge, **keywords: Any) -> Any:
    """Make a resource that needs room."""
    return await ml.create_resource("mock", "echo", {"text": LARGE}, **keywords)


async def count(ml: AsyncMLBridge, id: str, **keywords: Any) -> int:
    """Execute a resource that counts."""
    value: int = (await ml.execute_resource("mock", id, **keywords))["value"]
    return value


async def served(ml: AsyncMLBridge) -> None:
    """A call that needs no store is answered, whatever became of that."""
    assert await ml.call("mock", "mock:echo", {"n": 1}) == {"n": 1}


# ---------------------------------------------------------------- the store, its server, the clock


async def boot(stage: StoreStage) -> SeenOfStore:
    """The fault is there before the host; what was made before is there when it has gone."""
    async with stage.host() as before:
        counter = await before.create_resource("mock", "counter")
        assert await count(before, counter.id) == 1
    with ExitStack() as stack:
        stack.enter_context(stage.fault())
        async with stage.host() as ml:
            await served(ml)
            seen = await watch(make(ml))
            await served(ml)
            stack.close()
            await make(ml)
            assert await count(ml, counter.id) == 2
            return seen


async def idle(stage: StoreStage) -> SeenOfStore:
    """The fault comes between two calls, and goes."""
    async with stage.host() as ml:
        counter = await ml.create_resource("mock", "counter")
        assert await count(ml, counter.id) == 1
        with stage.fault():
            seen = await watch(make(ml))
            await served(ml)
        await make(ml)
        assert await count(ml, counter.id) == 2
        return seen


async def call(stage: StoreStage) -> SeenOfStore:
    """The fault comes when the key is reserved, and stays until the call has ended. It is made once, all the same."""
    args = {"seconds": RUNNING}
    async with stage.host() as ml:
        running = asyncio.ensure_future(watch(ml.call("mock", "mock:sleep", args, idempotency_key="k")))
        await aeventually(lambda: ml.pool("mock").running)
        with stage.fault():
            seen = await running
            await served(ml)
        assert await ml.call("mock", "mock:sleep", args, idempotency_key="k") == {"slept": RUNNING}
        assert (await ml.call("mock", "mock:calls"))["counts"]["sleep"] == 1
        return seen


async def stream(stage: StoreStage) -> SeenOfStore:
    """The fault comes after the first chunk."""
    async with stage.host() as ml:
        await make(ml)
        with ExitStack() as stack:

            async def read() -> None:
                events = ml.stream("mock", "mock:count", {"n": 3, "delay": RUNNING / 3})
                chunks: list[int] = []
                async for event in events:
                    if not chunks:
                        stack.enter_context(stage.fault())
                    chunks.append(event.data)
                assert (chunks, events.result) == ([0, 1, 2], {"count": 3})

            seen = await watch(read())
            await served(ml)
        return seen


async def job(stage: StoreStage) -> SeenOfStore:
    """The fault comes when the job runs. When it has gone, the store learns how the job ended."""
    async with stage.host() as ml:
        submitted = await ml.submit("mock", "mock:progress", {"steps": 3, "delay": RUNNING / 3})
        await aeventually(lambda: submitted.progress)
        with stage.fault():
            seen = await watch(submitted.result(FAR))
            assert submitted.state == "done"
            await served(ml)

        async def is_kept() -> bool:
            kept = await ml._access.store.get_job(submitted.id)
            return kept is not None and (kept.state, kept.events) == ("done", 3)

        await aeventually(is_kept)
        return seen


async def snapshot(stage: StoreStage) -> SeenOfStore:
    """The fault comes when the state is to be written."""
    async with stage.host() as ml:
        document = await ml.create_resource("python", "state", {"initial": {"text": "before"}})
        store: Any = ml._access.store
        with ExitStack() as stack:
            save_state = store.save_state

            async def struck(*args: Any, **keywords: Any) -> Any:
                store.save_state = save_state
                stack.enter_context(stage.fault())
                return await save_state(*args, **keywords)

            store.save_state = struck
            change = {"op": "set", "path": "text", "value": LARGE}
            seen = await watch(ml.execute_resource("python", document.id, change))
            await served(ml)
        found = await ml.execute_resource("python", document.id, {"op": "get", "path": "text"})
        assert found["value"] == (LARGE if seen.text == "answered" else "before")
        return seen


async def shutdown(stage: StoreStage) -> SeenOfStore:
    """The fault is there when the host closes; the next one goes on from what was kept."""
    async with stage.host() as ml:
        counter, echo = await ml.create_resource("mock", "counter"), await make(ml)
        assert await count(ml, counter.id) == 1
        await ml.execute_resource("mock", echo.id)
        with stage.fault():
            seen = await watch(ml.close(0.0))
    async with stage.host() as after:
        # A host whose end the store could not be told of is known to be dead by its process; here it is this one.
        await after._access.store.announce_host(this_host(ml._access.host), -1.0)
        assert await count(after, counter.id) == 2
    return seen._replace(text="closed" if seen.text == "answered" else seen.text)


PLAYED: Final = {
    "boot": boot,
    "idle": idle,
    "call": call,
    "stream": stream,
    "job": job,
    "snapshot": snapshot,
    "shutdown": shutdown,
}


# ---------------------------------------------------------------- how resources, keys and states are used


async def restore_fails(stage: StoreStage, place: str) -> SeenOfStore:
    """The worker that had it has gone, and the next one can't have it. It stays, whatever is tried."""
    async with stage.host() as before:
        made = await before.create_resource("mock", "faulty", {"fails_in": "restore"})
        await before.execute_resource("mock", made.id)
        if place == "shutdown":
            return (await watch(before.close(0.0)))._replace(text="closed")
        if place != "boot":
            await _lose_worker(before, in_a_call=place == "call")
            seen = await _use(before, made.id, place)
            assert [each.id for each in await before.list_resources()] == [made.id]
            return seen
    async with stage.host() as ml:
        seen = await _use(ml, made.id, place)
        assert [each.id for each in await ml.list_resources()] == [made.id]
        await served(ml)
        return seen


async def _lose_worker(ml: AsyncMLBridge, *, in_a_call: bool) -> None:
    (worker,) = ml.pool("mock").ready
    if in_a_call:
        assert (await watch(ml.call("mock", "mock:fail", {"kind": "kill"}))).text == "worker_crashed"
    else:
        os.kill(worker.process.pid, signal.SIGKILL)
    await aeventually(lambda: worker not in ml.pool("mock").workers)


async def _use(ml: AsyncMLBridge, id: str, place: str) -> SeenOfStore:
    """Execute a resource: in a call, a stream or a job."""
    if place == "stream":

        async def read() -> None:
            async for _ in ml.stream("mock", "common:execute_resource", {"id": id}):
                pass

        return await watch(read())
    if place == "job":
        job = await ml.submit("mock", "common:execute_resource", {"id": id})
        seen = await watch(job.result(FAR))
        assert job.state == ("done" if seen.text == "answered" else "failed")
        return seen
    return await watch(ml.execute_resource("mock", id))


async def deleted_meanwhile(stage: StoreStage, place: str) -> SeenOfStore:
    """What runs ends undisturbed, and counts for nobody."""
    async with stage.host() as other, stage.host() as ml:
        made = await ml.create_resource("mock", "counter")
        if place in {"boot", "idle"}:
            await (other if place == "boot" else ml).delete_resource("mock", made.id)
            if place == "idle":
                return await _use(ml, made.id, place)
            async with stage.host() as after:
                return await _use(after, made.id, place)
        blocking = asyncio.ensure_future(watch(ml.call("mock", "mock:sleep", {"seconds": 2 * RUNNING})))
        await aeventually(lambda: ml.pool("mock").running)
        executing = asyncio.ensure_future(_use(ml, made.id, place))
        await aeventually(lambda: ml.pool("mock").running + ml.pool("mock").waiting > 1)
        await ml.delete_resource("mock", made.id)
        if place == "shutdown":
            seen = (await watch(ml.close()))._replace(text="closed")
            assert (await executing).text == "answered"
        else:
            seen = await executing
            assert (await _use(ml, made.id, place)).text == "resource_not_found"
        assert (await blocking).text == "answered"
        assert await other.list_resources() == []
        return seen


async def key_reused(stage: StoreStage, place: str) -> SeenOfStore:
    """The first call stays the only one, and its answer is given again."""
    async with stage.host() as before:
        if place == "boot":
            await before.call("mock", "mock:echo", {"n": 1}, idempotency_key="k")
        else:
            return await _reuse_key(before, place)
    async with stage.host() as ml:
        seen = await watch(ml.call("mock", "mock:echo", {"n": 2}, idempotency_key="k"))
        assert await ml.call("mock", "mock:echo", {"n": 1}, idempotency_key="k") == {"n": 1}
        return seen


async def _reuse_key(ml: AsyncMLBridge, place: str) -> SeenOfStore:
    if place == "call":
        first = asyncio.ensure_future(ml.call("mock", "mock:sleep", {"seconds": RUNNING}, idempotency_key="k"))
        await aeventually(lambda: ml.pool("mock").running)
        seen = await watch(ml.call("mock", "mock:sleep", {"seconds": 0}, idempotency_key="k"))
        assert await first == {"slept": RUNNING}
    elif place == "snapshot":
        made = await ml.create_resource("mock", "counter")
        assert await count(ml, made.id, inputs={"add": 1}, idempotency_key="k") == 1
        seen = await watch(count(ml, made.id, inputs={"add": 2}, idempotency_key="k"))
        assert await count(ml, made.id, inputs={"add": 1}, idempotency_key="k") == 1
        assert await count(ml, made.id) == 2
    elif place == "job":
        job = await ml.submit("mock", "mock:echo", {"n": 1}, idempotency_key="k")
        seen = await watch(ml.submit("mock", "mock:echo", {"n": 2}, idempotency_key="k"))
        assert await job.result(FAR) == {"n": 1}
    else:
        assert await ml.call("mock", "mock:echo", {"n": 1}, idempotency_key="k") == {"n": 1}

        async def read() -> None:
            async for _ in ml.stream("mock", "mock:echo", {"n": 2}, idempotency_key="k"):
                pass

        again = ml.call("mock", "mock:echo", {"n": 2}, idempotency_key="k")
        seen = await watch(read() if place == "stream" else again)
        if place == "stream":
            again.close()
    await served(ml)
    return seen


USED: Final = {"restore fails": restore_fails, "deleted meanwhile": deleted_meanwhile, "key reused": key_reused}

"""One life of a host that will be killed: it looks at what it finds, then works until it is killed or told to close.

Three callers work at the same time, each with resources, sessions and jobs of its own. Each writes what it is about to
do, does it, and writes how it ended, before it does the next thing.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.jobs import AsyncJob
from tests.recovery.ledger import Ledger, Line

SCOPE: Final = "recovery"
CALLERS: Final = 3
MOST: Final = 6
"""Resources that a caller keeps."""
PATIENCE: Final = 15.0
"""Seconds that one operation may take. Nothing here takes one, on a quiet machine."""
STEPS: Final = 3

TYPES: Final = {"echo": "mock", "counter": "mock", "pinned": "mock", "state": "python"}
"""Resource types, and the bridges that have them."""


def configuration(url: str) -> dict[str, Any]:
    """Two bridges: one whose workers are forked, with a worker to spare, and one whose only worker is spawned."""
    common = {
        "restart": {"initial_backoff": 0.0, "max_backoff": 0.1, "max_crashes": 10_000},
        "default_timeout": PATIENCE,
    }
    mock, python = {"zygote": "always", "pool_size": 2, **common}, {"zygote": "never", **common}
    return {"bridges": {"mock": mock, "python": python}, "store": {"url": url, "scope": SCOPE}}


class Log:
    """Appends to the file that all lives share, and keeps a ledger of it."""

    def __init__(self, path: Path, life: int) -> None:
        self.ledger = Ledger()
        for line in path.read_text().splitlines():
            self.ledger.apply(json.loads(line))
        self._life = life
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)

    def write(self, **line: Any) -> None:
        """Write a line. It is there when this returns, whatever becomes of this process."""
        whole: Line = {"life": self._life, **line}
        os.write(self._descriptor, json.dumps(whole).encode() + b"\n")
        self.ledger.apply(whole)


class Caller:
    """One caller: draws what to do, does it, and writes down both."""

    def __init__(self, ml: AsyncMLBridge, log: Log, number: int, life: int, seed: int) -> None:
        self._ml = ml
        self._log = log
        self._number = number
        self._owner = f"c{number}"
        self._chance = random.Random(f"{seed} {life} {number}")
        self._count = 0
        self._life = life
        self._closed = False

    async def work(self) -> None:
        """Work until the host is closed."""
        while not self._closed:
            await self._chance.choices(*zip(*_WORKS, strict=True))[0](self)

    async def use_everything(self) -> None:
        """Execute each resource, and wait for each job: all of them are usable."""
        for id in self._ids(*TYPES):
            await self._execute(id)
        for id in self._ids("job"):
            await self._wait(id)
        for id in self._ids("key")[-2:]:
            await self._call(id)

    async def end_everything(self) -> None:
        """Delete it all."""
        for id in self._ids("session"):
            await self._end(id)
        for id in self._ids(*TYPES):
            await self._delete(id)
        for id in self._ids("job"):
            await self._forget(id)

    # ------------------------------------------------------------------ what it does

    async def create(self) -> None:
        """Make a resource, sometimes in a session."""
        if len(self._ids(*TYPES)) >= MOST:
            await self.delete()
            return
        kind = self._chance.choice(list(TYPES))
        id, sessions = self._new(kind), self._ids("session")
        session = self._chance.choice(sessions) if sessions and self._chance.random() < 0.3 else None
        config = {"echo": {"made": id}, "pinned": {"value": id}}.get(kind, {})
        made = lambda: self._ml.create_resource(TYPES[kind], kind, config, id=id, session=session)  # noqa: E731
        await self._do("create", id, made, kind=kind, session=session)

    async def execute(self) -> None:
        """Use a resource."""
        if ids := self._ids(*TYPES):
            await self._execute(self._chance.choice(ids))

    async def delete(self) -> None:
        """Delete a resource."""
        if ids := self._ids(*TYPES):
            await self._delete(self._chance.choice(ids))

    async def begin(self) -> None:
        """Make a session, or end one."""
        sessions = self._ids("session")
        if len(sessions) >= 2:
            await self._end(self._chance.choice(sessions))
            return
        id = self._new("session")
        await self._do("begin", id, lambda: self._ml.create_session(id, settings={"made": id}), kind="session")

    async def submit(self) -> None:
        """Start a job, and mostly wait for it; delete one that has ended."""
        if len(jobs := self._ids("job")) >= 4:
            await self._forget(self._chance.choice(jobs))
            return
        id, resume = self._new("job"), self._chance.random() < 0.5
        args = {"steps": STEPS, "delay": self._chance.choice([0.0, 0.01, 0.05])}
        started = lambda: self._ml.submit("mock", "mock:progress", args, id=id, resume=resume)  # noqa: E731
        begun = await self._do("submit", id, started, kind="job", resume=resume, due={"steps": STEPS})
        if begun and self._chance.random() < 0.6:
            await self._wait(id)

    async def call(self) -> None:
        """Make a call with a key, or make it again."""
        if (known := self._ids("key")) and self._chance.random() < 0.5:
            await self._call(known[-1])
        else:
            await self._call(self._new("key"), "key")

    # ------------------------------------------------------------------ how

    async def _execute(self, id: str) -> None:
        thing = self._log.ledger.things[id]
        inputs: dict[str, Any] = {"op": "increment", "path": "n"} if thing.kind == "state" else {}
        due: Any = id if thing.kind == "pinned" else None
        if thing.kind == "echo":
            inputs = {"n": self._count}
            due = {"config": {"made": id}, "inputs": inputs}

        async def run() -> Any:
            bridge = TYPES[thing.kind]
            answer = await self._ml.execute_resource(bridge, id, inputs, session=thing.session)
            return answer if thing.kind == "echo" else answer["value"]

        await self._do("execute", id, run, due=due)

    async def _delete(self, id: str) -> None:
        thing = self._log.ledger.things[id]
        bridge, session = TYPES[thing.kind], thing.session
        await self._do("delete", id, lambda: self._ml.delete_resource(bridge, id, session=session))

    async def _end(self, id: str) -> None:
        await self._do("end", id, lambda: self._ml.close_session(id))

    async def _wait(self, id: str) -> None:
        async def wait() -> Line:
            job = await self._ml.get_job(id)
            assert await job.wait(PATIENCE), f"{job} has not ended"
            return seen(job)

        await self._do("wait", id, wait)

    async def _forget(self, id: str) -> None:
        await self._wait(id)
        await self._do("forget", id, lambda: self._ml.delete_job(id))

    async def _call(self, id: str, do: str = "call") -> None:
        async def call() -> Any:
            return (await self._ml.call("mock", "mock:pid", {}, idempotency_key=id))["pid"]

        await self._do(do, id, call, kind="key")

    async def _do(self, do: str, id: str, work: Callable[[], Awaitable[Any]], **facts: Any) -> bool:
        """Do one thing, and say so before and after."""
        self._count += 1
        number = self._number + CALLERS * self._count
        self._log.write(op=number, do=do, id=id, **facts)
        try:
            async with asyncio.timeout(2 * PATIENCE):
                result = await work()
        except ManybridgeError as error:
            self._log.write(op=number, no=error.code, text=str(error))
            self._closed = error.code == "host_closed"
            return False
        self._log.write(op=number, ok=result if do in _TELLING else None)
        return True

    def _new(self, kind: str) -> str:
        return f"{self._owner}-{self._life}-{self._count}-{kind}"

    def _ids(self, *kinds: str) -> list[str]:
        return self._log.ledger.of(self._owner, *kinds)


_TELLING: Final = frozenset({"execute", "wait", "call", "key"})
"""What has an answer that is compared."""

_WORKS: Final[tuple[tuple[Callable[[Caller], Awaitable[None]], int], ...]] = (
    (Caller.create, 4),
    (Caller.execute, 8),
    (Caller.delete, 2),
    (Caller.begin, 1),
    (Caller.submit, 2),
    (Caller.call, 1),
)
"""What a caller does, and how often."""


def seen(job: AsyncJob) -> Line:
    """What a caller sees of a job."""
    error = job.error
    return {
        "state": str(job.state),
        "result": job._result() if str(job.state) == "done" else None,
        "code": None if error is None else error.code,
        "interrupted": None if error is None else error.details.get("interrupted"),
        "events": job.event_count,
    }


async def look(ml: AsyncMLBridge) -> dict[str, Any]:
    """Return everything that is there, by id."""
    sessions = [each.id for each in await ml.list_sessions()]
    found: dict[str, Any] = dict.fromkeys(sessions)
    for session in [None, *sessions]:
        found |= dict.fromkeys(each.id for each in await ml.list_resources(session=session))
    return found | {job.id: seen(job) for job in await ml.jobs()}


async def live(url: str, path: Path, life: int, seed: int, has_looked: int, *, last: bool) -> None:
    """Live until killed. The last life does not wait for that: it uses everything, deletes it, and ends.

    Args:
        url: of the store.
        path: of the file that all lives share.
        life: counts them.
        seed: of what is drawn.
        has_looked: a descriptor that is closed when everything that was there has been used.
        last: see above.
    """
    log = Log(path, life)
    told_to_close = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told_to_close.set)
    log.write(**{"life is": "begun"})
    async with AsyncMLBridge(configuration(url)) as ml:
        log.write(found=await look(ml))
        callers = [Caller(ml, log, number, life, seed) for number in range(CALLERS)]
        await asyncio.gather(*(each.use_everything() for each in callers))
        log.write(**{"life is": "checked"})
        os.close(has_looked)
        if last:
            await asyncio.gather(*(each.end_everything() for each in callers))
            log.write(found=await look(ml))
            work = None
        else:
            work = asyncio.gather(*(each.work() for each in callers))
            await _first(told_to_close.wait(), work)
        log.write(**{"life is": "closing"})
        await ml.close()
        if work is not None:
            await work
    log.write(**{"life is": "closed"})


async def _first(event: Coroutine[Any, Any, Any], work: asyncio.Future[Any]) -> None:
    """Wait for an event beside work that has no end, unless it fails."""
    waiting = asyncio.ensure_future(event)
    await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if work.done():
        work.result()


def run(url: str, path: Path, life: int, seed: int, has_looked: int, *, last: bool = False) -> None:
    """Live in this process, and say why it ended."""
    try:
        asyncio.run(live(url, path, life, seed, has_looked, last=last))
    except BaseException:  # noqa: BLE001  # the end of this process: everything is told to the one who reads the file
        with path.open("a") as file:
            file.write(json.dumps({"life": life, "failed": traceback.format_exc()}) + "\n")
        os._exit(1)
    os._exit(0)

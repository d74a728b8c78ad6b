"""A program that forks processes which write into a store, kills each at a random moment, and keeps what they said.

Run as `killed.py {records|host} URL FOLDER ROUNDS SEED FIRST`. Imports are done once, before the first fork: a process
of its own for each round would spend its time with the import of SQLAlchemy and be killed in that. What the process of
round N was told is in FOLDER/N, a line for each acknowledgement.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # noqa: F401  # imported before the first fork; it ships no types

import manybridge.store.sql  # noqa: F401  # the same
from manybridge.host.bridge import AsyncMLBridge
from manybridge.store.liveness import this_host
from manybridge.store.opening import open_store
from manybridge.store.records import JobEvent, JobRecord, ResourceRecord

Say = Callable[..., None]


async def write_records(url: str, name: str, say: Say) -> None:
    """Write every kind of record, without end."""
    store = open_store(url, scope="crashes")
    await store.announce_host(this_host(name), 60)
    number = 0
    while True:
        number += 1
        id = f"{name}-{number}"
        await store.add_resource(ResourceRecord(id=id, bridge="b", type="t", policy="restore", created_at=number))
        say("made", id)
        claimed = await store.claim_resource("b", id, name)
        assert claimed is not None
        for value in (1, 2):
            await store.save_state(
                "b", id, host=name, fence=claimed.fence, state=value, executions=1, last_executed=1.0
            )
            say("counted", id, value)
        await store.save_job(JobRecord(id=id, bridge="b", command="c", state="done", host=name, created_at=number))
        await store.append_events(id, [JobEvent(seq, "chunk", "x" * 500) for seq in range(3)])
        say("events", id, 3)
        if number % 3 == 0:
            await store.delete_resource("b", id)
            say("deleted", id)


async def run_host(url: str, name: str, say: Say) -> None:
    """Run a whole host with a worker, make resources and execute them, without end."""
    config = {"bridges": {"mock": {"zygote": "never"}}, "store": {"url": url, "scope": "crashes"}}
    async with AsyncMLBridge(config) as ml:
        number = 0
        while True:
            number += 1
            made = await ml.create_resource("mock", "counter", id=f"{name}-{number}")
            say("made", made.id)
            for _ in range(2):
                result = await ml.execute_resource("mock", made.id)
                say("counted", made.id, result["value"], result["pid"])


PROGRAMS = {"records": write_records, "host": run_host}


def run_and_kill(kind: str, url: str, path: Path, delay: float) -> None:
    """Fork one process, and kill it `delay` seconds after its first word."""
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def say(*words: object) -> None:
            os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())

        try:
            asyncio.run(PROGRAMS[kind](url, f"w{path.name}", say))
        except BaseException as error:  # noqa: BLE001  # the end of this process
            say("failed", repr(error))
        os._exit(1)
    until = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size) and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def main(kind: str, url: str, folder: str, rounds: str, seed: str, first: str) -> None:
    """Do it again and again, on the same store."""
    chance = random.Random(int(seed))
    for number in range(int(first), int(first) + int(rounds)):
        run_and_kill(kind, url, Path(folder) / str(number), chance.uniform(0.0, 0.08))


if __name__ == "__main__":
    main(*sys.argv[1:])

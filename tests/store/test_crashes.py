"""Processes that are killed while they write: everything that was acknowledged is there, and nothing else is broken."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
from functools import partial
from pathlib import Path

import pytest

from manybridge.host.bridge import AsyncMLBridge
from manybridge.store.base import Store
from manybridge.store.opening import open_store
from tests.support import MS, REPOSITORY, SOURCE, eventually, process_is_running

SEED = 20_240_229

PROGRAM = Path(__file__).with_name("killed.py")


class Acknowledged:
    """What the lines of one process promise."""

    def __init__(self, path: Path) -> None:
        self.resources: dict[str, int] = {}
        self.deleted: set[str] = set()
        self.events: dict[str, int] = {}
        self.workers: set[int] = set()
        for line in path.read_text().splitlines():
            kind, id, *numbers = line.split(" ")
            assert kind != "failed", line
            if kind == "made":
                self.resources[id] = 0
            elif kind == "counted":
                self.resources[id] = int(numbers[0])
                self.workers |= {int(each) for each in numbers[1:]}
            elif kind == "events":
                self.events[id] = int(numbers[0])
            elif kind == "deleted":
                self.deleted.add(id)

    async def check(self, store: Store, found: set[str]) -> None:
        """Compare with what is there."""
        # The last one may have been deleted without anybody having been told.
        assert len(self.resources.keys() - self.deleted - found) <= 1
        assert not self.deleted & found
        for id in self.resources.keys() & found:
            record = await store.get_resource("b", id)
            assert record is not None
            assert (record.state or 0) >= self.resources[id]
            assert record.executions == record.version == (record.state or 0)
        for id, count in self.events.items():
            assert await store.get_job(id) is not None
            assert len(await store.read_events(id)) >= count


async def kill_again_and_again(kind: str, url: str, folder: Path, rounds: int, first: int = 0) -> list[Acknowledged]:
    """Run the program that forks, kills and remembers."""
    killer = await asyncio.create_subprocess_exec(
        sys.executable,
        str(PROGRAM),
        *(kind, url, str(folder), str(rounds), str(SEED + first), str(first)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{REPOSITORY}"},
    )
    _, said = await killer.communicate()
    assert killer.returncode == 0, said.decode()
    return [Acknowledged(folder / str(number)) for number in range(first, first + rounds)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_what_was_acknowledged_survives_a_kill_at_any_moment(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A hundred times, on the same records, so that each process finds what the last kill left."""
    url = f"sqlite:///{tmp_path}/store.db" if kind == "sqlite" else request.getfixturevalue("shared_database")
    promises = await kill_again_and_again("records", url, _made(tmp_path / "said"), 100)

    store = open_store(url, scope="crashes")
    found = {each.id for each in await store.list_resources()}
    for each in promises:
        await each.check(store, found)
    await store.close()
    assert sum(len(each.resources) for each in promises) >= 200
    if kind == "sqlite":
        assert integrity(tmp_path / "store.db") == "ok"


@pytest.mark.slow
async def test_a_host_that_is_killed_leaves_resources_that_the_next_one_uses(tmp_path: Path) -> None:
    """At once, although the dead host's lease still runs; its workers are gone too."""
    url, folder = f"sqlite:///{tmp_path}/store.db", _made(tmp_path / "said")
    workers: set[int] = set()
    for number in range(3):
        promises = await kill_again_and_again("host", url, folder, 8, first=8 * number)
        store = {"url": url, "scope": "crashes"}
        async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}, "store": store}) as ml:
            listed = {each.id for each in await ml.list_resources("mock")}
            for each in promises:
                workers |= each.workers
                assert listed >= each.resources.keys()
                id, count = list(each.resources.items())[-1]
                value = (await ml.execute_resource("mock", id))["value"]
                assert value - count in {1, 2}  # the last execution may have been kept and not told
    for pid in workers:
        eventually(partial(_is_gone, pid), 2_000 * MS)


def integrity(path: Path) -> str:
    """What SQLite says of a file."""
    connection = sqlite3.connect(path)
    try:
        said: str = connection.execute("PRAGMA integrity_check").fetchone()[0]
        assert not connection.execute("PRAGMA foreign_key_check").fetchall()
    finally:
        connection.close()
    return said


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _is_gone(pid: int) -> bool:
    return not process_is_running(pid)

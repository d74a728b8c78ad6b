"""Stores that can't be used: each way has its code and reason, says what to do, and leaves calls alone."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import ConfigError, StoreError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.store import database
from manybridge.store.base import Store
from manybridge.store.opening import open_store
from manybridge.store.urls import parse_store_url
from tests.store.hosts import HostMaker
from tests.store.postgresql import Server
from tests.store.test_contract import job, resource
from tests.support import MS, SOURCE, aeventually


async def refused(store: Store, **wanted: Any) -> StoreError:
    """Check how a write fails."""
    with pytest.raises(StoreError) as caught:
        await store.save_job(job("j", result="x" * 100_000))
    error = caught.value
    assert {"code": error.code, "reason": error.details["reason"], "retryable": error.retryable} == wanted
    assert "sqlite://" in error.message or "postgresql://" in error.message
    return error


@pytest.fixture
async def file(tmp_path: Path) -> Path:
    """A store's file that has been used."""
    path = tmp_path / "store.db"
    store = open_store(f"sqlite:///{path}")
    await store.save_job(job("old"))
    await store.close()
    return path


async def test_a_new_store_that_somebody_else_writes_to_just_now_is_waited_for(tmp_path: Path) -> None:
    """Two hosts may make it at the same moment; SQLite would refuse one of them at once."""
    path = tmp_path / "store.db"
    with sqlite3.connect(path, isolation_level=None, check_same_thread=False) as other:
        other.execute("BEGIN IMMEDIATE")
        store = open_store(f"sqlite:///{path}")
        write = asyncio.ensure_future(store.save_job(job("j")))
        finished, _ = await asyncio.wait({write}, timeout=0.2)
        assert not finished
        other.execute("COMMIT")
        await write
        assert await store.get_job("j") == job("j")
        await store.close()
    other.close()


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """It is most likely misspelt, so it is not made."""
    store = open_store(f"sqlite:///{tmp_path}/nowhere/store.db")
    error = await refused(store, code="store_unavailable", reason="missing_folder", retryable=False)
    await store.close()

    assert f"{tmp_path}/nowhere" in error.message
    assert not (tmp_path / "nowhere").exists()


async def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    """It can't be opened, and stays."""
    store = open_store(f"sqlite:///{tmp_path}")
    await refused(store, code="store_unavailable", reason="cant_open", retryable=False)
    await store.close()


@pytest.mark.parametrize(
    "content", [b"this is no database at all, but a letter\n" * 200, b"SQLite format 3\0" + b"\xff" * 5000]
)
async def test_a_file_that_is_no_database_is_told(content: bytes, tmp_path: Path) -> None:
    """And is left as it is."""
    path = tmp_path / "store.db"
    path.write_bytes(content)
    store = open_store(f"sqlite:///{path}")
    await refused(store, code="store_corrupted", reason="corrupted", retryable=False)
    await store.close()

    assert path.read_bytes() == content


def damage(file: Path) -> None:
    """Overwrite everything but the first page."""
    whole = bytearray(file.read_bytes())
    whole[4096:] = os.urandom(len(whole) - 4096)
    file.write_bytes(whole)


async def test_a_damaged_page_is_told(file: Path) -> None:
    """Whatever is read from it is not believed."""
    store = open_store(f"sqlite:///{file}")
    await store.append_events("old", [])
    for number in range(200):
        await store.save_job(job(f"j{number}", result="x" * 200))
    await store.close()
    damage(file)
    store = open_store(f"sqlite:///{file}")
    with pytest.raises(StoreError) as caught:
        await store.list_jobs()
    await store.close()

    assert caught.value.code == "store_corrupted"


async def test_a_lock_that_is_held_too_long_is_told(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting can help; reading goes on meanwhile."""
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store = open_store(f"sqlite:///{file}")
    await refused(store, code="store_unavailable", reason="locked", retryable=True)
    assert await store.get_job("old") is not None
    other.execute("COMMIT")
    other.close()
    await store.save_job(job("j"))
    await store.close()


async def test_a_full_database_is_told_and_what_it_holds_can_be_read(file: Path) -> None:
    """Provoked by a limit on its pages; smaller writes work again when there is room."""
    store = open_store(f"sqlite:///{file}")
    await store.list_jobs()
    await _pragma(store, "max_page_count = 1")
    await refused(store, code="store_unavailable", reason="full", retryable=True)
    assert [each.id for each in await store.list_jobs()] == ["old"]
    await _pragma(store, "max_page_count = 1000000")
    await store.save_job(job("j"))
    await store.close()


async def _pragma(store: Any, pragma: str) -> None:
    async def work(connection: Any) -> None:
        await connection.exec_driver_sql(f"PRAGMA {pragma}")

    await store._store.database.write(work, "test")


IN_A_PROCESS = """
import asyncio, os, resource, sys
import manybridge.store.sql
from manybridge.errors import StoreError
from manybridge.store.opening import open_store
from manybridge.store.records import JobRecord

async def main(path, fault):
    if fault == "limit":
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    if fault == "read only" and os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    store = open_store(f"sqlite:///{path}")
    kept = 0
    try:
        for number in range(100):
            await store.save_job(JobRecord(
                id=f"j{number}", bridge="b", command="c", state="done", host="h", created_at=1.0, result="x" * 20_000))
            kept += 1
    except StoreError as error:
        try:
            read = len(await store.list_jobs())
        except StoreError as second:
            read = second.details["reason"]
        print(error.code, error.details["reason"], error.retryable, kept, read)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def in_a_process(path: Path, fault: str) -> list[str]:
    """Write into a store in a process that has been given a fault; return what it says."""
    ended = subprocess.run(
        [sys.executable, "-c", IN_A_PROCESS, str(path), fault],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


def test_a_disk_that_is_full_is_told_and_what_was_kept_can_be_read(tmp_path: Path) -> None:
    """Provoked by a limit on the size of files."""
    code, reason, retryable, kept, read = in_a_process(tmp_path / "store.db", "limit")

    assert (code, retryable) == ("store_unavailable", "True")
    assert reason in {"full", "io_error"}
    assert 0 < int(kept) < 100
    assert read == kept


@pytest.fixture
def shown(file: Path) -> Iterator[Path]:
    """The same file where another user may read it: pytest closes its own folders to others whenever it starts."""
    with tempfile.TemporaryDirectory(prefix="manybridge-store-") as folder:
        copy = Path(shutil.copy(file, folder))
        copy.chmod(0o444)
        copy.parent.chmod(0o555)
        yield copy
        copy.parent.chmod(0o755)


async def test_a_file_that_may_not_be_written_is_told(shown: Path) -> None:
    """Its folder may not be written either, as on a disk that is read-only: SQLite only says "unable to open"."""
    code, reason, retryable, kept, _read = in_a_process(shown, "read only")

    assert (code, reason, retryable, kept) == ("store_unavailable", "read_only", "False", "0")


async def test_a_folder_that_may_not_be_entered_is_told(shown: Path) -> None:
    """Nobody knows whether there is a file: what is not known is no empty list."""
    shown.parent.chmod(0)

    assert in_a_process(shown, "read only") == ["store_unavailable", "read_only", "False", "0", "read_only"]


async def test_a_server_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while of trying; the password is in no message."""
    monkeypatch.setattr(database, "RECONNECT_SECONDS", 0.2)
    store = open_store(f"postgresql://me:secret-word@/db?host={tmp_path}")
    error = await refused(store, code="store_unavailable", reason="unreachable", retryable=True)
    await store.close()

    assert "secret-word" not in f"{error} {error.details}"


async def test_a_server_that_refuses_is_told(postgresql: Server) -> None:
    """No such database."""
    store = open_store(f"postgresql://tests@/nothing?host={postgresql.folder}")
    await refused(store, code="store_unavailable", reason="refused", retryable=False)
    await store.close()


@pytest.mark.parametrize(
    "url",
    ["mysql://localhost/db", "store.db", "sqlite://", "sqlite:///:memory:", "sqlite://file.db", "sqlite:///f?synchronous=off",
     "sqlite:///f?mode=ro", "postgresql://user:pass[word]@host/db", ""],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_before_anything_is_opened(url: str) -> None:
    """With the ones that there are."""
    with pytest.raises(ConfigError, match="postgresql://") as caught:
        parse_store_url(url)
    assert "word" not in caught.value.message.replace("password", "")
    with pytest.raises(ConfigError):
        AsyncMLBridge({"bridges": {"mock": {}}, "store": {"url": url}})


async def test_a_value_that_no_text_can_hold_is_an_argument_error(opener: Any) -> None:
    """A lone surrogate in an id: the databases can't, and say so; the next write works."""
    store = opener()
    try:
        await store.save_job(job("\ud800"))
    except StoreError as error:
        assert error.code == "invalid_argument"  # noqa: PT017  # memory keeps it
    await store.save_job(job("j"))
    assert await store.get_job("j") is not None


# ---------------------------------------------------------------- hosts


async def test_calls_and_stateless_resources_go_on_without_the_store(
    durable_host: HostMaker, store_config: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What must be kept fails with the code, and works again when the store is back."""
    monkeypatch.setattr(database, "RECONNECT_SECONDS", 0.1)
    ml = await durable_host()
    echo = await ml.create_resource("mock", "echo", {"k": 1})
    counter = await ml.create_resource("mock", "counter")
    assert (await ml.execute_resource("mock", counter.id))["value"] == 1
    lost = _Lost(ml)

    with pytest.raises(StoreError):
        await ml.create_resource("mock", "echo")
    with pytest.raises(StoreError):
        await ml.execute_resource("mock", counter.id)
    with pytest.raises(StoreError):
        await ml.list_resources()
    with pytest.raises(StoreError):
        await ml.call("mock", "echo", {}, idempotency_key="k")
    assert (await ml.execute_resource("mock", echo.id))["config"] == {"k": 1}
    assert await ml.call("mock", "echo", {"x": 1}) == {"x": 1}
    assert await ml.call("mock", "echo", {"x": 1}, session="new") == {"x": 1}

    lost.end()
    assert (await ml.execute_resource("mock", counter.id))["value"] == 2
    assert len(await ml.list_resources()) == 2
    assert await ml.call("mock", "echo", {"x": 2}, idempotency_key="k") == {"x": 2}


async def test_what_can_not_be_undone_is_a_line_of_the_log(
    durable_host: HostMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error that its caller gets says enough: no traceback of ours beside it."""
    monkeypatch.setattr(database, "RECONNECT_SECONDS", 0.1)
    ml = await durable_host()
    await ml.create_resource("mock", "echo")
    lost = _Lost(ml)
    with pytest.raises(StoreError):
        await ml.create_resource("mock", "echo")
    await aeventually(lambda: "in the background, undo echo-" in caplog.text)
    lost.end()

    assert "Traceback" not in caplog.text


class _Lost:
    """The store of a host is gone, until `end`."""

    def __init__(self, ml: AsyncMLBridge) -> None:
        store: Any = ml._access.store
        self._database = store._store.database
        self._database.write = self._database.read = self._fail

    async def _fail(self, _work: Any, doing: str) -> Any:
        raise StoreError(f"{doing}: the store is gone", details={"reason": "test"})

    def end(self) -> None:
        """It is back."""
        del self._database.write, self._database.read


@pytest.mark.slow
async def test_a_server_that_restarts_in_the_middle_loses_nothing(postgresql: Server) -> None:
    """Writes that come meanwhile wait for it, or say that nobody knows; what was acknowledged is there."""
    url = postgresql.new_database()
    store = open_store(url)
    await store.add_resource(resource("before"))
    kept: list[str] = []
    stopping = asyncio.Event()
    untold: list[StoreError] = []

    async def write(worker: int) -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            id = f"r {worker} {number}"
            try:
                if await store.add_resource(resource(id)):
                    kept.append(id)
            except StoreError as error:
                untold.append(error)

    writers = [asyncio.ensure_future(write(number)) for number in range(4)]
    for _ in range(2):
        seen = len(kept)
        await _in_thread(postgresql.restart)
        await aeventually(partial(_more_than, kept, seen + 20), 15_000 * MS)
    stopping.set()
    await asyncio.gather(*writers)

    found = {each.id for each in await store.list_resources()}
    assert found >= {"before", *kept}
    assert all(each.retryable for each in untold)
    assert len(kept) > 40
    await store.close()


async def _in_thread(work: Any) -> None:
    """Run something blocking on a thread that ends with it."""
    import threading

    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        work()
        loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=run)
    thread.start()
    await done.wait()
    thread.join()


def _more_than(items: list[str], count: int) -> bool:
    return len(items) > count

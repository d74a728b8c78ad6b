"""What a host asks of a bridge beside its callers' calls may take for ever, too: it is stopped, and its worker free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from manybridge.errors import CallTimeoutError, ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from tests.support import MS, aeventually

LIMIT = 500 * MS
"""`default_timeout` of the bridge: what closing and cleaning up may take."""

BRIDGE = """
from pathlib import Path
from time import sleep

from manybridge.bridge import Bridge, command, resource


def hang(mark):
    Path(mark).touch()
    while True:
        sleep(0.005)


class Stuck(Bridge):
    name = "stuck"

    def setup(self, options):
        self.mark = options["mark"]

    def cleanup(self, session_id):
        if session_id == "stuck":
            hang(self.mark)
        return {}

    @command
    def echo(self, value: int) -> int:
        return value

    @command
    def nap(self, seconds: float) -> None:
        sleep(seconds)

    @resource("thing", policy="restore")
    class Thing:
        def create(self, hangs_in: str = ""):
            self.count, self.hangs_in = 0, hangs_in

        def execute(self, hangs_in: str = "") -> int:
            self.count, self.hangs_in = self.count + 1, hangs_in
            return self.count

        def snapshot(self):
            if self.hangs_in == "snapshot":
                hang(self.bridge.mark)
            return self.count

        def restore(self, state):
            self.count, self.hangs_in = state, ""

        def close(self):
            if self.hangs_in == "close":
                hang(self.bridge.mark)
"""


@pytest.fixture
async def ml(tmp_path: Path) -> AsyncIterator[AsyncMLBridge]:
    """Return a host whose bridge hangs where it is told to, and says in the file `mark` that it does."""
    (tmp_path / "stuck.py").write_text(BRIDGE)
    config = {"python_script": str(tmp_path / "stuck.py"), "options": {"mark": str(tmp_path / "mark")}}
    graces = {"cancel_grace": 200 * MS, "term_grace": 200 * MS, "default_timeout": LIMIT}
    async with AsyncMLBridge({"bridges": {"stuck": {**config, **graces}}}) as made:
        await made.wait_ready("stuck", 5_000 * MS)
        yield made


async def serves(ml: AsyncMLBridge) -> None:
    """The worker is free again, soon."""
    assert await ml.call("stuck", "echo", {"value": 1}, timeout=5_000 * MS) == 1


async def test_a_state_that_is_never_told_is_a_timeout(ml: AsyncMLBridge) -> None:
    """Of the execution, which does not count; not a call without an end and a worker that is lost."""
    thing = await ml.create_resource("stuck", "thing")
    assert await ml.execute_resource("stuck", thing.id) == 1
    with pytest.raises(CallTimeoutError) as caught:
        await ml.execute_resource("stuck", thing.id, {"hangs_in": "snapshot"})

    assert caught.value.details["stopped_by"] == "exception"
    assert thing.id in caught.value.details["while"]
    await serves(ml)
    assert await ml.execute_resource("stuck", thing.id) == 2


async def test_a_resource_whose_state_is_never_told_is_not_made(ml: AsyncMLBridge) -> None:
    """Its caller is told so in time, and none is listed."""
    with pytest.raises(CallTimeoutError):
        await ml.create_resource("stuck", "thing", {"hangs_in": "snapshot"})

    await serves(ml)
    assert await ml.list_resources("stuck") == []


async def test_nobody_who_leaves_leaves_a_stuck_worker(ml: AsyncMLBridge, tmp_path: Path) -> None:
    """The caller of the execution goes away while the state is asked for."""
    thing = await ml.create_resource("stuck", "thing")
    left = asyncio.ensure_future(ml.execute_resource("stuck", thing.id, {"hangs_in": "snapshot"}, timeout=3600))
    await aeventually((tmp_path / "mark").exists)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left

    await serves(ml)
    assert await ml.execute_resource("stuck", thing.id) == 1


async def test_a_job_can_be_cancelled_while_its_state_is_asked_for(ml: AsyncMLBridge, tmp_path: Path) -> None:
    """Its last call has been answered by then."""
    thing = await ml.create_resource("stuck", "thing")
    args = {"id": thing.id, "inputs": {"hangs_in": "snapshot"}}
    job = await ml.submit("stuck", "common:execute_resource", args, timeout=3600)
    await aeventually((tmp_path / "mark").exists)

    assert await job.cancel()
    assert job.state == "cancelled"
    await serves(ml)


async def test_a_resource_that_does_not_close_is_given_up(ml: AsyncMLBridge, tmp_path: Path) -> None:
    """Deleting it does not wait for that; its worker is free after the time of a call."""
    thing = await ml.create_resource("stuck", "thing", {"hangs_in": "close"})
    await ml.delete_resource("stuck", thing.id)
    await aeventually((tmp_path / "mark").exists)

    await serves(ml)


async def test_cleaning_up_has_an_end(ml: AsyncMLBridge) -> None:
    """As a call that waits for it, a timeout."""
    with pytest.raises(CallTimeoutError):
        await ml.call("stuck", "common:cleanup", {"session_id": "stuck"})

    await serves(ml)


async def test_a_session_that_is_never_cleaned_up_is_given_up(ml: AsyncMLBridge, tmp_path: Path) -> None:
    """Closing it does not wait for that."""
    assert await ml.call("stuck", "echo", {"value": 1}, session="stuck") == 1
    await ml.close_session("stuck")
    await aeventually((tmp_path / "mark").exists)

    await serves(ml)


async def test_what_waits_behind_a_long_call_is_not_given_up(ml: AsyncMLBridge, tmp_path: Path) -> None:
    """Its time counts from when nothing is ahead of it: the worker cleans up after the call, however long that was."""
    assert await ml.call("stuck", "echo", {"value": 1}, session="stuck") == 1
    long = asyncio.ensure_future(ml.call("stuck", "nap", {"seconds": 3 * LIMIT}, timeout=5_000 * MS))
    await aeventually(lambda: ml.pool("stuck").running)
    await ml.close_session("stuck")

    await long
    await aeventually((tmp_path / "mark").exists)
    await serves(ml)


async def test_a_worker_that_dies_while_its_state_is_asked_for_says_so(ml: AsyncMLBridge, tmp_path: Path) -> None:
    """And the execution is not made again behind its caller's back."""
    thing = await ml.create_resource("stuck", "thing")
    running = asyncio.ensure_future(
        ml.execute_resource("stuck", thing.id, {"hangs_in": "snapshot"}, timeout=5_000 * MS)
    )
    await aeventually((tmp_path / "mark").exists)
    (worker,) = ml.pool("stuck").workers
    worker.kill()
    with pytest.raises(ManybridgeError) as caught:
        await running

    assert (caught.value.code, caught.value.details["signal"]) == ("worker_crashed", "SIGKILL")
    assert await ml.execute_resource("stuck", thing.id) == 1

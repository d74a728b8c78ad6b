"""Workers from a zygote."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from manybridge.errors import WorkerCrashedError, WorkerStartError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.zygote import ZygoteLauncher
from tests.host.conftest import HostMaker
from tests.support import aeventually
from tests.timing import bounded, within

UNSAFE = """
from manybridge.bridge import Bridge, command

class Unsafe(Bridge):
    name = "unsafe"

    @command
    def one(self) -> dict:
        return {"one": 1}
"""


SLOW = """
import os

from manybridge.bridge import Bridge, command

class Slow(Bridge):
    name = "slow"
    zygote_safe = True

    @classmethod
    def preload(cls):
        open(os.environ["IMPORTED"]).close()

    @command
    def one(self) -> dict:
        return {"one": 1}
"""


def launcher_of(ml: AsyncMLBridge) -> ZygoteLauncher:
    """Return what starts the workers of `mock`."""
    launcher = ml.pool("mock").supervisor._launcher
    assert isinstance(launcher, ZygoteLauncher)
    return launcher


async def test_workers_are_forked_where_the_bridge_is_safe_to_fork(mock_host: HostMaker) -> None:
    """Each is a process of its own, child of the zygote."""
    ml = await mock_host(zygote="auto", pool_size=2)
    await ml.wait_ready("mock", 10)
    workers = ml.pool("mock").ready

    assert [worker.started_by for worker in workers] == ["zygote", "zygote"]
    assert len({worker.process.pid for worker in workers}) == 2
    assert (await ml.stats())["bridges"]["mock"]["zygote"] == {"used": True, "reason": None}


@bounded
async def test_a_forked_worker_that_dies_is_replaced_in_milliseconds(mock_host: HostMaker) -> None:
    """And its call learns the exit status, although the zygote collected it."""
    ml = await mock_host(zygote="auto")
    await ml.call("mock", "pid")

    with pytest.raises(WorkerCrashedError) as caught:
        await ml.call("mock", "fail", {"kind": "os_exit", "exit_code": 6})
    with within(500):
        assert await ml.call("mock", "echo", {"a": 1}) == {"a": 1}

        assert caught.value.details["exit_code"] == 6


async def test_a_bridge_that_is_not_safe_to_fork_is_spawned_and_says_why(tmp_path: Path) -> None:
    """The reason is in health."""
    (tmp_path / "unsafe.py").write_text(UNSAFE)
    async with AsyncMLBridge({"bridges": {"unsafe": {"python_script": str(tmp_path / "unsafe.py")}}}) as ml:
        assert await ml.call("unsafe", "one") == {"one": 1}
        zygote = (await ml.health())["bridges"]["unsafe"]["zygote"]

    assert zygote["used"] is False
    assert "zygote_safe" in zygote["reason"]


async def test_always_does_not_fall_back(tmp_path: Path) -> None:
    """Who asked for a zygote learns that there is none."""
    (tmp_path / "unsafe.py").write_text(UNSAFE)
    config = {"python_script": str(tmp_path / "unsafe.py"), "zygote": "always"}
    async with AsyncMLBridge({"bridges": {"unsafe": config}}) as ml:
        with pytest.raises(WorkerStartError, match="zygote_safe"):
            await ml.call("unsafe", "one")


async def test_a_zygote_that_died_is_made_again(mock_host: HostMaker) -> None:
    """Workers that run are not touched."""
    ml = await mock_host(zygote="auto")
    before = (await ml.call("mock", "pid"))["pid"]
    zygote = launcher_of(ml)._zygote
    assert zygote is not None
    os.kill(zygote.process.pid, signal.SIGKILL)
    await aeventually(lambda: zygote.process.status is not None)

    assert (await ml.call("mock", "pid"))["pid"] == before
    with pytest.raises(WorkerCrashedError):
        await ml.call("mock", "fail", {"kind": "kill"})
    assert (await ml.call("mock", "pid"))["pid"] != before
    assert ml.pool("mock").ready[0].started_by == "zygote"


async def test_a_zygote_that_is_killed_during_its_import_is_made_again(tmp_path: Path) -> None:
    """Nothing was wrong with the framework; with `always` the bridge would never serve again."""
    (tmp_path / "slow.py").write_text(SLOW)
    imported = tmp_path / "imported"
    os.mkfifo(imported)  # the import waits until somebody opens the other end
    table = {"python_script": str(tmp_path / "slow.py"), "zygote": "always", "restart": {"initial_backoff": 0.0}}
    config = {"bridges": {"mock": {**table, "environment": {"IMPORTED": str(imported)}}}}
    async with AsyncMLBridge(config) as ml:
        launcher = launcher_of(ml)
        await aeventually(lambda: launcher._zygote is not None)
        zygote = launcher._zygote
        assert zygote is not None
        assert not zygote.ready.done()
        os.kill(zygote.process.pid, signal.SIGKILL)
        await aeventually(lambda: zygote.process.status is not None)

        imported.unlink()
        imported.touch()
        await aeventually(lambda: ml.pool("mock").ready)  # a call that waited for the killed one was told so
        assert await ml.call("mock", "slow:one") == {"one": 1}
        assert ml.pool("mock").ready[0].started_by == "zygote"


async def test_options_and_environment_reach_a_forked_worker(mock_host: HostMaker) -> None:
    """They travel with the request to fork."""
    options = {"script": [{"result": {"scripted": True}}]}
    ml = await mock_host(zygote="auto", environment={"PLAIN": "3"}, options=options)
    seen = await ml.call("mock", "environment")

    assert "PLAIN" in str(seen)
    assert await ml.call("mock", "reply") == {"scripted": True}

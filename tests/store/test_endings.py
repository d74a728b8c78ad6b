"""Programs that end in every way there is, with a host that uses its store: nothing is said that nobody can act on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import DEFAULT_TIMEOUT

PROGRAM = """
import asyncio, sys
from manybridge import AsyncMLBridge

config = {"bridges": {"mock": {"zygote": "never"}}, "store": {"url": "sqlite:///" + sys.argv[1]}}


async def begin():
    ml = AsyncMLBridge(config)
    await ml.start()
    await ml.create_resource("mock", "echo")
    ml._access._begin_tick()  # in the middle of one, or between two
    return ml


async def fails():
    async with AsyncMLBridge(config) as ml:
        await ml.create_resource("mock", "echo")
        raise SystemExit(7)


async def cancelled():
    async with AsyncMLBridge(config) as ml:
        await ml.create_resource("mock", "echo")
        asyncio.current_task().cancel()
        await asyncio.sleep(60)


async def cancelled_in_close():
    ml = await begin()
    closing = asyncio.ensure_future(ml.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})


def left():
    loop = asyncio.new_event_loop()
    host = loop.run_until_complete(begin())
    loop.run_until_complete(asyncio.wait({host._access._task}))


def left_closed():
    loop = asyncio.new_event_loop()
    host = loop.run_until_complete(begin())
    loop.run_until_complete(asyncio.wait({host._access._task}))
    loop.close()


how = globals()[sys.argv[2]]
if asyncio.iscoroutinefunction(how):
    try:
        asyncio.run(how())
    except asyncio.CancelledError:
        pass
else:
    how()
"""


@pytest.mark.parametrize("how", ["begin", "fails", "cancelled", "cancelled_in_close", "left", "left_closed"])
def test_a_program_that_ends_without_closing_its_host_says_nothing(how: str, tmp_path: Path) -> None:
    """No task of the store is destroyed in the middle of its sleep."""
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "store.db"), how]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEFAULT_TIMEOUT, check=False)

    assert (ended.returncode, ended.stdout) == (7 if how == "fails" else 0, "")
    assert "pending" not in ended.stderr
    assert "Traceback" not in ended.stderr

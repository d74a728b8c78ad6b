"""Nothing of a host survives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from manybridge.host.guardian import Guardian
from tests.support import MS, eventually, process_is_running

HOST = """
import asyncio, sys
from manybridge.host.bridge import AsyncMLBridge

async def main():
    ml = AsyncMLBridge({"bridges": {"mock": {"pool_size": 2, "zygote": sys.argv[1]}}})
    await ml.start()
    await ml.wait_ready("mock", 20)
    child = await ml.call("mock", "fork_child", {"seconds": 600})
    stuck = asyncio.ensure_future(ml.call("mock", "busy", {"seconds": 600, "mode": "c"}))
    await asyncio.sleep(0.2)
    workers = [worker.process.pid for worker in ml.pool("mock").workers]
    print(*workers, child["pid"], flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def run_host(zygote: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """Start a host with a worker that is stuck in C; return it and what it has started."""
    host = subprocess.Popen([sys.executable, "-c", HOST, zygote], stdout=subprocess.PIPE)
    assert host.stdout is not None
    numbers = [int(word) for word in host.stdout.readline().split()]
    host.stdout.close()
    return host, numbers


def kill_and_look(zygote: str) -> None:
    """Kill the host and expect everything to be gone within a second."""
    host, pids = run_host(zygote)
    assert len(pids) == 3
    host.kill()
    host.wait()

    eventually(lambda: not any(map(process_is_running, pids)), timeout=1_000 * MS)


def test_no_spawned_worker_survives_a_host_that_was_killed() -> None:
    """SIGKILL to the host: workers stuck in C and their forked children are gone within a second."""
    kill_and_look("never")


def test_no_forked_worker_survives_a_host_that_was_killed() -> None:
    """The same for the children of a zygote."""
    kill_and_look("always")


def test_a_group_that_has_ended_is_not_killed_later() -> None:
    """Its number may belong to somebody else by then."""
    guardian = Guardian()
    kept = subprocess.Popen(["sleep", "600"], start_new_session=True)
    guarded = subprocess.Popen(["sleep", "600"], start_new_session=True)
    guardian.watch(kept.pid)
    guardian.watch(guarded.pid)
    guardian.forget(kept.pid)
    guardian.drop_pipe()  # what the kernel does when the host dies

    assert guarded.wait(5) == -signal.SIGKILL
    assert process_is_running(kept.pid)
    kept.kill()
    kept.wait()
    guardian.close()


def test_a_guardian_that_was_killed_is_replaced_and_knows_everything() -> None:
    """Groups from before included."""
    guardian = Guardian()
    first = subprocess.Popen(["sleep", "600"], start_new_session=True)
    second = subprocess.Popen(["sleep", "600"], start_new_session=True)
    guardian.watch(first.pid)
    assert guardian.pid is not None
    before = guardian.pid
    os.kill(before, signal.SIGKILL)
    eventually(lambda: not process_is_running(before))
    guardian.watch(second.pid)
    assert guardian.pid != before
    guardian.drop_pipe()

    assert {first.wait(5), second.wait(5)} == {-signal.SIGKILL}
    guardian.close()


def test_the_guardian_imports_nothing_but_the_standard_library() -> None:
    """It runs under `python -I -S`."""
    program = Path(__file__).parents[2] / "src/manybridge/host/guardian_main.py"

    assert "manybridge" not in "".join(
        line for line in program.read_text().splitlines() if line.startswith(("import", "from"))
    )

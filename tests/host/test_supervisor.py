"""The supervisor: starting, restarting, giving up, recycling, overflow, changes of configuration."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from manybridge.errors import ManybridgeError, OverloadedError, WorkerStartError
from manybridge.host.config import update_bridge_config
from manybridge.host.launcher import Launched, WorkerOrder
from manybridge.host.worker import KILL_PATIENCE
from tests.host.conftest import FakePool, PoolMaker
from tests.support import aeventually
from tests.timing import bounded, within


def pids(fake: FakePool) -> set[int]:
    """Return the processes of the workers that take calls."""
    return {worker.process.pid for worker in fake.pool.ready}


@bounded
async def test_the_workers_of_a_pool_start_at_the_same_time(fake_pool: PoolMaker) -> None:
    """Four slow starts take about as long as one."""
    with within(1_900):
        fake = fake_pool("slow:0.5", pool_size=4)
        await fake.pool.wait_ready(10)

        assert len(pids(fake)) == 4


async def test_the_first_call_gets_the_real_cause_of_a_failed_start(fake_pool: PoolMaker) -> None:
    """setup_failed as the worker told it, not "pool unavailable"."""
    fake = fake_pool("setup_failed")

    with pytest.raises(WorkerStartError, match="no such model") as caught:
        await fake.call("echo", timeout=5)
    assert (caught.value.code, caught.value.framework) == ("setup_failed", "fake")


@bounded
async def test_calls_after_a_lasting_failure_get_its_cause_at_once(fake_pool: PoolMaker) -> None:
    """Nobody waits for a pool that can't start."""
    fake = fake_pool("setup_failed")
    with pytest.raises(WorkerStartError):
        await fake.call("echo", timeout=5)
    with within(500):
        with pytest.raises(WorkerStartError) as caught:
            await fake.call("echo", timeout=5)
        assert caught.value.code == "setup_failed"


async def test_a_worker_that_dies_at_its_start_says_its_last_words(fake_pool: PoolMaker) -> None:
    """worker_start_failed with exit code and standard error."""
    fake = fake_pool("exit", restart={"max_crashes": 1})

    with pytest.raises(WorkerStartError, match="no module named frame_work") as caught:
        await fake.call("echo", timeout=5)
    assert (caught.value.code, caught.value.details["exit_code"]) == ("worker_start_failed", 7)


async def test_a_worker_that_speaks_no_protocol_at_its_start_is_killed(fake_pool: PoolMaker) -> None:
    """A text in the place of a frame."""
    fake = fake_pool("bad_hello", restart={"max_crashes": 1})

    with pytest.raises(ManybridgeError) as caught:
        await fake.call("echo", timeout=5)
    assert caught.value.code == "protocol_violation"


async def test_a_worker_that_is_not_ready_in_time_is_killed(fake_pool: PoolMaker) -> None:
    """start_timeout bounds the start."""
    fake = fake_pool("silent", start_timeout=0.2, restart={"max_crashes": 1})

    with pytest.raises(WorkerStartError, match=r"not ready within 0\.2 s") as caught:
        await fake.call("echo", timeout=5)
    assert caught.value.code == "worker_start_failed"


async def test_a_worker_whose_process_took_all_of_the_time_is_killed_at_once(fake_pool: PoolMaker) -> None:
    """The time is over before its socket is ours: its end is seen nevertheless."""
    fake = fake_pool("ok", start_timeout=0.05, restart={"max_crashes": 1})

    def slowly(_order: WorkerOrder, launched: Launched) -> Launched:
        time.sleep(0.1)
        return launched

    fake.pool.supervisor.intercept = slowly
    with pytest.raises(WorkerStartError, match=r"not ready within 0\.05 s"):
        await fake.call("echo", timeout=KILL_PATIENCE / 2)
    assert not fake.pool.workers


async def test_an_interpreter_that_does_not_exist_is_named(fake_pool: PoolMaker) -> None:
    """The text says which one can't be started."""
    fake = fake_pool()
    await fake.call("echo")
    fake.pool.supervisor._plan._program = ["/nowhere/python"]
    os.kill(fake.pool.ready[0].process.pid, signal.SIGKILL)
    await aeventually(lambda: not fake.pool.ready)

    with pytest.raises(WorkerStartError, match="can't start /nowhere/python"):
        await fake.call("echo", timeout=5)


async def test_a_missing_variable_is_named_before_any_process_starts(fake_pool: PoolMaker) -> None:
    """missing_variable."""
    fake = fake_pool(required_env=["MANYBRIDGE_TEST_NOT_SET"])

    with pytest.raises(WorkerStartError, match="MANYBRIDGE_TEST_NOT_SET") as caught:
        await fake.call("echo", timeout=5)
    assert caught.value.code == "missing_variable"


async def test_a_missing_package_is_named_with_the_command_that_installs_it(fake_pool: PoolMaker) -> None:
    """missing_package."""
    fake = fake_pool(required_packages=["manybridge-no-such-package>=1"])

    with pytest.raises(WorkerStartError, match="uv pip install") as caught:
        await fake.call("echo", timeout=10)
    assert caught.value.code == "missing_package"


async def test_a_bridge_that_can_start_again_recovers_by_itself(fake_pool: PoolMaker, tmp_path: Path) -> None:
    """A call after the wait is the one that tries."""
    flag = tmp_path / "installed"
    fake = fake_pool(f"sometimes:{flag}", restart={"max_crashes": 1, "window": 0.2})
    with pytest.raises(WorkerStartError):
        await fake.call("echo", timeout=5)
    with pytest.raises(OverloadedError) as caught:
        await fake.call("echo", timeout=5)
    assert caught.value.code == "circuit_open"
    flag.touch()

    async def served() -> bool:
        try:
            return bool(await fake.call("echo", {"a": 1}))
        except OverloadedError:
            return False

    await aeventually(served)


async def test_workers_that_crash_again_and_again_open_the_breaker(fake_pool: PoolMaker) -> None:
    """circuit_open names the cause of the last crash; nobody waits."""
    fake = fake_pool(restart={"max_crashes": 3, "initial_backoff": 0.01, "window": 60})
    for code in range(3):
        with pytest.raises(ManybridgeError):
            await fake.call("exit", {"code": code})

    with pytest.raises(OverloadedError) as caught:
        await fake.call("echo", timeout=5)
    assert caught.value.code == "circuit_open"
    assert caught.value.details["last_failure"]["code"] == "worker_crashed"
    assert caught.value.details["last_failure"]["details"]["exit_code"] == 2


async def test_a_worker_is_replaced_after_its_share_of_requests(fake_pool: PoolMaker) -> None:
    """First the replacement, then the end of the old one; no call fails."""
    fake = fake_pool(max_requests=20)
    await fake.call("echo")
    first = pids(fake)

    for number in range(100):
        assert await fake.call("echo", {"n": number}) == {"n": number}
    await aeventually(lambda: pids(fake) and not pids(fake) & first)
    assert fake.pool.stats.recycled >= 1
    assert fake.pool.stats.crashed == 0


async def test_an_old_worker_is_replaced(fake_pool: PoolMaker) -> None:
    """max_age."""
    fake = fake_pool(max_age=0.2)
    await fake.call("echo")
    first = pids(fake)

    await aeventually(lambda: pids(fake) and not pids(fake) & first)


async def test_a_worker_that_uses_too_much_memory_is_replaced(fake_pool: PoolMaker) -> None:
    """Measured over its process group; a Python process is larger than 1 MiB."""
    fake = fake_pool(max_memory_mb=1)
    await fake.call("echo")
    first = pids(fake)

    await aeventually(lambda: pids(fake) and not pids(fake) & first)


async def test_more_workers_start_while_all_are_busy(fake_pool: PoolMaker) -> None:
    """max_overflow."""
    fake = fake_pool(pool_size=1, max_overflow=2)
    await fake.pool.wait_ready(5)
    calls = [asyncio.ensure_future(fake.call("sleep", {"seconds": 0.5})) for _ in range(6)]

    await aeventually(lambda: len(pids(fake)) == 3)
    await asyncio.gather(*calls)
    assert len(pids(fake)) == 3


async def test_a_changed_option_replaces_all_workers_while_calls_go_on(fake_pool: PoolMaker) -> None:
    """Rolling: there is a worker at every moment."""
    fake = fake_pool(pool_size=2)
    await fake.pool.wait_ready(5)
    first = pids(fake)
    changed = update_bridge_config("fake", fake.pool.config, {"environment": {"PLAIN": "new"}})
    fake.pool.supervisor.reconfigure(changed)

    async def replaced() -> bool:
        await fake.call("echo")
        return len(pids(fake)) == 2 and not pids(fake) & first

    await aeventually(replaced)
    assert (await fake.call("environment"))["PLAIN"] == "new"


async def test_a_changed_size_starts_or_ends_workers(fake_pool: PoolMaker) -> None:
    """Nothing else is touched."""
    fake = fake_pool(pool_size=1)
    await fake.pool.wait_ready(5)
    first = pids(fake)
    fake.pool.supervisor.reconfigure(update_bridge_config("fake", fake.pool.config, {"pool_size": 3}))
    await aeventually(lambda: len(pids(fake)) == 3)
    assert first < pids(fake)

    fake.pool.supervisor.reconfigure(update_bridge_config("fake", fake.pool.config, {"pool_size": 1}))
    await aeventually(lambda: len(fake.pool.workers) == 1)
    assert pids(fake) == first

"""What a worker died of, in one word."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybridge.errors import ManybridgeError
from manybridge.host.causes import OomWatch, cause_of_exit, count_oom_kills
from manybridge.host.process import ExitStatus
from tests.host.conftest import HostMaker, PoolMaker
from tests.support import aeventually


def never() -> bool:
    """Nobody ran out of memory."""
    return False


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (ExitStatus(exit_code=0), "exit"),
        (ExitStatus(exit_code=3), "exit"),
        (ExitStatus(signal="SIGSEGV"), "segfault"),
        (ExitStatus(signal="SIGBUS"), "segfault"),
        (ExitStatus(signal="SIGABRT"), "abort"),
        (ExitStatus(signal="SIGILL"), "illegal_instruction"),
        (ExitStatus(signal="SIGFPE"), "arithmetic"),
        (ExitStatus(signal="SIGKILL"), "killed"),
        (ExitStatus(signal="SIGTERM"), "terminated"),
        (ExitStatus(signal="SIGUSR2"), "signal"),
        (ExitStatus(), "unknown"),
    ],
)
def test_every_way_to_end_has_its_word(status: ExitStatus, cause: str) -> None:
    """Exit codes, signals, and the end that nobody saw."""
    assert cause_of_exit(status, closed_stream=False, out_of_memory=never) == cause


def test_a_kill_is_the_kernels_only_where_the_kernel_says_so() -> None:
    """SIGKILL and a counter that has grown; no other signal is ever explained by it."""
    killed, segfault = ExitStatus(signal="SIGKILL"), ExitStatus(signal="SIGSEGV")

    assert cause_of_exit(killed, closed_stream=False, out_of_memory=lambda: True) == "oom_kill"
    assert cause_of_exit(segfault, closed_stream=False, out_of_memory=lambda: True) == "segfault"


def test_each_kill_of_the_kernel_explains_one_death() -> None:
    """Two workers that are killed in the same moment are both explained, a third one is not."""
    counter = iter([5, 5, 7, 7, 7])
    watch = OomWatch(lambda: next(counter))

    assert [watch.explains_a_death() for _ in range(4)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("group", "file", "text"),
    [
        ("0::/user/app\n", "sys/fs/cgroup/user/app/memory.events", "low 0\noom 3\noom_kill 4\n"),
        ("0::/host/path\n", "sys/fs/cgroup/memory.events", "oom_kill 4\noom_group_kill 0\n"),
        ("4:cpu,memory:/app\n0::/\n", "sys/fs/cgroup/memory/app/memory.oom_control", "under_oom 0\noom_kill 4\n"),
        ("0::/\n", "proc/vmstat", "nr_free_pages 1\noom_kill 4\n"),
    ],
)
def test_the_counter_is_read_where_the_kernel_keeps_it(group: str, file: str, text: str, tmp_path: Path) -> None:
    """Control groups of version 2 and 1, inside and outside a container, and the machine's own counter."""
    for name, content in (("proc/self/cgroup", group), (file, text)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)

    assert count_oom_kills(tmp_path) == 4


def test_without_a_counter_nothing_is_claimed(tmp_path: Path) -> None:
    """Zero kills, whatever happens."""
    assert count_oom_kills(tmp_path) == 0


@pytest.mark.parametrize(
    ("operation", "args", "cause"),
    [
        ("exit", {"code": 3}, "exit"),
        ("kill", {}, "killed"),
        ("garbage", {}, "broken_protocol"),
        ("close_stream", {}, "stream_closed"),
    ],
)
async def test_the_error_of_a_call_names_the_cause(
    operation: str, args: dict[str, int], cause: str, fake_pool: PoolMaker
) -> None:
    """In its details, and in the counters."""
    fake = fake_pool()

    with pytest.raises(ManybridgeError) as caught:
        await fake.call(operation, args)

    assert caught.value.details["cause"] == cause
    assert fake.pool.describe()["crash_causes"] == {cause: 1}


@pytest.mark.parametrize(("kind", "cause"), [("segfault", "segfault"), ("abort", "abort"), ("terminate", "terminated")])
async def test_a_real_worker_that_dies_of_a_signal_is_classified(kind: str, cause: str, mock_host: HostMaker) -> None:
    """A real segmentation fault, a real abort, a real SIGTERM from outside."""
    ml = await mock_host()

    with pytest.raises(ManybridgeError) as caught:
        await ml.call("mock", "mock:fail", {"kind": kind})

    # SIGTERM asks a worker to end: it exits with status 0, and that is what is seen.
    assert caught.value.details["cause"] in {cause, "exit" if kind == "terminate" else cause}
    assert caught.value.code == "worker_crashed"


@pytest.mark.parametrize(
    ("boot", "word", "code"),
    [
        ("exit", "exit", "worker_start_failed"),
        ("silent", "start_timeout", "worker_start_failed"),
        ("bad_hello", "broken_protocol", "protocol_violation"),
        ("setup_failed", "setup_failed", "setup_failed"),
    ],
)
async def test_a_start_that_fails_is_counted_by_its_cause(
    boot: str, word: str, code: str, fake_pool: PoolMaker
) -> None:
    """What the worker said itself counts by its code."""
    fake = fake_pool(boot, start_timeout=0.3, restart={"max_crashes": 1})

    with pytest.raises(ManybridgeError) as caught:
        await fake.call("echo", timeout=5)

    assert caught.value.code == code
    await aeventually(lambda: fake.pool.describe()["start_failures"] == {word: 1})

"""What a worker may do wrong, and the exact error of the call that it had: a part of the crash matrix."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from manybridge.errors import ManybridgeError, WorkerCrashedError
from tests.host.conftest import PoolMaker
from tests.support import MS, aeventually, process_is_running

BREACHES = ["garbage", "text", "oversize", "no_object", "wrong_id", "no_result", "null_error", "event", "sequence"]


@pytest.mark.parametrize("breach", BREACHES)
async def test_a_worker_that_breaks_the_protocol_is_killed_and_its_call_says_so(
    breach: str, fake_pool: PoolMaker
) -> None:
    """After a breach nothing that it says can be trusted; the next call has a new worker."""
    fake = fake_pool()
    before = (await fake.call("whole"), fake.pool.ready[0].process.pid)[1]

    with pytest.raises(ManybridgeError) as caught:
        await fake.call(breach, timeout=5_000 * MS)

    assert (caught.value.code, caught.value.retryable) == ("protocol_violation", True)
    assert caught.value.details["pid"] == before
    assert await fake.call("echo", {"next": True}) == {"next": True}
    assert not process_is_running(before)


@pytest.mark.parametrize(
    ("operation", "args", "detail", "value"),
    [
        ("exit", {"code": 3}, "exit_code", 3),
        ("exit", {"code": 0}, "exit_code", 0),
        ("kill", {}, "signal", "SIGKILL"),
        ("half_frame", {}, "exit_code", 0),
    ],
)
async def test_a_worker_that_dies_fails_its_call_at_once_with_the_cause(
    operation: str, args: dict[str, int], detail: str, value: object, fake_pool: PoolMaker
) -> None:
    """Exit code or signal, pid, uptime; never a wait for a deadline."""
    fake = fake_pool()
    await fake.call("echo")

    with pytest.raises(WorkerCrashedError) as caught:
        await fake.call(operation, args)

    details = caught.value.details
    assert (caught.value.code, details[detail]) == ("worker_crashed", value)
    assert details["worker_id"] == "fake-1"
    assert details["uptime"] >= 0


async def test_the_last_words_of_a_worker_are_in_its_error(fake_pool: PoolMaker) -> None:
    """All lines in details, the last one in the message."""
    fake = fake_pool()

    with pytest.raises(WorkerCrashedError, match="its last words: ValueError: wrong shape") as caught:
        await fake.call("say", {"text": "Traceback:\n  File x\nValueError: wrong shape\n"})

    assert caught.value.details["stderr_tail"] == ["Traceback:", "  File x", "ValueError: wrong shape"]


async def test_a_crash_behind_a_progress_bar_is_told_by_its_name(fake_pool: PoolMaker) -> None:
    """A bar has not ended its line when the interpreter writes behind it; the end of its report says nothing."""
    fake = fake_pool()
    text = "\r 10%|#  |" * 2000 + "Fatal Python error: Aborted\n\nExtension modules: a, b (total: 2)\n"

    with pytest.raises(WorkerCrashedError, match=r"its last words: Fatal Python error: Aborted$"):
        await fake.call("say", {"text": text})


async def test_a_flood_on_standard_error_neither_blocks_the_worker_nor_fills_the_error(fake_pool: PoolMaker) -> None:
    """A megabyte is drained; fifty lines are kept."""
    fake = fake_pool()

    with pytest.raises(WorkerCrashedError) as caught:
        await fake.call("say", {"text": "noise " * 10 + "\n" * 1 + ("x" * 99 + "\n") * 10_000})

    assert len(caught.value.details["stderr_tail"]) <= 51


async def test_a_worker_that_closes_its_stream_and_lives_on_is_killed(fake_pool: PoolMaker) -> None:
    """An end of the stream without an exit is a doubt, too."""
    fake = fake_pool()
    pid = (await fake.call("whole"), fake.pool.ready[0].process.pid)[1]

    with pytest.raises(WorkerCrashedError):
        await fake.call("close_stream")

    assert not process_is_running(pid)


async def test_a_reply_that_was_sent_before_the_death_is_delivered(fake_pool: PoolMaker) -> None:
    """The call was done: it must neither fail nor run again."""
    fake = fake_pool()

    assert await fake.call("reply_and_die") == {"finished": True}
    assert fake.pool.stats.requeued == 0


async def test_a_second_reply_to_one_call_is_a_breach(fake_pool: PoolMaker) -> None:
    """The first reply may count or not; the worker is gone in any case, and its replacement serves."""
    fake = fake_pool()
    await asyncio.gather(fake.call("twice"), return_exceptions=True)

    await aeventually(lambda: fake.pool.stats.crashed == 1)
    assert await fake.call("echo", {"a": 1}) == {"a": 1}


async def test_a_worker_that_is_killed_while_idle_is_replaced(fake_pool: PoolMaker) -> None:
    """No call notices."""
    fake = fake_pool()
    await fake.call("echo")
    first = fake.pool.ready[0].process.pid
    os.kill(first, signal.SIGKILL)

    await aeventually(lambda: fake.pool.ready and fake.pool.ready[0].process.pid != first)
    assert await fake.call("echo", {"b": 2}) == {"b": 2}
    assert fake.pool.stats.crashed == 1


async def test_calls_that_the_dead_worker_had_not_begun_go_to_the_next_one(fake_pool: PoolMaker) -> None:
    """The worker runs its calls in order: only the first one can have begun."""
    fake = fake_pool()
    for _ in range(30):
        await fake.call("echo")  # short calls let the worker have several ahead
    dying = asyncio.ensure_future(fake.call("exit"))
    behind = [asyncio.ensure_future(fake.call("echo", {"n": n})) for n in range(5)]

    with pytest.raises(WorkerCrashedError):
        await dying
    assert await asyncio.gather(*behind) == [{"n": n} for n in range(5)]


async def test_a_request_that_killed_two_workers_is_not_tried_a_third_time(fake_pool: PoolMaker) -> None:
    """The same command with the same arguments is quarantined; others are served."""
    fake = fake_pool()
    for _ in range(2):
        with pytest.raises(WorkerCrashedError):
            await fake.call("exit", {"code": 9})

    with pytest.raises(ManybridgeError) as caught:
        await fake.call("exit", {"code": 9})

    assert (caught.value.code, caught.value.retryable) == ("quarantined", False)
    assert await fake.call("echo", {"code": 9}) == {"code": 9}


async def test_a_frame_over_the_limit_fails_only_its_call(fake_pool: PoolMaker) -> None:
    """The worker never gets it."""
    fake = fake_pool(max_frame_bytes=1024)

    with pytest.raises(ManybridgeError) as caught:
        await fake.call("echo", {"text": "x" * 2000})

    assert caught.value.code == "frame_too_large"
    assert await fake.call("echo", {"text": "x"}) == {"text": "x"}
    assert fake.pool.stats.crashed == 0

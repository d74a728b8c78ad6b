"""`MLBridge`: the same host for blocking programs."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvloop

from manybridge import MLBridge
from manybridge.errors import CallTimeoutError, ClosedError, ManybridgeError, WorkerCrashedError
from tests.support import MS, eventually, process_is_running
from tests.timing import bounded, within

CONFIG = {"bridges": {"mock": {"pool_size": 2, "zygote": "never", "cancel_grace": 0.2, "term_grace": 0.2}}}


@pytest.fixture(scope="module", autouse=True)
def libuv_is_warm() -> None:
    """Have libuv open, before a test counts descriptors, the one pipe that it keeps for the life of the process."""
    uvloop.new_event_loop().close()


@pytest.fixture
def ml() -> Iterator[MLBridge]:
    """Return a host with two workers of `mock`."""
    with MLBridge.from_config(CONFIG) as host:
        yield host


def test_the_surface_works_without_a_loop(ml: MLBridge) -> None:
    """Calls, batch, resources, sessions, capabilities, health, stats."""
    assert ml.call("mock", "echo", {"a": 1}) == {"a": 1}
    assert ml.call(None, "mock:echo", {"a": 1}, session="s", idempotency_key="k") == {"a": 1}
    assert ml.batch("mock", [{"command": "echo", "args": {"n": 1}}]) == [{"n": 1}]
    made = ml.create_resource("mock", "counter", {"start": 1})
    assert ml.execute_resource("mock", made.id, {"add": 2})["value"] == 3
    assert ml.get_resource("mock", made.id).executions == 1
    assert [each.id for each in ml.list_resources("mock", "counter")] == [made.id]
    assert ml.delete_resource("mock", made.id)["deleted"]
    assert ml.create_session("t", affinity="strict_queue").affinity == "strict_queue"
    assert {each.id for each in ml.list_sessions()} == {"s", "t"}
    ml.close_session("t")
    assert "mock:echo" in ml.capabilities("mock")["commands"]
    assert ml.health()["status"] in {"ok", "degraded"}
    assert ml.stats()["bridges"]["mock"]["calls"] > 3
    assert set(ml.bridges()) == {"mock"}


def test_short_calls_of_several_threads_and_dying_workers_keep_their_answers(ml: MLBridge) -> None:
    """Whichever thread acts for the host: each call has its own answer, or the error of its worker's death."""
    ml.wait_ready("mock", 10)
    numbers = range(150)

    def calls(thread: int) -> list[object]:
        found: list[object] = []
        for number in numbers:
            try:
                found.append(ml.call("mock", "echo", {"n": [thread, number]})["n"])
            except WorkerCrashedError:
                found.append("crashed")
            if thread == 0 and number in {50, 100}:
                pid = ml.call("mock", "common:ping")["pid"]
                os.kill(pid, signal.SIGKILL)
        return found

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(calls, range(4)))
    for thread, answers in enumerate(found):
        assert all(answer in ([thread, number], "crashed") for number, answer in zip(numbers, answers, strict=True))
    assert sum(answers.count("crashed") for answers in found) <= 8
    assert calls(9) == [[9, number] for number in numbers]


def test_a_worker_that_dies_between_two_short_calls_fails_none(ml: MLBridge) -> None:
    """The thread of the host may stand aside then: the caller meets the death, and leaves it to the thread."""
    ml.wait_ready("mock", 10)
    for _ in range(5):
        for _ in range(20):
            assert ml.call("mock", "echo", {"a": 1}) == {"a": 1}
        os.kill(ml.call("mock", "common:ping")["pid"], signal.SIGKILL)
        eventually(lambda: _echoes(ml))


def _echoes(ml: MLBridge) -> bool:
    """Whether an echo comes back; a call that its worker may have begun when it died says so."""
    with contextlib.suppress(WorkerCrashedError):
        return bool(ml.call("mock", "echo", {"a": 2}, timeout=5) == {"a": 2})
    return False


def test_a_stream_is_an_ordinary_loop(ml: MLBridge) -> None:
    """With its result after the last event."""
    stream = ml.stream("mock", "count", {"n": 5})

    assert [event.data for event in stream] == [0, 1, 2, 3, 4]
    assert stream.result == {"count": 5}


def test_leaving_the_loop_stops_the_call(ml: MLBridge) -> None:
    """As with the asynchronous host."""
    for _ in ml.stream("mock", "count", {"n": 1_000_000, "delay": 0.01}):
        break

    eventually(lambda: ml.stats()["bridges"]["mock"]["running"] == 0)


def test_a_job_can_be_followed_and_cancelled(ml: MLBridge) -> None:
    """progress, events, result, cancel."""
    job = ml.submit("mock", "progress", {"steps": 3, "delay": 0.01})
    assert [event.data["current"] for event in job.events()] == [1, 2, 3]
    assert (job.result(5), str(job.state)) == ({"steps": 3}, "done")

    other = ml.submit("mock", "sleep", {"seconds": 30})
    assert other.cancel()
    assert str(ml.get_job(other.id).state) == "cancelled"


def test_errors_are_raised_in_the_callers_thread(ml: MLBridge) -> None:
    """Timeouts and crashes."""
    with pytest.raises(CallTimeoutError):
        ml.call("mock", "sleep", {"seconds": 30}, timeout=100 * MS)
    with pytest.raises(WorkerCrashedError):
        ml.call("mock", "fail", {"kind": "kill"})


def test_many_threads_may_call_at_the_same_time(ml: MLBridge) -> None:
    """Each gets its own answer."""
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: ml.call("mock", "echo", {"n": n}), range(500)))

    assert answers == [{"n": n} for n in range(500)]


def test_a_plain_tool_may_call_the_host(ml: MLBridge) -> None:
    """It runs on a thread of its own, also within the session of the call that it works for."""
    ml.wait_ready("mock", 10)
    ml.register_tool("ask", lambda: ml.call("mock", "echo", {"from": "tool"}, session="s"))

    answer = ml.call("mock", "call_host", {"tool": "ask", "args": {}}, session="s", timeout=5)
    assert answer["result"] == {"from": "tool"}


def test_a_blocking_call_on_the_hosts_own_loop_is_refused(ml: MLBridge) -> None:
    """It would wait for itself."""

    async def ask() -> object:
        return ml.call("mock", "echo")

    ml.register_tool("ask", ask)
    with pytest.raises(ManybridgeError, match="plain function"):
        ml.call("mock", "call_host", {"tool": "ask", "args": {}})


def test_ctrl_c_stops_the_call_that_it_interrupts(ml: MLBridge) -> None:
    """KeyboardInterrupt comes through, and the worker is free."""
    ml.call("mock", "echo")
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(0.2, lambda: signal.pthread_kill(main, signal.SIGINT))
    timer.start()

    with pytest.raises(KeyboardInterrupt):
        ml.call("mock", "sleep", {"seconds": 30})
    timer.join()
    eventually(lambda: ml.stats()["bridges"]["mock"]["running"] == 0)


def test_a_closed_host_refuses_calls() -> None:
    """And closing twice is fine."""
    ml = MLBridge(CONFIG)
    ml.close()
    ml.close()

    with pytest.raises(ClosedError):
        ml.call("mock", "echo")
    with pytest.raises(ClosedError):
        ml.stats()
    assert (ml.health()["status"], ml.health()["live"]) == ("closed", False)


@bounded
def test_a_host_that_is_dropped_ends_without_waiting() -> None:
    """The finaliser does not hang; thread and workers are gone soon."""
    ml = MLBridge(CONFIG)
    pid = ml.call("mock", "pid")["pid"]
    with within(1_000):
        del ml
        gc.collect()
    eventually(lambda: not process_is_running(pid))


def test_a_program_that_forgets_to_close_its_host_ends() -> None:
    """The host closes at exit, even while a call runs."""
    program = f"""
import threading, time
from manybridge import MLBridge
ml = MLBridge({CONFIG!r})
print(ml.call("mock", "pid")["pid"])
threading.Thread(target=lambda: ml.call("mock", "sleep", {{"seconds": 30}}), daemon=True).start()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=15, check=False)

    assert done.returncode == 0, done.stderr.decode()
    eventually(lambda: not process_is_running(int(done.stdout)))

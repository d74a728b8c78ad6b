"""The faults of the `mock` bridge in a real worker: each gives the answer or the end that it is named after."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.raw_worker import RawWorker, raw_worker
from tests.support import MS, eventually, process_is_running


@pytest.mark.parametrize(
    ("args", "code", "kind"),
    [
        ({"kind": "raise"}, "handler_error", "MockError"),
        ({"kind": "bad_text"}, "handler_error", "_Unprintable"),
        ({"kind": "recursion"}, "handler_error", "RecursionError"),
        ({"kind": "exit"}, "handler_error", "SystemExit"),
        ({"kind": "memory"}, "out_of_memory", "MemoryError"),
        ({"kind": "bridge_error"}, "rate_limited", None),
        ({"kind": "huge"}, "frame_too_large", None),
    ],
)
def test_a_handler_that_fails_leaves_the_worker_answering(args: dict[str, Any], code: str, kind: str | None) -> None:
    """With the code of its row in the crash matrix."""
    with raw_worker("mock") as worker:
        reply = worker.ask("mock:fail", args)
        assert (reply["error_info"]["code"], reply["error_info"]["type"]) == (code, kind)
        assert worker.result("mock:echo", {"still": "here"}) == {"still": "here"}


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("os_exit", 3),
        ("kill", -signal.SIGKILL),
        ("segfault", -signal.SIGSEGV),
        ("abort", -signal.SIGABRT),
    ],
)
def test_a_handler_that_ends_the_process_ends_it_as_named(kind: str, status: int) -> None:
    """Exit code or signal, while serving and while idle."""
    with raw_worker("mock") as worker:
        worker.send("mock:fail", {"kind": kind})
        assert worker.ended() == status
    with raw_worker("mock") as worker:
        worker.result("mock:fail_later", {"kind": kind, "delay": 0.01})
        assert worker.ended() == status


@pytest.mark.parametrize("what", ["object", "bytes", "set", "function", "cycle", "nan", "surrogate", "keys"])
def test_a_result_that_json_can_not_carry_never_breaks_a_frame(what: str) -> None:
    """Nor does its repr reach anybody."""
    with raw_worker("mock") as worker:
        reply = worker.ask("mock:unserializable", {"what": what})
        assert "secret-in-repr" not in str(reply)
        assert worker.result("mock:echo", {}) == {}


@pytest.mark.parametrize("how", ["python", "descriptor"])
def test_a_megabyte_on_stdout_never_reaches_the_protocol(how: str) -> None:
    """It goes to the log, from Python and from below."""
    with raw_worker("mock") as worker:
        number = worker.send("mock:print", {"bytes": 1_000_000, "how": how})
        assert worker.process.stderr is not None
        logged = 0
        while logged < 1_000_000:
            logged += len(os.read(worker.process.stderr.fileno(), 65536))
        assert worker.receive(number)["result"]["printed"] == 1_000_000


@pytest.mark.parametrize(
    ("command", "args", "stopped_by"),
    [
        ("mock:sleep", {"seconds": 3600}, "cooperative"),
        ("mock:asleep", {"seconds": 3600}, None),
        ("mock:busy", {"mode": "python"}, "exception"),
        ("mock:busy", {"mode": "sleep"}, "exception"),
        ("mock:count", {"n": 1_000_000_000, "delay": 0.01}, None),
    ],
)
def test_work_that_can_be_stopped_is_stopped_and_the_worker_goes_on(
    command: str, args: dict[str, Any], stopped_by: str | None
) -> None:
    """The reply says on which rung of the ladder."""
    grace = 400 if stopped_by == "exception" else 20_000  # nothing that a busy machine does may look like a refusal
    with raw_worker("mock", None, "--mode", "host", "--cancel-grace-ms", str(grace)) as worker:
        number = worker.send(command, args)
        eventually(lambda: worker.result("common:ping")["state"] == "busy")
        worker.send("common:cancel", {"id": number})
        info = worker.receive(number)["error_info"]
        assert info["code"] == "cancelled"
        assert stopped_by in (None, info["details"]["stopped_by"])
        assert worker.result("mock:echo", {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("mode", ["swallow", "c_released"])
def test_work_that_can_not_be_stopped_ends_the_worker(mode: str) -> None:
    """A worker in which abandoned code runs takes no further call."""
    with raw_worker("mock", None, "--cancel-grace-ms", "50") as worker:
        number = worker.send("mock:busy", {"mode": mode, "seconds": 30})
        eventually(lambda: worker.result("common:ping")["state"] == "busy")
        worker.send("common:cancel", {"id": number})
        assert worker.receive(number)["error_info"]["code"] == "cancelled"
        assert worker.ended() != 0


def test_work_that_holds_the_interpreter_silences_even_ping() -> None:
    """Which is why the host, and not the worker, has the last rung."""
    with raw_worker("mock") as worker:
        worker.result("mock:echo", {})
        worker.send("mock:busy", {"mode": "c", "seconds": 30})
        eventually(lambda: _is_silent(worker))  # a ping that came along with the call is still answered
        worker.process.kill()
        assert worker.ended() == -signal.SIGKILL


def _is_silent(worker: RawWorker) -> bool:
    try:
        worker.receive(worker.send("common:ping"), 300 * MS)
    except TimeoutError:
        return True
    return False


def test_a_forked_child_is_left_for_the_host_to_find() -> None:
    """It is in the worker's group, unless it was told to escape."""
    with raw_worker("mock") as worker:
        inside = worker.result("mock:fork_child", {"seconds": 60})["pid"]
        outside = worker.result("mock:fork_child", {"seconds": 60, "own_group": True})["pid"]
        eventually(lambda: os.getpgid(outside) == outside)
        assert os.getpgid(inside) == os.getpgid(worker.process.pid)
        os.kill(outside, signal.SIGKILL)
    eventually(lambda: not process_is_running(inside))


@pytest.mark.parametrize(
    ("command", "args", "result"),
    [
        ("mock:call_host", {"args": {"n": 1}}, {"tool": "double", "result": 2}),
        ("mock:acall_host", {"calls": [{"n": 2}, {"n": 3}]}, {"tool": "double", "results": [4, 6]}),
    ],
)
def test_tools_of_the_client_are_called_over_the_wire(command: str, args: dict[str, Any], result: Any) -> None:
    """Concurrent calls are all open before the first is answered."""
    with raw_worker("mock") as worker:
        number = worker.send(command, {"tool": "double", **args}, stream=True)
        calls = [worker.read()["data"] for _ in args.get("calls", [None])]
        for call in reversed(calls):
            worker.send("common:call_result", {"call_id": call["call_id"], "result": call["args"]["n"] * 2})
        assert worker.receive(number)["result"] == result


def test_allocated_memory_is_really_there_until_it_is_given_back() -> None:
    """For tests of memory limits."""
    with raw_worker("mock") as worker:
        before = _resident_bytes(worker.process.pid)
        assert worker.result("mock:allocate", {"mb": 50}) == {"allocated_mb": 50}
        assert _resident_bytes(worker.process.pid) - before > 45_000_000
        assert worker.result("mock:allocate", {"mb": 0}) == {"allocated_mb": 0}


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_boot_faults_are_what_they_say() -> None:
    """A crash ends the process; an error is the answer of the first call."""
    with raw_worker("mock", {"setup_crash": "kill"}) as worker:
        worker.send("mock:echo", {})
        assert worker.ended() == -signal.SIGKILL
    with raw_worker("mock", {"setup_error": "no luck"}) as worker:
        assert worker.code("mock:echo", {}, stream=False) == "setup_failed"
    with raw_worker("mock", {"setup_error_code": "missing_variable"}) as worker:
        assert worker.code("mock:echo", {}, stream=False) == "missing_variable"


def test_scripted_commands_are_served_and_shown() -> None:
    """Registered at run time, they are in the capabilities like any other."""
    with raw_worker("mock", {"script": [{"command": "ask", "chunks": [1, 2], "result": "done"}]}) as worker:
        assert worker.result("mock:ask", {"x": 1}, stream=True) == "done"
        assert [event["data"] for event in worker.events] == [1, 2]
        assert "mock:ask" in worker.result("common:capabilities")["commands"]


def test_another_name_serves_the_same_commands() -> None:
    """`--name` is how a mock stands in for a framework."""
    with raw_worker("mock", {"script": [{"command": "dspy:predict", "result": 1}]}, "--name", "dspy") as worker:
        assert worker.result("dspy:predict", {}) == 1

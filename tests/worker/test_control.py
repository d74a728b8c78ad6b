"""Answers that need no bridge: while it loads, while it works, and after it failed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually
from tests.worker.raw import RawWorker, bridge


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A named pipe: the bridge `gated` is imported as soon as somebody writes how that shall end."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path


@pytest.fixture
def gated(gate: Path) -> Iterator[RawWorker]:
    """A worker whose bridge waits at the gate."""
    with RawWorker(bridge("gated"), environment={"GATE": str(gate)}) as worker:
        yield worker


def open_gate(gate: Path, how: str = "fine") -> None:
    """Let the import end; blocks until it began."""
    gate.write_text(how)


# ------------------------------------------------------------------ loading


def test_the_first_ping_is_answered_before_the_framework_is_imported(gated: RawWorker, gate: Path) -> None:
    """Then, while it loads, and when it is ready: ping says which."""
    assert gated.result("common:ping")["state"] == "starting"
    number = gated.send("gated:quick")
    states = {gated.result_beside(number, "common:ping")["state"] for _ in range(3)}
    assert states == {"loading"}
    open_gate(gate)
    assert gated.receive(number)["result"] == {"said": "fine"}
    facts = gated.result("common:ping")
    assert (facts["state"], facts["framework"], facts["bridge"]) == ("ready", "gated", "gated")


def test_an_eager_worker_loads_after_its_first_answer(gated: RawWorker, gate: Path) -> None:
    """Nobody has to call for it."""
    gated.result("ping")
    open_gate(gate)
    eventually(lambda: gated.result("common:ping")["state"] == "ready")
    assert gated.result("common:warm_up")["state"] == "ready"


def test_a_lazy_worker_loads_with_the_first_call(gate: Path) -> None:
    """Pings do not load anything."""
    with RawWorker(bridge("gated"), "--load", "lazy", environment={"GATE": str(gate)}) as worker:
        for _ in range(3):
            assert worker.result("common:ping")["state"] == "starting"
        number = worker.send("common:warm_up")
        open_gate(gate)
        assert worker.receive(number)["result"]["state"] == "ready"


@pytest.mark.parametrize(
    ("how", "code", "text"),
    [
        ("raise", "bridge_load_failed", "no such framework"),
        ("exit", "bridge_load_failed", ""),
        ("missing", "missing_package", "uv pip install"),
        ("setup", "setup_failed", "ValueError: bad option"),
    ],
)
def test_a_bridge_that_can_not_load_leaves_a_worker_that_says_why(
    gated: RawWorker, gate: Path, how: str, code: str, text: str
) -> None:
    """Every call gets the reason; ping, health and stats go on."""
    number = gated.send("gated:quick")
    open_gate(gate, how)
    reply = gated.receive(number)
    assert reply["error_info"]["code"] == code
    assert text in reply["error"]
    for command in ("gated:quick", "common:warm_up", "common:list_resources", "common:batch"):
        assert gated.error(command)["code"] == code
    assert gated.result("common:ping")["state"] == "failed"
    health = gated.result("common:health")
    assert (health["status"], health["reason"]) == ("failed", reply["error"])
    assert gated.result("common:get_stats")["errors"] == 5


def test_calls_that_wait_for_the_import_can_be_cancelled(gated: RawWorker, gate: Path) -> None:
    """They are in the queue: nothing has to be stopped."""
    first = gated.send("gated:quick")
    second = gated.send("gated:quick")
    gated.result_beside(first, "common:ping")
    assert gated.result_beside(second, "common:cancel", {"id": second}, others=[second])["state"] == "cancelling"
    assert gated.replies[second]["error_info"]["details"]["stopped_by"] == "queue"
    open_gate(gate)
    assert gated.receive(first)["success"]


# ------------------------------------------------------------------ while user code runs


@pytest.mark.parametrize("command", ["python_loop", "sleep", "c_call", "lock", "coroutine"])
def test_control_commands_are_answered_while_user_code_runs(command: str) -> None:
    """A Python loop, a sleep, a C call without the interpreter lock, a lock, an event loop."""
    with RawWorker(bridge("stubborn"), "--mode", "host") as worker:
        number = worker.send(f"s:{command}", stream=True)
        assert worker.next_event()["data"] == "running"
        facts = worker.result("common:ping")
        assert (facts["state"], facts["current_call"], facts["queued"]) == ("busy", number, 0)
        assert facts["busy_seconds"] >= 0
        assert facts["pid"] == worker.process.pid
        queued = worker.send("s:quick")
        assert worker.result("common:ping")["queued"] == 1
        assert worker.result("common:get_stats")["memory"]["rss_bytes"] > 0
        assert worker.result("common:health")["status"] == "ok"
        assert worker.result("common:cancel", {"id": queued + 10})["state"] == "unknown"
        worker.send("common:cancel", {"id": number})
        replies = {message["id"]: message for message in (worker.read() for _ in range(3))}
        assert replies[number]["error_info"]["code"] == "cancelled"
        assert replies[queued]["success"]


def test_ping_facts_of_a_bridge_that_fails_do_not_fail_the_ping() -> None:
    """Not even where the bridge tries to end the process."""
    with RawWorker(bridge("handlers"), options={"ping": "exit"}) as worker:
        worker.result("common:warm_up")
        assert worker.result("common:ping")["ping_info_error"] == "SystemExit"
    with RawWorker(bridge("handlers")) as worker:
        assert "extra" not in worker.result("common:ping")
        worker.result("common:warm_up")
        assert worker.result("common:ping")["extra"] == 1


# ------------------------------------------------------------------ versions


def test_hello_agrees_on_the_lower_version() -> None:
    """Version 2 is the highest that there is; version 1 stays version 1."""
    with RawWorker("mock", "--worker-id", "w7", "--generation", "3", "--name", "mine") as worker:
        for asked, agreed in ((1, 1), (2, 2), (99, 2)):
            hello = worker.result("common:hello", {"protocol": asked, "codec": "json", "features": ["stream"]})
            assert hello["protocol"] == agreed
            assert bool(hello["features"]) is (agreed == 2)
        assert hello["worker"] == {"id": "w7", "pid": worker.process.pid, "generation": 3}
        assert (hello["framework"], hello["bridge"], hello["codec"]) == ("mock", "mine", "json")
        assert hello["max_frame_bytes"] == 64 * 1024 * 1024


@pytest.mark.parametrize(
    "args", [{"protocol": 0}, {"protocol": "2"}, {"protocol": True}, {"codec": "msgpack"}, {"codec": ["json"]}]
)
def test_hello_refuses_what_it_does_not_speak(args: dict[str, Any]) -> None:
    """The connection goes on as it was."""
    with RawWorker() as worker:
        assert worker.error("common:hello", args)["code"] == "unsupported_version"
        assert "error_info" not in worker.ask("nothing")


def test_only_version_2_requests_get_error_info() -> None:
    """A namespace, an extension field, or hello."""
    with RawWorker() as worker:
        plain = worker.ask("nothing")
        assert set(plain) == {"id", "success", "error", "timestamp"}
        assert plain["error"] == "Unknown command: nothing"
        assert worker.error("mock:nothing")["message"] == "Unknown command: mock:nothing"
        assert worker.error("nothing", session_id="s")["code"] == "unknown_command"
        assert worker.error("nothing", deadline_ms=60_000)["code"] == "unknown_command"
        assert "error_info" not in worker.ask("nothing")
        worker.result("common:hello", {"protocol": 2})
        assert worker.error("nothing")["code"] == "unknown_command"


@pytest.mark.parametrize("name", ["other:echo", "common:nothing", "mock:", ":echo", "mock:a:b", "mock:ech"])
def test_an_unknown_command_is_named_exactly(name: str) -> None:
    """Version 1 clients compare the text."""
    with RawWorker() as worker:
        info = worker.error(name)
        assert info["message"] == f"Unknown command: {name}"
        assert info["code"] == "unknown_command"
        if name == "mock:ech":
            assert info["details"]["close_matches"][0] == "mock:echo"


def test_version_1_commands_reach_the_default_bridge_and_are_counted() -> None:
    """Results that are no objects are wrapped: a version 1 client takes nothing else."""
    with RawWorker(bridge("handlers")) as worker:
        assert worker.result("add", {"a": 2}) == {"value": 3}
        assert worker.result("h:add", {"a": 2}) == 3
        assert worker.result("ping")["status"] == "ok"
        assert worker.result("common:get_stats")["deprecated_calls"] == 2


def test_the_registered_name_is_a_namespace_too() -> None:
    """A bridge may be registered twice under different names."""
    with RawWorker("mock", "--name", "second") as worker:
        assert worker.result("second:echo", {"a": 1}) == {"a": 1}
        assert worker.result("mock:echo", {"a": 1}) == {"a": 1}
        assert worker.error("third:echo")["code"] == "unknown_command"


def test_capabilities_show_commands_and_follow_the_bridge() -> None:
    """Registered and removed at run time."""
    with RawWorker(bridge("handlers")) as worker:
        found = worker.result("common:capabilities")
        assert (found["framework"], found["version"], found["capabilities"]) == ("h", "7", ["testing"])
        assert found["commands"]["h:add"]["args"]["required"] == ["a"]
        assert found["commands"]["h:generator"]["streaming"] is True
        worker.result("h:learn", {"name": "juggle"})
        assert worker.result("h:juggle", {"a": 3}) == {"juggle": 3}
        assert "h:juggle" in worker.result("common:capabilities")["commands"]
        worker.result("h:forget", {"name": "juggle"})
        assert worker.error("h:juggle", {"a": 3})["code"] == "unknown_command"
        assert "h:juggle" not in worker.result("common:capabilities")["commands"]


# ------------------------------------------------------------------ shutdown


@pytest.mark.parametrize("options", [{}, {"concurrency": 4}])
def test_shutdown_finishes_what_is_here_and_refuses_the_rest(options: dict[str, Any]) -> None:
    """Running calls stay reachable: ping, cancel and answers of tools are no new calls."""
    with RawWorker(bridge("stubborn"), "--mode", "host", options=options) as worker:
        worker.result("common:warm_up")
        number = worker.send("s:check", stream=True)
        worker.next_event()
        assert worker.result("common:shutdown") == {"status": "shutting_down"}
        assert worker.error("s:quick")["code"] == "shutting_down"
        assert "error_info" not in worker.ask("quick")
        assert worker.result("common:ping")["current_call"] == number
        worker.send("common:cancel", {"id": number})
        replies = {message["id"]: message for message in (worker.read() for _ in range(2))}
        assert replies[number]["error_info"]["code"] == "cancelled"
        worker.assert_closed()
        assert worker.ended() == 0


def test_shutdown_still_takes_the_answers_of_tools() -> None:
    """A call that waits for the client's tool can only be finished by that answer."""
    with RawWorker(bridge("keeper")) as worker:
        number = worker.send("k:tool", {"tool": "t", "args": {}}, stream=True)
        call_id = worker.next_event()["data"]["call_id"]
        worker.result("common:shutdown")
        worker.send("common:call_result", {"call_id": call_id, "result": 5})
        replies = {message["id"]: message for message in (worker.read() for _ in range(2))}
        assert replies[number]["result"] == {"answer": 5}
        assert worker.ended() == 0


def test_shutdown_of_an_idle_worker_ends_it_with_status_0() -> None:
    """After the answer."""
    with RawWorker() as worker:
        worker.result("common:shutdown")
        worker.assert_closed()
        assert worker.ended() == 0

"""The dialect of DSPex, with a bridge of a few lines; tests/dropin does the same with the real one."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import MS, REPOSITORY, SOURCE, eventually, frame, request
from tests.worker.raw import RawWorker, error_of
from tests.worker.test_malformed import MALFORMED

PROGRAM = [sys.executable, "-I", str(REPOSITORY / "tests" / "workers" / "dialect.py"), str(SOURCE)]


def dialect(*arguments: str, environment: dict[str, str] | None = None) -> RawWorker:
    """A worker of that dialect, at a port."""
    return RawWorker("", *arguments, program=PROGRAM, transport="pipes", environment=environment)


@pytest.fixture
def worker() -> Iterator[RawWorker]:
    """One that is ready."""
    with dialect() as running:
        yield running


@pytest.fixture(scope="module")
def hardened() -> Iterator[RawWorker]:
    """One that gets all that does not end it."""
    with dialect() as running:
        yield running


FATAL = [row for row in MALFORMED if row[3] != "invalid_request"]
SILENT = [row for row in MALFORMED if row[0] in {"no id", "id null", "no command"}]


@pytest.mark.parametrize("payload", [row[1] for row in FATAL], ids=[row[0] for row in FATAL])
def test_what_is_no_object_ends_the_worker_after_the_requests_before_it(worker: RawWorker, payload: bytes) -> None:
    """Status 0, and not a word about it; what follows is not read any more."""
    worker.send_bytes(request(0, "ping") + request(1, "echo") + frame(payload) + request(2, "ping"))
    assert [worker.read()["id"] for _ in range(2)] == [0, 1]
    worker.assert_closed()
    assert worker.ended() == 0
    assert worker.log == ""


@pytest.mark.parametrize("payload", [row[1] for row in SILENT], ids=[row[0] for row in SILENT])
def test_a_request_without_id_or_command_is_ignored(hardened: RawWorker, payload: bytes) -> None:
    """The next one is answered."""
    hardened.send_bytes(frame(payload) + request(7, "ping"))
    assert hardened.read()["id"] == 7


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"id": 0, "command": "echo"}, {"args": {}}),
        ({"id": 1, "command": "echo", "args": None}, {"args": None}),
        ({"id": 1, "command": "echo", "args": [1]}, {"args": [1]}),
        ({"id": "text", "command": "echo", "args": {"a": 1}}, {"args": {"a": 1}}),
        ({"id": 1.5, "command": "echo"}, {"args": {}}),
        ({"id": 2**70, "command": "echo"}, {"args": {}}),
        ({"id": [1], "command": "echo"}, {"args": {}}),
        ({"id": {"a": 1}, "command": "echo"}, {"args": {}}),
        ({"id": True, "command": "echo"}, {"args": {}}),
        ({"id": 1, "command": "name", "args": None}, "'NoneType' object has no attribute 'get'"),
        ({"id": 1, "command": "name", "args": []}, "'list' object has no attribute 'get'"),
        ({"id": 1, "command": 5}, "Unknown command: 5"),
        ({"id": 1, "command": "predict"}, "Unknown command: predict"),
        ({"id": 1, "command": ""}, "Unknown command: "),
        ({"id": 1, "command": "object"}, "Object of type object is not JSON serializable"),
    ],
)
def test_odd_requests_are_served_as_the_original_served_them(
    hardened: RawWorker, message: dict[str, object], expected: object
) -> None:
    """The id comes back as it was sent; an error is a text and nothing else."""
    hardened.send_message(message)
    reply = hardened.read()
    assert reply["id"] == message["id"]
    assert type(reply["id"]) is type(message["id"])
    assert reply.get("result", reply.get("error")) == expected
    assert "error_info" not in reply
    assert hardened.result("ping")["status"] == "ok"


def test_counters_count_what_reaches_dispatch(worker: RawWorker) -> None:
    """Unknown commands included, and errors."""
    worker.result("ping")
    worker.ask("nothing")
    worker.ask("object")
    assert worker.result("ping") == {"status": "ok", "count": 4, "errors": 2}


def test_requests_are_answered_in_order_even_with_one_id(worker: RawWorker) -> None:
    """A DSPex client may send what it likes; one reply each."""
    worker.send_bytes(b"".join(request(3, "echo", {"n": n}) for n in range(20)))
    assert [worker.read()["result"]["args"]["n"] for _ in range(20)] == list(range(20))


def test_version_2_is_there_for_who_asks(worker: RawWorker) -> None:
    """By a namespace, by a field, by hello; then malformed frames are answered too."""
    assert worker.result("d:quick") == {"quick": True}
    assert worker.error("d:nothing")["message"] == "Unknown command: d:nothing"
    assert worker.error("nothing", session_id="s")["code"] == "unknown_command"
    assert worker.result("common:ping")["state"] == "ready"
    worker.result("common:hello", {"protocol": 2})
    worker.send_bytes(frame(b"garbage"))
    assert error_of(worker.read())["code"] == "invalid_json"
    assert worker.result("ping")["status"] == "ok"


def test_a_concurrent_bridge_serves_version_1_in_order_all_the_same() -> None:
    """Its counters and its client know of one at a time."""
    with dialect("--max-concurrency", "4") as worker:
        worker.result("d:quick")
        numbers = [worker.send("sleep", {"seconds": (5 - n) * 4 / 1000}) for n in range(5)]
        assert [worker.read()["id"] for _ in numbers] == numbers


def test_the_first_pings_are_answered_while_the_framework_is_imported(tmp_path: Path) -> None:
    """Everything else waits for it, and what waits is not overtaken."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    with dialect(environment={"GATE": str(gate)}) as worker:
        assert worker.result("ping")["status"] == "ok"
        eventually(lambda: worker.result("common:ping")["state"] == "loading")
        assert worker.result("ping")["status"] == "ok"
        numbers = [worker.send("echo"), worker.send("ping")]
        assert worker.result_beside(0, "common:ping")["state"] == "loading"
        gate.write_text("open")
        assert [worker.read()["id"] for _ in numbers] == numbers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_standalone_ignores_signals_and_a_pool_worker_ends(number: signal.Signals) -> None:
    """As the original did, idle or busy."""
    with dialect() as worker:
        worker.result("ping")
        for _ in range(3):
            worker.process.send_signal(number)
            assert worker.result("ping")["status"] == "ok"
        asked = worker.send("sleep", {"seconds": 100 * MS})
        worker.process.send_signal(number)
        assert worker.receive(asked)["success"]
    with dialect("--mode", "pool-worker") as worker:
        worker.result("ping")
        worker.process.send_signal(number)
        assert worker.ended() == 0
    with dialect("--mode", "pool-worker") as worker:
        worker.send("sleep", {"seconds": 60})
        eventually(lambda: worker.result_beside(1, "common:ping")["current_call"] == 1)
        worker.process.send_signal(number)
        assert worker.ended() == 0


def test_a_version_1_call_can_be_cancelled_by_a_version_2_client(worker: RawWorker) -> None:
    """Its error is a text."""
    number = worker.send("sleep", {"seconds": 60})
    eventually(lambda: worker.result_beside(number, "common:ping")["current_call"] == number)
    worker.send("common:cancel", {"id": number})
    replies = {message["id"]: message for message in (worker.read() for _ in range(2))}
    assert replies[number]["error"] == "The call was cancelled; it was stopped by: exception."
    assert "error_info" not in replies[number]

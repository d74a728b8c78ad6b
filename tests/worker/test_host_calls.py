"""Tools of the client, called from a handler."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import MS, TIME_FACTOR
from tests.worker.raw import RawWorker, bridge, error_of

BOTH_WAYS: list[tuple[str, ...]] = [(), ("--max-concurrency", "3")]


@pytest.fixture(scope="module", params=BOTH_WAYS, ids=["main thread", "pool threads"])
def worker(request: pytest.FixtureRequest) -> Iterator[RawWorker]:
    """Both ways to run handlers; no test leaves a call open."""
    with RawWorker(bridge("keeper"), "--mode", "host", "--cancel-grace-ms", "20000", *request.param) as running:
        running.result("common:warm_up")
        yield running


def begin(worker: RawWorker, command: str, args: dict[str, Any], **fields: Any) -> tuple[int, dict[str, Any]]:
    """Start a call and return its id and the data of its first host call."""
    number = worker.send(command, args, stream=True, **fields)
    event = worker.next_event()
    assert (event["id"], event["event"]) == (number, "call")
    data: dict[str, Any] = event["data"]
    return number, data


def answer(worker: RawWorker, call_id: str, **outcome: Any) -> int:
    """Answer a host call and return the id of that request."""
    return worker.send("common:call_result", {"call_id": call_id, **outcome})


def finish(worker: RawWorker, number: int, asked: int) -> dict[str, Any]:
    """Read the reply of call_result and that of the call; they may come in any order."""
    replies = {message["id"]: message for message in (worker.read() for _ in range(2))}
    assert replies[asked]["result"] == {}
    reply: dict[str, Any] = replies[number]
    return reply


def waiting(command: str, **more: Any) -> dict[str, Any]:
    """Arguments with which either command calls one tool."""
    return {"tool": "t", **({"calls": 1} if command == "k:atool" else {"args": {}}), **more}


@pytest.mark.parametrize("value", [5, None, {"a": [1]}, "text", False])
def test_a_tool_of_the_client_answers_a_handler(worker: RawWorker, value: Any) -> None:
    """The event names tool and arguments; any JSON value comes back."""
    number, data = begin(worker, "k:tool", {"tool": "weather", "args": {"city": "Paris"}})
    assert (data["tool"], data["args"], data["deadline_ms"]) == ("weather", {"city": "Paris"}, None)
    asked = answer(worker, data["call_id"], result=value)
    assert finish(worker, number, asked)["result"] == {"answer": value}


def test_several_tools_may_be_called_at_once(worker: RawWorker) -> None:
    """Their answers come in any order."""
    number = worker.send("k:atool", {"tool": "t", "calls": 4}, stream=True)
    events = [worker.next_event() for _ in range(4)]
    assert [event["seq"] for event in events] == [0, 1, 2, 3]
    open_calls = {event["data"]["args"]["n"]: event["data"]["call_id"] for event in events}
    assert len(set(open_calls.values())) == 4
    for n in (2, 0, 3):
        assert worker.result_beside(number, "common:call_result", {"call_id": open_calls[n], "result": n * n}) == {}
    asked = answer(worker, open_calls[1], result=1)
    assert finish(worker, number, asked)["result"] == {"answers": [0, 1, 4, 9]}


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            {"code": "rate_limited", "message": "slow down", "details": {"a": 1}, "type": "X"},
            "rate_limited",
            "slow down",
        ),
        ({"code": "made_up", "message": "odd"}, "handler_error", "odd"),
        ({}, "handler_error", "the client's tool failed"),
        ("just text", "handler_error", "just text"),
        ({"details": [], "type": 5}, "handler_error", "the client's tool failed"),
    ],
)
def test_a_tool_that_fails_is_an_error_in_the_handler(worker: RawWorker, error: Any, code: str, message: str) -> None:
    """With the client's own code, message and details."""
    number, data = begin(worker, "k:tool", {"tool": "t", "args": {}})
    asked = answer(worker, data["call_id"], error=error)
    result = finish(worker, number, asked)["result"]
    assert (result["failed"], result["message"]) == (code, message)


@pytest.mark.parametrize("args", [{}, {"call_id": None}, {"call_id": "host-99"}, {"call_id": ["x"]}, {"call_id": 1}])
def test_an_answer_that_nobody_waits_for_is_refused(worker: RawWorker, args: dict[str, Any]) -> None:
    """It disturbs no call."""
    number, data = begin(worker, "k:tool", {"tool": "t", "args": {}})
    asked = worker.send("common:call_result", {**args, "result": 1})
    assert error_of(worker.receive(asked))["code"] == "invalid_argument"
    asked = answer(worker, data["call_id"], result=2)
    assert finish(worker, number, asked)["result"] == {"answer": 2}
    assert worker.error("common:call_result", {"call_id": data["call_id"], "result": 3})["code"] == "invalid_argument"


@pytest.mark.parametrize("command", ["k:tool", "k:atool"])
def test_a_tool_that_does_not_answer_is_given_up(worker: RawWorker, command: str) -> None:
    """After the handler's own timeout; a late answer is refused."""
    number, data = begin(worker, command, waiting(command, timeout=30 * MS))
    assert data["deadline_ms"] == round(30 * TIME_FACTOR)
    assert worker.receive(number)["result"]["failed"] == "timeout"
    assert worker.error("common:call_result", {"call_id": data["call_id"]})["code"] == "invalid_argument"


def test_a_tool_gets_what_is_left_of_the_call(worker: RawWorker) -> None:
    """The deadline of the call is the tool's, if the handler does not say less."""
    number, data = begin(worker, "k:tool", {"tool": "t", "args": {}}, deadline_ms=60_000)
    assert 0 < data["deadline_ms"] <= 60_000
    finish(worker, number, answer(worker, data["call_id"], result=1))
    number, data = begin(worker, "k:tool", {"tool": "t", "args": {}, "timeout": 3600.0}, deadline_ms=60_000)
    assert 0 < data["deadline_ms"] <= 60_000
    finish(worker, number, answer(worker, data["call_id"], result=1))


@pytest.mark.parametrize("command", ["k:tool", "k:atool"])
def test_a_handler_that_waits_for_a_tool_can_be_cancelled(worker: RawWorker, command: str) -> None:
    """By the gentle rung: the waiting looks at the flag."""
    number = worker.send(command, waiting(command), stream=True)
    call_id = worker.next_event()["data"]["call_id"]
    asked = worker.send("common:cancel", {"id": number})
    replies = {message["id"]: message for message in (worker.read() for _ in range(2))}
    assert replies[asked]["success"]
    info = error_of(replies[number])
    assert (info["code"], info["details"]["stopped_by"]) == ("cancelled", "cooperative")
    assert worker.error("common:call_result", {"call_id": call_id})["code"] == "invalid_argument"


@pytest.mark.parametrize("command", ["k:tool", "k:atool"])
def test_a_caller_that_takes_no_events_has_no_tools(worker: RawWorker, command: str) -> None:
    """The handler hears so at once, instead of waiting for ever."""
    assert worker.result(command, waiting(command))["failed"] == "unknown_tool"


@pytest.mark.parametrize("arguments", BOTH_WAYS)
@pytest.mark.parametrize("command", ["k:tool", "k:atool"])
def test_a_client_that_finished_writing_can_not_answer_any_more(arguments: tuple[str, ...], command: str) -> None:
    """Who waits hears so at once, and so does who asks later."""
    with RawWorker(bridge("keeper"), *arguments) as worker:
        number, _ = begin(worker, command, waiting(command))
        queued = worker.send(command, waiting(command), stream=True)
        worker.end_of_input()
        replies: dict[int, str] = {}
        while len(replies) < 2:
            message = worker.read()
            if "event" not in message:
                replies[message["id"]] = message["result"]["failed"]
        assert replies == {number: "host_closed", queued: "host_closed"}
        worker.assert_closed()
        assert worker.ended() == 0


def test_arguments_over_the_frame_limit_are_an_error_in_the_handler() -> None:
    """The client reads a log line in the place of the call."""
    with RawWorker(bridge("keeper"), "--max-frame-bytes", "5000") as worker:
        number = worker.send("k:atool", {"tool": "t" * 4_000, "calls": 1}, stream=True)
        call_id = worker.next_event()["data"]["call_id"]
        finish(worker, number, answer(worker, call_id, result=1))
        number = worker.send("k:tool", {"tool": "t" * 2_000, "args": {"a": "x" * 2_900}}, stream=True)
        assert worker.receive(number)["result"]["failed"] == "frame_too_large"
        assert [event["event"] for event in worker.events] == ["log"]

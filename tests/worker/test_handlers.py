"""Handlers of every kind: results, streams, failures, and what a forked or left-over piece of them may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import eventually
from tests.worker.raw import RawWorker, bridge


@pytest.fixture(scope="module")
def shared() -> Iterator[RawWorker]:
    """One worker for all tests that leave it as it was."""
    with RawWorker(bridge("handlers")) as worker:
        worker.result("common:warm_up")
        yield worker


@pytest.fixture
def worker(shared: RawWorker) -> Iterator[RawWorker]:
    """The shared worker, which answers before and after each test."""
    shared.events.clear()
    yield shared
    assert shared.result("h:add", {"a": 1}) == 2


# ------------------------------------------------------------------ kinds


KINDS = ["generator", "coroutine", "async_generator"]
DECORATED = [f"decorated_{kind}" for kind in KINDS]


@pytest.mark.parametrize("kind", KINDS + DECORATED)
def test_a_stream_is_chunks_and_then_the_result(worker: RawWorker, kind: str) -> None:
    """Numbered from 0 without a gap, before the one reply."""
    reply = worker.receive(worker.send(f"h:{kind}", {"n": 3}, stream=True))
    assert reply["result"]["done"] == 3
    assert [(event["event"], event["seq"], event["data"]) for event in worker.events] == [
        ("chunk", number, number) for number in range(3)
    ]


@pytest.mark.parametrize("kind", KINDS + DECORATED)
def test_without_a_stream_there_are_no_events(worker: RawWorker, kind: str) -> None:
    """What a generator yields is not lost: without a result of its own, the chunks are the result."""
    assert worker.result(f"h:{kind}", {"n": 2})["done"] == 2
    if not kind.endswith("coroutine"):
        assert worker.result(f"h:{kind}", {"n": 2, "result": False}) == {"chunks": [0, 1]}
        assert worker.receive(worker.send(f"h:{kind}", {"n": 0, "result": False}, stream=True))["result"] == {}
    assert worker.events == []


def test_coroutines_share_one_loop_for_the_life_of_the_worker(worker: RawWorker) -> None:
    """Clients that frameworks cache belong to a loop."""
    loops = {worker.result("h:coroutine")["loop"] for _ in range(3)}
    assert len(loops) == 1


def test_a_static_method_is_a_command_whichever_decorator_stands_above(worker: RawWorker) -> None:
    """Silently it would be none."""
    assert worker.result("h:of_nobody", {"a": 3}) == 3


def test_a_context_sends_every_kind_of_event_and_knows_its_call(worker: RawWorker) -> None:
    """Without a stream they go nowhere."""
    number = worker.send("h:all_events", stream=True, session_id="s1", traceparent="00-1")
    reply = worker.receive(number)
    assert reply["result"] == {"call_id": number, "command": "h:all_events", "session": "s1", "trace": "00-1"}
    assert [(event["event"], event["data"]) for event in worker.events] == [
        ("chunk", {"a": 1}),
        ("progress", {"current": 1, "total": 2, "message": "half"}),
        ("log", {"level": "warning", "message": "hello"}),
    ]
    worker.events.clear()
    worker.result("h:all_events")
    assert worker.events == []


def test_a_generator_that_fails_is_closed_before_the_reply(worker: RawWorker, tmp_path: Path) -> None:
    """Its `finally` belongs to the call."""
    path = tmp_path / "closed"
    reply = worker.receive(worker.send("h:closing_generator", {"path": str(path)}, stream=True))
    assert reply["error_info"]["code"] == "provider_not_found"
    assert path.read_text() == "closed"
    assert [event["data"] for event in worker.events] == [0, 1]


@pytest.mark.parametrize(
    ("args", "argument"),
    [({}, "a"), ({"a": "1"}, "a"), ({"a": True}, "a"), ({"a": 1, "c": 2}, "c"), ({"a": None}, "a"), ({"a": 1.5}, "a")],
)
def test_wrong_arguments_are_named_and_the_handler_does_not_run(
    worker: RawWorker, args: dict[str, Any], argument: str
) -> None:
    """No coercion, no surprise."""
    info = worker.error("h:add", args)
    assert info["code"] == "invalid_argument"
    assert argument in str(info["details"])


# ------------------------------------------------------------------ failures


@pytest.mark.parametrize(
    ("what", "code", "kind", "message"),
    [
        ("value", "handler_error", "ValueError", "boom"),
        ("empty", "handler_error", "ValueError", "ValueError"),
        ("lookup", "provider_not_found", "KeyError", "translated: 'boom'"),
        ("arithmetic", "handler_error", "ZeroDivisionError", "boom"),
        ("bridge", "rate_limited", None, "boom"),
        ("exit", "handler_error", "SystemExit", "The handler called sys.exit('boom'); the worker goes on."),
        ("exit_0", "handler_error", "SystemExit", "The handler called sys.exit(0); the worker goes on."),
        ("keyboard", "handler_error", "KeyboardInterrupt", "KeyboardInterrupt"),
        ("memory", "out_of_memory", "MemoryError", "MemoryError"),
        ("cancelled", "cancelled", None, "The call was cancelled; it was stopped by: cooperative."),
        ("unhelpful", "handler_error", "UnhelpfulError", "UnhelpfulError (its text can't be had: OSError)"),
        ("generator_exit", "handler_error", "GeneratorExit", "GeneratorExit"),
        ("group", "handler_error", "ExceptionGroup", "boom (2 sub-exceptions)"),
    ],
)
def test_whatever_a_handler_raises_is_one_error_of_its_call(
    worker: RawWorker, what: str, code: str, kind: str | None, message: str
) -> None:
    """The worker goes on, in version 1 as in version 2."""
    info = worker.error("h:raise", {"what": what})
    assert (info["code"], info["type"], info["message"], info["framework"]) == (code, kind, message, "h")
    plain = worker.ask("raise", {"what": what})
    assert (plain["success"], plain["error"]) == (False, message)


def test_a_traceback_shows_the_bridge_and_not_the_worker(worker: RawWorker) -> None:
    """The author looks for a line of theirs."""
    traceback = worker.error("h:raise", {"what": "value"})["traceback"]
    assert "in raise_it" in traceback
    assert "manybridge/worker" not in traceback


def test_endless_recursion_is_an_error_with_a_short_traceback(worker: RawWorker) -> None:
    """Its end says where it broke."""
    info = worker.error("h:recurse")
    assert info["type"] == "RecursionError"
    assert len(info["traceback"]) < 9_000


def test_a_bridge_error_reports_its_cause(worker: RawWorker) -> None:
    """The framework's own class is what an expert looks for."""
    info = worker.error("h:chained")
    assert (info["code"], info["message"], info["type"]) == ("provider_auth", "second", "ValueError")


@pytest.mark.parametrize("command", ["async_exit", "exit_in_background"])
def test_a_coroutine_that_exits_does_not_end_the_loop(worker: RawWorker, command: str) -> None:
    """Not in its own task and not in one that it made; nothing of it goes on."""
    assert worker.error(f"h:{command}")["type"] == "SystemExit"
    assert worker.result("h:coroutine")["done"] == 3


@pytest.mark.parametrize("command", ["async_exit", "exit_in_background"])
def test_a_coroutine_that_exits_does_not_end_the_loop_of_the_others(command: str) -> None:
    """A concurrent bridge has its loop on a thread of its own, which must live."""
    with RawWorker(bridge("handlers"), "--max-concurrency", "2", "--mode", "host") as worker:
        number = worker.send(f"h:{command}")
        if command == "exit_in_background":
            worker.result_beside(number, "h:coroutine")
            worker.send("common:cancel", {"id": number})
            codes = {message["id"]: message for message in (worker.read() for _ in range(2))}
            assert codes[number]["success"] is False
        else:
            assert worker.receive(number)["error_info"]["type"] == "SystemExit"
        assert worker.result("h:coroutine")["done"] == 3


# ------------------------------------------------------------------ secrets


@pytest.mark.parametrize("where", ["message", "bridge", "details", "traceback"])
def test_no_error_carries_the_value_of_a_secret_variable(where: str) -> None:
    """Message, details, their keys, and tracebacks of causes."""
    environment = {"MY_API_KEY": "sk-very-secret-1234", "MY_API_KEY_2": "sk-very-secret-1234-and-more"}
    with RawWorker(bridge("handlers"), environment=environment) as worker:
        for name in environment:
            reply = worker.ask("h:leak", {"name": name, "where": where})
            assert "very-secret" not in str(reply)
            assert "and-more" not in str(reply)
            assert f"<{name}>" in str(reply)
            assert "very-secret" not in str(worker.ask("leak", {"name": name, "where": where}))


def test_no_error_carries_the_value_of_a_secret_option() -> None:
    """Options are where keys come from that are in no variable."""
    options = {"api_key": "key-in-options", "tokenizer": "bert-base-uncased", "deep": [{"password": "pass-in-list"}]}
    with RawWorker(bridge("handlers"), options=options) as worker:
        assert worker.error("h:leak_option", {"name": "api_key"})["message"] == "bad key <options.api_key>"
        assert "bert-base-uncased" in worker.error("h:leak_option", {"name": "tokenizer"})["message"]
        assert "pass-in-list" not in str(worker.ask("h:leak_option", {"name": "deep"}))


# ------------------------------------------------------------------ results


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("set", {"it": [1]}),
        ("big_int", {"it": 2**80}),
        ("nan", {"it": [None, None]}),
        ("bytes", {"it": "AP8="}),
        ("date", {"it": "2026-01-02"}),
        ("surrogate", {"it": "a?b"}),
        ("none", None),
        ("list", [1, 2]),
        ("text", "x"),
        ("function", {"it": {"$unserializable": "builtins.builtin_function_or_method"}}),
        ("coroutine_function", {"it": {"$unserializable": "builtins.function"}}),
    ],
)
def test_results_that_json_can_not_carry_become_something_that_it_can(
    worker: RawWorker, what: str, expected: Any
) -> None:
    """In version 1 what is no object is wrapped into one."""
    assert worker.result("h:return", {"what": what}) == expected
    plain = worker.result("return", {"what": what})
    assert plain == (expected if isinstance(expected, dict) else {"value": expected})


@pytest.mark.parametrize("what", ["object", "keys", "deep", "loop", "trap"])
def test_no_result_ends_the_worker_or_shows_a_repr(worker: RawWorker, what: str) -> None:
    """Objects, odd keys, 100,000 levels, a list inside itself, a property that raises."""
    assert "secret" not in str(worker.result("h:return", {"what": what}))


# ------------------------------------------------------------------ what is left over


def test_a_thread_that_emits_after_the_reply_emits_into_nothing(worker: RawWorker) -> None:
    """It gets no error, and no frame follows the reply."""
    for _ in range(5):
        number = worker.send("h:emit_later", stream=True)
        assert worker.receive(number)["success"]
        assert worker.ask("h:add", {"a": 1})["success"]
        assert worker.result("h:late_failures") == {"failures": []}
    assert all(event["seq"] == seq for seq, event in enumerate(_last_stream(worker.events)))


def _last_stream(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    last = max((event["id"] for event in events), default=0)
    return [event for event in events if event["id"] == last]


@pytest.mark.parametrize(("child", "status"), [("return", 0), ("raise", 1), ("exit", 7)])
def test_a_forked_child_that_comes_back_answers_nothing(worker: RawWorker, child: str, status: int) -> None:
    """One request, one reply, from the parent; the child ends with a status that tells its story."""
    assert worker.result("h:fork_and_return", {"child": child}) == {"child": False, "status": status}


def test_a_forked_child_dies_of_sigterm_as_others_do(worker: RawWorker) -> None:
    """Pools of processes end their children so; the worker's own answer to the signal is not theirs."""
    assert worker.result("h:terminate_child") == {"status": -15}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_handlers_may_use_multiprocessing(method: str) -> None:
    """Its children find the bridge's module and manybridge; its helpers end with the worker."""
    with RawWorker(bridge("handlers")) as worker:
        assert worker.result("h:pool", {"method": method}) == {"squares": [0, 1, 4, 9, 16]}


def test_a_forked_child_does_not_hold_the_stream_open() -> None:
    """The client sees the end of the worker at once, although a child of user code lives on for a moment."""
    with RawWorker("mock") as worker:
        child = worker.result("mock:fork_child", {"own_group": True})["pid"]
        worker.process.kill()
        worker.assert_closed()
        import os
        import signal

        os.kill(child, signal.SIGKILL)
        assert eventually(lambda: worker.ended() == -9)

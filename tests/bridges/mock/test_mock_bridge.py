"""The `mock` bridge, in process: what other tests build on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from manybridge.bridge import BridgeError, Cancelled
from manybridge.bridges.mock import MockBridge
from manybridge.bridges.mock.script import MAX_RECORDED
from manybridge.testing import BridgeHarness, check_bridge


@pytest.fixture
def mock() -> Iterator[BridgeHarness]:
    """A bridge without options."""
    with BridgeHarness(MockBridge, tools={"add": lambda a, b: a + b}) as harness:
        yield harness


def test_it_holds_to_the_contract() -> None:
    """Declarations, fork safety, samples, snapshots."""
    check_bridge(
        MockBridge,
        samples={
            "echo": {"any": ["thing"]},
            "aecho": {"self_made": None},
            "sleep": {"seconds": 0},
            "asleep": {"seconds": 0},
            "count": {},
            "acount": {},
            "progress": {},
            "pid": {},
            "environment": {},
            "calls": {},
            "reset": {},
        },
        resources={
            "echo": ({"a": 1}, {"b": 2}),
            "counter": ({"start": 3}, {"add": 2}),
            "pinned": ({"value": 1}, {}),
            "faulty": ({"fails_in": "restore", "kind": "unserializable"}, {}),
        },
    )


@pytest.mark.parametrize("command", ["echo", "aecho"])
def test_echo_returns_its_arguments(mock: BridgeHarness, command: str) -> None:
    """Whatever their names."""
    arguments = {"a": 1, "nested": {"list": [None, True]}, "ctx": "free", "message": "ü"}
    assert mock.run(command, arguments).result == arguments


def test_an_echo_resource_returns_exactly_config_and_inputs(mock: BridgeHarness) -> None:
    """No key more, no key less."""
    assert mock.create("echo", {"a": 1}).execute(b=2) == {"config": {"a": 1}, "inputs": {"b": 2}}
    assert mock.create("echo").execute() == {"config": {}, "inputs": {}}


def test_a_counter_goes_on_from_its_snapshot(mock: BridgeHarness) -> None:
    """In another worker it says that it was restored."""
    counter = mock.create("counter", {"start": 5})
    assert counter.execute(add=2)["value"] == 7
    restored = mock.restore("counter", {"start": 5}, counter.snapshot())
    assert restored.execute()["value"] == 8
    assert restored.execute()["restored"]


@pytest.mark.parametrize("command", ["count", "acount"])
def test_count_streams_numbers_and_returns_how_many(mock: BridgeHarness, command: str) -> None:
    """From a generator and from an async generator."""
    outcome = mock.run(command, {"n": 3})
    assert (outcome.chunks, outcome.result) == ([0, 1, 2], {"count": 3})


def test_count_can_fail_in_the_middle(mock: BridgeHarness) -> None:
    """For tests of broken streams."""
    with pytest.raises(Exception, match="mock failure"):
        mock.run("count", {"n": 3, "fail_at": 1})


def test_sleep_and_progress_stop_when_they_are_cancelled(mock: BridgeHarness) -> None:
    """As a well-behaved handler does."""
    with pytest.raises(Cancelled):
        mock.run("sleep", {"seconds": 3600}, cancel_after=0)
    with pytest.raises(Cancelled):
        mock.run("progress", {"steps": 1000}, cancel_after=2)


def test_host_calls_reach_the_tools_of_the_client(mock: BridgeHarness) -> None:
    """One after the other and at the same time."""
    assert mock.call("call_host", tool="add", args={"a": 1, "b": 2}) == {"tool": "add", "result": 3}
    calls = [{"a": n, "b": n} for n in range(3)]
    assert mock.call("acall_host", tool="add", calls=calls) == {"tool": "add", "results": [0, 2, 4]}


def test_environment_tells_names_and_never_values(mock: BridgeHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test of isolation can't leak what it tests."""
    monkeypatch.setenv("MOCK_SET", "hidden value")
    assert mock.call("environment", names=["MOCK_SET", "MOCK_UNSET"]) == {"set": ["MOCK_SET"], "unset": ["MOCK_UNSET"]}
    assert "hidden value" not in str(mock.call("environment"))


def test_any_error_of_the_taxonomy_can_be_asked_for(mock: BridgeHarness) -> None:
    """With retryable and details."""
    with pytest.raises(BridgeError) as caught:
        mock.call("error", code="rate_limited", retryable=False, details={"retry_after": 2})
    assert (caught.value.code, caught.value.retryable) == ("rate_limited", False)
    assert caught.value.details == {"retry_after": 2}


# ---------------------------------------------------------------- scripts


def test_scripted_replies_are_used_in_order(mock: BridgeHarness) -> None:
    """Result, chunks, error; then the script is empty and says so."""
    mock.call("script", replies=[{"result": 1}, {"chunks": ["a", "b"], "result": 2}, {"error": {"code": "overloaded"}}])
    assert mock.call("reply", x=1) == 1
    assert mock.run("reply").chunks == ["a", "b"]
    for code in ("overloaded", "handler_error"):
        with pytest.raises(BridgeError) as caught:
            mock.call("reply")
        assert caught.value.code == code


def test_a_script_makes_the_mock_stand_in_for_any_bridge(mock: BridgeHarness) -> None:
    """Names that it does not have become commands, until it is reset."""
    answer = mock.call("script", replies=[{"command": "dspy:predict", "result": {"answer": "42"}}])
    assert answer == {"replies_left": 1, "commands": ["predict"]}
    assert mock.call("predict", question="?") == {"answer": "42"}
    mock.call("reset")
    with pytest.raises(BridgeError) as caught:
        mock.call("predict")
    assert caught.value.code == "unknown_command"


def test_a_reply_may_want_certain_arguments_and_serve_several_calls(mock: BridgeHarness) -> None:
    """`match` looks at the arguments; `times` null is for ever."""
    mock.call(
        "script", replies=[{"match": {"n": 1}, "times": 2, "result": "one"}, {"times": None, "result": "whatever"}]
    )
    assert [mock.call("reply", n=n) for n in (2, 1, 1, 1, 3)] == ["whatever", "one", "one", "whatever", "whatever"]


def test_a_scripted_delay_can_be_cancelled(mock: BridgeHarness) -> None:
    """A slow reply is no hanging one."""
    mock.call("script", replies=[{"delay_ms": 3_600_000, "chunks": [1]}])
    with pytest.raises(Cancelled):
        mock.run("reply", cancel_after=0)


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        ("text", "replies[1]"),
        ({"delay": 3}, "replies[1].delay"),
        ({"delay_ms": "3"}, "replies[1].delay_ms"),
        ({"crash": "loudly"}, "replies[1].crash"),
        ({"command": "echo"}, "replies[1].command"),
    ],
)
def test_a_wrong_reply_is_named_and_nothing_is_loaded(mock: BridgeHarness, reply: Any, place: str) -> None:
    """By its position and key."""
    with pytest.raises(BridgeError) as caught:
        mock.bridge._load([{"result": 1}, reply])  # type: ignore[attr-defined]  # what options and command share
    assert caught.value.code == "invalid_argument"
    assert caught.value.details["argument"] == place
    assert mock.call("calls")["replies_left"] == 0


def test_a_script_may_come_with_the_options() -> None:
    """So that a configuration file alone makes a stand-in."""
    with BridgeHarness(MockBridge, {"script": [{"command": "ask", "result": "scripted"}]}) as mock:
        assert mock.call("ask") == "scripted"


def test_calls_are_recorded_oldest_first_with_their_session(mock: BridgeHarness) -> None:
    """What was received can be asserted."""
    mock.run("echo", {"a": 1}, session_id="s")
    mock.call("sleep", seconds=0)
    record = mock.call("calls")
    assert [(call["command"], call["session_id"]) for call in record["calls"]] == [("echo", "s"), ("sleep", None)]
    assert record["calls"][0]["args"] == {"a": 1}
    assert record["counts"] == {"echo": 1, "sleep": 1}


def test_the_record_is_bounded(mock: BridgeHarness) -> None:
    """A benchmark against the mock must not fill its memory."""
    for _ in range(MAX_RECORDED + 5):
        mock.call("echo", payload="x" * 5000)
    record = mock.call("calls")
    assert len(record["calls"]) == MAX_RECORDED
    assert record["calls"][0]["args"] == {"payload": {"omitted": "str", "length": 5000}}
    assert record["counts"] == {"echo": MAX_RECORDED + 5}


# ---------------------------------------------------------------- boot and shutdown


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"setup_error": "no luck"}, RuntimeError, "no luck"),
        ({"setup_error_code": "missing_package"}, BridgeError, "mock setup error"),
        ({"setup_exit": 4}, SystemExit, "4"),
        ({"unknown": 1}, BridgeError, "known options"),
        ({"setup_delay_ms": "1"}, BridgeError, "a number of milliseconds"),
        ({"setup_crash": "softly"}, BridgeError, "segfault"),
    ],
)
def test_boot_fails_as_the_options_say(options: dict[str, Any], error: type[BaseException], words: str) -> None:
    """Each fault with its own class."""
    with pytest.raises(error, match=words):
        BridgeHarness(MockBridge, options)


def test_closing_fails_as_the_options_say() -> None:
    """For tests of shutdown."""
    harness = BridgeHarness(MockBridge, {"close_error": "stuck"})
    with pytest.raises(RuntimeError, match="stuck"):
        harness.close()

"""Every malformed frame has one documented answer, and the conversation goes on."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import MS, frame, request
from tests.worker.raw import BOOTSTRAP, RawWorker, bridge, error_of

MEGABYTE = 1024 * 1024

DEEP = b"[" * 100_000 + b"]" * 100_000

MALFORMED: list[tuple[str, bytes, Any, str]] = [
    ("empty", b"", None, "invalid_frame"),
    ("spaces", b"   ", None, "invalid_json"),
    ("no JSON", b"hello", None, "invalid_json"),
    ("half a value", b'{"id": 1', None, "invalid_json"),
    ("two values", b"{}{}", None, "invalid_json"),
    ("not UTF-8", b'{"id": 1, "command": "\xff"}', None, "invalid_json"),
    ("UTF-16", '{"id": 1}'.encode("utf-16"), None, "invalid_json"),
    ("NaN", b'{"id": 1, "command": "ping", "args": {"a": NaN}}', None, "invalid_json"),
    ("too deep", DEEP, None, "invalid_json"),
    ("5,000 digits", b'{"id": 1, "command": "ping", "args": {"a": ' + b"9" * 5000 + b"}}", None, "invalid_json"),
    ("null", b"null", None, "invalid_json"),
    ("a list", b"[1]", None, "invalid_json"),
    ("a string", b'"ping"', None, "invalid_json"),
    ("a number", b"1", None, "invalid_json"),
    ("no id", b'{"command": "ping"}', None, "invalid_request"),
    ("id null", b'{"id": null, "command": "ping"}', None, "invalid_request"),
    ("id an object", b'{"id": {}, "command": "ping"}', None, "invalid_request"),
    ("id a boolean", b'{"id": true, "command": "ping"}', None, "invalid_request"),
    ("no command", b'{"id": 77}', 77, "invalid_request"),
    ("command empty", b'{"id": 77, "command": ""}', 77, "invalid_request"),
    ("command a number", b'{"id": "x", "command": 5}', "x", "invalid_request"),
    ("args null", b'{"id": 77, "command": "ping", "args": null}', 77, "invalid_request"),
    ("args a list", b'{"id": 77, "command": "ping", "args": []}', 77, "invalid_request"),
    ("stream a number", b'{"id": 77, "command": "ping", "stream": 1}', 77, "invalid_request"),
    ("deadline negative", b'{"id": 77, "command": "ping", "deadline_ms": -1}', 77, "invalid_request"),
    ("deadline a boolean", b'{"id": 77, "command": "ping", "deadline_ms": true}', 77, "invalid_request"),
    ("session a number", b'{"id": 77, "command": "ping", "session_id": 1}', 77, "invalid_request"),
]


@pytest.fixture(scope="module")
def hardened() -> Iterator[RawWorker]:
    """One worker that gets all of them."""
    with RawWorker() as worker:
        yield worker


@pytest.mark.parametrize(("payload", "id", "code"), [row[1:] for row in MALFORMED], ids=[row[0] for row in MALFORMED])
def test_each_malformed_frame_has_its_answer_and_the_next_request_works(
    hardened: RawWorker, payload: bytes, id: Any, code: str
) -> None:
    """A client may be a person at a port, who tries again."""
    hardened.send_bytes(frame(payload))
    reply = hardened.read()
    assert reply["id"] == id
    assert error_of(reply)["code"] == code
    assert hardened.result("mock:echo", {"a": 1}) == {"a": 1}


def test_a_worker_without_msgspec_answers_every_malformed_frame_alike() -> None:
    """The standard library's parser is the measure."""
    with RawWorker(program=_isolated()) as worker:
        for _, payload, id, code in MALFORMED:
            worker.send_bytes(frame(payload))
            reply = worker.read()
            assert (reply["id"], error_of(reply)["code"]) == (id, code), payload[:80]
        assert worker.result("mock:echo", {"a": 2**70}) == {"a": 2**70}


def _isolated() -> list[str]:
    return [sys.executable, "-I", "-S", str(BOOTSTRAP), "mock"]


def test_a_frame_over_the_limit_is_skipped_and_named() -> None:
    """Whatever its body is; the next frame is read where it begins."""
    with RawWorker("mock", "--max-frame-bytes", "10000") as worker:
        worker.send_bytes(request(1, "mock:echo", {"text": "x" * 20_000}) + request(2, "mock:echo", {"a": 1}))
        info = error_of(worker.read())
        assert info["code"] == "frame_too_large"
        assert info["details"] == {"length": len(request(1, "mock:echo", {"text": "x" * 20_000})) - 4, "limit": 10_000}
        assert worker.read()["result"] == {"a": 1}
        worker.send_bytes(struct.pack(">I", 2**32 - 1) + b"x" * 100)
        assert error_of(worker.read())["code"] == "frame_too_large"


def test_a_result_over_the_limit_becomes_an_error_of_the_call() -> None:
    """Also in version 1, where it is a text."""
    with RawWorker(bridge("handlers"), "--max-frame-bytes", "10000") as worker:
        info = worker.error("h:large", {"size": 20_000})
        assert (info["code"], info["details"]["limit"]) == ("frame_too_large", 10_000)
        plain = worker.ask("large", {"size": 20_000})
        assert plain["success"] is False
        assert "error_info" not in plain
        assert worker.result("h:large", {"size": 5_000})["text"] == "x" * 5_000


def test_a_chunk_over_the_limit_is_an_error_in_the_handler_and_leaves_no_gap() -> None:
    """The caller reads a log line in its place."""
    with RawWorker(bridge("handlers"), "--max-frame-bytes", "10000") as worker:
        assert worker.receive(worker.send("h:large_chunk", {"size": 20_000}, stream=True))["success"]
        assert [event["seq"] for event in worker.events] == [0, 1, 2, 3]
        assert [event["event"] for event in worker.events] == ["chunk", "log", "chunk", "chunk"]
        assert [event["data"] for event in worker.events if event["event"] == "chunk"] == [
            "before",
            "frame_too_large",
            "after",
        ]


def test_an_id_that_fills_the_frame_does_not_end_the_worker() -> None:
    """Not even the error about the answer has room for it; then it comes without."""
    with RawWorker("mock", "--max-frame-bytes", "10000") as worker:
        worker.send_message({"id": "i" * 9_900, "command": "mock:pid", "args": {}})
        reply = worker.read()
        assert (reply["id"], error_of(reply)["code"]) == (None, "frame_too_large")
        assert worker.result("mock:echo", {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("id", [0, -1, 2**53, 2**70, 1.5, "", "text", "ü\u2028"])
def test_ids_come_back_as_they_were_sent(id: Any) -> None:
    """0 is a real id, and so is every number and string."""
    with RawWorker() as worker:
        worker.send_message({"id": id, "command": "mock:echo", "args": {"a": 1}})
        reply = worker.receive(id)
        assert type(reply["id"]) is type(id)


def test_an_id_in_use_is_refused_and_the_first_call_goes_on() -> None:
    """It is free again after the reply."""
    with RawWorker(bridge("stubborn"), "--mode", "host") as worker:
        worker.send_bytes(request(5, "s:check", stream=True))
        worker.next_event()
        worker.send_bytes(request(5, "s:quick"))
        assert error_of(worker.receive(5))["code"] == "invalid_request"
        assert worker.result_beside(5, "common:ping")["current_call"] == 5
        worker.send("common:cancel", {"id": 5})
        codes = {message["id"]: message for message in (worker.read() for _ in range(2))}
        assert codes[5]["error_info"]["code"] == "cancelled"
        worker.send_bytes(request(5, "s:quick", {"value": 1}))
        assert worker.receive(5)["result"] == {"value": 1}


@pytest.mark.parametrize("deadline", [2**31, 10**12, 1e308, 10**400])
def test_a_deadline_that_no_clock_takes_is_refused(deadline: float) -> None:
    """A number of 400 digits included; the worker and its watch go on."""
    with RawWorker() as worker:
        assert worker.error("mock:echo", deadline_ms=deadline)["code"] == "invalid_request"
        assert worker.result("mock:echo", {"a": 1}, deadline_ms=60_000) == {"a": 1}


def test_the_longest_deadline_is_kept_while_the_watch_reads() -> None:
    """20 days is a number of milliseconds that poll(2) can just wait for."""
    with RawWorker(bridge("stubborn")) as worker:
        number = worker.send("s:sleep", {"seconds": 60 * MS}, stream=True, deadline_ms=20 * 24 * 3600 * 1000)
        worker.next_event()
        assert worker.result_beside(number, "common:ping")["current_call"] == number
        assert worker.receive(number)["success"]


def test_garbage_between_requests_is_answered_piece_by_piece() -> None:
    """A thousand random frames: one answer each, in order, and the worker is as good as new."""
    dice = random.Random(7)
    with RawWorker() as worker:
        for index in range(1_000):
            payload = dice.randbytes(dice.randrange(60))
            worker.send_bytes(frame(payload))
            if index % 50 == 49:
                replies = [worker.read() for _ in range(50)]
                assert {reply["success"] for reply in replies} == {False}
        assert worker.result("mock:echo", {"a": 1}) == {"a": 1}


def test_requests_byte_by_byte_and_all_at_once_are_the_same() -> None:
    """A frame has no relation to a read."""
    data = b"".join(request(number, "mock:echo", {"n": number}) for number in range(20))
    with RawWorker() as worker:
        worker.send_bytes(data)
        assert [worker.read()["result"]["n"] for _ in range(20)] == list(range(20))
        for byte in request(100, "mock:echo", {"n": 100}):
            worker.send_bytes(bytes([byte]))
        assert worker.receive(100)["success"]

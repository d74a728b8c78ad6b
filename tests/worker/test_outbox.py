"""What is written, when, and what stands in for that which can't be."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from manybridge.bridge import BridgeError
from manybridge.protocol.connection import WorkerConnection
from manybridge.protocol.errors import ErrorCode, LocalProtocolError
from manybridge.protocol.messages import ErrorInfo, Event, MessageId, WorkerMessage
from manybridge.worker import outbox as module
from manybridge.worker.outbox import Outbox
from tests.support import FrameReader, request, split_frames


class Clumsy(WorkerConnection):
    """A connection whose encoder runs out of memory for one text."""

    def send(self, message: WorkerMessage) -> bytes:
        """As the real one, but for that text."""
        if "too much" in str(message):
            raise MemoryError
        return super().send(message)

    def send_result(self, id: MessageId, result: Any, timestamp: float) -> bytes:
        """The same."""
        if "too much" in str(result):
            raise MemoryError
        return super().send_result(id, result, timestamp)


class Desk:
    """An outbox on a pipe, with the connection that it serves and a clock that stands still."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.connection = Clumsy(10_000)
        self.woken = 0
        self.broken = 0
        self.outbox = Outbox(self.writing, self.connection, contextlib.nullcontext(), self.wake, self.break_)

    def wake(self) -> None:
        """Count."""
        self.woken += 1

    def break_(self) -> None:
        """Count."""
        self.broken += 1

    def open_call(self, number: int, **fields: Any) -> int:
        """Receive a request and return its id."""
        self.connection.receive_data(request(number, "h:x", **fields))
        return number

    def written(self) -> list[Any]:
        """The frames in the pipe; none is cut."""
        os.set_blocking(self.reading, False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reading, 65536):
                data += piece
        messages, rest = split_frames(data)
        assert rest == b""
        return messages


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The outbox's clock, in seconds."""
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def desk(now: list[float]) -> Iterator[Desk]:
    """An outbox of its own."""
    made = Desk()
    yield made
    os.close(made.reading)
    os.close(made.writing)


def test_the_first_event_goes_out_at_once_and_the_next_ones_share_a_write(desk: Desk, now: list[float]) -> None:
    """Held back for 2 ms at most; somebody is told to look after them once."""
    desk.open_call(1, stream=True)
    desk.outbox.send_event(1, "chunk", "a")
    assert [event["data"] for event in desk.written()] == ["a"]
    desk.outbox.send_event(1, "chunk", "b")
    desk.outbox.send_event(1, "chunk", "c")
    assert desk.written() == []
    assert desk.woken == 1
    left = desk.outbox.flush_due(now[0])
    assert left == pytest.approx(module.FLUSH_SECONDS)
    now[0] += module.FLUSH_SECONDS
    assert desk.outbox.flush_due(now[0]) is None
    assert [(event["data"], event["seq"]) for event in desk.written()] == [("b", 1), ("c", 2)]
    assert desk.outbox.flush_due(now[0]) is None


def test_a_reply_takes_what_was_held_back_along(desk: Desk) -> None:
    """In order, in one write."""
    desk.open_call(1, stream=True)
    for text in "abc":
        desk.outbox.send_event(1, "chunk", text)
    desk.outbox.send_result(1, {"done": True})
    assert [message.get("data", "reply") for message in desk.written()] == ["a", "b", "c", "reply"]


def test_a_chunk_after_a_millisecond_is_written_at_once(desk: Desk, now: list[float]) -> None:
    """With what waits."""
    desk.open_call(1, stream=True)
    desk.outbox.send_event(1, "chunk", "a")
    desk.outbox.send_event(1, "chunk", "b")
    now[0] += module.COALESCE_SECONDS
    desk.outbox.send_event(1, "chunk", "c")
    assert [event["data"] for event in desk.written()] == ["a", "b", "c"]


def test_a_held_reply_is_flushed_like_an_event(desk: Desk, now: list[float]) -> None:
    """The next call may take longer than expected."""
    desk.open_call(1)
    desk.open_call(2)
    desk.outbox.send_result(1, {}, hold=True)
    desk.outbox.send_result(2, {}, hold=True)
    assert [message["id"] for message in desk.written()] == [1]
    desk.outbox.flush()
    assert [message["id"] for message in desk.written()] == [2]


def test_an_event_after_the_reply_is_dropped_in_silence(desk: Desk) -> None:
    """A thread of a handler may outlive its call."""
    desk.open_call(1, stream=True)
    desk.outbox.send_result(1, {})
    desk.outbox.send_event(1, "chunk", "late")
    desk.outbox.send_event(99, "chunk", "nobody's")
    assert len(desk.written()) == 1


def test_a_second_reply_is_a_bug_of_ours(desk: Desk) -> None:
    """And must not reach the client."""
    desk.open_call(1)
    desk.outbox.send_result(1, {})
    with pytest.raises(LocalProtocolError):
        desk.outbox.send_result(1, {})
    assert len(desk.written()) == 1


@pytest.mark.parametrize("extended", [True, False])
def test_a_result_that_does_not_fit_becomes_an_error(desk: Desk, extended: bool) -> None:
    """With error_info for those who understand it."""
    desk.open_call(1)
    desk.outbox.send_result(1, "x" * 10_001, extended=extended)
    (reply,) = desk.written()
    assert reply["success"] is False
    assert ("error_info" in reply) is extended
    if extended:
        assert reply["error_info"]["code"] == "frame_too_large"


def test_an_error_that_does_not_fit_becomes_a_shorter_one(desk: Desk) -> None:
    """Its details may be the caller's own data."""
    desk.open_call(1)
    info = ErrorInfo.of(ErrorCode.HANDLER_ERROR, "m" * 10_001)
    desk.outbox.send_error(1, info, extended=True)
    (reply,) = desk.written()
    assert reply["error_info"]["code"] == "frame_too_large"


def test_what_can_not_be_encoded_becomes_an_error_and_leaves_no_gap(desk: Desk) -> None:
    """As a reply and as an event."""
    desk.open_call(1, stream=True)
    with pytest.raises(BridgeError, match="MemoryError"):
        desk.outbox.send_event(1, "chunk", "too much")
    desk.outbox.send_event(1, "chunk", "fine")
    desk.outbox.send_result(1, "too much")
    messages = desk.written()
    assert [message.get("seq") for message in messages] == [0, 1, None]
    assert messages[0]["event"] == "log"
    assert messages[2]["error_info"]["code"] == "handler_error"


def test_an_answer_to_garbage_is_no_reply_to_an_open_call(desk: Desk) -> None:
    """A second request with the id of a call leaves that call open."""
    desk.open_call(1, stream=True)
    desk.outbox.send_malformed(1, ErrorInfo.of(ErrorCode.INVALID_REQUEST, "still open"))
    desk.outbox.send_malformed("i" * 10_000, ErrorInfo.of(ErrorCode.INVALID_REQUEST, "long"))
    desk.outbox.send_event(1, "chunk", "on")
    desk.outbox.flush()
    assert [message.get("id") for message in desk.written()] == [1, None, 1]


def test_a_reader_that_went_away_is_reported(now: list[float]) -> None:
    """The process has nothing to do any more."""
    desk = Desk()
    os.close(desk.reading)
    desk.open_call(1)
    desk.outbox.send_result(1, {})
    os.close(desk.writing)
    assert desk.broken == 1


def test_threads_that_send_at_once_send_whole_frames(desk: Desk) -> None:
    """Through a pipe that is full most of the time."""
    numbers = [desk.open_call(number, stream=True) for number in range(1, 5)]

    def send(number: int) -> None:
        for _ in range(50):
            desk.outbox.send_event(number, "chunk", "x" * 5_000)
        desk.outbox.send_result(number, {})

    threads = [threading.Thread(target=send, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    reader = FrameReader(desk.reading)
    seen: dict[int, list[int]] = {number: [] for number in numbers}
    replies = 0
    while replies < len(numbers):
        message = reader.read()
        if "seq" in message:
            seen[message["id"]].append(message["seq"])
        else:
            replies += 1
    for thread in threads:
        thread.join()
    assert all(found == list(range(50)) for found in seen.values())


def test_a_forked_child_forgets_what_its_parent_will_write(desk: Desk) -> None:
    """Its lock may be held by a thread that is not there."""
    desk.open_call(1, stream=True)
    desk.outbox.send_event(1, "chunk", "a")
    desk.outbox.send_event(1, "chunk", "b")
    desk.written()
    desk.outbox.abandon()
    desk.outbox.flush()
    assert desk.written() == []
    assert isinstance(desk.connection.event(1, "chunk", "c"), Event)

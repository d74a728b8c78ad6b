"""The conversation: what the tables allow passes at both ends, what they do not is refused at both."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from manybridge.protocol import codec
from manybridge.protocol.connection import (
    CALL_TRANSITIONS,
    CONNECTION_TRANSITIONS,
    CallState,
    ClientConnection,
    ConnectionState,
    Step,
    WorkerConnection,
)
from manybridge.protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from manybridge.protocol.messages import ErrorInfo, ErrorReply, Event, Malformed, Reply, Request
from tests.protocol.pair import Pair
from tests.protocol.strategies import garbage, json_objects, json_values
from tests.support import cuts, frame, frame_message, split_frames

HOST_CALL = {"call_id": "c1", "tool": "search", "args": {"q": 1}, "deadline_ms": None}


def only(messages: list[Any]) -> Any:
    """Return the one message of a list of one."""
    [message] = messages
    return message


def assert_malformed(message: Any, code: ErrorCode, id: Any = None) -> None:
    """Assert that the worker is to answer with `code` and `id`."""
    assert isinstance(message, Malformed)
    assert (message.error.code, message.id) == (code, id)


# ---------------------------------------------------------------- the tables

ENFORCED = [step for step in Step if step not in {Step.CALL_RESULT, Step.CANCEL}]


def pair_in(state: CallState) -> Pair:
    """Return two ends between which call 1 is in `state`."""
    pair = Pair()
    if state is not CallState.IDLE:
        pair.request(1, stream=state is CallState.STREAMING)
    if state is CallState.DONE:
        pair.reply(1)
    return pair


def is_legal(state: CallState, step: Step) -> bool:
    """What the table says. An id whose call is done may begin another one."""
    if state is CallState.DONE and step in CALL_TRANSITIONS[CallState.IDLE]:
        return True
    return step in CALL_TRANSITIONS[state]


def take(pair: Pair, step: Step) -> None:
    """Let call 1 take a step, at both ends."""
    if step in {Step.REQUEST, Step.STREAM_REQUEST}:
        pair.request(1, stream=step is Step.STREAM_REQUEST)
    elif step is Step.EVENT:
        pair.event(1, "progress", {"current": 1, "total": None, "message": ""})
    elif step is Step.HOST_CALL:
        pair.event(1, "call", HOST_CALL)
    elif step is Step.REPLY:
        pair.reply(1)
    elif step is Step.CANCEL:
        pair.request("c", "common:cancel", args={"id": 1})
    elif step is Step.CALL_RESULT:
        pair.request("r", "common:call_result", args={"call_id": "c1", "result": 1})
    else:
        raise AssertionError(f"{step} is no step of a call")


def forge(pair: Pair, step: Step) -> None:
    """Put the bytes of a step on the wire that the end which sends it would refuse to send."""
    if step in {Step.REQUEST, Step.STREAM_REQUEST}:
        data = frame_message({"id": 1, "command": "x", "stream": step is Step.STREAM_REQUEST})
        assert_malformed(only(pair.worker.receive_data(data)), ErrorCode.INVALID_REQUEST, 1)
        return
    data = {
        Step.EVENT: frame_message({"id": 1, "event": "chunk", "seq": 0, "data": 1}),
        Step.HOST_CALL: frame_message({"id": 1, "event": "call", "seq": 0, "data": HOST_CALL}),
        Step.REPLY: frame_message({"id": 1, "success": True, "result": {}}),
    }[step]
    with pytest.raises(RemoteProtocolError) as caught:
        pair.client.receive_data(data)
    assert caught.value.code is ErrorCode.PROTOCOL_VIOLATION


CALL_STEPS = [step for step in Step if step not in {Step.HELLO_ACCEPTED, Step.END_OF_STREAM}]


@pytest.mark.parametrize("step", CALL_STEPS)
@pytest.mark.parametrize("state", CallState)
def test_every_step_of_a_call_is_legal_exactly_where_the_table_says(state: CallState, step: Step) -> None:
    """A legal step passes at both ends; an illegal one is refused by the sender, and by the receiver if forged."""
    pair = pair_in(state)
    # A cancel or a call_result may cross the reply on the wire, so the tables draw them but nobody refuses them.
    if is_legal(state, step) or step not in ENFORCED:
        take(pair, step)
        return
    with pytest.raises(LocalProtocolError) as caught:
        take(pair, step)
    assert caught.value.code is ErrorCode.PROTOCOL_VIOLATION
    pair.assert_agree()
    forge(pair, step)


@pytest.mark.parametrize("kind", ["reply", "failure"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_of_either_kind_ends_a_call(kind: str, stream: bool) -> None:
    """After it no event and no second reply, and the id is free."""
    pair = Pair()
    pair.request(1, stream=stream)
    if kind == "reply":
        pair.reply(1)
    else:
        pair.fail(1, "no", ErrorInfo.of(ErrorCode.HANDLER_ERROR, "no"))
    assert pair.client.open_calls == 0
    for message in (Reply(1, {}), ErrorReply(1, "x")):
        with pytest.raises(LocalProtocolError, match="call 1 is not open"):
            pair.worker.send(message)
    with pytest.raises(LocalProtocolError, match="call 1 takes no events"):
        pair.worker.event(1, "chunk", 1)
    pair.request(1)


def connection_in(end: type[ClientConnection | WorkerConnection], state: ConnectionState) -> Any:
    """Return one end in `state`."""
    connection = end()
    if state is ConnectionState.VERSION_2:
        connection.accept_hello()
    if state is ConnectionState.CLOSED:
        connection.receive_eof()
    assert connection.state is state
    return connection


@pytest.mark.parametrize("step", [Step.HELLO_ACCEPTED, Step.END_OF_STREAM])
@pytest.mark.parametrize("state", ConnectionState)
@pytest.mark.parametrize("end", [ClientConnection, WorkerConnection])
def test_every_step_of_a_connection_leads_where_the_table_says(
    end: type[ClientConnection | WorkerConnection], state: ConnectionState, step: Step
) -> None:
    """An illegal step raises and changes nothing; that a closed stream ends again is no step."""
    connection = connection_in(end, state)
    following = CONNECTION_TRANSITIONS[state].get(step)
    if step is Step.END_OF_STREAM:
        connection.receive_eof()
        assert connection.state is ConnectionState.CLOSED
        assert following is (None if state is ConnectionState.CLOSED else ConnectionState.CLOSED)
    elif following is None:
        with pytest.raises(LocalProtocolError, match="hello accepted is not legal on a connection that is closed"):
            connection.accept_hello()
        assert connection.state is state
    else:
        connection.accept_hello()
        assert connection.state is following


def test_every_state_and_step_is_in_a_table() -> None:
    """A state without a row, or a step that nothing takes, would be dead."""
    assert set(CONNECTION_TRANSITIONS) == set(ConnectionState)
    assert set(CALL_TRANSITIONS) == set(CallState)
    tables: list[dict[Step, Any]] = [*CONNECTION_TRANSITIONS.values(), *CALL_TRANSITIONS.values()]
    assert {step for row in tables for step in row} == set(Step)


# ---------------------------------------------------------------- versions


def test_a_connection_speaks_version_1_until_a_hello_is_accepted() -> None:
    """And there is no way back: a second hello keeps version 2."""
    pair = Pair()
    assert pair.client.version == pair.worker.version == 1
    pair.hello()
    assert pair.client.version == pair.worker.version == 2
    pair.hello()
    pair.close()
    assert pair.client.version == 1


def test_a_single_request_may_stream_without_a_hello() -> None:
    """The opt-in of one request is enough for its events."""
    pair = Pair()
    pair.request(1, stream=True)
    assert pair.event(1).seq == 0
    assert pair.worker.version == 1


def test_a_closed_client_sends_nothing() -> None:
    """What is written after the end would be lost."""
    pair = Pair()
    pair.request(1)
    pair.close()
    with pytest.raises(LocalProtocolError, match="the connection is closed"):
        pair.client.send_request(Request(2, "x"))
    assert pair.client.open_calls == 1


def test_the_end_of_the_stream_counts_what_was_cut_off() -> None:
    """A host tells in the crash error that a frame was cut off, and how long it was by then."""
    for connection in (ClientConnection(), WorkerConnection()):
        connection.receive_data(frame(b"cut off")[:6])
        assert connection.buffered_bytes == 2
        assert connection.receive_eof() == 6
        assert connection.receive_eof() == 0


# ---------------------------------------------------------------- calls side by side


def test_calls_are_interleaved_and_each_counts_its_own_events() -> None:
    """Replies may come in any order; a number belongs to one call."""
    pair = Pair(cut_at=[3, 9])
    for id in (0, "0", 2.5):
        pair.request(id, stream=True)
    assert [pair.event(id).seq for id in (0, "0", 0, 2.5, 0, "0")] == [0, 0, 1, 0, 2, 1]
    pair.reply("0")
    assert pair.event(0, "log", {"level": "info", "message": "x"}).seq == 3
    pair.fail(2.5)
    pair.reply(0)


def test_many_messages_of_one_read_come_out_in_order() -> None:
    """Requests and answers may be pipelined, and the reads may cut them anywhere."""
    client, worker = ClientConnection(), WorkerConnection()
    sent = [Request(id, "mock:echo", {"n": id}) for id in range(50)]
    data = b"".join(map(client.send_request, sent))
    received = [message for chunk in cuts(data, range(0, len(data), 37)) for message in worker.receive_data(chunk)]
    assert received == sent
    answers = [Reply(id, {"n": id}) for id in range(50)]
    assert client.receive_data(b"".join(map(worker.send, answers))) == answers
    assert client.open_calls == worker.open_calls == 0


def test_an_id_that_is_open_is_refused_at_both_ends() -> None:
    """The first call goes on; its reply frees the id."""
    pair = Pair()
    pair.request(7)
    with pytest.raises(LocalProtocolError, match="call 7 is open already"):
        pair.client.send_request(Request(7, "x"))
    malformed = only(pair.worker.receive_data(frame_message({"id": 7, "command": "x"})))
    assert_malformed(malformed, ErrorCode.INVALID_REQUEST, 7)
    assert "still open" in malformed.error.message
    pair.reply(7)
    pair.request(7)


@pytest.mark.parametrize("seq", [-1, 1, 3, 2**70])
def test_a_gap_in_the_numbers_of_events_is_a_breach(seq: int) -> None:
    """A lost or repeated event would silently change what was streamed."""
    pair = Pair()
    pair.request(1, stream=True)
    pair.event(1)
    pair.event(1)
    with pytest.raises(RemoteProtocolError, match=rf"event {seq} of call 1 came where 2 was due"):
        pair.client.receive_data(frame_message({"id": 1, "event": "chunk", "seq": seq, "data": 0}))


@pytest.mark.parametrize("id", [2, "1", None])
def test_an_answer_to_nothing_is_a_breach(id: Any) -> None:
    """An id that is not open, and 1 is not "1"; a successful reply needs one."""
    pair = Pair()
    pair.request(1)
    with pytest.raises(RemoteProtocolError):
        pair.client.receive_data(frame_message({"id": id, "success": True, "result": {}}))


def test_a_failure_without_an_id_answers_bytes_that_were_no_call() -> None:
    """It ends no call, at either end."""
    pair = Pair()
    pair.request(1)
    pair.fail(None, "the frame is empty")
    assert pair.client.open_calls == 1


# ---------------------------------------------------------------- frames that do not fit


def test_a_request_over_the_limit_is_not_begun() -> None:
    """Nothing was sent, so nothing waits for a reply."""
    pair = Pair(max_frame_bytes=200)
    with pytest.raises(LocalProtocolError) as caught:
        pair.client.send_request(Request(1, "x", {"text": "x" * 200}))
    assert caught.value.code is ErrorCode.FRAME_TOO_LARGE
    assert caught.value.details["limit"] == 200
    assert caught.value.details["length"] > 200
    pair.request(1)


def test_a_result_over_the_limit_leaves_its_call_open() -> None:
    """So that the worker can send the error that says so."""
    pair = Pair(max_frame_bytes=200)
    pair.request(1)
    with pytest.raises(LocalProtocolError) as caught:
        pair.worker.send(Reply(1, "x" * 200))
    assert caught.value.code is ErrorCode.FRAME_TOO_LARGE
    pair.fail(1, "the result is too large")


def test_an_oversized_frame_is_answered_by_a_worker_and_fatal_to_a_client() -> None:
    """The worker reads on behind it."""
    oversized = frame(b" " * 300)
    worker = WorkerConnection(max_frame_bytes=200)
    malformed, request = worker.receive_data(oversized + frame_message({"id": 1, "command": "x"}))
    assert_malformed(malformed, ErrorCode.FRAME_TOO_LARGE)
    assert isinstance(malformed, Malformed)
    assert malformed.error.details == {"length": 300, "limit": 200}
    assert request == Request(1, "x")
    with pytest.raises(RemoteProtocolError) as caught:
        ClientConnection(max_frame_bytes=200).receive_data(oversized)
    assert caught.value.code is ErrorCode.FRAME_TOO_LARGE


# ---------------------------------------------------------------- what is no message

BAD_BODIES = [
    (b"", ErrorCode.INVALID_FRAME),
    (b"\xff", ErrorCode.INVALID_JSON),
    (b"{", ErrorCode.INVALID_JSON),
    (b"{} {}", ErrorCode.INVALID_JSON),
    (b'{"id": NaN}', ErrorCode.INVALID_JSON),
    (b"null", ErrorCode.INVALID_JSON),
    (b"[]", ErrorCode.INVALID_JSON),
    (b'"text"', ErrorCode.INVALID_JSON),
    (b"5", ErrorCode.INVALID_JSON),
    (b"{}", ErrorCode.INVALID_REQUEST),
    (b'{"id": 1}', ErrorCode.INVALID_REQUEST),
    (b'{"id": null, "command": "x"}', ErrorCode.INVALID_REQUEST),
    (b'{"command": "x"}', ErrorCode.INVALID_REQUEST),
]


@pytest.mark.parametrize(("body", "code"), BAD_BODIES, ids=lambda part: repr(part)[:24])
def test_a_worker_answers_every_bad_frame_with_its_code_and_reads_on(body: bytes, code: ErrorCode) -> None:
    """Each has one documented answer, never silence."""
    worker = WorkerConnection()
    malformed, request = worker.receive_data(frame(body) + frame_message({"id": 2, "command": "x"}))
    assert_malformed(malformed, code, 1 if body == b'{"id": 1}' else None)
    assert request == Request(2, "x")


@pytest.mark.parametrize(("body", "code"), BAD_BODIES, ids=lambda part: repr(part)[:24])
def test_a_client_raises_for_every_bad_frame(body: bytes, code: ErrorCode) -> None:
    """A worker whose stream is in doubt must be killed. What is JSON but no message is a violation."""
    with pytest.raises(RemoteProtocolError) as caught:
        ClientConnection().receive_data(frame(body))
    is_json = body not in {b"", b"\xff", b"{", b"{} {}", b'{"id": NaN}'}
    assert caught.value.code is (ErrorCode.PROTOCOL_VIOLATION if is_json else code)


@given(garbage, st.lists(st.integers(0, 300), max_size=5), st.booleans())
def test_garbage_raises_nothing_at_a_worker(data: bytes, positions: list[int], lenient: bool) -> None:
    """Everything is a request or malformed, and each can be answered or stay unanswered."""
    worker = WorkerConnection(lenient=lenient)
    for chunk in cuts(data, positions):
        for message in worker.receive_data(chunk):
            assert isinstance(message, Request | Malformed)
            if isinstance(message, Malformed):
                worker.send(ErrorReply(None, message.error.message, ErrorInfo.of(message.error.code, "x")))
            else:
                worker.send(Reply(message.id, message.args))
    worker.receive_eof()
    assert worker.open_calls == 0


@given(garbage, st.lists(st.integers(0, 300), max_size=5))
def test_garbage_raises_nothing_but_remote_protocol_error_at_a_client(data: bytes, positions: list[int]) -> None:
    """Also where calls are open for it to hit."""
    client = ClientConnection()
    for id in (0, 1, "", True):
        if type(id) is not bool:
            client.send_request(Request(id, "mock:echo", stream=id == 1))
    try:
        for chunk in cuts(data, positions):
            for message in client.receive_data(chunk):
                assert isinstance(message, Reply | ErrorReply | Event)
    except RemoteProtocolError:
        pass
    client.receive_eof()


# ---------------------------------------------------------------- version 1 as a script spoke it


def lenient_worker() -> WorkerConnection:
    """Return a worker of dialect "dspex"."""
    return WorkerConnection(lenient=True)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"id": 0, "command": "ping", "args": {}, "timestamp": "t"}, Request(0, "ping", {}, "t")),
        ({"id": 1, "command": "ping"}, Request(1, "ping", {})),
        ({"id": 1, "command": "ping", "args": None}, Request(1, "ping", None)),  # type: ignore[arg-type]  # as sent
        ({"id": 1, "command": "ping", "args": []}, Request(1, "ping", [])),  # type: ignore[arg-type]  # as sent
        ({"id": "a", "command": "ping", "args": {}}, Request("a", "ping", {})),
        ({"id": 1.5, "command": "ping", "args": {}}, Request(1.5, "ping", {})),
        ({"id": 2**70, "command": "ping", "args": {}}, Request(2**70, "ping", {})),
        ({"id": True, "command": "ping", "args": {}}, Request(True, "ping", {})),
        ({"id": [1], "command": "ping", "args": {}}, Request([1], "ping", {})),  # type: ignore[arg-type]  # as sent
        ({"id": {}, "command": "ping", "args": {}}, Request({}, "ping", {})),  # type: ignore[arg-type]  # as sent
        ({"id": 1, "command": "", "args": {}}, Request(1, "", {})),
        ({"id": 1, "command": 5, "args": {}}, Request(1, 5, {})),  # type: ignore[arg-type]  # as sent
        ({"id": 1, "command": ["x"], "args": {}}, Request(1, ["x"], {})),  # type: ignore[arg-type]  # as sent
        ({"id": 1, "command": {}, "args": {}}, Request(1, {}, {})),  # type: ignore[arg-type]  # as sent
        ({"id": 1, "command": "ping", "args": {"x": 1}, "test": True}, Request(1, "ping", {"x": 1})),
        ({"id": 1, "command": "ping", "stream": False, "session_id": None}, Request(1, "ping")),
    ],
)
def test_a_lenient_worker_reads_what_the_script_read(message: dict[str, Any], expected: Request) -> None:
    """The handler complains about args and commands, not the reader, and the reply carries the id unchanged."""
    worker = lenient_worker()
    assert only(worker.receive_data(frame_message(message))) == expected
    [answer], rest = split_frames(worker.send(Reply(expected.id, {"status": "ok"}, 1.5)))
    assert (answer["id"], rest) == (message["id"], b"")
    assert type(answer["id"]) is type(message["id"])
    assert worker.open_calls == 0


@pytest.mark.parametrize(
    ("body", "code", "id"),
    [
        (b"", ErrorCode.INVALID_FRAME, None),
        (b"not json", ErrorCode.INVALID_JSON, None),
        (b"\xff\xfe", ErrorCode.INVALID_JSON, None),
        (b"null", ErrorCode.INVALID_JSON, None),
        (b"[]", ErrorCode.INVALID_JSON, None),
        (b'"x"', ErrorCode.INVALID_JSON, None),
        (b"5", ErrorCode.INVALID_JSON, None),
        (b'{"command": "ping"}', ErrorCode.INVALID_REQUEST, None),
        (b'{"id": null, "command": "ping"}', ErrorCode.INVALID_REQUEST, None),
        (b'{"id": 1}', ErrorCode.INVALID_REQUEST, 1),
        (b'{"id": 1, "command": null}', ErrorCode.INVALID_REQUEST, 1),
    ],
)
def test_a_lenient_worker_tells_bytes_that_end_it_from_objects_that_it_passes_over(
    body: bytes, code: ErrorCode, id: Any
) -> None:
    """The script exited on what was no JSON object and ignored an object that was no request; the codes differ."""
    malformed = only(lenient_worker().receive_data(frame(body)))

    assert_malformed(malformed, code, id)
    assert malformed.passed_over == (code is ErrorCode.INVALID_REQUEST)


def test_a_lenient_worker_answers_each_of_several_requests_with_one_id() -> None:
    """Several requests written at once are answered one after another, also where a client repeats an id."""
    worker = lenient_worker()
    messages = worker.receive_data(frame_message({"id": 5, "command": "ping"}) * 3)
    assert messages == [Request(5, "ping")] * 3
    assert [split_frames(worker.send(Reply(5, {}, 0.0)))[0][0]["id"] for _ in messages] == [5, 5, 5]
    assert worker.open_calls == 0


@pytest.mark.parametrize(
    "message",
    [
        {"id": [], "command": "common:ping"},
        {"id": 1, "command": "common:ping", "args": None},
        {"id": 1, "command": "ping", "stream": "yes"},
        {"id": 1, "command": "ping", "deadline_ms": "soon"},
        {"id": True, "command": "ping", "stream": True},
    ],
)
def test_a_lenient_worker_is_strict_with_requests_of_version_2(message: dict[str, Any]) -> None:
    """Who uses an extension or a namespace has opted in."""
    malformed = only(lenient_worker().receive_data(frame_message(message)))
    assert_malformed(
        malformed, ErrorCode.INVALID_REQUEST, 1 if message["id"] == 1 and message["id"] is not True else None
    )
    assert not malformed.passed_over


def test_a_lenient_worker_is_strict_after_hello() -> None:
    """The connection has opted in."""
    worker = lenient_worker()
    worker.accept_hello()
    assert_malformed(
        only(worker.receive_data(frame_message({"id": 1, "command": "ping", "args": None}))),
        ErrorCode.INVALID_REQUEST,
        1,
    )


def test_a_lenient_request_takes_no_events() -> None:
    """A version 1 client never receives a frame that it would not understand, whatever its id is."""
    worker = lenient_worker()
    requests = worker.receive_data(frame_message({"id": 1, "command": "x"}) + frame_message({"id": [], "command": "x"}))
    for request in requests:
        assert isinstance(request, Request)
        with pytest.raises(LocalProtocolError, match="takes no events"):
            worker.event(request.id, "chunk", 1)


# ---------------------------------------------------------------- any conversation


class Conversation(RuleBasedStateMachine):
    """Any legal conversation, cut anywhere: both ends always agree with each other and with a simple model."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(cut_at=[1, 5, 30])
        self.events: dict[int, int | None] = {}
        """The open calls with their number of events; None for a call that takes none."""

    @rule(id=st.integers(0, 5), stream=st.booleans(), args=json_objects)
    def request(self, id: int, stream: bool, args: dict[str, Any]) -> None:
        """Begin a call, or be told that it is open."""
        if id in self.events:
            with pytest.raises(LocalProtocolError):
                self.pair.client.send_request(Request(id, "x"))
        else:
            self.pair.request(id, args=args, stream=stream)
            self.events[id] = 0 if stream else None

    @precondition(lambda self: self.events)
    @rule(data=st.data(), chunk=json_values)
    def event(self, data: st.DataObject, chunk: Any) -> None:
        """Send a chunk where the call takes one."""
        id = data.draw(st.sampled_from(sorted(self.events)))
        seq = self.events[id]
        if seq is None:
            with pytest.raises(LocalProtocolError):
                self.pair.worker.event(id, "chunk", chunk)
        else:
            assert self.pair.event(id, "chunk", chunk).seq == seq
            self.events[id] = seq + 1

    @precondition(lambda self: self.events)
    @rule(data=st.data(), result=json_values, fails=st.booleans())
    def reply(self, data: st.DataObject, result: Any, fails: bool) -> None:
        """End a call."""
        id = data.draw(st.sampled_from(sorted(self.events)))
        if fails:
            self.pair.fail(id, "no", ErrorInfo.of(ErrorCode.HANDLER_ERROR, "no", result=result))
        else:
            self.pair.reply(id, result)
        del self.events[id]

    @invariant()
    def both_ends_agree(self) -> None:
        """The same calls are open here and there."""
        self.pair.assert_agree()
        assert self.pair.client.open_calls == len(self.events)


TestConversation = Conversation.TestCase
# Half the usual number: each is a whole conversation, and a loaded machine has to get through them in time.
TestConversation.settings = settings(max_examples=50)


def test_the_connection_asks_the_codec_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both paths of the codec work under the connection; this test names the portable one."""
    monkeypatch.setattr(codec, "encode", codec._encode_portable)
    monkeypatch.setattr(codec, "decode", codec._decode_portable)
    pair = Pair()
    pair.request(1, args={"text": "é" * 3}, stream=True)
    pair.event(1, "chunk", {"x": [1.5, None]})
    pair.reply(1)

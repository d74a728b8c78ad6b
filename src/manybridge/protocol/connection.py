"""The conversation on one connection: which message is legal when.

Theory of operation. A connection has two ends, the *client* (a host, or a raw port) and the *worker*. Bytes go in with
`receive_data`, messages come out; messages go in with `send_*`, bytes come out. There is no I/O, clock or thread here.

Two machines decide legality, and both are data:

* `CONNECTION_TRANSITIONS`: a connection speaks version 1 until a hello is accepted, and it can only go up.
* `CALL_TRANSITIONS`: each call by its id. A call that asked for a stream may see events before its one reply; nothing
  follows a reply.

The state diagrams and the message reference in the docs are drawn from these tables (`manybridge.protocol.reference`).

Who enforces what. Requests, events and replies are checked against the tables here, at both ends. A cancel or a
call_result for a call that is not open is no breach: the reply may have crossed it on the wire. Both are commands like
any other to this module; the worker answers them with what it found.

The two ends treat a breach differently on purpose. A worker answers it (`Malformed`) because its client may be a
person at a raw port. A client raises `RemoteProtocolError`, because a worker whose stream is in doubt must be killed.

Threads. One thread at a time may receive, and one at a time may send; the two may be different ones. They share only
the table of open calls, whose changes are single dictionary operations.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

from manybridge.protocol import codec
from manybridge.protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from manybridge.protocol.frames import DEFAULT_MAX_FRAME_BYTES, FrameDecoder, OversizedFrame, pack_header
from manybridge.protocol.messages import (
    EVENT_CALL,
    EXTENSION_FIELDS,
    PROTOCOL_VERSION,
    Event,
    JSONObject,
    Malformed,
    MessageId,
    Request,
    WorkerMessage,
    is_message_id,
    request_from_json,
    request_from_object,
    request_to_object,
    successful_reply,
    usual_request,
    worker_message_from_object,
    worker_message_to_object,
)

T = TypeVar("T")


class ConnectionState(StrEnum):
    """What the connection speaks."""

    VERSION_1 = "version_1"
    """What a client finds before hello. Single requests may opt in to version 2."""
    VERSION_2 = "version_2"
    """Every failure carries error_info."""
    CLOSED = "closed"
    """The other end is gone."""


_CLOSED: Final = ConnectionState.CLOSED  # looking a member up in its enum takes ten times as long as looking up a name


class CallState(StrEnum):
    """How far one call is."""

    IDLE = "idle"
    """No call has this id."""
    OPEN = "open"
    """Waits for its reply."""
    STREAMING = "streaming"
    """Waits for its reply, and events may come before it."""
    DONE = "done"
    """Has its reply; nothing follows."""


class Step(StrEnum):
    """What can happen to a connection or a call."""

    HELLO_ACCEPTED = "hello accepted"
    """The worker answered `common:hello` with protocol 2."""
    END_OF_STREAM = "end of stream"
    """The other end closed, or died."""
    REQUEST = "request"
    """The client sends a request that takes no events."""
    STREAM_REQUEST = "request with stream"
    """The client sends a request with `stream: true`."""
    EVENT = "event"
    """The worker sends a chunk, progress or a log line."""
    HOST_CALL = "event: call"
    """The worker asks the client to run a tool."""
    CALL_RESULT = "common:call_result"
    """The client sends what its tool returned."""
    CANCEL = "common:cancel"
    """The client asks to stop the call; its reply still comes."""
    REPLY = "reply"
    """The worker sends the result, or the failure."""


CONNECTION_TRANSITIONS: Final[dict[ConnectionState, dict[Step, ConnectionState]]] = {
    ConnectionState.VERSION_1: {
        Step.HELLO_ACCEPTED: ConnectionState.VERSION_2,
        Step.END_OF_STREAM: ConnectionState.CLOSED,
    },
    ConnectionState.VERSION_2: {
        Step.HELLO_ACCEPTED: ConnectionState.VERSION_2,
        Step.END_OF_STREAM: ConnectionState.CLOSED,
    },
    ConnectionState.CLOSED: {},
}

CALL_TRANSITIONS: Final[dict[CallState, dict[Step, CallState]]] = {
    CallState.IDLE: {Step.REQUEST: CallState.OPEN, Step.STREAM_REQUEST: CallState.STREAMING},
    CallState.OPEN: {Step.CANCEL: CallState.OPEN, Step.REPLY: CallState.DONE},
    CallState.STREAMING: {
        Step.EVENT: CallState.STREAMING,
        Step.HOST_CALL: CallState.STREAMING,
        Step.CALL_RESULT: CallState.STREAMING,
        Step.CANCEL: CallState.STREAMING,
        Step.REPLY: CallState.DONE,
    },
    CallState.DONE: {},
}


class _Calls:
    """The open calls of a connection, by id, with the next event number of each. Owner of that state."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open: dict[MessageId, tuple[CallState, int]] = {}
        """id -> (state, next seq). A call that is not here is IDLE or DONE: an id may be used again after its reply."""

    def begin(self, id: MessageId, *, stream: bool) -> bool:
        """Record a request. False if a call with this id is open already."""
        if id in self.open:
            return False
        self.open[id] = _BEGUN_STREAMING if stream else _BEGUN
        return True

    def advance(self, id: MessageId, step: Step) -> int | None:
        """Record an event and return its number; None if no event is legal for this call now."""
        state, seq = self.open.get(id, _IDLE)
        following = CALL_TRANSITIONS[state].get(step)
        if following is None:
            return None
        self.open[id] = (following, seq + 1)
        return seq

    def finish(self, id: MessageId) -> bool:
        """Record a reply. False if the call is not open."""
        return self.open.pop(id, None) is not None

    def __contains__(self, id: MessageId) -> bool:
        return id in self.open

    def __len__(self) -> int:
        return len(self.open)


_IDLE: Final = (CallState.IDLE, 0)
_BEGUN: Final = (CALL_TRANSITIONS[CallState.IDLE][Step.REQUEST], 0)
_BEGUN_STREAMING: Final = (CALL_TRANSITIONS[CallState.IDLE][Step.STREAM_REQUEST], 0)


class _Connection:
    """What both ends share: the decoder, the version and the open calls."""

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.state = ConnectionState.VERSION_1
        self.version = 1
        """The protocol version that is spoken now: 1 or 2."""
        self._decoder = FrameDecoder(max_frame_bytes)
        self._calls = _Calls()

    @property
    def open_calls(self) -> int:
        """How many calls have no reply yet."""
        return len(self._calls)

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of an incomplete frame wait for the rest."""
        return self._decoder.buffered_bytes

    def accept_hello(self) -> None:
        """Both ends agreed on version 2; there is no way back.

        Raises:
            LocalProtocolError: the connection is closed.
        """
        self._move(Step.HELLO_ACCEPTED)

    def receive_eof(self) -> int:
        """The other end closed. Return how many bytes of an incomplete frame were lost. May be called again."""
        if self.state is not ConnectionState.CLOSED:
            self._move(Step.END_OF_STREAM)
        return self._decoder.receive_eof()

    def _move(self, step: Step) -> None:
        following = CONNECTION_TRANSITIONS[self.state].get(step)
        if following is None:
            raise LocalProtocolError(
                ErrorCode.PROTOCOL_VIOLATION, f"{step} is not legal on a connection that is {self.state}"
            )
        self.state = following
        self.version = PROTOCOL_VERSION if following is ConnectionState.VERSION_2 else 1

    def _to_frame(self, payload: bytes) -> bytes:
        if len(payload) > self.max_frame_bytes:
            raise LocalProtocolError(
                ErrorCode.FRAME_TOO_LARGE,
                f"the message is {len(payload)} bytes long, the limit is {self.max_frame_bytes}",
                length=len(payload),
                limit=self.max_frame_bytes,
            )
        return pack_header(len(payload)) + payload

    def _from_frame(self, frame: bytes | bytearray | OversizedFrame, read: Callable[[bytes | bytearray], T]) -> T:
        """Return what `read` makes of the bytes in a frame.

        Raises:
            RemoteProtocolError: `frame_too_large`, `invalid_frame` or `invalid_json`, or what `read` raises.
        """
        if type(frame) is OversizedFrame:
            raise RemoteProtocolError(
                ErrorCode.FRAME_TOO_LARGE,
                f"the frame announces {frame.length} bytes, the limit is {self.max_frame_bytes}; its body is skipped",
                length=frame.length,
                limit=self.max_frame_bytes,
            )
        if not frame:
            raise RemoteProtocolError(ErrorCode.INVALID_FRAME, "the frame is empty")
        try:
            return read(frame)  # type: ignore[arg-type]  # bytes or bytearray, as the first test says
        except codec.InvalidJSONError as error:
            raise RemoteProtocolError(ErrorCode.INVALID_JSON, str(error)) from None


class ClientConnection(_Connection):
    """The end that sends requests.

    After `RemoteProtocolError` the stream is in doubt and the connection must not be used again.

    Args:
        max_frame_bytes: a longer frame, in either direction, is an error.
    """

    def send_request(self, request: Request) -> bytes:
        """Return the bytes of a request.

        Raises:
            LocalProtocolError: the id is in use, the connection is closed, the frame is too large, or an argument has
                no JSON form (`invalid_argument`); the call then was not begun.
        """
        return self._send(request.id, request.command, request_to_object(request), stream=request.stream)

    def send_call(self, id: MessageId, command: str, args: dict[str, Any], deadline_ms: float | None) -> bytes:
        """Return the bytes of a request that has nothing but these fields, which is what most calls are.

        Raises:
            LocalProtocolError: as `send_request`.
        """
        message: JSONObject = {"id": id, "command": command, "args": args}
        if deadline_ms is not None:
            message["deadline_ms"] = deadline_ms
        calls = self._calls.open
        if id in calls or self.state is _CLOSED:
            return self._send(id, command, message, stream=False)
        try:
            payload = codec.encode_request(message)
        except codec.NotSerializableError as error:
            raise _no_json_form(command, error) from None
        if len(payload) > self.max_frame_bytes:
            return self._to_frame(payload)
        calls[id] = _BEGUN
        return pack_header(len(payload)) + payload

    def _send(self, id: MessageId, command: str, message: JSONObject, *, stream: bool) -> bytes:
        if self.state is _CLOSED:
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, "the connection is closed")
        if not self._calls.begin(id, stream=stream):
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"call {id!r} is open already")
        try:
            return self._to_frame(codec.encode_request(message))
        except codec.NotSerializableError as error:
            self._calls.finish(id)
            raise _no_json_form(command, error) from None
        except LocalProtocolError:
            self._calls.finish(id)
            raise

    def receive_data(self, data: bytes) -> list[WorkerMessage]:
        """Take bytes from the worker and return the messages that they complete, in order.

        Raises:
            RemoteProtocolError: the worker broke the protocol. Its `received` has the messages before the breach: what
                a worker finished in order stays finished, wherever the stream was cut into reads.
        """
        messages: list[WorkerMessage] = []
        calls, decode = self._calls.open, codec.decode
        try:
            for frame in self._decoder.receive_data(data):
                message = self._from_frame(frame, decode)
                reply = successful_reply(message)
                # Most of what comes is the reply of an open call; anything else takes the long way.
                if reply is not None and calls.pop(reply[0], None) is not None:
                    messages.append(reply)
                else:
                    messages.append(self._receive_message(message))
        except RemoteProtocolError as error:
            error.received = messages
            raise
        return messages

    def _receive_message(self, object: Any) -> WorkerMessage:
        message = worker_message_from_object(object)
        if type(message) is Event:
            self._check_event(message)
        elif message.id is not None and not self._calls.finish(message.id):
            raise _breach(f"a reply came for call {message.id!r}, which is not open")
        return message

    def _check_event(self, event: Event) -> None:
        due = self._calls.advance(event.id, _step_of(event.event))
        if due is None:
            raise _breach(f"an event came for call {event.id!r}, which takes none")
        if event.seq != due:
            raise _breach(f"event {event.seq} of call {event.id!r} came where {due} was due")


class WorkerConnection(_Connection):
    """The end that answers.

    Args:
        max_frame_bytes: longer frames are skipped and reported.
        lenient: read requests as a version 1 script did until the client opts in: any id that is not null, any
            command and any args; their handlers complain, not the reader. Such ids may be in use already, or be of
            a type that no table can hold, so replies to them are not checked.
    """

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES, *, lenient: bool = False) -> None:
        super().__init__(max_frame_bytes)
        self.lenient = lenient

    def receive_data(self, data: bytes) -> list[Request | Malformed]:
        """Take bytes from the client and return what they complete, in order. Never raises."""
        frames = self._decoder.receive_data(data)
        if self.lenient and self.version == 1:
            return [self._receive_frame(frame) for frame in frames]
        received: list[Request | Malformed] = []
        opened = self._calls.open
        for frame in frames:
            # Most of what comes is a usual request; anything else takes the long way.
            request = None if type(frame) is OversizedFrame else usual_request(frame)  # type: ignore[arg-type]
            if request is not None and request.id not in opened:
                opened[request.id] = _BEGUN_STREAMING if request.stream else _BEGUN
                received.append(request)
            else:
                received.append(self._receive_frame(frame))
        return received

    def send_result(self, id: MessageId, result: Any, timestamp: float) -> bytes:
        """Return the bytes of a successful reply.

        Raises:
            LocalProtocolError: as `send`.
        """
        message = {"id": id, "success": True, "result": result, "timestamp": timestamp}
        if self.lenient or id not in self._calls.open:
            return self._send_reply(id, message)
        payload = codec.encode(message)
        if len(payload) > self.max_frame_bytes:
            return self._to_frame(payload)
        del self._calls.open[id]
        return pack_header(len(payload)) + payload

    def send(self, message: WorkerMessage) -> bytes:
        """Return the bytes of a reply, a failed reply or an event made by `event`.

        Raises:
            LocalProtocolError: nothing of the kind is legal for that call now, or the frame is too large. In the
                latter case the call stays open, so that a shorter error can be sent for it.
        """
        if isinstance(message, Event) or message.id is None:  # no id: it answers bytes that no call could be read from
            return self._to_frame(codec.encode(worker_message_to_object(message)))
        return self._send_reply(message.id, worker_message_to_object(message))

    def _send_reply(self, id: MessageId, message: JSONObject) -> bytes:
        if not self.lenient and id not in self._calls:
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"call {id!r} is not open")
        data = self._to_frame(codec.encode(message))
        if not self.lenient or is_message_id(id):
            self._calls.finish(id)
        return data

    def event(self, id: MessageId, event: str, data: Any) -> Event:
        """Number the next event of a call; `send` makes it bytes. An event that is not sent leaves a gap.

        Raises:
            LocalProtocolError: the call is not open or did not ask for a stream.
        """
        seq = self._calls.advance(id, _step_of(event)) if is_message_id(id) else None
        if seq is None:
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"call {id!r} takes no events")
        return Event(id, event, seq, data)

    def _receive_frame(self, frame: bytes | bytearray | OversizedFrame) -> Request | Malformed:
        try:
            if self.lenient and self.version == 1:
                return self._receive_leniently(self._from_frame(frame, codec.decode))
            request = self._from_frame(frame, request_from_json)
            opened, id = self._calls.open, request.id
            if id in opened:
                raise _in_use(id)
            opened[id] = _BEGUN_STREAMING if request.stream else _BEGUN
            return request
        except RemoteProtocolError as error:
            return Malformed(error, error.details.get("id"))

    def _receive_leniently(self, message: Any) -> Request | Malformed:
        if type(message) is dict:
            lenient_request = _lenient_request(message)
            if not lenient_request.is_extended:
                return self._begin_lenient(lenient_request)
        request = request_from_object(message)
        if not self._calls.begin(request.id, stream=request.stream):
            raise _in_use(request.id)
        return request

    def _begin_lenient(self, request: Request) -> Request | Malformed:
        if request.id is None or request.command is None:
            error = RemoteProtocolError(ErrorCode.INVALID_REQUEST, "a request needs an id and a command", id=request.id)
            return Malformed(error, request.id, passed_over=True)
        if is_message_id(request.id):
            self._calls.begin(request.id, stream=False)
        return request


def _lenient_request(message: dict[str, Any]) -> Request:
    extensions = {name: message[name] for name in EXTENSION_FIELDS if message.get(name)}
    fields: dict[str, Any] = {"id": message.get("id"), "command": message.get("command")}
    return Request(**fields, args=message.get("args", {}), timestamp=message.get("timestamp"), **extensions)


def _step_of(event: str) -> Step:
    return Step.HOST_CALL if event == EVENT_CALL else Step.EVENT


def _in_use(id: MessageId) -> RemoteProtocolError:
    text = f"call {id!r} is still open; an id may be used again after its reply"
    return RemoteProtocolError(ErrorCode.INVALID_REQUEST, text, id=id)


def _no_json_form(command: str, error: codec.NotSerializableError) -> LocalProtocolError:
    return LocalProtocolError(ErrorCode.INVALID_ARGUMENT, f"{command}: {error}")


def _breach(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.PROTOCOL_VIOLATION, text)

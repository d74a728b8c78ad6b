"""The conversation on one connection: which message is legal when.

Theory of operation. A connection has two ends, the *client* (a host, or a raw port) and the *worker*. Bytes go in with
`receive_data`, messages come out; messages go in with `send_*`, bytes come out. There is no I/O, clock or thread here.

Two machines decide legality, and both are data:

* `CONNECTION_TRANSITIONS`: a connection speaks version 1 until a hello is accepted, and it can only go up.
* `CALL_TRANSITIONS`: each call by its id. A call that asked for a stream may see events before its one reply; nothing
  follows a reply.

The state diagrams and the message reference in the docs are drawn from these tables (`manybridge.protocol.reference`).

The two ends treat a breach differently on purpose. A worker answers it (`Malformed`) because its client may be a
person at a raw port. A client raises `RemoteProtocolError`, because a worker whose stream is in doubt must be killed.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from manybridge.protocol import codec
from manybridge.protocol.errors import ErrorCode, LocalProtocolError, RemoteProtocolError
from manybridge.protocol.frames import DEFAULT_MAX_FRAME_BYTES, FrameDecoder, OversizedFrame, encode_frame
from manybridge.protocol.messages import (
    EVENT_CALL,
    PROTOCOL_VERSION,
    ErrorReply,
    Event,
    Malformed,
    MessageId,
    Reply,
    Request,
    WorkerMessage,
    json_type,
    request_from_object,
    request_to_object,
    worker_message_from_object,
    worker_message_to_object,
)


class ConnectionState(StrEnum):
    """What the connection speaks."""

    VERSION_1 = "version_1"
    VERSION_2 = "version_2"
    CLOSED = "closed"


class CallState(StrEnum):
    """How far one call is."""

    IDLE = "idle"
    OPEN = "open"
    STREAMING = "streaming"
    DONE = "done"


class Step(StrEnum):
    """What can happen to a connection or a call."""

    HELLO_ACCEPTED = "hello accepted"
    END_OF_STREAM = "end of stream"
    REQUEST = "request"
    STREAM_REQUEST = "request with stream"
    EVENT = "event"
    HOST_CALL = "event: call"
    CALL_RESULT = "common:call_result"
    CANCEL = "common:cancel"
    REPLY = "reply"


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

    __slots__ = ("_open",)

    def __init__(self) -> None:
        # id -> (state, next seq). A call that is not here is IDLE or DONE: an id may be used again after its reply.
        self._open: dict[MessageId, tuple[CallState, int]] = {}

    def begin(self, id: MessageId, *, stream: bool) -> bool:
        """Record a request. False if a call with this id is open already."""
        if id in self._open:
            return False
        step = Step.STREAM_REQUEST if stream else Step.REQUEST
        self._open[id] = (CALL_TRANSITIONS[CallState.IDLE][step], 0)
        return True

    def advance(self, id: MessageId, step: Step) -> int | None:
        """Record an event and return its number; None if no event is legal for this call now."""
        entry = self._open.get(id)
        if entry is None:
            return None
        state, seq = entry
        following = CALL_TRANSITIONS[state].get(step)
        if following is None:
            return None
        self._open[id] = (following, seq + 1)
        return seq

    def finish(self, id: MessageId) -> bool:
        """Record a reply. False if the call is not open."""
        try:
            return self._open.pop(id, None) is not None
        except TypeError:  # an id that only a lenient connection reads, such as an array
            return False

    def __contains__(self, id: MessageId) -> bool:
        return id in self._open

    def __len__(self) -> int:
        return len(self._open)


class _Connection:
    """What both ends share: the decoder, the version and the open calls."""

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.state = ConnectionState.VERSION_1
        self._decoder = FrameDecoder(max_frame_bytes)
        self._calls = _Calls()

    @property
    def version(self) -> int:
        """The protocol version that is spoken now: 1 or 2."""
        return PROTOCOL_VERSION if self.state is ConnectionState.VERSION_2 else 1

    @property
    def open_calls(self) -> int:
        """How many calls have no reply yet."""
        return len(self._calls)

    @property
    def buffered_bytes(self) -> int:
        """How many bytes of an incomplete frame wait for the rest."""
        return self._decoder.buffered_bytes

    def accept_hello(self) -> None:
        """Both ends agreed on version 2; there is no way back."""
        self._move(Step.HELLO_ACCEPTED)

    def receive_eof(self) -> int:
        """The other end closed. Return how many bytes of an incomplete frame were lost."""
        lost = self._decoder.receive_eof()
        if self.state is not ConnectionState.CLOSED:
            self._move(Step.END_OF_STREAM)
        return lost

    def _move(self, step: Step) -> None:
        following = CONNECTION_TRANSITIONS[self.state].get(step)
        if following is None:
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"{step} is not legal when {self.state}")
        self.state = following

    def _frame(self, message: dict[str, Any]) -> bytes:
        payload = codec.encode(message)
        if len(payload) > self.max_frame_bytes:
            raise LocalProtocolError(
                ErrorCode.FRAME_TOO_LARGE,
                f"the message is {len(payload)} bytes long, the limit is {self.max_frame_bytes}",
                length=len(payload),
                limit=self.max_frame_bytes,
            )
        return encode_frame(payload)


class ClientConnection(_Connection):
    """The end that sends requests.

    After `RemoteProtocolError` the stream is in doubt and the connection must not be used again.
    """

    def send_request(self, request: Request) -> bytes:
        """Return the bytes of a request.

        Raises:
            LocalProtocolError: the id is in use, the connection is closed, or the frame is too large; the call then
                was not begun.
        """
        if self.state is ConnectionState.CLOSED:
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, "the connection is closed")
        if not self._calls.begin(request.id, stream=request.stream):
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"call {request.id!r} is open already")
        try:
            return self._frame(request_to_object(request))
        except LocalProtocolError:
            self._calls.finish(request.id)
            raise

    def receive_data(self, data: bytes) -> list[WorkerMessage]:
        """Take bytes from the worker and return the messages that they complete.

        Raises:
            RemoteProtocolError: the worker broke the protocol; messages before the breach in `data` are lost with it.
        """
        return [self._receive_frame(frame) for frame in self._decoder.receive_data(data)]

    def _receive_frame(self, frame: bytes | OversizedFrame) -> WorkerMessage:
        if type(frame) is OversizedFrame:
            raise RemoteProtocolError(
                ErrorCode.FRAME_TOO_LARGE,
                f"the worker announced a frame of {frame.length} bytes, the limit is {self.max_frame_bytes}",
                length=frame.length,
                limit=self.max_frame_bytes,
            )
        assert type(frame) is bytes
        try:
            message = worker_message_from_object(codec.decode(frame))
        except codec.InvalidJSONError as error:
            raise RemoteProtocolError(ErrorCode.INVALID_JSON, f"the worker's frame is not JSON: {error}") from None
        self._check(message)
        return message

    def _check(self, message: WorkerMessage) -> None:
        if type(message) is Event:
            step = Step.HOST_CALL if message.event == EVENT_CALL else Step.EVENT
            expected = self._calls.advance(message.id, step)
            if expected is None:
                raise _breach(f"an event came for call {message.id!r}, which takes none")
            if message.seq != expected:
                raise _breach(f"event {message.seq} of call {message.id!r} came where {expected} was due")
        elif message.id is not None and not self._calls.finish(message.id):
            raise _breach(f"a reply came for call {message.id!r}, which is not open")


class WorkerConnection(_Connection):
    """The end that answers.

    Args:
        max_frame_bytes: longer frames are skipped and reported.
        lenient: read requests as a version 1 script did until the client opts in: any id that is not null, any
            command and any args; their handlers complain, not the reader.
    """

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES, *, lenient: bool = False) -> None:
        super().__init__(max_frame_bytes)
        self.lenient = lenient

    def receive_data(self, data: bytes) -> list[Request | Malformed]:
        """Take bytes from the client and return what they complete, in order. Never raises."""
        return [self._receive_frame(frame) for frame in self._decoder.receive_data(data)]

    def send(self, message: WorkerMessage) -> bytes:
        """Return the bytes of a reply, a failed reply or an event made by `event`.

        Raises:
            LocalProtocolError: nothing of the kind is legal for that call now, or the frame is too large. In the
                latter case the call stays open, so that a shorter error can be sent for it.
        """
        if type(message) is Event:
            return self._frame(worker_message_to_object(message))
        assert type(message) is not Event
        if message.id is not None and not self._may_reply(message.id):
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"call {message.id!r} is not open")
        data = self._frame(worker_message_to_object(message))
        if message.id is not None:
            self._calls.finish(message.id)
        return data

    def event(self, id: MessageId, event: str, data: Any) -> Event:
        """Number the next event of a call.

        Raises:
            LocalProtocolError: the call is not open or did not ask for a stream.
        """
        step = Step.HOST_CALL if event == EVENT_CALL else Step.EVENT
        seq = self._calls.advance(id, step)
        if seq is None:
            raise LocalProtocolError(ErrorCode.PROTOCOL_VIOLATION, f"call {id!r} takes no events")
        return Event(id, event, seq, data)

    def _may_reply(self, id: MessageId) -> bool:
        # A lenient client may reuse an id that is still open; each of its requests gets one reply.
        return self.lenient or id in self._calls

    def _receive_frame(self, frame: bytes | OversizedFrame) -> Request | Malformed:
        if type(frame) is OversizedFrame:
            text = f"the frame announces {frame.length} bytes, the limit is {self.max_frame_bytes}; its body is skipped"
            return Malformed(
                RemoteProtocolError(
                    ErrorCode.FRAME_TOO_LARGE, text, length=frame.length, limit=self.max_frame_bytes
                )
            )
        assert type(frame) is bytes
        if not frame:
            return Malformed(RemoteProtocolError(ErrorCode.INVALID_FRAME, "the frame is empty"))
        try:
            message = codec.decode(frame)
        except codec.InvalidJSONError as error:
            return Malformed(RemoteProtocolError(ErrorCode.INVALID_JSON, str(error)))
        return self._receive_object(message)

    def _receive_object(self, message: Any) -> Request | Malformed:
        if type(message) is not dict:
            text = f"a request is a JSON object, this is {json_type(message)}"
            return Malformed(RemoteProtocolError(ErrorCode.INVALID_JSON, text))
        if self.lenient and self.version == 1:
            request = _lenient_request(message)
            if not request.is_extended:
                return self._begin_lenient(request)
        try:
            request = request_from_object(message)
        except RemoteProtocolError as error:
            return Malformed(error, error.details.get("id"))
        if not self._calls.begin(request.id, stream=request.stream):
            text = f"call {request.id!r} is still open; an id may be used again after its reply"
            return Malformed(RemoteProtocolError(ErrorCode.INVALID_REQUEST, text, id=request.id))
        return request

    def _begin_lenient(self, request: Request) -> Request | Malformed:
        if request.id is None or request.command is None:
            return Malformed(
                RemoteProtocolError(ErrorCode.INVALID_REQUEST, "a request needs an id and a command"), request.id
            )
        try:
            self._calls.begin(request.id, stream=False)
        except TypeError:  # an unhashable id: echoed, never tracked
            pass
        return request


def _lenient_request(message: dict[str, Any]) -> Request:
    extensions = {
        name: message[name]
        for name in ("stream", "session_id", "deadline_ms", "traceparent", "idempotency_key")
        if message.get(name)
    }
    fields: dict[str, Any] = {"id": message.get("id"), "command": message.get("command")}
    return Request(**fields, args=message.get("args", {}), timestamp=message.get("timestamp"), **extensions)


def _breach(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.PROTOCOL_VIOLATION, text)

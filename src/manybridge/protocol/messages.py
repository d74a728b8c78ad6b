"""Every message of the wire, as values; how a JSON object becomes one and the other way round.

Messages are named tuples rather than dataclasses: a worker builds them on its hot path and must not pay for importing
`dataclasses` (and `inspect` behind it) before its first answer.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

from manybridge.protocol import codec
from manybridge.protocol.errors import ErrorCode, RemoteProtocolError, is_retryable

PROTOCOL_VERSION: Final = 2
CODECS: Final = ("json",)
FEATURES: Final = ("stream", "error_info", "cancel", "deadline", "session", "traceparent", "host_calls", "batch")
"""What a version 2 peer of this release understands beyond version 1."""

JSONObject: TypeAlias = dict[str, Any]
MessageId: TypeAlias = int | str | float
"""What a client may number its calls with. Replies carry it back unchanged."""

EVENT_CHUNK: Final = "chunk"
EVENT_PROGRESS: Final = "progress"
EVENT_LOG: Final = "log"
EVENT_CALL: Final = "call"
EVENT_KINDS: Final = frozenset({EVENT_CHUNK, EVENT_PROGRESS, EVENT_LOG, EVENT_CALL})

EXTENSION_FIELDS: Final = ("stream", "session_id", "deadline_ms", "traceparent", "idempotency_key")
"""Fields that version 2 adds to a request. One of them with a value other than its default makes it version 2."""

MAX_DEADLINE_MS: Final = 20 * 24 * 3600 * 1000
"""20 days: below the 2,147,483,647 ms that poll(2) can wait for. Who wants to wait longer sets no deadline."""


class Request(NamedTuple):
    """One call. From client to worker."""

    id: MessageId
    """Chosen by the client, unique among its open calls; 0 is a real id."""
    command: str
    """`framework:operation`; without a namespace, a version 1 command."""
    args: JSONObject = {}  # noqa: RUF012  # a message is a value: nobody changes what it holds
    """The command's arguments."""
    timestamp: Any = None
    """When the client sent it, for its own use; the worker ignores it."""
    stream: bool = False
    """Whether events may come before the reply."""
    session_id: str | None = None
    """The caller's session."""
    deadline_ms: float | None = None
    """Time that remains for the call, in milliseconds (0 to 20 days), counted from the receipt of the frame."""
    traceparent: str | None = None
    """W3C trace context, https://www.w3.org/TR/trace-context/#traceparent-header."""
    idempotency_key: str | None = None
    """Two requests with one key are one piece of work."""

    @property
    def namespace(self) -> str:
        """The part of the command before the first colon; empty for a version 1 command."""
        namespace, colon, _ = self.command.partition(":")
        return namespace if colon else ""

    @property
    def operation(self) -> str:
        """The part of the command after the first colon; the whole of a version 1 command."""
        namespace, colon, operation = self.command.partition(":")
        return operation if colon else namespace

    @property
    def is_extended(self) -> bool:
        """Whether the request itself opts in to version 2."""
        return self[4:] != _EXTENSION_DEFAULTS or (isinstance(self.command, str) and ":" in self.command)


_EXTENSION_DEFAULTS: Final = (False, None, None, None, None)


class ErrorInfo(NamedTuple):
    """What went wrong, for programs. Stands beside the human `error` string of a failed reply."""

    code: str
    """One of the taxonomy, see `manybridge.protocol.errors.ErrorCode`."""
    message: str
    """What was wrong, what was expected, what to do."""
    retryable: bool = False
    """Whether the same call, sent again unchanged, may succeed."""
    framework: str | None = None
    """The framework whose bridge reported it."""
    type: str | None = None
    """The name of the framework's own exception type."""
    details: JSONObject = {}  # noqa: RUF012  # as in Request
    """Machine-readable facts; which ones depends on the code."""
    traceback: str | None = None
    """The worker's traceback as text, where the code is `handler_error`."""

    @classmethod
    def of(cls, code: ErrorCode, message: str, /, **details: Any) -> ErrorInfo:
        """Build one with the taxonomy's own answer to `retryable`."""
        return cls(code.value, message, is_retryable(code), details=details)

    def to_object(self) -> JSONObject:
        """The JSON object; an absent traceback is left out."""
        fields: JSONObject = self._asdict()
        if self.traceback is None:
            del fields["traceback"]
        return fields


class Reply(NamedTuple):
    """The one successful answer to a call. From worker to client."""

    id: MessageId
    """The id of the request."""
    result: Any
    """What the command returns; an object for every version 1 command."""
    timestamp: float = 0.0
    """When it was sent, epoch seconds."""


class ErrorReply(NamedTuple):
    """The one unsuccessful answer to a call, or (`id` null) to bytes that no call could be read from."""

    id: MessageId | None
    """The id of the request; null where none could be read."""
    error: str
    """What went wrong, for people. All that a version 1 client gets."""
    info: ErrorInfo | None = None
    """The same for programs, see error_info. Absent for a version 1 call."""
    timestamp: float = 0.0
    """When it was sent, epoch seconds."""


class Event(NamedTuple):
    """Something that comes before the reply of a call that asked for it. From worker to client."""

    id: MessageId
    """The id of the request."""
    event: str
    """`chunk`, `progress`, `log` or `call`."""
    seq: int
    """Counts up from 0 within a call, without a gap."""
    data: Any
    """`chunk`: whatever was emitted; `progress`: {current, total, message}; `log`: {level, message};
    `call`: {call_id, tool, args, deadline_ms}, to be answered by `common:call_result`."""


class Malformed(NamedTuple):
    """What a worker read instead of a request, with the answer that the sender should get."""

    error: RemoteProtocolError
    """Its code and message are the answer's."""
    id: MessageId | None = None
    """The id that the answer carries, where one could be read."""
    passed_over: bool = False
    """Whether version 1 gives no answer to it and goes on: an object that has no id, or no command."""


ClientMessage: TypeAlias = Request
WorkerMessage: TypeAlias = Reply | ErrorReply | Event


def request_to_object(request: Request) -> JSONObject:
    """The JSON object of a request; version 2 fields appear only where they are set."""
    message: JSONObject = {"id": request.id, "command": request.command, "args": request.args}
    if request.timestamp is not None:
        message["timestamp"] = request.timestamp
    if request.stream:
        message["stream"] = True
    if request.session_id is not None:
        message["session_id"] = request.session_id
    if request.deadline_ms is not None:
        message["deadline_ms"] = request.deadline_ms
    if request.traceparent is not None:
        message["traceparent"] = request.traceparent
    if request.idempotency_key is not None:
        message["idempotency_key"] = request.idempotency_key
    return message


def worker_message_to_object(message: WorkerMessage) -> JSONObject:
    """The JSON object of a reply, a failed reply or an event."""
    if isinstance(message, Reply):
        return {"id": message.id, "success": True, "result": message.result, "timestamp": message.timestamp}
    if isinstance(message, Event):
        return {"id": message.id, "event": message.event, "seq": message.seq, "data": message.data}
    fields: JSONObject = {
        "id": message.id,
        "success": False,
        "error": message.error,
        "timestamp": message.timestamp,
    }
    if message.info is not None:
        fields["error_info"] = message.info.to_object()
    return fields


def usual_request(data: bytes | bytearray) -> Request | None:
    """The request in a JSON text, read fast; None for anything unusual, and wherever there is no fast way."""
    if _decode_request is None:
        return None
    try:
        found = _decode_request(data)
    except Exception:  # noqa: BLE001  # whatever it is, request_from_json finds words for it
        return None
    deadline = found.deadline_ms
    if not found.command or not (deadline is None or 0 <= deadline <= MAX_DEADLINE_MS):
        return None
    # Not Request(...), which takes twice as long.
    request: Request = _new(
        Request,
        (
            found.id, found.command, found.args, found.timestamp, found.stream, found.session_id, deadline,
            found.traceparent, found.idempotency_key,
        ),
    )  # fmt: skip
    return request


def request_from_json(data: bytes | bytearray) -> Request:
    """Read a request of its JSON. Fields that this release does not know are ignored.

    Raises:
        InvalidJSONError: the bytes are no JSON value.
        RemoteProtocolError: see `request_from_object`.
    """
    return request_from_object(codec.decode(data))


_new: Final[Any] = tuple.__new__
_decode_request: Final = codec.object_decoder(
    "PlainRequest",
    [
        ("id", int | str),
        ("command", str),
        ("args", JSONObject, {}),
        ("timestamp", Any, None),
        ("stream", bool, False),
        ("session_id", str | None, None),
        ("deadline_ms", int | float | None, None),
        ("traceparent", str | None, None),
        ("idempotency_key", str | None, None),
    ],
)


def request_from_object(message: Any) -> Request:
    """Read a request. Fields that this release does not know are ignored.

    Raises:
        RemoteProtocolError: `invalid_json` if it is no object; else `invalid_request`, with the id in `details["id"]`
            where there is a usable one.
    """
    if type(message) is not dict:
        raise RemoteProtocolError(ErrorCode.INVALID_JSON, f"a request is a JSON object, this is {json_type(message)}")
    id = message.get("id")
    if not is_message_id(id):
        raise _bad_request(None, f"a request needs an id that is a number or a string, this one has {json_type(id)}")
    command = message.get("command")
    if type(command) is not str or not command:
        found = "an empty one" if command == "" else json_type(command)
        raise _bad_request(id, f"a request needs a command that is a non-empty string, found {found}")
    args = message.get("args")
    if type(args) is not dict:
        if "args" in message:
            raise _bad_request(id, f"args must be an object, found {json_type(args)}")
        args = {}
    return Request(id, command, args, message.get("timestamp"), *_extensions(id, message))


def _extensions(id: MessageId, message: JSONObject) -> tuple[bool, str | None, float | None, str | None, str | None]:
    stream = message.get("stream", False)
    if type(stream) is not bool:
        raise _bad_request(id, f"stream must be true or false, found {json_type(stream)}")
    return (
        stream,
        _text_field(id, message, "session_id"),
        _deadline(id, message),
        _text_field(id, message, "traceparent"),
        _text_field(id, message, "idempotency_key"),
    )


def _text_field(id: MessageId, message: JSONObject, name: str) -> str | None:
    value = message.get(name)
    if value is not None and type(value) is not str:
        raise _bad_request(id, f"{name} must be a string, found {json_type(value)}")
    return value


def _deadline(id: MessageId, message: JSONObject) -> float | None:
    deadline: Any = message.get("deadline_ms")
    if deadline is None or (type(deadline) in (int, float) and 0 <= deadline <= MAX_DEADLINE_MS):
        return deadline  # type: ignore[no-any-return]  # None, int or float, as the line before says
    found = f"{deadline:g}" if type(deadline) is float else json_type(deadline)
    raise _bad_request(id, f"deadline_ms must be a number of milliseconds from 0 to {MAX_DEADLINE_MS}, found {found}")


def worker_message_from_object(message: Any) -> WorkerMessage:
    """Read what a worker sent. Fields that this release does not know are ignored.

    Raises:
        RemoteProtocolError: `protocol_violation`, it is neither a reply, nor a failed reply, nor an event.
    """
    if type(message) is not dict:
        raise _violation(f"a worker sends JSON objects, this is {json_type(message)}")
    id = message.get("id")
    success = message.get("success")
    if success is True:
        reply = successful_reply(message)
        if reply is None:
            raise _violation("a successful reply needs an id and a result")
        return reply
    if success is False:
        return _error_reply(id, message)
    return _event(id, message)


def successful_reply(message: Any) -> Reply | None:
    """The reply that a JSON object is; None for anything else, whether it is legal or not."""
    if type(message) is not dict or message.get("success") is not True or "result" not in message:
        return None
    id = message.get("id")
    if not (type(id) is int or is_message_id(id)):
        return None
    reply: Reply = _new(Reply, (id, message["result"], _timestamp(message)))
    return reply


def _error_reply(id: Any, message: JSONObject) -> ErrorReply:
    error = message.get("error")
    if type(error) is not str or not (id is None or is_message_id(id)):
        raise _violation("a failed reply needs an id and an error string")
    info = message.get("error_info")
    return ErrorReply(id, error, None if info is None else error_info_from_object(info), _timestamp(message))


def _event(id: Any, message: JSONObject) -> Event:
    event, seq = message.get("event"), message.get("seq")
    if not is_message_id(id) or type(event) is not str or type(seq) is not int or "data" not in message:
        raise _violation("the object is neither a reply (success) nor an event (event, seq, data)")
    data = message["data"]
    if event != EVENT_CHUNK:
        _check_event_data(event, data)
    return Event(id, event, seq, data)


def _check_event_data(event: str, data: Any) -> None:
    # A chunk is whatever the bridge emitted; the other kinds are read by the client, which relies on their form.
    if event not in EVENT_KINDS:
        raise _violation(f"an event is one of {', '.join(sorted(EVENT_KINDS))}, this one is none of them")
    if type(data) is not dict:
        raise _violation(f"the data of an event of kind {event} is an object, this is {json_type(data)}")
    if event == EVENT_CALL and not (
        type(data.get("call_id")) is str and type(data.get("tool")) is str and type(data.get("args")) is dict
    ):
        raise _violation("an event of kind call needs a call_id and a tool that are strings, and args, an object")


def error_info_from_object(info: Any) -> ErrorInfo:
    """Read an `error_info`; unknown codes and keys of a newer peer are kept or ignored, never refused.

    Raises:
        RemoteProtocolError: it is no object, or has no code and message.
    """
    if type(info) is not dict or type(info.get("code")) is not str or type(info.get("message")) is not str:
        raise _violation("error_info must be an object with a code and a message")
    details = info.get("details")
    return ErrorInfo(
        info["code"],
        info["message"],
        info.get("retryable") is True,
        _maybe_text(info.get("framework")),
        _maybe_text(info.get("type")),
        details if type(details) is dict else {},
        _maybe_text(info.get("traceback")),
    )


def is_message_id(value: Any) -> TypeGuard[MessageId]:
    """Whether `value` can number a call: a finite number or a string, no boolean, no null."""
    kind = type(value)
    return kind is int or kind is str or (kind is float and isfinite(value))


def json_type(value: Any) -> str:
    """The JSON name of a value's type with its article, for error texts."""
    return _JSON_TYPES.get(type(value), "an unknown type")


_JSON_TYPES: Final[dict[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def _timestamp(message: JSONObject) -> float:
    timestamp = message.get("timestamp")
    return timestamp if type(timestamp) is float or type(timestamp) is int else 0.0


def _maybe_text(value: Any) -> str | None:
    return value if type(value) is str else None


def _bad_request(id: MessageId | None, text: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.INVALID_REQUEST, text, id=id)


def _violation(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.PROTOCOL_VIOLATION, text)

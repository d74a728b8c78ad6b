"""Every message of the wire, as values; how a JSON object becomes one and the other way round.

Messages are named tuples rather than dataclasses: a worker builds them on its hot path and must not pay for importing
`dataclasses` (and `inspect` behind it) before its first answer.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple, TypeAlias

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
"""Fields that version 2 adds to a request. One of them on a request makes that request version 2."""


class Request(NamedTuple):
    """One call. From client to worker."""

    id: MessageId
    """Chosen by the client, unique among its open calls; 0 is a real id."""
    command: str
    """`framework:operation`; without a namespace, a version 1 command."""
    args: JSONObject = {}
    """The command's arguments."""
    timestamp: Any = None
    """When the client sent it, for its own use; ignored."""
    stream: bool = False
    """Whether events may come before the reply."""
    session_id: str | None = None
    """The caller's session."""
    deadline_ms: float | None = None
    """Time that remains for the call, in milliseconds, counted from the receipt of the frame."""
    traceparent: str | None = None
    """W3C trace context, https://www.w3.org/TR/trace-context/#traceparent-header."""
    idempotency_key: str | None = None
    """Two requests with one key are one piece of work."""

    @property
    def namespace(self) -> str:
        """The part of the command before the colon; empty for a version 1 command."""
        return self.command.partition(":")[0] if ":" in self.command else ""

    @property
    def operation(self) -> str:
        """The part of the command after the colon; the whole of a version 1 command."""
        return self.command.rpartition(":")[2] if ":" in self.command else self.command

    @property
    def is_extended(self) -> bool:
        """Whether the request itself opts in to version 2."""
        return self[4:] != _NO_EXTENSION or (isinstance(self.command, str) and ":" in self.command)


_NO_EXTENSION: Final = (False, None, None, None, None)


class ErrorInfo(NamedTuple):
    """What went wrong, for programs. Beside the human `error` string of a failed reply."""

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
    details: JSONObject = {}
    """Machine-readable facts; which ones depends on the code."""
    traceback: str | None = None
    """The worker's traceback as text, where the code is `handler_error`."""

    @classmethod
    def of(cls, code: ErrorCode, message: str, **details: Any) -> ErrorInfo:
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
    result: Any
    """What the command returns; an object for every version 1 command."""
    timestamp: float = 0.0
    """When it was sent, epoch seconds."""


class ErrorReply(NamedTuple):
    """The one unsuccessful answer to a call, or (`id` null) to bytes that no call could be read from."""

    id: MessageId | None
    error: str
    """One sentence for people. All that a version 1 client gets."""
    info: ErrorInfo | None = None
    """Absent for a version 1 call."""
    timestamp: float = 0.0


class Event(NamedTuple):
    """Something that comes before the reply of a call that asked for it. From worker to client."""

    id: MessageId
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
    id: MessageId | None = None
    """The id that the answer carries, where one could be read."""


ClientMessage: TypeAlias = Request
WorkerMessage: TypeAlias = Reply | ErrorReply | Event


def request_to_object(request: Request) -> JSONObject:
    """The JSON object of a request; version 2 fields appear only where they are set."""
    message: JSONObject = {"id": request.id, "command": request.command, "args": request.args}
    if request.timestamp is not None:
        message["timestamp"] = request.timestamp
    if request[4:] != _NO_EXTENSION:
        for name in EXTENSION_FIELDS:
            value = getattr(request, name)
            if value is not None and value is not False:
                message[name] = value
    return message


def worker_message_to_object(message: WorkerMessage) -> JSONObject:
    """The JSON object of a reply, a failed reply or an event."""
    if type(message) is Reply:
        return {"id": message.id, "success": True, "result": message.result, "timestamp": message.timestamp}
    if type(message) is Event:
        return {"id": message.id, "event": message.event, "seq": message.seq, "data": message.data}
    assert type(message) is ErrorReply
    fields: JSONObject = {
        "id": message.id,
        "success": False,
        "error": message.error,
        "timestamp": message.timestamp,
    }
    if message.info is not None:
        fields["error_info"] = message.info.to_object()
    return fields


def request_from_object(message: Any) -> Request:
    """Read a request.

    Raises:
        RemoteProtocolError: `invalid_request`, with the id in `details["id"]` where there is a usable one.
    """
    if type(message) is not dict:
        raise _bad_request(None, f"a request is a JSON object, this is {json_type(message)}")
    id = message.get("id")
    if not is_message_id(id):
        raise _bad_request(None, f"a request needs an id that is a number or a string, this one has {json_type(id)}")
    command = message.get("command")
    if type(command) is not str or not command:
        raise _bad_request(id, f"a request needs a command that is a non-empty string, found {json_type(command)}")
    args = message.get("args", {})
    if type(args) is not dict:
        raise _bad_request(id, f"args must be an object, found {json_type(args)}")
    if len(message) <= 4 and not any(name in message for name in EXTENSION_FIELDS):
        return Request(id, command, args, message.get("timestamp"))
    return Request(id, command, args, message.get("timestamp"), *_extensions(id, message))


def _extensions(id: MessageId, message: JSONObject) -> tuple[bool, str | None, float | None, str | None, str | None]:
    stream = message.get("stream", False)
    if type(stream) is not bool:
        raise _bad_request(id, f"stream must be true or false, found {json_type(stream)}")
    deadline = message.get("deadline_ms")
    if deadline is not None and (type(deadline) not in (int, float) or deadline < 0):
        raise _bad_request(id, f"deadline_ms must be a number of milliseconds >= 0, found {json_type(deadline)}")
    texts = [message.get(name) for name in ("session_id", "traceparent", "idempotency_key")]
    for name, value in zip(("session_id", "traceparent", "idempotency_key"), texts, strict=True):
        if value is not None and type(value) is not str:
            raise _bad_request(id, f"{name} must be a string, found {json_type(value)}")
    return stream, texts[0], deadline, texts[1], texts[2]


def worker_message_from_object(message: Any) -> WorkerMessage:
    """Read what a worker sent.

    Raises:
        RemoteProtocolError: it is neither a reply, nor a failed reply, nor an event.
    """
    if type(message) is not dict:
        raise _violation(f"a worker sends JSON objects, this is {json_type(message)}")
    id = message.get("id")
    success = message.get("success")
    if success is True:
        if not is_message_id(id) or "result" not in message:
            raise _violation("a successful reply needs an id and a result")
        return Reply(id, message["result"], _timestamp(message))
    if success is False:
        return _error_reply(id, message)
    return _event(id, message)


def _error_reply(id: Any, message: JSONObject) -> ErrorReply:
    error = message.get("error")
    if type(error) is not str or not (id is None or is_message_id(id)):
        raise _violation("a failed reply needs an id and an error string")
    info = message.get("error_info")
    return ErrorReply(id, error, None if info is None else error_info_from_object(info), _timestamp(message))


def _event(id: Any, message: JSONObject) -> Event:
    event, seq = message.get("event"), message.get("seq")
    if not is_message_id(id) or event not in EVENT_KINDS or type(seq) is not int or "data" not in message:
        raise _violation("the object is neither a reply (success) nor an event (event, seq, data)")
    return Event(id, event, seq, message["data"])


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
        bool(info.get("retryable", False)),
        _maybe_text(info.get("framework")),
        _maybe_text(info.get("type")),
        details if type(details) is dict else {},
        _maybe_text(info.get("traceback")),
    )


def is_message_id(value: Any) -> bool:
    """Whether `value` can number a call: a number or a string, no boolean, no null."""
    return type(value) is int or type(value) is str or type(value) is float


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
    timestamp = message.get("timestamp", 0.0)
    return timestamp if type(timestamp) in (int, float) else 0.0


def _maybe_text(value: Any) -> str | None:
    return value if type(value) is str else None


def _bad_request(id: MessageId | None, text: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.INVALID_REQUEST, text, id=id)


def _violation(text: str) -> RemoteProtocolError:
    return RemoteProtocolError(ErrorCode.PROTOCOL_VIOLATION, text)

"""The golden vectors: what is on the wire for every message, for clients in any language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manybridge.protocol import codec
from manybridge.protocol.connection import ClientConnection, WorkerConnection
from manybridge.protocol.errors import ErrorCode, RemoteProtocolError
from manybridge.protocol.frames import DEFAULT_MAX_FRAME_BYTES
from manybridge.protocol.messages import (
    EVENT_KINDS,
    ErrorInfo,
    ErrorReply,
    Event,
    Malformed,
    Reply,
    Request,
    WorkerMessage,
    request_from_object,
    request_to_object,
    worker_message_from_object,
    worker_message_to_object,
)
from tests.support import frame
from tests.vectors import generate

VECTORS: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(generate.FOLDER.glob("*.json"))
}


def of_kind(*kinds: str) -> list[str]:
    """Return the names of the vectors of these kinds."""
    return [name for name, vector in VECTORS.items() if vector["kind"] in kinds]


def read(vector: dict[str, Any]) -> Request | WorkerMessage:
    """Read the message of a vector as its receiver does."""
    message = codec.decode(bytes.fromhex(vector["frame_hex"])[4:])
    return request_from_object(message) if vector["kind"] == "request" else worker_message_from_object(message)


def fields_of(message: Request | WorkerMessage) -> dict[str, Any]:
    """Return a message with the names of the wire, every field with its value."""
    fields = message._asdict()
    if isinstance(message, ErrorReply):
        fields["error_info"] = fields.pop("info")
        fields["error_info"] = None if message.info is None else message.info._asdict()
    return fields


def from_fields(kind: str, fields: dict[str, Any]) -> Request | WorkerMessage:
    """Make the message whose fields a vector lists."""
    if kind == "error_reply":
        info = fields["error_info"]
        return ErrorReply(fields["id"], fields["error"], info and ErrorInfo(**info), fields["timestamp"])
    if kind == "request":
        return Request(**fields)
    return Reply(**fields) if kind == "reply" else Event(**fields)


def exactly(value: Any) -> str:
    """A text that two values share when they are equal in type too, whatever the order of their keys."""
    return json.dumps(value, sort_keys=True)


def test_the_files_are_what_the_generator_writes() -> None:
    """None is stale, missing, or written by hand."""
    assert generate.stale() == []


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_is_one_whole_frame(name: str) -> None:
    """The frame is the text with its length, and the name is the file's."""
    vector = VECTORS[name]
    assert vector["name"] == name
    if vector["text"] is not None:
        assert bytes.fromhex(vector["frame_hex"]) == frame(vector["text"])


@pytest.mark.parametrize("name", of_kind("request", "reply", "error_reply", "event"))
def test_a_message_is_read_as_the_vector_says(name: str) -> None:
    """Every field, with its type and its default."""
    vector = VECTORS[name]
    assert exactly(fields_of(read(vector))) == exactly(vector["fields"])


@pytest.mark.parametrize("name", of_kind("request", "reply", "error_reply", "event"))
def test_a_message_is_written_as_the_vector_says(name: str) -> None:
    """As JSON objects: the same keys and values, in any order."""
    vector = VECTORS[name]
    message = from_fields(vector["kind"], vector["fields"])
    written = request_to_object(message) if isinstance(message, Request) else worker_message_to_object(message)
    wanted = exactly(json.loads(vector["text"]))
    for encode in (codec.encode, codec._encode_portable):
        assert (exactly(json.loads(encode(written))) == wanted) is vector["canonical"]


@pytest.mark.parametrize("name", of_kind("request"))
def test_a_request_of_a_vector_passes_a_worker(name: str) -> None:
    """Not only the reader of messages, but the connection takes it; version 2 is what opts in by itself."""
    vector = VECTORS[name]
    [request] = WorkerConnection().receive_data(bytes.fromhex(vector["frame_hex"]))
    assert request == from_fields("request", vector["fields"])
    assert isinstance(request, Request)
    if vector["version"] == 1:
        assert not request.is_extended
        assert WorkerConnection(lenient=True).receive_data(bytes.fromhex(vector["frame_hex"])) == [request]


@pytest.mark.parametrize("name", of_kind("malformed"))
def test_a_worker_answers_a_malformed_frame_as_the_vector_says(name: str) -> None:
    """With its code and its id."""
    vector = VECTORS[name]
    worker = WorkerConnection(vector.get("max_frame_bytes", DEFAULT_MAX_FRAME_BYTES))
    [malformed] = worker.receive_data(bytes.fromhex(vector["frame_hex"]))
    assert isinstance(malformed, Malformed)
    assert (malformed.error.code, malformed.id) == (vector["code"], vector["id"])


@pytest.mark.parametrize("name", of_kind("violation"))
def test_a_client_refuses_a_violation_as_the_vector_says(name: str) -> None:
    """With its code, while the streaming call 1 is open."""
    client = ClientConnection()
    client.send_request(Request(1, "mock:echo", stream=True))
    with pytest.raises(RemoteProtocolError) as caught:
        client.receive_data(bytes.fromhex(VECTORS[name]["frame_hex"]))
    assert caught.value.code == VECTORS[name]["code"]


def test_every_kind_of_message_has_its_vectors() -> None:
    """Each message in its direction, each kind of event, both versions, each code of the wire."""
    kinds = {(vector["kind"], vector["direction"]) for vector in VECTORS.values()}
    assert kinds == {
        ("request", generate.CLIENT),
        ("malformed", generate.CLIENT),
        ("reply", generate.WORKER),
        ("error_reply", generate.WORKER),
        ("event", generate.WORKER),
        ("violation", generate.WORKER),
    }
    assert {VECTORS[name]["fields"]["event"] for name in of_kind("event")} == EVENT_KINDS
    for kind in ("request", "reply", "error_reply"):
        assert {VECTORS[name]["version"] for name in of_kind(kind)} == {1, 2}
    wire_codes = {ErrorCode.INVALID_FRAME, ErrorCode.FRAME_TOO_LARGE, ErrorCode.INVALID_JSON, ErrorCode.INVALID_REQUEST}
    assert {VECTORS[name]["code"] for name in of_kind("malformed")} == wire_codes


def test_the_readme_explains_every_field() -> None:
    """A reader of one file finds each of its keys."""
    text = Path(generate.FOLDER / "README.md").read_text(encoding="utf-8")
    keys = {key for vector in VECTORS.values() for key in vector}
    assert {key for key in keys if f"| `{key}` |" not in text} == set()

"""Messages: every one becomes an object and is read back the same; nothing else is read as one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given

from manybridge.protocol import codec
from manybridge.protocol.errors import ErrorCode, RemoteProtocolError
from manybridge.protocol.messages import (
    EVENT_KINDS,
    EXTENSION_FIELDS,
    MAX_DEADLINE_MS,
    ErrorInfo,
    ErrorReply,
    Event,
    MessageId,
    Reply,
    Request,
    WorkerMessage,
    error_info_from_object,
    is_message_id,
    json_type,
    request_from_json,
    request_from_object,
    request_to_object,
    worker_message_from_object,
    worker_message_to_object,
)
from tests.protocol.strategies import json_values, near_messages, plain_requests, requests, worker_messages


def over_the_wire(message: Any) -> Any:
    """Return what the other end decodes."""
    return codec.decode(codec.encode(message))


# ---------------------------------------------------------------- requests


def read_by(read: Any, data: Any) -> tuple[Any, ...]:
    """Return the request with the types of its fields, or what the refusal says."""
    try:
        found = read(data)
    except RemoteProtocolError as error:
        return (error.code, error.message, error.details)
    except codec.InvalidJSONError as error:  # json.dumps writes Infinity, which is no JSON
        return (str(error),)
    return (*found, *map(type, found))


@given(near_messages | requests.map(request_to_object))
@example({"id": 1, "command": "x", "stream": None})
@example({"id": 2**70, "command": "x", "deadline_ms": 1e308})
@example({"id": True, "command": "", "args": None, "session_id": 1})
def test_the_short_way_from_json_agrees_with_the_long_one(message: dict[str, Any]) -> None:
    """Field for field, type for type and word for word, whatever the message."""
    data = json.dumps(message).encode()
    assert read_by(request_from_json, data) == read_by(lambda given: request_from_object(codec.decode(given)), data)


def test_the_last_of_two_equal_keys_counts_on_both_ways() -> None:
    """Also where the first has another type."""
    data = b'{"id":"a","id":7,"command":1,"command":"x","args":[],"args":{"n":1}}'
    assert request_from_json(data) == Request(7, "x", {"n": 1})


@given(requests)
def test_a_request_is_read_back_as_it_was_sent(request: Request) -> None:
    """To the object, over the wire, and back."""
    assert request_from_object(over_the_wire(request_to_object(request))) == request


@given(plain_requests)
def test_a_request_without_extensions_is_a_version_1_request(request: Request) -> None:
    """A version 1 worker finds the fields that it knows and no other."""
    assert request_to_object(request) == {"id": request.id, "command": request.command, "args": request.args}


def test_extensions_appear_only_where_they_are_set() -> None:
    """A default on the wire would make every request version 2."""
    full = Request(1, "a:b", {}, "now", True, "s", 5, "00-ab-cd-01", "k")
    assert request_to_object(full) == {
        "id": 1,
        "command": "a:b",
        "args": {},
        "timestamp": "now",
        "stream": True,
        "session_id": "s",
        "deadline_ms": 5,
        "traceparent": "00-ab-cd-01",
        "idempotency_key": "k",
    }
    assert request_to_object(full._replace(stream=False, deadline_ms=None, session_id="")).keys() == {
        "id",
        "command",
        "args",
        "timestamp",
        "session_id",
        "traceparent",
        "idempotency_key",
    }
    assert tuple(Request._fields[4:]) == EXTENSION_FIELDS


def test_absent_args_are_an_empty_object_of_their_own() -> None:
    """A handler that changes its arguments does not change those of the next call."""
    first = request_from_object({"id": 1, "command": "x"})
    second = request_from_object({"id": 2, "command": "x"})
    assert first.args == {}
    assert first.args is not second.args
    assert first.args is not Request(3, "x").args


@pytest.mark.parametrize("id", [0, -1, 2**80, "", "a", 1.5, 0.0])
def test_ids_are_numbers_or_strings_and_keep_their_type(id: MessageId) -> None:
    """0 is a real id: version 1 clients send it."""
    found = request_from_object({"id": id, "command": "ping"}).id
    assert found == id
    assert type(found) is type(id)
    assert is_message_id(id)


NO_IDS: list[Any] = [None, True, False, [], {}, [1], math.inf, -math.inf, math.nan]


@pytest.mark.parametrize("id", NO_IDS)
def test_other_values_are_no_ids(id: Any) -> None:
    """A boolean would collide with 0 and 1; an infinity can't be echoed."""
    assert not is_message_id(id)
    with pytest.raises(RemoteProtocolError) as caught:
        request_from_object({"id": id, "command": "ping"})
    assert caught.value.code is ErrorCode.INVALID_REQUEST
    assert caught.value.details == {"id": None}


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"command": None}, "a request needs a command that is a non-empty string, found null"),
        ({"command": ""}, "a request needs a command that is a non-empty string, found an empty one"),
        ({"command": 5}, "a request needs a command that is a non-empty string, found a number"),
        ({"command": ["x"]}, "a request needs a command that is a non-empty string, found an array"),
        ({"args": None}, "args must be an object, found null"),
        ({"args": []}, "args must be an object, found an array"),
        ({"args": "{}"}, "args must be an object, found a string"),
        ({"stream": 1}, "stream must be true or false, found a number"),
        ({"stream": None}, "stream must be true or false, found null"),
        ({"session_id": 5}, "session_id must be a string, found a number"),
        ({"traceparent": {}}, "traceparent must be a string, found an object"),
        ({"idempotency_key": False}, "idempotency_key must be a string, found a boolean"),
        ({"deadline_ms": "5"}, "deadline_ms must be a number of milliseconds from 0 to 1728000000, found a string"),
        ({"deadline_ms": True}, "deadline_ms must be a number of milliseconds from 0 to 1728000000, found a boolean"),
        ({"deadline_ms": -1}, "deadline_ms must be a number of milliseconds from 0 to 1728000000, found a number"),
        ({"deadline_ms": 10**400}, "deadline_ms must be a number of milliseconds from 0 to 1728000000, found a number"),
        ({"deadline_ms": math.inf}, "deadline_ms must be a number of milliseconds from 0 to 1728000000, found inf"),
        ({"deadline_ms": 2e9}, "deadline_ms must be a number of milliseconds from 0 to 1728000000, found 2e+09"),
    ],
)
def test_a_mistyped_field_is_named_with_what_was_found(fields: dict[str, Any], text: str) -> None:
    """The answer teaches, carries the id, and quotes no value that may be a secret."""
    with pytest.raises(RemoteProtocolError) as caught:
        request_from_object({"id": 7, "command": "x", "args": {}, **fields})
    assert (caught.value.code, caught.value.message) == (ErrorCode.INVALID_REQUEST, text)
    assert caught.value.details == {"id": 7}


def test_extensions_may_be_null() -> None:
    """A client in another language may send every field it has; stream alone is never null."""
    nulls = dict.fromkeys(EXTENSION_FIELDS[1:])
    assert request_from_object({"id": 1, "command": "x", **nulls}) == Request(1, "x")


def test_a_deadline_may_be_zero_and_twenty_days() -> None:
    """Both ends of the range are in it."""
    for deadline in (0, 0.5, MAX_DEADLINE_MS):
        assert request_from_object({"id": 1, "command": "x", "deadline_ms": deadline}).deadline_ms == deadline


def test_unknown_fields_of_a_newer_client_are_ignored() -> None:
    """A client may send what only newer workers know."""
    assert request_from_object({"id": 1, "command": "x", "priority": 9}) == Request(1, "x")
    assert request_from_object({"id": 1, "command": "x", "priority": 9, "stream": True}).stream


@pytest.mark.parametrize(
    ("command", "namespace", "operation", "extended"),
    [
        ("ping", "", "ping", False),
        ("dspy:predict", "dspy", "predict", True),
        ("a:b:c", "a", "b:c", True),
        (":x", "", "x", True),
        ("x:", "x", "", True),
    ],
)
def test_a_command_with_a_namespace_is_version_2(command: str, namespace: str, operation: str, extended: bool) -> None:
    """The first colon ends the namespace."""
    request = Request(1, command)
    assert (request.namespace, request.operation, request.is_extended) == (namespace, operation, extended)


@pytest.mark.parametrize("name", EXTENSION_FIELDS)
def test_each_extension_makes_a_request_version_2(name: str) -> None:
    """No hello is needed for one request."""
    value = {"stream": True, "deadline_ms": 0}.get(name, "x")
    assert request_from_object({"id": 1, "command": "ping", name: value}).is_extended


def test_a_default_sent_in_full_leaves_a_request_version_1() -> None:
    """`stream: false` asks for nothing that version 1 lacks."""
    assert not request_from_object({"id": 1, "command": "ping", "stream": False}).is_extended


# ---------------------------------------------------------------- what a worker sends


@given(worker_messages)
def test_what_a_worker_sends_is_read_back_as_it_was_sent(message: WorkerMessage) -> None:
    """Replies, failures and events, to the object, over the wire, and back."""
    assert worker_message_from_object(over_the_wire(worker_message_to_object(message))) == message


def test_a_version_1_failure_carries_no_error_info() -> None:
    """Without info the object has the fields of version 1 alone."""
    assert worker_message_to_object(ErrorReply(1, "no", None, 2.5)) == {
        "id": 1,
        "success": False,
        "error": "no",
        "timestamp": 2.5,
    }


def test_error_info_has_all_its_fields_but_an_absent_traceback() -> None:
    """A client finds every field; a traceback only where there is one."""
    info = ErrorInfo.of(ErrorCode.TIMEOUT, "late", stopped_by="flag", code=5, message="own", cls=1)
    assert info.to_object() == {
        "code": "timeout",
        "message": "late",
        "retryable": True,
        "framework": None,
        "type": None,
        "details": {"stopped_by": "flag", "code": 5, "message": "own", "cls": 1},
    }
    assert info._replace(traceback="...").to_object()["traceback"] == "..."
    assert type(info.code) is str
    assert json.loads(codec.encode(info.to_object())) == info.to_object()


def test_an_error_info_of_a_newer_worker_is_kept_as_it_is() -> None:
    """Codes that this release does not know pass through; unknown fields and mistyped extras are dropped."""
    info = error_info_from_object(
        {"code": "quota", "message": "m", "retryable": "yes", "framework": 5, "details": [], "new": 1}
    )
    assert info == ErrorInfo("quota", "m")


@pytest.mark.parametrize(
    "message",
    [
        None,
        [],
        "x",
        {},
        {"id": 1},
        {"id": 1, "success": True},
        {"success": True, "result": {}},
        {"id": None, "success": True, "result": {}},
        {"id": True, "success": True, "result": {}},
        {"id": 1, "success": "true", "result": {}},
        {"id": 1, "success": 1, "result": {}},
        {"id": 1, "success": False},
        {"id": 1, "success": False, "error": {}},
        {"id": [], "success": False, "error": "x"},
        {"id": 1, "success": False, "error": "x", "error_info": "x"},
        {"id": 1, "success": False, "error": "x", "error_info": {}},
        {"id": 1, "success": False, "error": "x", "error_info": {"code": 1, "message": "x"}},
        {"id": 1, "success": False, "error": "x", "error_info": {"code": "x", "message": None}},
        {"id": 1, "event": "chunk", "seq": 0},
        {"id": 1, "event": "chunk", "seq": 0.0, "data": 1},
        {"id": 1, "event": "chunk", "seq": True, "data": 1},
        {"id": 1, "event": "chunk", "data": 1},
        {"id": None, "event": "chunk", "seq": 0, "data": 1},
        {"id": 1, "event": "smoke", "seq": 0, "data": {}},
        {"id": 1, "event": [], "seq": 0, "data": 1},
        {"id": 1, "event": {}, "seq": 0, "data": 1},
        {"id": 1, "event": "progress", "seq": 0, "data": None},
        {"id": 1, "event": "log", "seq": 0, "data": "text"},
        {"id": 1, "event": "call", "seq": 0, "data": {}},
        {"id": 1, "event": "call", "seq": 0, "data": {"call_id": 1, "tool": "t", "args": {}}},
        {"id": 1, "event": "call", "seq": 0, "data": {"call_id": "1", "tool": None, "args": {}}},
        {"id": 1, "event": "call", "seq": 0, "data": {"call_id": "1", "tool": "t", "args": []}},
    ],
)
def test_what_is_no_message_of_a_worker_is_a_violation(message: Any) -> None:
    """A client relies on the form of everything that it reads."""
    with pytest.raises(RemoteProtocolError) as caught:
        worker_message_from_object(message)
    assert caught.value.code is ErrorCode.PROTOCOL_VIOLATION


def test_a_missing_or_odd_timestamp_is_zero() -> None:
    """Nothing depends on it, so nothing fails for it."""
    for odd in ({}, {"timestamp": "2024-02-29T00:00:00Z"}, {"timestamp": None}, {"timestamp": True}):
        assert worker_message_from_object({"id": 1, "success": True, "result": 1, **odd}) == Reply(1, 1, 0.0)


def test_every_event_kind_is_read() -> None:
    """The four kinds and no fifth."""
    data: dict[str, Any] = {"call_id": "c", "tool": "t", "args": {}, "deadline_ms": None}
    assert {"call", "chunk", "log", "progress"} == EVENT_KINDS
    for kind in EVENT_KINDS:
        found = worker_message_from_object({"id": 1, "event": kind, "seq": 0, "data": data})
        assert found == Event(1, kind, 0, data)


# ---------------------------------------------------------------- garbage


@given(near_messages | json_values)
def test_garbage_objects_raise_nothing_but_remote_protocol_error(message: Any) -> None:
    """Whatever JSON comes, it is a message or the one error; what was read is a message that can be sent again."""
    try:
        request = request_from_object(message)
    except RemoteProtocolError:
        pass
    else:
        assert request_from_object(request_to_object(request)) == request
    try:
        answer = worker_message_from_object(message)
    except RemoteProtocolError:
        pass
    else:
        assert worker_message_from_object(worker_message_to_object(answer)) == answer


@given(json_values)
def test_every_json_value_has_a_name_for_error_texts(value: Any) -> None:
    """Errors name the JSON type, never the Python one, and never the value."""
    expected = {"null", "a boolean", "a number", "a string", "an array", "an object"}
    assert json_type(value) in expected
    assert json_type(object()) == "an unknown type"

"""Writes the golden vectors beside it, one JSON document for each. What the files mean is in README.md.

    python -m tests.vectors.generate            write the files
    python -m tests.vectors.generate --check    exit 1 if they differ from what would be written

The texts here are written by hand and framed by hand: a vector that the code under test had made would prove nothing.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path
from typing import Any, Final

FOLDER: Final = Path(__file__).parent

CLIENT: Final = "client_to_worker"
WORKER: Final = "worker_to_client"

NO_EXTENSIONS: Final = {
    "timestamp": None,
    "stream": False,
    "session_id": None,
    "deadline_ms": None,
    "traceparent": None,
    "idempotency_key": None,
}

vectors: dict[str, dict[str, Any]] = {}


def add(
    name: str, direction: str, version: int, kind: str, description: str, payload: str | bytes, **rest: Any
) -> None:
    """Add a vector whose frame holds `payload`."""
    raw = payload.encode() if isinstance(payload, str) else payload
    vectors[name] = {
        "name": name,
        "description": description,
        "direction": direction,
        "version": version,
        "kind": kind,
        "text": payload if isinstance(payload, str) else None,
        "frame_hex": (struct.pack(">I", len(raw)) + raw).hex(),
        **rest,
    }


def request(name: str, version: int, description: str, text: str, *, canonical: bool = True, **fields: Any) -> None:
    """Add a request."""
    add(name, CLIENT, version, "request", description, text, canonical=canonical, fields={**NO_EXTENSIONS, **fields})


def reply(name: str, version: int, description: str, text: str, **fields: Any) -> None:
    """Add a successful reply."""
    add(name, WORKER, version, "reply", description, text, canonical=True, fields=fields)


def error_reply(name: str, version: int, description: str, text: str, *, canonical: bool = True, **fields: Any) -> None:
    """Add a failed reply."""
    add(name, WORKER, version, "error_reply", description, text, canonical=canonical, fields=fields)


def event(name: str, description: str, text: str, **fields: Any) -> None:
    """Add an event."""
    add(name, WORKER, 2, "event", description, text, canonical=True, fields=fields)


def malformed(name: str, description: str, payload: str | bytes, code: str, id: Any = None, **rest: Any) -> None:
    """Add what a worker answers with an error."""
    add(f"malformed_{name}", CLIENT, 2, "malformed", description, payload, code=code, id=id, **rest)


def violation(name: str, description: str, payload: str, code: str = "protocol_violation") -> None:
    """Add what a client refuses."""
    add(f"violation_{name}", WORKER, 2, "violation", description, payload, code=code)


# ---------------------------------------------------------------- requests

request(
    "request_version_1",
    1,
    "A version 1 request, as DSPex sends its first ping: id 0 is a real id.",
    '{"id":0,"command":"ping","args":{"initialization":true},"timestamp":"2024-02-29T01:02:03.000004Z"}',
    id=0,
    command="ping",
    args={"initialization": True},
    timestamp="2024-02-29T01:02:03.000004Z",
)
request(
    "request_without_args",
    1,
    "Absent args are an empty object.",
    '{"id":1,"command":"get_stats"}',
    canonical=False,
    id=1,
    command="get_stats",
    args={},
)
request(
    "request_with_spaces_and_escapes",
    1,
    "White space and escapes are the writer's choice; of two equal keys the last counts.",
    ' {\n\t"command" : "echo", "id":2, "args":{"text": "na\\u00efve \\ud83d\\ude00 \\/ \\u0000", "n":1, "n": 2} }\r\n ',
    id=2,
    command="echo",
    args={"text": "naïve 😀 / \x00", "n": 2},
)
request(
    "request_with_string_id",
    2,
    "Ids may be strings; a namespace in the command makes the request version 2.",
    '{"id":"call-1","command":"mock:echo","args":{"text":"naïve 😀"}}',
    id="call-1",
    command="mock:echo",
    args={"text": "naïve 😀"},
)
request(
    "request_with_unknown_fields",
    2,
    "Fields of a newer client are ignored.",
    '{"id":3,"command":"mock:echo","args":{},"priority":9,"stream":false}',
    canonical=False,
    id=3,
    command="mock:echo",
    args={},
)
request(
    "request_with_every_extension",
    2,
    "Every field that version 2 adds.",
    '{"id":4,"command":"mock:echo","args":{"deep":[[],{},[null,true,false]]},"timestamp":1709168523.5,"stream":true,'
    '"session_id":"s-1","deadline_ms":2500,"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",'
    '"idempotency_key":"order-7"}',
    id=4,
    command="mock:echo",
    args={"deep": [[], {}, [None, True, False]]},
    timestamp=1709168523.5,
    stream=True,
    session_id="s-1",
    deadline_ms=2500,
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    idempotency_key="order-7",
)
request(
    "request_hello",
    2,
    "The client asks for version 2.",
    '{"id":1,"command":"common:hello","args":{"protocol":2,"codec":"json","features":["stream","cancel"],'
    '"client":{"name":"elixir","version":"0.1.0"}}}',
    id=1,
    command="common:hello",
    args={
        "protocol": 2,
        "codec": "json",
        "features": ["stream", "cancel"],
        "client": {"name": "elixir", "version": "0.1.0"},
    },
)
request(
    "request_cancel",
    2,
    "Stop the call with id 4.",
    '{"id":5,"command":"common:cancel","args":{"id":4}}',
    id=5,
    command="common:cancel",
    args={"id": 4},
)
request(
    "request_call_result",
    2,
    "The client's tool returned; answers event_call.",
    '{"id":6,"command":"common:call_result","args":{"call_id":"c-1","result":[1,2.5,"x"]}}',
    id=6,
    command="common:call_result",
    args={"call_id": "c-1", "result": [1, 2.5, "x"]},
)
request(
    "request_call_result_error",
    2,
    "The client's tool failed; answers event_call.",
    '{"id":7,"command":"common:call_result","args":{"call_id":"c-1","error":{"code":"unknown_tool",'
    '"message":"There is no tool named search."}}}',
    id=7,
    command="common:call_result",
    args={"call_id": "c-1", "error": {"code": "unknown_tool", "message": "There is no tool named search."}},
)
request(
    "request_configure_session",
    2,
    "A session's settings, ahead of its first call in this worker.",
    '{"id":12,"command":"common:configure_session","args":{"session_id":"chat-7","settings":{"model":"openai/gpt-4o",'
    '"temperature":0.2}}}',
    id=12,
    command="common:configure_session",
    args={"session_id": "chat-7", "settings": {"model": "openai/gpt-4o", "temperature": 0.2}},
)
request(
    "request_batch",
    2,
    "Several commands as one call.",
    '{"id":8,"command":"common:batch","args":{"calls":[{"command":"mock:echo","args":{"n":1}},'
    '{"command":"common:ping"}]}}',
    id=8,
    command="common:batch",
    args={"calls": [{"command": "mock:echo", "args": {"n": 1}}, {"command": "common:ping"}]},
)
request(
    "request_submit",
    2,
    "A command as a job of the host; sent again with the same key, it is the same job.",
    '{"id":10,"command":"common:submit","args":{"command":"mock:sleep","args":{"seconds":60},"resume":true},'
    '"idempotency_key":"night-7"}',
    id=10,
    command="common:submit",
    args={"command": "mock:sleep", "args": {"seconds": 60}, "resume": True},
    idempotency_key="night-7",
)
request(
    "request_job_events",
    2,
    "Watch a job from its event 12 on; answered by event_chunk_of_a_job.",
    '{"id":11,"command":"common:job_events","args":{"id":"job-5f0c","from_seq":12},"stream":true}',
    id=11,
    command="common:job_events",
    args={"id": "job-5f0c", "from_seq": 12},
    stream=True,
)
request(
    "request_create_resource",
    2,
    "Make a resource in a session.",
    '{"id":9,"command":"common:create_resource","args":{"type":"echo","config":{"prefix":"> "},"id":"echo-1"},'
    '"session_id":"s-1"}',
    id=9,
    command="common:create_resource",
    args={"type": "echo", "config": {"prefix": "> "}, "id": "echo-1"},
    session_id="s-1",
)

# ---------------------------------------------------------------- replies

reply(
    "reply_version_1",
    1,
    "A version 1 reply: the result is an object.",
    '{"id":0,"success":true,"result":{"status":"ok"},"timestamp":1709168523.25}',
    id=0,
    result={"status": "ok"},
    timestamp=1709168523.25,
)
reply(
    "reply_hello",
    2,
    "The worker agrees on version 2.",
    '{"id":1,"success":true,"result":{"protocol":2,"codec":"json","features":["stream","error_info","cancel",'
    '"deadline","session","traceparent","host_calls","batch"],"worker":{"id":"w-1","pid":4711,"generation":3},'
    '"framework":"mock","bridge":"mock","capabilities":[],"max_frame_bytes":67108864},"timestamp":1709168523.25}',
    id=1,
    result={
        "protocol": 2,
        "codec": "json",
        "features": [
            "stream",
            "error_info",
            "cancel",
            "deadline",
            "session",
            "traceparent",
            "host_calls",
            "batch",
        ],
        "worker": {"id": "w-1", "pid": 4711, "generation": 3},
        "framework": "mock",
        "bridge": "mock",
        "capabilities": [],
        "max_frame_bytes": 67108864,
    },
    timestamp=1709168523.25,
)
reply(
    "reply_numbers",
    2,
    "Integers stay integers of any size, floats stay floats; a string id comes back.",
    '{"id":"call-1","success":true,"result":[0,-1,18446744073709551616,-9223372036854775809,1.0,0.1,5e-324,'
    '1.7976931348623157e308],"timestamp":0.0}',
    id="call-1",
    result=[0, -1, 2**64, -(2**63) - 1, 1.0, 0.1, 5e-324, 1.7976931348623157e308],
    timestamp=0.0,
)
reply(
    "reply_marker",
    2,
    "A value that JSON can't carry is a marker with its type's name; not-a-number is null.",
    '{"id":2,"success":true,"result":{"model":{"$unserializable":"sklearn.svm._classes.SVC"},"loss":null},'
    '"timestamp":1709168523.25}',
    id=2,
    result={"model": {"$unserializable": "sklearn.svm._classes.SVC"}, "loss": None},
    timestamp=1709168523.25,
)
reply(
    "reply_null",
    2,
    "null is a result like any other.",
    '{"id":3,"success":true,"result":null,"timestamp":1709168523.25}',
    id=3,
    result=None,
    timestamp=1709168523.25,
)

# ---------------------------------------------------------------- failed replies

error_reply(
    "error_reply_version_1",
    1,
    "A version 1 failure: a string, and no error_info.",
    '{"id":1,"success":false,"error":"Unknown command: fly","timestamp":1709168523.25}',
    id=1,
    error="Unknown command: fly",
    error_info=None,
    timestamp=1709168523.25,
)
error_reply(
    "error_reply_version_2",
    2,
    "A version 2 failure: the same string, and what programs need.",
    '{"id":2,"success":false,"error":"The call\'s deadline passed; it was stopped by: flag.",'
    '"timestamp":1709168523.25,"error_info":{"code":"timeout","message":"The call\'s deadline passed; it was stopped '
    'by: flag.","retryable":true,"framework":null,"type":null,"details":{"stopped_by":"flag"}}}',
    id=2,
    error="The call's deadline passed; it was stopped by: flag.",
    error_info={
        "code": "timeout",
        "message": "The call's deadline passed; it was stopped by: flag.",
        "retryable": True,
        "framework": None,
        "type": None,
        "details": {"stopped_by": "flag"},
        "traceback": None,
    },
    timestamp=1709168523.25,
)
error_reply(
    "error_reply_with_traceback",
    2,
    "A failure of the bridge's own code.",
    '{"id":3,"success":false,"error":"division by zero","timestamp":1709168523.25,"error_info":{"code":"handler_error",'
    '"message":"division by zero","retryable":false,"framework":"mock","type":"ZeroDivisionError","details":{},'
    '"traceback":"Traceback (most recent call last):\\n  ...\\n"}}',
    id=3,
    error="division by zero",
    error_info={
        "code": "handler_error",
        "message": "division by zero",
        "retryable": False,
        "framework": "mock",
        "type": "ZeroDivisionError",
        "details": {},
        "traceback": "Traceback (most recent call last):\n  ...\n",
    },
    timestamp=1709168523.25,
)
error_reply(
    "error_reply_without_id",
    2,
    "The answer to bytes that no call could be read from.",
    '{"id":null,"success":false,"error":"the frame is empty","timestamp":1709168523.25,"error_info":'
    '{"code":"invalid_frame","message":"the frame is empty","retryable":false,"framework":null,"type":null,'
    '"details":{}}}',
    id=None,
    error="the frame is empty",
    error_info={
        "code": "invalid_frame",
        "message": "the frame is empty",
        "retryable": False,
        "framework": None,
        "type": None,
        "details": {},
        "traceback": None,
    },
    timestamp=1709168523.25,
)
error_reply(
    "error_reply_of_a_newer_worker",
    2,
    "An unknown code is kept, unknown fields are ignored, absent ones have their defaults.",
    '{"id":4,"success":false,"error":"no","error_info":{"code":"quota_exceeded","message":"no","hint":"pay"}}',
    canonical=False,
    id=4,
    error="no",
    error_info={
        "code": "quota_exceeded",
        "message": "no",
        "retryable": False,
        "framework": None,
        "type": None,
        "details": {},
        "traceback": None,
    },
    timestamp=0.0,
)

# ---------------------------------------------------------------- events

event(
    "event_chunk",
    "What a streaming call emitted: any JSON value.",
    '{"id":4,"event":"chunk","seq":0,"data":"na"}',
    id=4,
    event="chunk",
    seq=0,
    data="na",
)
event(
    "event_chunk_object",
    "Numbers of events count up within a call.",
    '{"id":4,"event":"chunk","seq":1,"data":{"token":"ïve","logprob":-0.25}}',
    id=4,
    event="chunk",
    seq=1,
    data={"token": "ïve", "logprob": -0.25},
)
event(
    "event_chunk_of_a_job",
    "An event of a job that is watched: its own number is inside, and the frame's counts from 0 for each watcher.",
    '{"id":11,"event":"chunk","seq":0,"data":{"seq":12,"event":"progress",'
    '"data":{"current":3,"total":10,"message":"epoch 3"}}}',
    id=11,
    event="chunk",
    seq=0,
    data={"seq": 12, "event": "progress", "data": {"current": 3, "total": 10, "message": "epoch 3"}},
)
event(
    "event_progress",
    "How far a call is.",
    '{"id":4,"event":"progress","seq":2,"data":{"current":3,"total":10,"message":"epoch 3"}}',
    id=4,
    event="progress",
    seq=2,
    data={"current": 3, "total": 10, "message": "epoch 3"},
)
event(
    "event_log",
    "A line for the caller's log.",
    '{"id":4,"event":"log","seq":3,"data":{"level":"warning","message":"slow"}}',
    id=4,
    event="log",
    seq=3,
    data={"level": "warning", "message": "slow"},
)
event(
    "event_call",
    "The worker calls a tool that the client registered; answered by request_call_result.",
    '{"id":4,"event":"call","seq":4,"data":{"call_id":"c-1","tool":"search","args":{"query":"x"},"deadline_ms":1500}}',
    id=4,
    event="call",
    seq=4,
    data={"call_id": "c-1", "tool": "search", "args": {"query": "x"}, "deadline_ms": 1500},
)

# ---------------------------------------------------------------- what a worker answers with an error

malformed("empty", "A frame of no bytes.", "", "invalid_frame")
malformed("oversized", "One byte over the limit.", '{"id":1,"command":"x"}', "frame_too_large", max_frame_bytes=21)
malformed("not_json", "Not JSON.", "hello", "invalid_json")
malformed("not_utf8", "Not UTF-8.", b'{"id":1,"command":"\xff"}', "invalid_json")
malformed("utf16", "JSON, but in UTF-16.", '{"id":1,"command":"x"}'.encode("utf-16-le"), "invalid_json")
malformed("byte_order_mark", "A byte order mark is not JSON.", '\ufeff{"id":1,"command":"x"}', "invalid_json")
malformed("nan", "NaN is not JSON.", '{"id":1,"command":"x","args":{"n":NaN}}', "invalid_json")
malformed("trailing", "One value for each frame.", '{"id":1,"command":"x"}{}', "invalid_json")
malformed("array", "JSON, but no object.", '[{"id":1,"command":"x"}]', "invalid_json")
malformed("null", "JSON, but no object.", "null", "invalid_json")
malformed("without_id", "No id.", '{"command":"x"}', "invalid_request")
malformed("null_id", "null is no id.", '{"id":null,"command":"x"}', "invalid_request")
malformed("boolean_id", "A boolean is no id.", '{"id":true,"command":"x"}', "invalid_request")
malformed("infinite_id", "A number that no double holds is no id.", '{"id":1e400,"command":"x"}', "invalid_request")
malformed("without_command", "No command; the answer carries the id.", '{"id":7}', "invalid_request", 7)
malformed("empty_command", "An empty command.", '{"id":"a","command":""}', "invalid_request", "a")
malformed("array_args", "args must be an object.", '{"id":7,"command":"x","args":[]}', "invalid_request", 7)
malformed("null_args", "args may be absent, not null.", '{"id":7,"command":"x","args":null}', "invalid_request", 7)
malformed("stream", "stream is a boolean.", '{"id":7,"command":"x","stream":1}', "invalid_request", 7)
malformed("session_id", "session_id is a string.", '{"id":7,"command":"x","session_id":5}', "invalid_request", 7)
malformed("deadline", "A deadline is not negative.", '{"id":7,"command":"x","deadline_ms":-1}', "invalid_request", 7)
malformed(
    "long_deadline",
    "A deadline is 20 days at most.",
    '{"id":7,"command":"x","deadline_ms":1728000001}',
    "invalid_request",
    7,
)

# ---------------------------------------------------------------- what a client refuses

violation("not_json", "A worker that writes anything but JSON can't be trusted.", "Loading model...", "invalid_json")
violation("empty", "A frame of no bytes.", "", "invalid_frame")
violation("array", "JSON, but no object.", "[]")
violation("reply_without_id", "A result belongs to a call.", '{"success":true,"result":{},"timestamp":0.0}')
violation("reply_without_result", "A success has a result, if only null.", '{"id":1,"success":true,"timestamp":0.0}')
violation("success_text", "success is a boolean.", '{"id":1,"success":"true","result":{},"timestamp":0.0}')
violation("error_object", "error is a string.", '{"id":1,"success":false,"error":{},"timestamp":0.0}')
violation("event_kind", "The kinds of events are agreed.", '{"id":1,"event":"smoke","seq":0,"data":{}}')
violation("event_seq", "Events are numbered by integers.", '{"id":1,"event":"chunk","seq":0.0,"data":{}}')
violation("event_call", "A host call names its tool.", '{"id":1,"event":"call","seq":0,"data":{"call_id":"c-1"}}')
violation("unknown_call", "A reply to a call that nobody began.", '{"id":99,"success":true,"result":{}}')


def files() -> dict[Path, str]:
    """Return every file with its text."""
    return {
        FOLDER / f"{name}.json": json.dumps(vector, indent=2, ensure_ascii=False) + "\n"
        for name, vector in vectors.items()
    }


def stale() -> list[str]:
    """Return the names of the files that are missing, differ, or that no vector belongs to."""
    wanted = files()
    names = {path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text}
    return sorted(path.name for path in names | (set(FOLDER.glob("*.json")) - wanted.keys()))


def main() -> int:
    """Write the files, or check them."""
    parser = argparse.ArgumentParser(description="Write the golden vectors of the wire.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not as it should be")
    if parser.parse_args().check:
        for name in (names := stale()):
            sys.stderr.write(f"stale: tests/vectors/{name}; run: python -m tests.vectors.generate\n")
        return 1 if names else 0
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

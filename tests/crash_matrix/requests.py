"""Bad requests: what a client can get wrong, and the one code that it gets through every door.

The doors are the raw wire (version 2, and version 1, where the same text comes without a code), Python, and the command
line, which ends with an exit code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import nan
from typing import Any, Final, NamedTuple

from manybridge import MLBridge
from tests.support import frame, frame_message

ID: Final = 4711
"""The id of every bad request that has one."""

OPEN_ID: Final = 4712
"""The id of a call that is open while the bad request comes."""

SMALL_FRAME: Final = 64 * 1024
"""`max_frame_bytes` of the workers and hosts that get these requests."""


class BadRequest(NamedTuple):
    """One thing that a client got wrong."""

    text: str
    code: str
    wire: bytes | None = None
    """The frame on the wire; None where the wire has no such thing."""
    has_id: bool = True
    """Whether the answer can carry the request's id; otherwise it carries null."""
    python: Callable[[MLBridge], object] | None = None
    cli: tuple[str, ...] | None = None
    exit_code: int | None = None


def _frame(text: str, code: str, wire: bytes) -> BadRequest:
    return BadRequest(text, code, wire, has_id=False)


def _message(text: str, message: object, *, has_id: bool = True, code: str = "invalid_request") -> BadRequest:
    return BadRequest(text, code, frame_message(message), has_id)


def _request(**fields: Any) -> dict[str, Any]:
    return {"id": ID, "command": "mock:echo", "args": {}, **fields}


def _call(text: str, code: str, exit_code: int | None, command: str, args: dict[str, Any], *typed: str) -> BadRequest:
    """A well-formed call that can't be served, through all doors."""
    return BadRequest(
        text,
        code,
        frame_message(_request(command=command, args=args)),
        python=lambda ml: ml.call("mock", command, args),
        cli=("call", "mock", command, *typed) if exit_code is not None else None,
        exit_code=exit_code,
    )


def _python(text: str, code: str, python: Callable[[MLBridge], object]) -> BadRequest:
    return BadRequest(text, code, python=python)


def _huge_header() -> bytes:
    """A frame over the limit; its body is really sent, and skipped."""
    return frame(json.dumps(_request(args={"text": "x" * SMALL_FRAME})))


CREATE: Final = "common:create_resource"
EXECUTE: Final = "common:execute_resource"

BAD_REQUESTS: Final[tuple[BadRequest, ...]] = (
    # Frames
    _frame("an empty frame", "invalid_frame", frame(b"")),
    _frame("a frame over the limit; its body is skipped", "frame_too_large", _huge_header()),
    _frame("bytes that are not JSON", "invalid_json", frame(b"\x00\x01garbage")),
    _frame("JSON that is cut off", "invalid_json", frame(b'{"id": 1, "command"')),
    _frame("JSON with something behind it", "invalid_json", frame(b'{"id": 1, "command": "common:ping"} {}')),
    _frame("bytes that are not UTF-8", "invalid_json", frame(b'{"id": 1, "command": "\xff\xfe"}')),
    _frame("`NaN`, which is not JSON", "invalid_json", frame(b'{"id": 1, "command": "common:ping", "args": NaN}')),
    _frame("JSON nested too deeply", "invalid_json", frame(b"[" * 20_000 + b"]" * 20_000)),
    _frame("an array", "invalid_json", frame(b"[]")),
    _frame("a string", "invalid_json", frame(b'"common:ping"')),
    _frame("`null`", "invalid_json", frame(b"null")),
    # Messages
    _message("no id", {"command": "mock:echo", "args": {}}, has_id=False),
    _message("an id that is null", _request(id=None), has_id=False),
    _message("an id that is a boolean", _request(id=True), has_id=False),
    _message("an id that is an object", _request(id={}), has_id=False),
    _message("no command", {"id": ID, "args": {}}),
    _message("a command that is empty", _request(command="")),
    _message("a command that is no string", _request(command=["mock:echo"])),
    _message("args that are an array", _request(args=[])),
    _message("args that are null", _request(args=None)),
    _message("`stream` that is no boolean", _request(stream="yes")),
    _message("`session_id` that is no string", _request(session_id=1)),
    _message("`deadline_ms` that is no number", _request(deadline_ms="soon")),
    _message("`deadline_ms` below zero", _request(deadline_ms=-1)),
    _message("`traceparent` that is no string", _request(traceparent=1)),
    _message("`idempotency_key` that is no string", _request(idempotency_key=[])),
    _message("the id of a call that is still open", _request(id=OPEN_ID)),
    # Names
    BadRequest("an unknown bridge", "unknown_bridge", python=lambda ml: ml.call("nobody", "nobody:echo", {}),
               cli=("call", "nobody", "nobody:echo"), exit_code=4),
    _call("an unknown command", "unknown_command", 4, "mock:ecko", {}),
    _call("a command of another bridge", "unknown_command", 4, "dspy:predict", {}),
    _call("an unknown common command", "unknown_command", 4, "common:pong", {}),
    _call("an unknown resource type", "unknown_resource_type", 4, CREATE, {"type": "model"}, "type=model"),
    _call("an unknown resource", "resource_not_found", 4, EXECUTE, {"id": "nothing"}, "id=nothing"),
    _call("deleting an unknown resource", "resource_not_found", 4, "common:delete_resource", {"id": "nothing"},
          "id=nothing"),
    _python("an unknown session", "session_not_found", lambda ml: ml.extend_session("nobody")),
    _python("an unknown job", "job_not_found", lambda ml: ml.get_job("nothing")),
    _call("a handler that asks for a tool that nobody offers", "unknown_tool", 4, "mock:call_host", {"tool": "t"},
          "tool=t"),
    # Arguments
    _call("an argument that is missing", "invalid_argument", 5, "mock:log", {}),
    _call("an argument of the wrong type", "invalid_argument", 5, "mock:sleep", {"seconds": "1"}, "seconds=1"),
    _call("a boolean where a number is due", "invalid_argument", 5, "mock:count", {"n": True}, "n:=true"),
    _call("a value that is not among the allowed ones", "invalid_argument", 5, "mock:busy", {"mode": "x"}, "mode=x"),
    _call("an unknown argument", "invalid_argument", 5, "mock:sleep", {"second": 1}, "second:=1"),
    _call("a resource whose id is no string", "invalid_argument", 5, CREATE, {"type": "echo", "id": ["x"]},
          "type=echo", 'id:=["x"]'),
    _call("a resource without a type", "invalid_argument", 5, CREATE, {"config": {}}, "config:={}"),
    _call("a resource whose config is an array", "invalid_argument", 5, CREATE, {"type": "echo", "config": []},
          "type=echo", "config:=[]"),
    _call("a resource with a wrong config key", "invalid_argument", 5, CREATE,
          {"type": "counter", "config": {"begin": 1}}, "type=counter", 'config:={"begin": 1}'),
    _call("a batch that is no array", "invalid_argument", 5, "common:batch", {"calls": {}}, "calls:={}"),
    _call("a batch in a batch", "invalid_argument", 5, "common:batch", {"calls": [{"command": "common:batch"}]},
          'calls:=[{"command": "common:batch"}]'),
    _python("a timeout below zero", "invalid_argument", lambda ml: ml.call("mock", "mock:echo", {}, timeout=-1)),
    _python("a timeout that is not a number", "invalid_argument",
            lambda ml: ml.call("mock", "mock:echo", {}, timeout=nan)),
    _python("args that are no mapping", "invalid_argument",
            lambda ml: ml.call("mock", "mock:echo", [1])),  # type: ignore[arg-type]  # the mistake itself
    _python("a resource whose config is no mapping", "invalid_argument",
            lambda ml: ml.create_resource("mock", "echo", [1])),  # type: ignore[arg-type]  # the mistake itself
    _python("inputs that are no mapping", "invalid_argument",
            lambda ml: ml.execute_resource("mock", "echo", "text")),  # type: ignore[arg-type]  # the mistake itself
    _python("a request over the frame limit; it is not sent", "frame_too_large",
            lambda ml: ml.call("mock", "mock:echo", {"text": "x" * SMALL_FRAME})),
    # What is not for everybody
    BadRequest("a protocol version that does not exist", "unsupported_version",
               frame_message(_request(command="common:hello", args={"protocol": 0}))),
    BadRequest("a codec that nobody speaks", "unsupported_version",
               frame_message(_request(command="common:hello", args={"protocol": 2, "codec": "xml"}))),
    BadRequest("cancelling without an id", "invalid_argument",
               frame_message(_request(command="common:cancel", args={}))),
    _python("a host's own commands through a host", "not_supported", lambda ml: ml.call("mock", "common:hello", {})),
    _python("a second bridge of the same name", "config_error", lambda ml: ml.register_bridge("mock", {})),
    _python("a configuration key that does not exist", "config_error",
            lambda ml: ml.register_bridge("mine", {"bridge": "mock", "pool_sice": 2})),
)  # fmt: skip

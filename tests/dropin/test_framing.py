"""Section 3: frames, envelopes, and every row of the table of malformed input, in both modes."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from tests.dropin.port import POOL_WORKER, STANDALONE, Port, check_envelope, frame, frame_message
from tests.support import cuts

MODES = pytest.mark.parametrize("argv", [STANDALONE, POOL_WORKER], ids=["standalone", "pool-worker"])

ENDS_WITH_ZERO: dict[str, bytes] = {
    "end of input, clean": b"",
    "end of input, in a header": b"\0\0",
    "end of input, in a body": frame(b'{"id": 1, "command": "ping"}')[:-3],
    "end of input, after a header": struct.pack(">I", 10),
    "zero-length frame": frame(b""),
    "body is not JSON": frame(b"hello"),
    "body is cut JSON": frame(b'{"id": 1, '),
    "body is not UTF-8": frame(b'{"id": 1, "command": "\xff\xfe"}'),
    "Erlang external term format": frame(b"\x83h\x02d"),
    "JSON null": frame(b"null"),
    "JSON list": frame(b"[]"),
    "JSON string": frame(b'"ping"'),
    "JSON number": frame(b"1"),
    "JSON boolean": frame(b"true"),
    "nested too deeply": frame(b'{"id": 1, "command": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
}
"""Input after which the process ends. What ends it by itself must not need the end of input."""

NO_REPLY: dict[str, Any] = {
    "no id": {"command": "ping", "args": {}},
    "id is null": {"id": None, "command": "ping", "args": {}},
    "no command": {"id": 7, "args": {}},
    "command is null": {"id": 7, "command": None},
    "nothing at all": {},
}

UNUSUAL_IDS: list[Any] = [0, 1, -1, 2**70, "seven", "", 1.5, 0.0, False, [1, 2], {"a": 1}]
UNUSUAL_COMMANDS = [
    ("invalid_command", "Unknown command: invalid_command"),
    ("simulate_error", "Unknown command: simulate_error"),
    ("crash_worker", "Unknown command: crash_worker"),
    ("predict", "Unknown command: predict"),
    ("get_response", "Unknown command: get_response"),
    ("", "Unknown command: "),
    ("Ping", "Unknown command: Ping"),
    ("p\u00efng \u2603", "Unknown command: p\u00efng \u2603"),
    (7, "Unknown command: 7"),
    (1.5, "Unknown command: 1.5"),
    (True, "Unknown command: True"),
    (["ping"], "unhashable type: 'list'"),
    ({"a": 1}, "unhashable type: 'dict'"),
]


@MODES
@pytest.mark.parametrize("data", ENDS_WITH_ZERO.values(), ids=ENDS_WITH_ZERO)
def test_malformed_input_ends_the_process_with_zero_and_without_a_reply(argv: tuple[str, ...], data: bytes) -> None:
    """The process was serving before, so it is the input that ends it."""
    with Port(*argv) as port:
        port.result("ping")
        port.send_bytes(data)
        if len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
            port.close_input()
        assert port.exit_status() == 0


@MODES
def test_an_object_without_id_or_command_gets_no_reply_and_does_no_harm(argv: tuple[str, ...]) -> None:
    """The next request is answered, first and alone."""
    with Port(*argv) as port:
        for message in NO_REPLY.values():
            port.send_bytes(frame_message(message))
        assert port.result("get_stats")["command_count"] == 1


@MODES
@pytest.mark.parametrize(
    "message",
    [
        {"id": 7, "command": "common:capabilities", "args": []},
        {"id": 7, "command": "ping", "stream": "yes"},
        {"id": 7, "command": "ping", "deadline_ms": "soon"},
        {"id": 7, "command": "ping", "session_id": 4},
        {"id": 7, "stream": True},
    ],
    ids=str,
)
def test_a_mistyped_request_of_version_2_is_answered(argv: tuple[str, ...], message: dict[str, Any]) -> None:
    """Who uses what version 2 added waits for an answer; version 1 goes on beside it."""
    with Port(*argv) as port:
        port.send_bytes(frame_message(message))
        reply = port.reply()
        assert (reply["id"], reply["success"]) == (7, False)
        assert reply["error_info"]["code"] == "invalid_request"
        assert port.result("get_stats")["command_count"] == 1


@MODES
def test_arguments_that_are_missing_count_as_an_empty_object(argv: tuple[str, ...]) -> None:
    """`args` may be left out."""
    with Port(*argv) as port:
        port.send_bytes(frame_message({"id": 3, "command": "get_session_data"}))
        reply = port.reply()
        check_envelope(reply, 3)
        assert reply["result"] == {"error": "session_id is required"}


@MODES
@pytest.mark.parametrize(("args", "kind"), [("null", "NoneType"), ("[]", "list"), ('"x"', "str"), ("1", "int")])
def test_arguments_of_another_type_fail_only_where_they_are_read(argv: tuple[str, ...], args: str, kind: str) -> None:
    """The text is Python's own; `ping` and `get_stats` read none and succeed."""
    with Port(*argv) as port:
        for number, command in enumerate(["ping", "get_session_data", "get_program_info", "execute_program"]):
            port.send_bytes(frame(f'{{"id": {number}, "command": "{command}", "args": {args}}}'))
            reply = port.reply()
            check_envelope(reply, number)
            assert reply.get("error") == (None if command == "ping" else f"'{kind}' object has no attribute 'get'")
        port.send_bytes(frame(f'{{"id": 9, "command": "get_stats", "args": {args}}}'))
        assert port.reply()["result"]["error_count"] == 3


@MODES
def test_any_id_is_echoed_unchanged(argv: tuple[str, ...]) -> None:
    """Elixir pins the id, as the type that it sent. 0 is an id, and so is false."""
    with Port(*argv) as port:
        for one in UNUSUAL_IDS:
            port.send("ping", id=one)
            check_envelope(port.reply(), one)


@MODES
@pytest.mark.parametrize(("command", "error"), UNUSUAL_COMMANDS, ids=[str(name) for name, _ in UNUSUAL_COMMANDS])
def test_a_command_that_is_none_is_unknown_by_its_text(argv: tuple[str, ...], command: Any, error: str) -> None:
    """It is counted as a command and as an error."""
    with Port(*argv) as port:
        assert port.call(command)["error"] == error
        stats = port.result("get_stats")
        assert (stats["command_count"], stats["error_count"]) == (2, 1)


@MODES
def test_unknown_keys_are_ignored(argv: tuple[str, ...]) -> None:
    """DSPex's tests send all kinds of extra keys, nested and with times."""
    extra = {
        "test": True, "warmup": 1, "health_check": "x", "echo_args": [1], "operation": {"a": {"b": None}},
        "at": "2025-07-20T12:34:56Z",
    }  # fmt: skip
    with Port(*argv) as port:
        assert port.result("ping", extra)["status"] == "ok"
        port.send_bytes(frame_message({"id": 5, "command": "ping", "args": extra, "timestamp": 7, "more": {}}))
        check_envelope(port.reply(), 5)


@MODES
def test_requests_written_at_once_are_answered_one_after_another(argv: tuple[str, ...]) -> None:
    """In order, each once."""
    with Port(*argv) as port:
        port.send_bytes(b"".join(frame_message({"id": n, "command": "ping", "args": {}}) for n in range(50)))
        assert [port.reply()["id"] for _ in range(50)] == list(range(50))
        assert port.is_silent()


def test_a_frame_may_come_in_any_pieces() -> None:
    """Byte by byte."""
    data = frame_message({"id": 4, "command": "ping", "args": {}})
    with Port() as port:
        for piece in cuts(data, range(1, len(data))):
            port.send_bytes(piece)
        check_envelope(port.reply(), 4)


@MODES
def test_large_frames_pass_both_ways(argv: tuple[str, ...]) -> None:
    """5 MB, verified on the original."""
    text = "\u00e4" * 2_500_000
    with Port(*argv) as port:
        reply = port.call("get_session_data", {"session_id": text})
        assert reply["result"]["session_id"] == text


def test_replies_are_utf8_and_strict_json() -> None:
    """Whatever characters came in come back, line separators and the last code point included."""
    text = 'quote " backslash \\ newline \n \u2028 \U0010ffff \x01 \u00e9'
    with Port() as port:
        assert port.result("get_session_data", {"session_id": text})["session_id"] == text


def test_a_result_that_is_not_strict_json_is_an_error_reply() -> None:
    """Python reads NaN; Jason does not, so it must not come back."""
    with Port() as port:
        port.send_bytes(frame(b'{"id": 1, "command": "get_session_data", "args": {"session_id": NaN}}'))
        try:
            reply = port.reply()
        except EOFError:
            assert port.process.wait() == 0  # a stricter reader takes it for "not JSON"
        else:
            assert reply["success"] is False
            assert json.dumps(reply, allow_nan=False)

"""Sections 6 and 8, the rows that need no DSPy: every command's result, types and errors, in both modes.

The interpreter of these tests has no DSPy, so the rows also show what a machine without it answers.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.dropin.port import POOL_WORKER, STANDALONE, Error, Port, Row

MODES = pytest.mark.parametrize("argv", [STANDALONE, POOL_WORKER], ids=["standalone", "pool-worker"])

PING = {
    "status": "ok", "timestamp": float, "dspy_available": False, "gemini_available": False, "uptime": float,
    "mode": "standalone",
}  # fmt: skip
NO_GEMINI = Error("Gemini not available - cannot create Gemini programs")
NO_DSPY = Error("DSPy not available - cannot create programs")
ID_REQUIRED = Error("Program ID is required")
UNKNOWN_PROGRAM = Error("Program not found: nope")
UNLISTED: dict[str, Any] = {"programs": [], "total_count": 0}

IN_BOTH_MODES: dict[str, list[Row]] = {
    "configure_lm: failures are successes with an error": [
        Row("configure_lm", {}, {"error": "Model name is required"}),
        Row("configure_lm", {"model": "", "api_key": "k"}, {"error": "Model name is required"}),
        Row("configure_lm", {"model": "gemini-1.5-flash"}, {"error": "API key is required"}),
        Row(
            "configure_lm",
            {"model": "gpt-4", "api_key": "k", "provider": "openai"},
            {"error": "Unsupported provider/model combination: openai/gpt-4"},
        ),
        Row(
            "configure_lm",
            {"model": "gpt-4", "api_key": "k"},
            {"error": "Unsupported provider/model combination: google/gpt-4"},
        ),
        Row(
            "configure_lm",
            {"model": "gemini-pro", "api_key": "k", "provider": "openai"},
            {"error": "Unsupported provider/model combination: openai/gemini-pro"},
        ),
    ],
    "create_program without DSPy": [
        Row("create_program", {"id": "p", "signature": {}, "session_id": "anonymous"}, NO_DSPY)
    ],
    "create_gemini_program without Google's package": [
        Row("create_gemini_program", {"id": "g", "signature": {}}, NO_GEMINI),
        Row("create_gemini_program", {}, NO_GEMINI),
    ],
    "execute_program: the id, then the program, then the model": [
        Row("execute_program", {}, ID_REQUIRED),
        Row("execute_program", {"program_id": "", "inputs": {}}, ID_REQUIRED),
        Row("execute_program", {"program_id": "nope"}, UNKNOWN_PROGRAM),
        Row("execute_program", {"program_id": "nope", "inputs": {"question": "x"}, "options": {}}, UNKNOWN_PROGRAM),
    ],
    "execute_gemini_program: an unknown id says `not found`": [
        Row("execute_gemini_program", {}, ID_REQUIRED),
        Row("execute_gemini_program", {"program_id": "nope", "inputs": {}}, UNKNOWN_PROGRAM),
    ],
    "get_program_info": [
        Row("get_program_info", {}, ID_REQUIRED),
        Row("get_program_info", {"program_id": "nope"}, UNKNOWN_PROGRAM),
    ],
    "list_programs of nothing": [
        Row("list_programs", {}, UNLISTED),
        Row("list_programs", {"session_id": "s"}, UNLISTED),
    ],
    "cleanup": [Row("cleanup", {}, {"status": "cleaned", "programs_removed": 0})],
    "session data lives in Elixir": [
        Row("get_session_data", {}, {"error": "session_id is required"}),
        Row("get_session_data", {"session_id": ""}, {"error": "session_id is required"}),
        Row(
            "get_session_data",
            {"session_id": "s1"},
            {
                "session_id": "s1",
                "status": "not_stored_locally",
                "message": "Session data is managed centrally in Elixir",
            },
        ),
        Row("update_session_data", {"operation": "put", "key": "k", "value": 1}, {"error": "session_id is required"}),
        Row(
            "update_session_data",
            {"session_id": "s1", "operation": "put", "key": "k", "value": {"deep": [1]}},
            {
                "session_id": "s1",
                "status": "acknowledged",
                "message": "Update acknowledged - session data managed centrally",
            },
        ),
    ],
}

STANDALONE_ROWS: dict[str, list[Row]] = {
    "ping": [Row("ping", {}, PING)],
    "cleanup_session": [
        Row("cleanup_session", {"session_id": "s"}, {"status": "not_applicable", "mode": "standalone"}),
        Row("cleanup_session", {}, {"status": "not_applicable", "mode": "standalone"}),
    ],
    "delete_program": [
        Row("delete_program", {}, ID_REQUIRED),
        Row("delete_program", {"program_id": "nope"}, UNKNOWN_PROGRAM),
        Row("delete_program", {"program_id": "nope", "session_id": "s"}, UNKNOWN_PROGRAM),
    ],
    "list_programs does not read its arguments": [Row("list_programs", [], UNLISTED)],
    "a session means nothing to execute_program": [
        Row("execute_program", {"program_id": "nope", "session_id": "s"}, UNKNOWN_PROGRAM)
    ],
}

POOL_WORKER_ROWS: dict[str, list[Row]] = {
    "ping": [Row("ping", {}, {**PING, "mode": "pool-worker", "worker_id": POOL_WORKER[3]})],
    "cleanup_session": [
        Row("cleanup_session", {}, Error("Session ID required for cleanup")),
        Row("cleanup_session", {"session_id": ""}, Error("Session ID required for cleanup")),
        Row("cleanup_session", {"session_id": "s"}, {"status": "cleaned", "session_id": "s", "programs_removed": 0}),
    ],
    "delete_program": [
        Row("delete_program", {}, ID_REQUIRED),
        Row("delete_program", {"program_id": "nope"}, Error("Session ID required in pool-worker mode")),
        Row("delete_program", {"program_id": "nope", "session_id": "anonymous"}, UNKNOWN_PROGRAM),
        Row("delete_program", {"program_id": "nope", "session_id": "s9"}, Error("Session not found: s9")),
    ],
    "execute_program in a named session wants its data": [
        Row(
            "execute_program",
            {"program_id": "nope", "session_id": "s"},
            Error("Program not found: nope (no program data provided)"),
        ),
        Row(
            "execute_program",
            {"program_id": "nope", "session_id": "s", "program_data": {}},
            Error("Program not found: nope (no program data provided)"),
        ),
        Row(
            "execute_program",
            {"program_id": "nope", "session_id": "s", "program_data": {"signature_def": {}}},
            Error("DSPy not available - cannot recreate programs"),
        ),
        Row("execute_program", {"program_id": "nope", "session_id": "anonymous"}, UNKNOWN_PROGRAM),
    ],
}


def scenarios(table: dict[str, list[Row]]) -> pytest.MarkDecorator:
    """Make a test of each conversation, named as it is in its table."""
    return pytest.mark.parametrize("rows", table.values(), ids=table)


@scenarios(IN_BOTH_MODES)
@MODES
def test_what_both_modes_answer(argv: tuple[str, ...], rows: list[Row]) -> None:
    """Rows that do not depend on the mode."""
    with Port(*argv) as port:
        port.play(*rows)


@scenarios(STANDALONE_ROWS)
def test_what_a_standalone_process_answers(rows: list[Row]) -> None:
    """Rows of the single mode."""
    with Port(*STANDALONE) as port:
        port.play(*rows)


@scenarios(POOL_WORKER_ROWS)
def test_what_a_pool_worker_answers(rows: list[Row]) -> None:
    """Rows of the pool mode."""
    with Port(*POOL_WORKER) as port:
        port.play(*rows)


@MODES
def test_get_stats_has_its_types_and_counts_this_call(argv: tuple[str, ...]) -> None:
    """Memory is measured where psutil is installed, and zeros with a reason where it is not."""
    with Port(*argv) as port:
        measured = {"rss": int, "vms": int, "percent": (int, float)}
        found = port.result("get_stats")
        if "error" in found["memory_usage"]:
            measured = {"rss": 0, "vms": 0, "percent": 0, "error": "psutil not available"}
        stats = {
            "programs_count": 0, "command_count": 2, "error_count": 0, "uptime": float, "memory_usage": measured,
            "dspy_available": False, "gemini_available": False,
        }  # fmt: skip
        port.play(Row("get_stats", {}, stats))


@MODES
def test_every_command_and_every_error_is_counted(argv: tuple[str, ...]) -> None:
    """Unknown commands count as both; a failed configure_lm counts as an error although its reply is a success."""
    with Port(*argv) as port:
        port.call("ping")
        port.call("no_such_command")
        port.call("configure_lm", {})
        port.call("get_session_data", {})  # a success with `error` in it that is none
        port.call("get_program_info", {"program_id": "nope"})
        stats = port.result("get_stats")
        assert (stats["command_count"], stats["error_count"]) == (6, 3)


@MODES
def test_reset_state_tells_the_old_counters_and_begins_anew(argv: tuple[str, ...]) -> None:
    """The next get_stats says 1."""
    with Port(*argv) as port:
        port.call("ping")
        port.call("no_such_command")
        port.play(
            Row("reset_state", {}, {"status": "reset", "programs_cleared": 0, "commands_reset": 3, "errors_reset": 1})
        )
        stats = port.result("get_stats")
        assert (stats["command_count"], stats["error_count"]) == (1, 0)


def test_uptime_is_seconds_since_the_start() -> None:
    """Not the time of day, and it grows."""
    with Port() as port:
        first, second = port.result("ping")["uptime"], port.result("ping")["uptime"]
        assert 0 < first <= second < 60

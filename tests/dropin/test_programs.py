"""Sections 6 to 10, the rows that need DSPy: programs, sessions, signatures, models; with the real framework.

The model is the local endpoint of `examples/local_llm`, asked over Gemini's own wire format. It is reached through
GEMINI_API_BASE, the one seam: nothing else differs from what a DSPex application does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.local_llm import LocalLLM
from tests.dropin.port import POOL_WORKER, STANDALONE, Error, Port, Row
from tests.support import MS, framework_python

pytestmark = pytest.mark.framework

KEY = "AIza-not-a-real-key-0123456789"
SIGNATURE = {
    "name": "MyApp.Signatures.Arithmetic",
    "description": "Solve it.",
    "inputs": [{"name": "problem", "type": "string", "description": "what to solve"}],
    "outputs": [{"name": "solution", "type": "integer", "description": "a number"}],
}
CONFIGURE = {"model": "gemini-1.5-flash", "api_key": KEY, "temperature": 0.3}
CONFIGURED = {"status": "configured", "model": "gemini-1.5-flash", "provider": "google", "temperature": 0.3}
NO_LM = Error("No LM is loaded.")


def created(program_id: str, signature: Any, program_type: Any = "predict") -> dict[str, Any]:
    """Return the result of a create_program that succeeded."""
    return {"program_id": program_id, "status": "created", "signature": signature, "program_type": program_type}


def executed(program_id: str, outputs: dict[str, Any]) -> dict[str, Any]:
    """Return the result of an execute_program that succeeded."""
    return {"program_id": program_id, "outputs": outputs, "execution_time": float}


@pytest.fixture
def llm() -> Iterator[LocalLLM]:
    """Serve the local endpoint."""
    with LocalLLM() as server:
        yield server


@pytest.fixture
def env(llm: LocalLLM, tmp_path: Path) -> dict[str, str]:
    """Point Gemini at the local endpoint, and DSPy's cache at an empty folder."""
    return {"GEMINI_API_BASE": llm.gemini_base, "DSPY_CACHEDIR": str(tmp_path / "cache")}


def start(argv: tuple[str, ...], env: dict[str, str]) -> Port:
    """Start the drop-in with an interpreter that has DSPy."""
    return Port(*argv, python=framework_python("dspy"), env=env)


def test_create_program_in_a_standalone_process(env: dict[str, str]) -> None:
    """What is echoed, what is refused, and what is quietly accepted."""
    odd_fields = {"inputs": ["not an object"], "outputs": [{"name": ""}]}
    with start(STANDALONE, env) as port:
        port.play(
            Row("create_program", {}, Error("Program ID is required")),
            Row("create_program", {"id": "", "signature": SIGNATURE}, Error("Program ID is required")),
            Row("create_program", {"id": "p", "signature": SIGNATURE}, created("p", SIGNATURE)),
            Row("create_program", {"id": "p"}, Error("Program with ID 'p' already exists")),
            Row("create_program", {"id": "q"}, created("q", {})),
            Row("create_program", {"id": "r", "signature": None}, created("r", None)),
            Row("create_program", {"id": "s", "signature": odd_fields}, created("s", odd_fields)),
            Row("create_program", {"id": "t", "program_type": ["x"]}, created("t", {}, ["x"])),
            Row(
                "create_program",
                {"id": "u", "signature": "question -> answer"},
                Error("Failed to create program: 'str' object has no attribute 'get'"),
            ),
            Row(
                "create_program",
                {"id": "u", "signature": [1]},
                Error("Failed to create program: 'list' object has no attribute 'get'"),
            ),
            Row("create_program", {"id": "v", "signature": "x", "use_dynamic_signature": False}, created("v", "x")),
            Row("create_program", {"id": ["w"]}, Error("unhashable type: 'list'")),
        )
        assert port.result("get_stats")["programs_count"] == 6


def test_list_and_info_show_an_ordinary_program(env: dict[str, str]) -> None:
    """Section 7: the original answers both with the error `'signature'`."""
    entry = {"created_at": float, "execution_count": 0, "last_executed": None, "signature": SIGNATURE}
    with start(STANDALONE, env) as port:
        port.play(
            Row("create_program", {"id": "p", "signature": SIGNATURE}, created("p", SIGNATURE)),
            Row("list_programs", {}, {"programs": [{"id": "p", **entry}], "total_count": 1}),
            Row("get_program_info", {"program_id": "p"}, {"program_id": "p", **entry}),
            Row("execute_gemini_program", {"program_id": "p"}, Error("Program p is not a Gemini program")),
            Row("delete_program", {"program_id": "p"}, {"program_id": "p", "status": "deleted"}),
            Row("get_program_info", {"program_id": "p"}, Error("Program not found: p")),
        )


@pytest.mark.parametrize(
    ("command", "count", "gone"),
    [("cleanup", "programs_removed", True), ("reset_state", "programs_cleared", True), ("shutdown", None, True)],
)
def test_what_removes_all_programs(env: dict[str, str], command: str, count: str | None, gone: bool) -> None:
    """In a standalone process."""
    with start(STANDALONE, env) as port:
        port.result("create_program", {"id": "a"})
        port.result("create_program", {"id": "b"})
        found = port.result(command)
        assert count is None or found[count] == 2
        assert (port.result("get_stats")["programs_count"] == 0) is gone


def test_sessions_of_a_pool_worker(env: dict[str, str]) -> None:
    """Section 8: anonymous programs stay here, those of named sessions are only acknowledged."""
    session_required = Error("Session ID required in pool-worker mode")
    named = {"id": "p", "signature": SIGNATURE, "session_id": "s1"}
    anonymous = {**named, "session_id": "anonymous"}
    with start(POOL_WORKER, env) as port:
        port.play(
            Row("create_program", {"id": "p"}, session_required),
            Row("create_program", {"id": "p", "session_id": ""}, session_required),
            Row("create_program", {"session_id": "s1"}, Error("Program ID is required")),
            Row("create_program", named, created("p", SIGNATURE)),
            Row("create_program", named, created("p", SIGNATURE)),  # nobody can tell that it is there already
            Row("get_program_info", {"program_id": "p", "session_id": "s1"}, Error("Program not found: p")),
            Row("create_program", anonymous, created("p", SIGNATURE)),
            Row("create_program", anonymous, created("p", SIGNATURE)),  # overwritten
            Row("list_programs", {"session_id": "anonymous"}, {"programs": [], "total_count": 0}),
            Row("get_program_info", {"program_id": "p"}, {
                "program_id": "p", "signature": SIGNATURE, "created_at": float, "execution_count": 0,
                "last_executed": None,
            }),
            Row("shutdown", {}, {
                "status": "shutting_down", "worker_id": POOL_WORKER[3], "mode": "pool-worker", "sessions_cleaned": 0,
            }),
            Row("delete_program", {"program_id": "p", "session_id": "s1"}, Error("Session not found: s1")),
            Row(
                "delete_program",
                {"program_id": "p", "session_id": "anonymous"},
                {"program_id": "p", "status": "deleted"},
            ),
        )  # fmt: skip


def test_execute_without_a_model(env: dict[str, str]) -> None:
    """The program is looked up first; then the text has no prefix."""
    with start(STANDALONE, env) as port:
        port.play(
            Row("execute_program", {"program_id": "p"}, Error("Program not found: p")),
            Row("create_program", {"id": "p", "signature": SIGNATURE}, created("p", SIGNATURE)),
            Row("execute_program", {"program_id": "p", "inputs": {"problem": "1+1"}}, NO_LM),
            Row("configure_lm", {"model": "gpt-4", "api_key": "k"}, {
                "error": "Unsupported provider/model combination: google/gpt-4",
            }),
            Row("execute_program", {"program_id": "p", "inputs": {"problem": "1+1"}}, NO_LM),
        )  # fmt: skip


def test_configure_lm_asks_no_model_and_shows_no_key(env: dict[str, str], llm: LocalLLM) -> None:
    """The original's test call is dropped: nothing depends on it, and offline it cost 6 s."""
    with start(STANDALONE, env) as port:
        port.play(Row("configure_lm", CONFIGURE, CONFIGURED))
        defaults = port.result("configure_lm", {"model": "gemini-pro", "api_key": KEY})
        assert defaults == {"status": "configured", "model": "gemini-pro", "provider": "google", "temperature": 0.7}
        assert llm.requests == []


def test_execute_with_a_dynamic_signature(env: dict[str, str], llm: LocalLLM) -> None:
    """Declared outputs under their own names; the time is a duration; counts and time of the run are kept."""
    inputs = {"problem": "What is 17 * 23?"}
    with start(STANDALONE, env) as port:
        port.play(
            Row("configure_lm", CONFIGURE, CONFIGURED),
            Row("create_program", {"id": "p", "signature": SIGNATURE}, created("p", SIGNATURE)),
            Row("execute_program", {"program_id": "p", "inputs": inputs}, executed("p", {"solution": "391"})),
        )
        info = port.result("get_program_info", {"program_id": "p"})
        assert (info["execution_count"], type(info["last_executed"])) == (1, float)
        took = port.result("execute_program", {"program_id": "p", "inputs": inputs})["execution_time"]
        assert 0 <= took < 60
        # The second answer came from DSPy's cache, as it does for an application today.
        assert [request.path.split(":")[-1] for request in llm.requests] == ["generateContent"]


def test_field_names_that_python_can_not_have(env: dict[str, str]) -> None:
    """Renamed for DSPy, and back in the reply; unknown inputs are passed through."""
    signature = {
        "name": "Odd",
        "inputs": [{"name": "the question"}, {"name": "2nd"}, {"name": "???"}],
        "outputs": [{"name": "the-answer", "description": "x"}, {"name": "1st"}],
    }
    inputs = {"the question": "What is 2 + 3?", "2nd": "x", "???": "y", "unknown": "z"}
    outputs = {"the-answer": "5", "1st": "5"}
    with start(STANDALONE, env) as port:
        port.play(
            Row("configure_lm", CONFIGURE, CONFIGURED),
            Row("create_program", {"id": "p", "signature": signature}, created("p", signature)),
            Row("execute_program", {"program_id": "p", "inputs": inputs}, executed("p", outputs)),
        )


@pytest.mark.parametrize(
    ("signature", "extra"),
    [
        ({}, {}),
        (None, {}),
        ({"inputs": [{"name": "a"}], "outputs": []}, {}),
        ({"inputs": ["a"], "outputs": ["b"]}, {}),
        (SIGNATURE, {"use_dynamic_signature": False}),
    ],
    ids=["empty", "null", "no outputs", "fields that are no objects", "switched off"],
)
def test_execute_of_the_fallback_program(env: dict[str, str], signature: Any, extra: dict[str, Any]) -> None:
    """One question, `inputs.question` or the first input; one answer."""
    with start(STANDALONE, env) as port:
        port.result("configure_lm", CONFIGURE)
        port.result("create_program", {"id": "p", "signature": signature, **extra})
        port.play(
            Row("execute_program", {"program_id": "p", "inputs": {"a": "1 + 1", "question": "2 + 2"}},
                executed("p", {"answer": "4"})),
            Row("execute_program", {"program_id": "p", "inputs": {"a": "1 + 1"}}, executed("p", {"answer": "2"})),
            Row("execute_program", {"program_id": "p"}, executed("p", {"answer": str})),
            Row("execute_program", {"program_id": "p", "inputs": None},
                Error("Program execution failed: 'NoneType' object has no attribute 'get'")),
        )  # fmt: skip


def test_dynamic_signatures_can_be_switched_off_for_the_process(env: dict[str, str]) -> None:
    """Section 10: DSPEX_DYNAMIC_SIGNATURES."""
    with start(STANDALONE, {**env, "DSPEX_DYNAMIC_SIGNATURES": "False"}) as port:
        port.result("configure_lm", CONFIGURE)
        port.result("create_program", {"id": "p", "signature": SIGNATURE})
        port.result("create_program", {"id": "q", "signature": SIGNATURE, "use_dynamic_signature": True})
        inputs = {"problem": "1 + 1"}
        port.play(
            Row("execute_program", {"program_id": "p", "inputs": inputs}, executed("p", {"answer": "2"})),
            Row("execute_program", {"program_id": "q", "inputs": inputs}, executed("q", {"solution": "2"})),
        )


def test_named_sessions_run_what_elixir_stored(env: dict[str, str]) -> None:
    """Rebuilt for each call; without `signature_class`, which Elixir never stores, as the fallback program."""
    data = {
        "program_id": "p", "signature_def": SIGNATURE, "created_at": 1_752_000_000, "execution_count": 0,
        "last_executed": None, "program_type": "predict", "signature": SIGNATURE,
    }  # fmt: skip
    call = {"program_id": "p", "session_id": "s1", "inputs": {"problem": "3 + 4"}}
    with start(POOL_WORKER, env) as port:
        port.play(
            Row("execute_program", {**call, "program_data": data}, NO_LM),
            Row("configure_lm", CONFIGURE, CONFIGURED),
            Row("execute_program", call, Error("Program not found: p (no program data provided)")),
            Row("execute_program", {**call, "program_data": data}, executed("p", {"answer": "7"})),
            Row(
                "execute_program",
                {**call, "program_data": {**data, "signature_class": "Arithmetic"}},
                executed("p", {"solution": "7"}),
            ),
            Row(
                "execute_program",
                {**call, "program_data": [1]},
                Error("Failed to recreate program from data: 'list' object has no attribute 'get'"),
            ),
        )


def test_the_key_in_the_environment_configures_a_model_when_one_is_needed(env: dict[str, str], llm: LocalLLM) -> None:
    """gemini-1.5-flash, with the key of GEMINI_API_KEY."""
    llm.api_key = KEY
    with start(STANDALONE, {**env, "GEMINI_API_KEY": KEY}) as port:
        port.result("create_program", {"id": "p", "signature": SIGNATURE})
        found = port.result("execute_program", {"program_id": "p", "inputs": {"problem": "2 * 4"}})
        assert found["outputs"] == {"solution": "8"}
        assert [request.model for request in llm.requests] == ["gemini-1.5-flash"]


def test_a_model_that_refuses_is_an_execution_error_that_names_no_key(env: dict[str, str], llm: LocalLLM) -> None:
    """The text has the contract's prefix; the worker goes on."""
    llm.api_key = "another-key"
    with start(STANDALONE, env) as port:
        port.result("configure_lm", CONFIGURE)
        port.result("create_program", {"id": "p", "signature": SIGNATURE})
        reply = port.call("execute_program", {"program_id": "p", "inputs": {"problem": "x"}}, 20_000 * MS)
        assert reply["error"].startswith("Program execution failed: ")
        assert KEY not in reply["error"]
        assert port.result("get_stats")["error_count"] == 1


def test_a_long_execution_makes_the_next_ping_wait(env: dict[str, str], llm: LocalLLM) -> None:
    """Section 9: one at a time, in order."""
    llm.delay = 300 * MS
    with start(STANDALONE, env) as port:
        port.result("configure_lm", CONFIGURE)
        port.result("create_program", {"id": "p"})
        first = port.send("execute_program", {"program_id": "p", "inputs": {"question": "1 + 1"}})
        second = port.send("ping")
        assert [port.reply()["id"], port.reply()["id"]] == [first, second]

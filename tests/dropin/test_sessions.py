"""Section 8, line by line where test_programs.py and test_commands.py do not have it: sessions of pool workers.

DSPex keeps the data of sessions in Elixir and spreads their calls over its workers, so what a worker must and must not
remember is seen with two of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.local_llm import LocalLLM
from tests.dropin.port import POOL_WORKER, Error, Port, Row
from tests.dropin.test_gemini_programs import SIGNATURE as GEMINI_SIGNATURE
from tests.dropin.test_gemini_programs import STAND_IN
from tests.dropin.test_programs import CONFIGURE, CONFIGURED, NO_LM, SIGNATURE, created, executed
from tests.support import framework_python

pytestmark = pytest.mark.framework

UNLISTED = {"programs": [], "total_count": 0}
ANONYMOUS = {"id": "p", "signature": SIGNATURE, "session_id": "anonymous"}
INPUTS = {"program_id": "p", "inputs": {"problem": "3 + 4"}}
SUM = executed("p", {"solution": "7"})


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Point Gemini at the local endpoint."""
    with LocalLLM() as llm:
        yield {"GEMINI_API_BASE": llm.gemini_base, "DSPY_CACHEDIR": str(tmp_path / "cache")}


def pool_worker(env: dict[str, str]) -> Port:
    """Start one worker of a pool."""
    return Port(*POOL_WORKER, python=framework_python("dspy"), env=env)


def test_an_anonymous_program_runs_with_and_without_the_name_of_its_session(env: dict[str, str]) -> None:
    """`execute_anonymous` adds none; the adapters say "anonymous" by default. Both mean this worker's own programs."""
    with pool_worker(env) as port:
        port.play(
            Row("configure_lm", CONFIGURE, CONFIGURED),
            Row("create_program", ANONYMOUS, created("p", SIGNATURE)),
            Row("execute_program", INPUTS, SUM),
            Row("execute_program", {**INPUTS, "session_id": "anonymous"}, SUM),
            Row("execute_program", {**INPUTS, "session_id": ""}, SUM),
            Row("list_programs", {}, UNLISTED),  # always, although there is one
            Row("list_programs", {"session_id": "anonymous"}, UNLISTED),
            Row("list_programs", {"session_id": "s1"}, UNLISTED),
        )


def test_an_anonymous_program_is_in_one_worker(env: dict[str, str]) -> None:
    """Another worker of the pool has not heard of it; DSPex's tests accept that."""
    with pool_worker(env) as one, pool_worker(env) as two:
        one.play(Row("create_program", ANONYMOUS, created("p", SIGNATURE)))
        two.play(
            Row("execute_program", INPUTS, Error("Program not found: p")),
            Row("get_program_info", {"program_id": "p"}, Error("Program not found: p")),
            Row("create_program", ANONYMOUS, created("p", SIGNATURE)),
        )


def test_a_named_session_runs_on_any_worker(env: dict[str, str]) -> None:
    """Created on one, executed on the other: Elixir brings what it stored."""
    stored = {
        "program_id": "p", "signature_def": SIGNATURE, "created_at": 1_752_000_000, "execution_count": 0,
        "last_executed": None, "program_type": "predict", "signature": SIGNATURE,
    }  # fmt: skip
    call = {**INPUTS, "session_id": "s1", "program_data": stored}
    with pool_worker(env) as one, pool_worker(env) as two:
        one.play(Row("create_program", {**ANONYMOUS, "session_id": "s1"}, created("p", SIGNATURE)))
        for port in (one, two):
            port.play(
                Row("configure_lm", CONFIGURE, CONFIGURED),
                Row("execute_program", call, executed("p", {"answer": "7"})),
                Row("execute_program", {**INPUTS, "session_id": "s1"},
                    Error("Program not found: p (no program data provided)")),
                Row("execute_program", INPUTS, Error("Program not found: p")),
            )  # fmt: skip


def test_a_session_of_the_same_program_id_is_no_anonymous_one(env: dict[str, str]) -> None:
    """What a named session does leaves the worker's own programs alone, and so does its end."""
    named: dict[str, Any] = {"program_id": "p", "session_id": "s1"}
    cleaned = {"status": "cleaned", "session_id": "anonymous", "programs_removed": 0}
    with pool_worker(env) as port:
        port.play(
            Row("create_program", ANONYMOUS, created("p", SIGNATURE)),
            Row("create_program", {**ANONYMOUS, "session_id": "s1"}, created("p", SIGNATURE)),
            Row("delete_program", named, Error("Session not found: s1")),
            Row("delete_program", {"program_id": "p"}, Error("Session ID required in pool-worker mode")),
            Row("cleanup_session", {"session_id": "s1"}, {**cleaned, "session_id": "s1"}),
            Row("cleanup_session", {"session_id": "anonymous"}, cleaned),
        )
        assert port.result("get_program_info", {"program_id": "p", "session_id": "s1"})["program_id"] == "p"


def test_the_model_is_the_processs_whatever_session_configured_it(env: dict[str, str]) -> None:
    """`configure_lm` reaches the one worker that served it, for every session there; the last one holds."""
    call = {**INPUTS, "session_id": "anonymous"}
    with pool_worker(env) as one, pool_worker(env) as two:
        for port in (one, two):
            port.play(Row("create_program", ANONYMOUS, created("p", SIGNATURE)))
        one.play(
            Row("configure_lm", {**CONFIGURE, "session_id": "s1"}, CONFIGURED),
            Row("execute_program", call, SUM),
            Row("configure_lm", {**CONFIGURE, "model": "gemini-pro", "session_id": "s2"},
                {**CONFIGURED, "model": "gemini-pro"}),
            Row("execute_program", call, SUM),
            Row("cleanup_session", {"session_id": "s2"},
                {"status": "cleaned", "session_id": "s2", "programs_removed": 0}),
            Row("execute_program", call, SUM),
        )  # fmt: skip
        two.play(Row("execute_program", call, NO_LM))


def test_ping_never_tells_a_session(env: dict[str, str]) -> None:
    """`current_session` is never set, during no session's calls."""
    with pool_worker(env) as port:
        before = set(port.result("ping"))
        port.play(Row("create_program", {**ANONYMOUS, "session_id": "s1"}, created("p", SIGNATURE)))
        assert set(port.result("ping", {"session_id": "s1"})) == before
        assert "current_session" not in before


def test_gemini_programs_ignore_sessions(tmp_path: Path) -> None:
    """One dictionary for all; the duplicate check applies between sessions, and no session is required."""
    package = tmp_path / "google" / "generativeai"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STAND_IN, encoding="utf-8")
    env = {"PYTHONPATH": str(tmp_path), "PROMPTS": str(tmp_path / "prompts"), "GEMINI_API_KEY": "AIza-0123456789"}
    made = {"id": "g", "signature": GEMINI_SIGNATURE}
    with Port(*POOL_WORKER, env=env) as port:
        assert port.result("create_gemini_program", {**made, "session_id": "s1"})["status"] == "created"
        port.play(Row("create_gemini_program", {**made, "session_id": "s2"},
                      Error("Program with ID 'g' already exists")))  # fmt: skip
        for session in ({}, {"session_id": "s2"}, {"session_id": "anonymous"}):
            asked = {"program_id": "g", "inputs": {"question": "6 * 7"}, **session}
            assert port.result("execute_gemini_program", asked)["outputs"] == {"answer": "42"}
            assert port.result("get_program_info", {"program_id": "g", **session})["program_id"] == "g"

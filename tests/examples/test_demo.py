"""The demo, as `make demo` runs it: what it claims is in what it prints."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manybridge.host.config import read_config
from manybridge.host.store_access import locate_store
from tests.support import REPOSITORY, TIME_FACTOR, framework_python

DEMO = REPOSITORY / "examples" / "demo" / "run.py"
LONGEST = 120 * TIME_FACTOR
"""Seconds that the demo may take on a warm cache, as the issue demands; it takes about 6 on an idle machine."""

pytestmark = [pytest.mark.framework, pytest.mark.timeout(LONGEST + 30)]


def play(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, with standard output in a pipe."""
    for name in ("dspy", "sklearn", "langchain"):
        framework_python(name)
    return subprocess.run(
        [sys.executable, DEMO, *arguments],
        cwd=folder,
        env={**os.environ, "DSPY_CACHEDIR": str(folder / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], float]:
    """The demo, played once from another folder, and the seconds that it took."""
    began = time.monotonic()
    done = play(tmp_path_factory.mktemp("elsewhere"), "--local", OPENAI_API_KEY="sk-not-to-be-used")
    return done, time.monotonic() - began


@pytest.fixture
def printed(played: tuple[subprocess.CompletedProcess[str], float]) -> str:
    """What it printed, with its lines joined, so that a fact may be wrapped."""
    return " ".join(played[0].stdout.split())


def test_everything_that_it_claims_holds(played: tuple[subprocess.CompletedProcess[str], float]) -> None:
    """Exit code 0, no cross, and not a word on standard error."""
    done, _ = played
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    assert done.stderr == ""


def test_it_ends_within_two_minutes(played: tuple[subprocess.CompletedProcess[str], float]) -> None:
    """On a warm cache."""
    assert played[1] < LONGEST


def test_it_says_that_the_local_endpoint_is_not_a_model(printed: str) -> None:
    """Also where a key is set, if local was asked for."""
    assert "Language model: local, rule based: not a model" in printed


def test_it_shows_two_environments_with_their_versions(printed: str) -> None:
    """Each has its framework and lacks the other's."""
    assert re.search(r"scikit-learn \d+\.\S+ -", printed)
    assert re.search(r"dspy - \d+\.", printed)


def test_it_trains_with_progress_as_plain_lines(printed: str) -> None:
    """Standard output is no terminal here."""
    assert "training 20/120" in printed
    assert "training 120/120" in printed
    accuracy = re.search(r"never seen: (\d+\.\d)%", printed)
    assert accuracy
    assert float(accuracy[1]) > 90


def test_it_cancels_half_way_and_keeps_the_worker(printed: str) -> None:
    """The rung is named, the worker is the same."""
    assert re.search(r"training 60/120 .*cancelled in \d+ ms; the rung that stopped it: cooperative", printed)
    assert re.search(r"the same worker \(pid \d+\) is clean and answers the next call in \d+ ms", printed)


def test_dspy_programs_answer(printed: str) -> None:
    """A classification, a streamed chain of thought, an agent with a tool in the demo's own process."""
    assert "Connection refused network" in printed
    assert "6 of 6 right" in printed
    assert re.search(r"it came in \d+ pieces", printed)
    assert "answer: 12, int" in printed
    assert re.search(r"read_digit\(row=7\) It is a \d, \d+% sure", printed)


def test_a_runaway_call_is_ended_together_with_its_process(printed: str) -> None:
    """By a signal, since nothing inside could stop it."""
    assert re.search(r"timeout after \d\.\d+ s, stopped by (SIGTERM|SIGKILL)", printed)
    assert "factorial(10) = 3,628,800" in printed


def test_a_killed_worker_is_replaced_and_its_program_answers_again(printed: str) -> None:
    """With the time of each."""
    assert re.search(r"\$ kill -9 \d+ ✓ a replacement \(pid \d+\) was ready \d+ ms later", printed)
    assert re.search(r"the same program answers again: permission, in \d+ ms", printed)


def test_a_claim_that_does_not_hold_ends_it_with_status_1(tmp_path: Path) -> None:
    """Here: a configuration that can't be."""
    done = play(tmp_path, "--local", MANYBRIDGE__BRIDGES__SKLEARN__REQUIRED_PACKAGES='["no-such-package>=1"]')
    assert done.returncode == 1
    assert "FAILED" in done.stdout
    assert "no-such-package" in done.stdout


@pytest.mark.parametrize(
    ("variable", "model"),
    [("OPENAI_API_KEY", "openai/"), ("ANTHROPIC_API_KEY", "anthropic/"), ("GEMINI_API_KEY", "gemini/")],
)
def test_a_provider_answers_where_its_key_is_set(variable: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge gets the variable's name, never the key; --local wins over it."""
    monkeypatch.syspath_prepend(DEMO.parent)
    monkeypatch.setenv(variable, "not-a-real-key")
    provider = importlib.import_module("provider")
    with provider.chosen_provider(force_local=False) as chosen:
        assert chosen.options["model"].startswith(model)
        assert (chosen.options["api_key_env"], chosen.required_env) == (variable, [variable])
        assert "not-a-real-key" not in repr(chosen)
    with provider.chosen_provider(force_local=True) as chosen:
        assert chosen.is_local


def test_the_demo_keeps_nothing_in_the_home_of_whoever_runs_it() -> None:
    """Its configuration says where records go: nowhere."""
    assert locate_store(read_config(DEMO.with_name("manybridge.toml"))).url == "memory:"

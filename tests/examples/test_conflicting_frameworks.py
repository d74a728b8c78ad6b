"""Two frameworks whose requirements conflict: the resolver refuses them as one, and one host runs them as two."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests.support import REPOSITORY, framework_python

EXAMPLE = REPOSITORY / "examples" / "conflicting_frameworks" / "run.py"

pytestmark = [pytest.mark.framework, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def printed() -> str:
    """What the example prints; no index can be reached from it."""
    for name in ("dspy", "langchain"):
        framework_python(name)
    nowhere = {"UV_INDEX_URL": "http://127.0.0.1:1/", "UV_DEFAULT_INDEX": "http://127.0.0.1:1/"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLE)],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_resolver_refuses_them_as_one_environment(printed: str) -> None:
    """In its own words, which name both sides."""
    words = " ".join(printed.split())
    assert "No solution found" in words
    assert re.search(r"litellm depend on openai>=[\d.]+,<3\.0\.0", words)
    assert re.search(r"you require openai==3\.[\d.]+, we can conclude that your requirements are unsatisfiable", words)


def test_both_run_at_the_same_time_each_with_its_own_version(printed: str) -> None:
    """Of the same package, from its own environment, in its own process."""
    lines = re.findall(r"^(\w+) +answers '391' with openai (\d+)\S+ of \.envs/(\w+), pid (\d+)$", printed, re.MULTILINE)
    assert [line[:3] for line in lines] == [("litellm", "2", "dspy"), ("langchain", "3", "langchain")]
    assert lines[0][3] != lines[1][3]
    assert printed.endswith("Refused as one, running as two.\n")

"""The example of an agent that calls functions of its client, as a reader would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY, TIME_FACTOR, framework_python

pytestmark = pytest.mark.framework


def test_the_agent_calls_both_functions_and_takes_no_for_an_answer(tmp_path: Path) -> None:
    """What it prints tells the story; it says that no model was asked, and nothing goes to standard error."""
    framework_python("langchain")
    script = REPOSITORY / "examples" / "agent_with_host_tool" / "run.py"
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=50 * TIME_FACTOR, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = done.stdout
    assert "Language model: local, rule based: not a model" in said
    assert said.count("this program: order_status(") == 2
    assert "Answer: order 7 left Berlin yesterday; order 8 waits for a part" in said
    assert "[error]: handler_error: tool order_status failed: PermissionError: order 9 is not Ana's" in said
    assert "remembers 9 messages of Ana" in said

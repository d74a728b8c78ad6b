"""Fixtures of the bridges' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.support import CommandLine


@pytest.fixture
def manybridge(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """Return the command line, run from an empty folder and without configuration or state from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MANYBRIDGE_CONFIG", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("TERM", "dumb")
    return CommandLine(capsys)

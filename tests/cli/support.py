"""Runs the command line inside the test's process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import pytest

from manybridge.cli.entry import main


@dataclass(frozen=True)
class Ended:
    """How a run of the command line ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What standard output says, read as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error that standard error says, read as JSON."""
        error: dict[str, Any] = json.loads(self.err)["error"]
        return error


class CommandLine:
    """Calls the entry point and collects what was printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | os.PathLike[str]) -> Ended:
        """Run `manybridge ARGUMENTS`."""
        self._capsys.readouterr()
        code = main([os.fspath(each) for each in arguments])
        captured = self._capsys.readouterr()
        return Ended(int(code), captured.out, captured.err)

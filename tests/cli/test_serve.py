"""`manybridge serve --stdio`: the whole way from the command line to a worker and back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import HEADER, MS, frame_message

SERVE = [sys.executable, "-m", "manybridge.cli.entry", "serve", "--stdio"]


def test_a_parent_process_talks_to_every_configured_bridge(tmp_path: Path) -> None:
    """Frames go in and come out, and the end of the input is the end with 0."""
    (tmp_path / "manybridge.toml").write_text('default = "mock"\n[bridges.mock]\n')
    request = {"id": 1, "command": "mock:echo", "args": {"text": "hi"}, "timestamp": 0}

    ended = subprocess.run(
        SERVE, cwd=tmp_path, input=frame_message(request), capture_output=True, timeout=10_000 * MS, check=False
    )

    (length,) = HEADER.unpack(ended.stdout[: HEADER.size])
    reply = json.loads(ended.stdout[HEADER.size : HEADER.size + length])
    assert (ended.returncode, reply["id"], reply["result"]) == (0, 1, {"text": "hi"})
    assert len(ended.stdout) == HEADER.size + length


def test_a_broken_configuration_ends_with_3_and_no_frame(tmp_path: Path) -> None:
    """Whoever started it reads the exit code, and the reason on standard error."""
    (tmp_path / "manybridge.toml").write_text("[bridges.mock]\npool_sise = 1\n")

    ended = subprocess.run(SERVE, cwd=tmp_path, input=b"", capture_output=True, timeout=10_000 * MS, check=False)

    assert (ended.returncode, ended.stdout) == (3, b"")
    assert b'did you mean "pool_size"?' in ended.stderr

"""The last row of the crash matrix: a host that is killed takes everything along that it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import descendants
from tests.crash_matrix.stage import WORKERS
from tests.crash_matrix.table import COLUMNS, MATRIX, Column
from tests.support import DEFAULT_TIMEOUT, MS, eventually, process_is_running

(ROW,) = (row for row in MATRIX if row.kind == "host")

WITHIN = 1_000 * MS
"""No worker survives its host for longer."""


class KilledHost:
    """What a host had started when it was killed, and how long each of these processes lived on."""

    def __init__(self, folder: Path) -> None:
        program = [sys.executable, str(WORKERS / "doomed_host.py"), str(folder)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as host:
            assert host.stdout is not None
            assert host.stdout.readline(), "the host ended before it was killed"
            self.workers = {path.name: int(path.read_text()) for path in folder.iterdir()}
            self.running = {name for name, pid in self.workers.items() if process_is_running(pid)}
            # The guardian, the zygotes, and a child that no parent knows any more are among these.
            self.everything = {*descendants(host.pid), *self.workers.values()}
            os.kill(host.pid, signal.SIGKILL)
            host.wait()
            self._killed_at = time.monotonic()
        self.survived = self._wait_for_ends()

    def _wait_for_ends(self) -> dict[int, float]:
        ended: dict[int, float] = {}

        def all_have() -> bool:
            for pid in self.everything - ended.keys():
                if not process_is_running(pid):
                    ended[pid] = time.monotonic() - self._killed_at
            return len(ended) == len(self.everything)

        eventually(all_have, DEFAULT_TIMEOUT, lambda: f"of {self.workers} live: {self.everything - ended.keys()}")
        return ended


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KilledHost]:
    """Return a host that was killed while each of its workers was in another place."""
    host = KilledHost(tmp_path_factory.mktemp("marks"))
    yield host
    for pid in host.everything - host.survived.keys():
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("column", COLUMNS)
def test_no_worker_survives_its_host(column: Column, killed: KilledHost) -> None:
    """Wherever it was: in setup, idle, in a loop, in C with the interpreter's lock, in close."""
    assert ROW.cell(column) == "gone"
    assert column in killed.running, "it had ended before its host was killed"
    assert killed.survived[killed.workers[column]] < WITHIN


def test_nor_do_children_that_a_handler_forked(killed: KilledHost) -> None:
    """The parent-death signal does not reach them; the guardian does."""
    assert "job-child" in killed.running
    assert killed.survived[killed.workers["job-child"]] < WITHIN


def test_nor_do_the_processes_that_help_the_host(killed: KilledHost) -> None:
    """Guardian and zygotes."""
    helpers = killed.everything - set(killed.workers.values())
    assert helpers
    assert max(killed.survived[pid] for pid in helpers) < WITHIN

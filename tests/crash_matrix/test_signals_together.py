"""Two rungs of the ladder at the same moment: SIGTERM of the host and the worker's own interrupt."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from manybridge.worker.interrupt import INTERRUPT_SIGNAL
from tests.support import MS, eventually
from tests.worker.raw import RawWorker


def test_an_interrupt_that_arrives_together_with_sigterm_does_not_take_its_place() -> None:
    """Both are due at the same time by design: the host climbs on when the worker's grace is over.

    The code swallows the interrupt; swallowing the end of the worker with it would cost the bridge its `close`.
    """
    with RawWorker("mock", "--mode", "host", "--cancel-grace-ms", "20") as worker:
        number = worker.send("mock:busy", {"mode": "swallow"})
        worker.ping_until_busy(number)
        worker.result_beside(number, "common:cancel", {"id": number})
        eventually(lambda: worker.result_beside(number, "common:ping")["busy_seconds"] > 200 * MS)
        os.kill(worker.process.pid, signal.SIGSTOP)
        eventually(lambda: _state(worker.process.pid) == "T")
        os.kill(worker.process.pid, INTERRUPT_SIGNAL)
        os.kill(worker.process.pid, signal.SIGTERM)
        os.kill(worker.process.pid, signal.SIGCONT)
        worker.assert_closed()  # no reply: the host answers the call, with the rung that it took
        assert worker.ended(1_000 * MS) == 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]

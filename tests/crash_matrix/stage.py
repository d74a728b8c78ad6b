"""Where the cells of the crash matrix are played: a host, what a caller sees of it, and what it may hold afterwards.

All cells share one host wherever the fault leaves it usable. That is part of the proof: it has seen every fault of the
matrix, and holds as many processes, threads and descriptors at the end as at the beginning.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from manybridge import MLBridge
from manybridge.errors import ManybridgeError
from manybridge.worker.lifecycle import CLOSE_SECONDS
from tests.conftest import descendants, open_descriptors
from tests.support import MS, REPOSITORY, eventually, process_is_running

WORKERS: Final = REPOSITORY / "tests" / "workers"
FAULTY: Final = "faulty"
FAULTY_BRIDGE: Final = WORKERS / "faulty_bridge.py"

GRACE: Final = min(200 * MS, CLOSE_SECONDS / 2)
"""`cancel_grace` and `term_grace` of every bridge here, seconds. Code that stops needs 20 ms on a quiet machine.

A worker that got SIGTERM ends itself after `CLOSE_SECONDS`, whatever a call does with the interpreter's lock released:
what only SIGKILL can end in time must not get that long, on no machine."""
TRIGGER: Final = 200 * MS
"""The timeout of a call that hangs, and the `start_timeout` of a worker that does, beyond what a start takes."""
START: Final = 1_000 * MS
"""What starting a worker may take."""
SLACK: Final = 3_000 * MS
"""What a busy machine may add to anything. The timeout of calls that must fail for another reason is far beyond."""
FAR: Final = 15_000 * MS
"""A timeout that no cell may need."""
TRANSIT: Final = 100 * MS
"""What the host grants a worker's own answer on top of its grace (host/stopping.py)."""


class Seen(NamedTuple):
    """What the caller got, in the words of the matrix."""

    text: str
    seconds: float
    """How long it took."""
    error: ManybridgeError | None = None
    result: Any = None


def watch(work: Callable[[], Any]) -> Seen:
    """Do what a caller does, and put what comes of it into the words of the matrix."""
    began = time.monotonic()
    try:
        result = work()
    except ManybridgeError as error:
        return Seen(in_words(error), time.monotonic() - began, error)
    return Seen("answered", time.monotonic() - began, None, result)


def in_words(error: ManybridgeError) -> str:
    """The code; the rung that stopped the call, or how the process ended."""
    details = error.details
    if "stopped_by" in details:
        return f"{error.code} by {details['stopped_by']}"
    if "signal" in details:
        return f"{error.code}, {details['signal']}"
    if "exit_code" in details:
        return f"{error.code}, exit {details['exit_code']}"
    return error.code


def bound(expected: str, trigger: float = 0.0) -> float:
    """The seconds within which a caller must have its answer.

    Args:
        expected: what it is, in the words of the matrix.
        trigger: seconds until the call is told to stop; 0 for a cancel.
    """
    if " by " not in expected:
        return SLACK
    return trigger + GRACE + TRANSIT + GRACE + SLACK


def faulty(**changes: Any) -> dict[str, Any]:
    """The configuration of a bridge whose code fails."""
    return {**_COMMON, "python_script": str(FAULTY_BRIDGE), **changes}


def broken(folder: Path, fault: str, place: str, **changes: Any) -> dict[str, Any]:
    """The configuration of a bridge whose worker is a program that breaks the wire."""
    # The host starts what `python` names with our worker's arguments; this program answers to the same ones.
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {WORKERS / "broken_wire.py"} "$@"\n')
    program.chmod(0o755)
    options = {"fault": fault, "place": place, "mark": str(folder / "struck")}
    # A script can't be looked through before it is started.
    interpreter = {"python": str(program), "check_python": False}
    return {**_COMMON, "bridge": "mock", **interpreter, "zygote": "never", "options": options, **changes}


_COMMON: Final[dict[str, Any]] = {
    "cancel_grace": GRACE,
    "term_grace": GRACE,
    "default_timeout": FAR,
    "max_frame_bytes": 1024 * 1024,
    "capture_output": True,
    "eager": False,
    # A row kills a worker in each of its cells: neither backoff nor breaker is what is tested here.
    "restart": {"initial_backoff": 0.0, "max_backoff": 0.5, "max_crashes": 10_000},
}


class Shape(NamedTuple):
    """How much this process holds. Replacing a worker changes which things these are, but not how many."""

    processes: int
    threads: frozenset[threading.Thread]
    descriptors: Counter[str]

    @classmethod
    def now(cls) -> Shape:
        """Look."""
        kinds = (re.sub(r"[\[\d\]]+", "", target) for target in open_descriptors().values())
        return cls(len(descendants(os.getpid())), frozenset(threading.enumerate()), Counter(kinds))


class Stage:
    """Owns a host that has been through its first call."""

    def __init__(self, **changes: Any) -> None:
        self.ml = MLBridge({"bridges": {FAULTY: faulty(**changes)}})
        self._served = 0
        self.serves(FAULTY)

    def close(self) -> None:
        """End the host."""
        self.ml.close(0.0)

    def serves(self, bridge: str) -> int:
        """Make a call that must be answered with what was asked for. Returns the worker's process id."""
        self._served += 1
        assert self.ml.call(bridge, f"{bridge}:echo", {"value": self._served}) == self._served
        return self.pid(bridge)

    def pid(self, bridge: str = FAULTY, unlike: int | None = None) -> int:
        """The process that serves a bridge; waits for it, and until it is another one than `unlike`."""

        def ready() -> int | None:
            workers = self.ml.health(probe=False)["bridges"][bridge]["workers"]
            pids: list[int] = [worker["pid"] for worker in workers if worker["state"] == "ready"]
            return pids[0] if len(pids) == len(workers) == 1 and pids != [unlike] else None

        return eventually(ready, START + SLACK, lambda: str(self.ml.health(probe=False)))  # type: ignore[return-value]  # not None any more

    def replaced(self, before: int, bridge: str = FAULTY) -> bool:
        """Wait until another process serves a bridge, and this one is gone."""
        return self.pid(bridge, unlike=before) != before and not process_is_running(before)

    def drop_worker(self, bridge: str = FAULTY) -> None:
        """Have another process serve a bridge: in this one somebody's code still runs."""
        before = self.pid(bridge)
        os.killpg(before, signal.SIGKILL)
        assert self.replaced(before, bridge)

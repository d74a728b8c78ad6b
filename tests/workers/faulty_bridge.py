"""A bridge whose code fails as it is told: in setup, in a call, in a stream, while idle, in close.

Options: `setup` and `close` name the fault that strikes there; with `once` (a path) it strikes only in the first
process that comes there. Every fault writes its process's id into the file `mark` before it strikes, if it is given
one, so that a test knows that the code is really there.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, ClassVar, Final

from manybridge.bridge import Bridge, command, resource
from manybridge.bridges.mock.faults import bad_value, be_busy, fail

FOREVER: Final = 3600.0
FLOOD_BYTES: Final = 1_000_000
OVER_THE_LIMIT: Final = 2 * 1024 * 1024
IDLE_DELAY: Final = 0.02  # a fault of the idle worker strikes after the reply that announced it was sent


def flood() -> dict[str, int]:
    for _ in range(FLOOD_BYTES // 80):
        print("x" * 79)
    sys.stdout.flush()
    return {"printed": FLOOD_BYTES}


def write_from_c() -> dict[str, int]:
    library = ctypes.CDLL(None)
    text = b"a library's greeting\n" * 100
    library.write(1, text, len(text))
    library.puts(b"and one through the buffer of C")
    library.fflush(None)
    return {"written": len(text)}


def fork_child() -> dict[str, int]:
    pid = os.fork()
    if pid == 0:
        time.sleep(FOREVER)
        os._exit(0)
    return {"child": pid}


FAULTS: Final[dict[str, Callable[[], Any]]] = {
    "raise": lambda: fail("raise"),
    "sys.exit": lambda: fail("exit"),
    "os._exit": lambda: fail("os_exit"),
    "SIGKILL": lambda: fail("kill"),
    "SIGTERM": lambda: fail("terminate"),
    "segfault": lambda: fail("segfault"),
    "abort": lambda: fail("abort"),
    "out of memory": lambda: fail("memory"),
    "loop": lambda: be_busy(FOREVER, "python"),
    "swallow": lambda: be_busy(FOREVER, "swallow"),
    "sleep": lambda: be_busy(FOREVER, "sleep"),
    "C, released": lambda: be_busy(FOREVER, "c_released"),
    "C, held": lambda: be_busy(FOREVER, "c"),
    "SIGSTOP": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "flood": flood,
    "native write": write_from_c,
    "not JSON": lambda: bad_value("object"),
    "over the limit": lambda: "x" * OVER_THE_LIMIT,
    "fork": fork_child,
    "late import": lambda: importlib.import_module("no_such_package"),
}


def strike(fault: str, mark: str | None = None) -> Any:
    if mark is not None:
        _write(Path(mark), os.getpid())
    result = FAULTS[fault]()
    if mark is not None and isinstance(result, dict) and "child" in result:
        _write(Path(mark), result["child"])
    return result


def _write(mark: Path, pid: int) -> None:
    unfinished = mark.with_suffix(".new")
    unfinished.write_text(str(pid))
    unfinished.rename(mark)


class FaultyBridge(Bridge):
    name: ClassVar[str] = "faulty"
    zygote_safe: ClassVar[bool] = True

    def setup(self, options: dict[str, Any]) -> None:
        self.options = options
        self._strike_in("setup")

    def close(self) -> None:
        self._strike_in("close")

    @command
    def echo(self, value: int) -> int:
        return value

    @command
    def strike(self, fault: str, mark: str | None = None) -> Any:
        return strike(fault, mark)

    @command
    def stream(self, fault: str, mark: str | None = None, go: str | None = None) -> Generator[Any, None, str]:
        yield 1
        yield 2
        while go is not None and not Path(go).exists():  # until the reader has got both
            time.sleep(0.001)
        yield strike(fault, mark)
        return "end"

    @command
    def later(self, fault: str, mark: str | None = None) -> int:
        timer = threading.Timer(IDLE_DELAY, strike, (fault, mark))
        timer.daemon = True
        timer.start()
        return os.getpid()

    @resource("thing", policy="restore")
    class Thing:
        """Counts its executions; told so, the fault strikes when its state is asked for."""

        def create(self) -> None:
            self.count = 0
            self.fault: str | None = None
            self.mark: str | None = None

        def execute(self, fault: str | None = None, mark: str | None = None) -> int:
            self.count, self.fault, self.mark = self.count + 1, fault, mark
            return self.count

        def snapshot(self) -> dict[str, Any]:
            fault, self.fault = self.fault, None
            return {"count": self.count, "result": None if fault is None else strike(fault, self.mark)}

        def restore(self, state: dict[str, Any]) -> None:
            self.create()
            self.count = state["count"]

    def _strike_in(self, place: str) -> None:
        fault, once = self.options.get(place), self.options.get("once")
        if fault is None:
            return
        if once is not None:
            if Path(once).exists():
                return
            Path(once).touch()
        strike(fault, self.options.get("mark"))

"""Prints as JSON what code runs where an interrupt of the stop ladder may strike; run by test_interrupts.py.

A program of its own: CPython 3.11 hangs under a profiler when anything in the process once took an exception of
another thread back (see `Interrupter`), and the tests' own process is home to much.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, cast

from manybridge.bridge import Cancelled
from manybridge.protocol.messages import Request
from manybridge.worker.calls import CallTable, WorkerCall
from manybridge.worker.host_calls import HostCalls
from manybridge.worker.interrupt import Interrupter
from manybridge.worker.lane import Lane
from manybridge.worker.outbox import Outbox


def files_that_run(function: Callable[[], object]) -> list[str]:
    """Names of the files whose code in Python runs while `function` does, its own left out."""
    found: set[str] = set()

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            found.add(frame.f_code.co_filename)

    before = sys.getprofile()
    gc.disable()  # a finaliser of somebody else's object is not what we look at
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(before)
        gc.enable()
    return sorted({Path(name).name for name in found if name != __file__})


def a_call() -> WorkerCall:
    """Return a call that takes events."""
    return WorkerCall(Request(1, "x:y", stream=True), True, cast("Outbox", None), cast("HostCalls", None))


def waking() -> dict[str, Any]:
    """Wake a watch, and be that watch."""
    reading, writing = os.pipe()
    lane = Lane(
        reading,
        receive=lambda _: None,
        end_of_input=lambda: None,
        tick=lambda _: None,
        in_frame=lambda: False,
        nudged=lambda _: None,
        failed=lambda _: None,
    )
    lane._started = True
    found = {"wake": files_that_run(lane.wake), "woken": lane._wake.qsize()}
    lane._wait(None)
    os.close(writing)
    return {**found, "left": lane._wake.qsize()}


def tool() -> dict[str, Any]:
    """Call a tool of a client that answers at once."""

    class Answers:
        def send_event(self, _id: Any, _event: str, data: dict[str, Any]) -> None:
            host_calls.receive_result({"call_id": data["call_id"], "result": 7})

    host_calls = HostCalls(cast("Outbox", Answers()), lambda: None)
    waiting = a_call()
    answers: list[Any] = []
    return {"call": files_that_run(lambda: answers.append(host_calls.call(waiting, "t", {}, 5.0))), "answers": answers}


def end_of_a_call() -> dict[str, Any]:
    """End a call that somebody waits for."""
    table, ending = CallTable(), a_call()
    table.add(ending)
    table.wait_for_change(0.0)
    return {"remove": files_that_run(lambda: table.remove(ending)), "open": len(table)}


def profiled_after_an_interrupt() -> dict[str, Any]:
    """Take an interrupt back on a thread of the pool, then run under a profiler."""
    interrupter, call = Interrupter(), a_call()
    seen: list[str] = []

    def serve() -> None:
        interrupter.arm(call)
        try:
            with interrupter:
                interrupter.interrupt(call)
        except Cancelled:
            seen.append("interrupted")
        with interrupter:
            seen.append("went on")
        interrupter.disarm()

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join()
    return {"seen": seen, "files": files_that_run(lambda: Path("x").name)}


if __name__ == "__main__":
    found = [waking(), tool(), end_of_a_call(), profiled_after_an_interrupt()]
    json.dump(dict(zip(("waking", "tool", "end_of_a_call", "profiled"), found, strict=True)), sys.stdout)

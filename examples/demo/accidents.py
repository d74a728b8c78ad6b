"""What goes wrong in real life: a worker is killed, a call never ends, an argument is misspelt."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from facts import is_alive, pid_of, wait_for_replacement
from stage import Stage

from manybridge.errors import CallTimeoutError, InvalidArgumentError

MESSAGE = "Permission denied"


def kill(stage: Stage, ml: Any, program: Any) -> None:
    """Kill the DSPy worker that holds a program, and use the program again."""
    before = program.predict(message=MESSAGE)
    victim = pid_of(ml, "dspy")
    stage.say(f"The DSPy worker is process {victim}. It holds the classifier of step 4.")
    stage.gap()
    stage.command(f"kill -9 {victim}")
    os.kill(victim, signal.SIGKILL)
    pid, replaced_ms = wait_for_replacement(ml, "dspy", victim)
    stage.gap()
    stage.holds(
        pid != victim and not is_alive(victim), f"a replacement (pid {pid}) was ready {replaced_ms:.0f} ms later"
    )
    began = time.perf_counter()
    after = program.predict(message=MESSAGE)
    took = (time.perf_counter() - began) * 1000
    stage.holds(
        after.outputs == before.outputs,
        f"the same program answers again: {after.kind}, in {took:.0f} ms; the host made it anew from its recipe",
    )


def run_away(stage: Stage, ml: Any) -> None:
    """Time out a call that nothing inside its process could stop."""
    ml.register_bridge("python", {"options": {"allow": ["math"]}})
    ml.call("python", "python:call", {"target": "math:factorial", "args": [5]}, timeout=30)
    victim = pid_of(ml, "python")
    stage.say("A bridge is added while all is running: plain Python, with the module math allowed.")
    stage.say("math.factorial(100_000_000) is one call into C: it reads no flag and sees no exception.")
    stage.gap()
    stage.command('ml.call("python", "python:call", {"target": "math:factorial", ...}, timeout=1)')
    began = time.perf_counter()
    try:
        ml.call("python", "python:call", {"target": "math:factorial", "args": [100_000_000]}, timeout=1)
        error = None
    except CallTimeoutError as raised:
        error = raised
    took = time.perf_counter() - began
    stage.gap()
    stage.holds(error is not None and took < 5, f"timeout after {took:.2f} s, stopped by {_rung(error)}")
    stage.holds(not is_alive(victim), f"the work has really ended: process {victim} is gone")
    answer = ml.call("python", "python:call", {"target": "math:factorial", "args": [10]}, timeout=30)
    stage.holds(answer == 3_628_800, f"a clean worker (pid {pid_of(ml, 'python')}) goes on: factorial(10) = {answer:,}")


def misspell(stage: Stage, ml: Any) -> None:
    """Get an argument wrong."""
    stage.command('ml.call("sklearn", "sklearn:train", {"epoch": 3, "hidden": "many"})')
    try:
        ml.call("sklearn", "sklearn:train", {"epoch": 3, "hidden": "many"})
        error = None
    except InvalidArgumentError as raised:
        error = raised
    stage.gap()
    stage.quote(error.message if error else "no error at all")
    stage.gap()
    stage.holds(
        error is not None and "epochs" in error.message and "hidden" in error.message,
        "refused before any code of the bridge ran, and the error says what would be right",
    )


def _rung(error: CallTimeoutError | None) -> str:
    return "nothing" if error is None else str(error.details.get("stopped_by")).upper()

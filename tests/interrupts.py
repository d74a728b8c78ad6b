"""Interrupts at every place where the interpreter lets one strike, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dis import opname
from types import FrameType
from typing import Any

from manybridge.bridge import Cancelled

LOOKS_AFTER = ("RESUME", "CALL", "JUMP_BACKWARD")
"""Instructions at whose end CPython (CHECK_EVAL_BREAKER) runs signal handlers and raises what another thread set.

A tracer can raise at the next instruction only, one too late where a `with` or `try` ends: of no use for such code."""


def interrupted_at(step: int, function: Callable[[], Any]) -> bool:
    """Call `function` and raise `Cancelled` at the place number `step` where that can happen. False if it has fewer."""
    seen = 0
    before: dict[FrameType, str] = {}

    def trace(frame: FrameType, event: str, _argument: object) -> Callable[..., Any]:
        nonlocal seen
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        if event == "opcode":
            looks = before.get(frame, "").startswith(LOOKS_AFTER)
            before[frame] = opname[frame.f_code.co_code[frame.f_lasti]]
            seen += looks
            if looks and seen == step:
                raise Cancelled("cancelled")
        return trace

    tracer = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except Cancelled:
        return True
    finally:
        sys.settrace(tracer)
    return False


def interrupted_everywhere(function: Callable[[], Any], goes_on: Callable[[], Any]) -> None:
    """Interrupt `function` at each of its places; `goes_on` is called after each, and must not hang."""
    step = 1
    while interrupted_at(step, function):
        goes_on()
        step += 1
    assert step > 1, "nothing was interrupted"

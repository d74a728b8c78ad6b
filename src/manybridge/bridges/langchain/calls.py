"""One call while it runs: its context, what it used, and the events that its caller gets.

The running call is found through a context variable, which asyncio and LangChain carry into the tasks and threads that
they start; so a tool knows whom it serves although LangChain calls it.
"""

from __future__ import annotations

import contextvars
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.langchain.usage import UsageMeter
from manybridge.protocol.errors import ErrorCode


class RunningCall:
    """A call of a client, from the bridge's first step to its last. Used on the event loop.

    Attributes:
        ctx: the worker's context of the call.
        usage: what it used so far.
        asked_for: the tools that the last answer of a model asked for.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.usage = UsageMeter()
        self.asked_for: frozenset[str] = frozenset()
        self._steps = 0
        self._callbacks: Any = None

    def emit(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Send a chunk `{kind, ...facts}` if somebody reads chunks."""
        if self.ctx.streaming:
            self.ctx.emit({"kind": kind, **facts})

    def step(self, message: str) -> None:
        """Count one more step, and tell."""
        self._steps += 1
        self.ctx.progress(self._steps, None, message)

    def config(self, **more: Any) -> dict[str, Any]:
        """LangChain's `config` for everything that runs in this call."""
        if self._callbacks is None:
            from manybridge.bridges.langchain.callbacks import make_callbacks

            self._callbacks = make_callbacks(self)
        return {"callbacks": [self._callbacks], **more}


_running: contextvars.ContextVar[RunningCall] = contextvars.ContextVar("manybridge_langchain_call")


@contextmanager
def running(ctx: Context) -> Iterator[RunningCall]:
    """Make a call the running one of this task and of everything that it starts."""
    call = RunningCall(ctx)
    token = _running.set(call)
    try:
        yield call
    finally:
        _running.reset(token)


def current_call() -> RunningCall:
    """The call that the asking code serves.

    Raises:
        BridgeError: `internal_error`, the code runs outside any call.
    """
    call = _running.get(None)
    if call is None:
        raise BridgeError(ErrorCode.INTERNAL_ERROR, "a tool belongs to a call, and there is none")
    return call

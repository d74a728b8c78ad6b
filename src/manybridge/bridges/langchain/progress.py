"""Progress of any LangChain code without user code: each request to a model and each call of a tool is a step.

For a team's own bridge that uses LangChain. Our bridge reports by callbacks of its own (`callbacks.py`), which count
first: where a call reports by itself, what is here is silent and only notices a cancel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from manybridge.bridge import Context
from manybridge.bridge.progress import ProgressSource, begin_progress


class Run:
    """One run that nothing of LangChain's stands around, and the steps in it so far."""

    def __init__(self, source: ProgressSource) -> None:
        self.source = source
        self.steps = 0

    def step(self, message: str) -> None:
        """Something begins, unless the call was cancelled."""
        self.source.check()
        self.steps += 1
        self.source.report(self.steps, None, message)


class AutomaticEvents:
    """Tells whatever call runs what LangChain does for it. One for the process; owner of the runs, by LangChain's ids.

    Each method is one of LangChain's callbacks. `Cancelled` passes through LangChain, because it is no `Exception`.
    """

    raise_error = True
    run_inline = True  # on the thread and in the context of the call, whose progress it is

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[UUID, Run] = {}
        """Every run that is under way, with the outermost one around it."""

    def on_chain_start(
        self, _serialized: Any, _inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **_more: Any
    ) -> None:
        """A chain, an agent or a step of one begins."""
        self._enter(run_id, parent_run_id)

    def on_chain_end(self, _outputs: Any, *, run_id: UUID, **_more: Any) -> None:
        """It has ended."""
        self._leave(run_id)

    def on_chain_error(self, _error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """It has failed."""
        self._leave(run_id)

    def on_chat_model_start(
        self,
        _serialized: Any,
        _messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **_more: Any,
    ) -> None:
        """A request goes to a model."""
        self._step(run_id, parent_run_id, f"model {(metadata or {}).get('ls_model_name') or ''}".rstrip() + " asked")

    on_llm_start = on_chat_model_start

    def on_tool_start(
        self, serialized: Any, _input: str, *, run_id: UUID, parent_run_id: UUID | None = None, **_more: Any
    ) -> None:
        """A tool is called."""
        self._step(run_id, parent_run_id, f"tool {(serialized or {}).get('name') or ''}".rstrip() + " called")

    def _step(self, run_id: UUID, parent: UUID | None, message: str) -> None:
        run = self._enter(run_id, parent)
        if run is not None:
            with self._lock:  # several requests of one agent go out at the same time
                run.step(message)
            self._leave(run_id)

    def _enter(self, run_id: UUID, parent: UUID | None) -> Run | None:
        with self._lock:
            run = self._runs.get(parent) if parent is not None else None
            if run is None:
                source = begin_progress()
                if source is None:
                    return None
                run = Run(source)
            self._runs[run_id] = run
            return run

    def _leave(self, run_id: UUID) -> None:
        with self._lock:
            run = self._runs.pop(run_id, None)
            if run is not None and run not in self._runs.values():
                run.source.close()


def install(_current: Callable[[], Context | None]) -> None:
    """Have LangChain, whose callbacks are imported, tell the running call what it does for it."""
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.tracers.context import register_configure_hook

    handler = type("LangChainAutomaticEvents", (AutomaticEvents, BaseCallbackHandler), {"__module__": __name__})()
    register_configure_hook(ContextVar("manybridge_langchain_progress", default=handler), inheritable=True)

"""DSPy's callbacks as events of the call, and as the places where a cancelled call notices it.

`CallEvents` is what this bridge's own calls use. `install` gives as much to code that uses DSPy in a bridge of its own:
log events, and progress of every evaluation, also of those that an optimiser makes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, NamedTuple

from manybridge.bridge import Context
from manybridge.bridge.progress import ProgressSource, begin_progress


class CallEvents:
    """Tells the caller what runs, and counts. Names of modules, tools and models only: inputs may be private.

    Each method is one of DSPy's callbacks; DSPy calls them by keyword, on whichever thread the work runs.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.model_calls = 0
        self.last_error: BaseException | None = None
        self._counting = threading.Lock()

    def on_module_start(self, *, instance: Any, **_call: Any) -> None:
        """A module begins."""
        self.ctx.log(f"{type(instance).__name__} started", "debug")

    def on_lm_start(self, *, instance: Any, **_call: Any) -> None:
        """A request goes to a model, unless the call was cancelled.

        Raises:
            Cancelled: a BaseException, which DSPy lets pass here; so no further request is paid for.
        """
        self.ctx.check()
        with self._counting:
            self.model_calls += 1
        self.ctx.log(f"model {getattr(instance, 'model', '?')} asked, request {self.model_calls}")

    def on_tool_start(self, *, instance: Any, **_call: Any) -> None:
        """An agent calls a tool; raises as `on_lm_start`."""
        self.ctx.check()
        self.ctx.log(f"tool {getattr(instance, 'name', '?')} called")

    def on_module_end(self, *, exception: BaseException | None = None, **_call: Any) -> None:
        """A module is done."""
        if exception is not None:
            self.last_error = exception
        self._end("module", exception)

    def on_lm_end(self, *, exception: BaseException | None = None, **_call: Any) -> None:
        """A model answered, or failed."""
        self._end("model request", exception)

    def on_tool_end(self, *, exception: BaseException | None = None, **_call: Any) -> None:
        """A tool answered, or failed."""
        self._end("tool", exception)

    def _end(self, what: str, exception: BaseException | None) -> None:
        if isinstance(exception, Exception):
            self.ctx.log(f"{what} failed: {type(exception).__name__}", "warning")


@cache
def callback_class(dspy: Any) -> Any:
    """`CallEvents` as a DSPy callback: its base class exists only once DSPy is imported."""
    from dspy.utils.callback import BaseCallback

    return type("DSPyCallEvents", (CallEvents, BaseCallback), {"__module__": __name__, "dspy": dspy})


# ---------------------------------------------------------------- every call of this process


class Evaluation:
    """An evaluation that runs: how many of its examples are done."""

    def __init__(self, source: ProgressSource, total: int | None, message: str) -> None:
        self.source = source
        self.total = total
        self.message = message
        self.done = 0

    def count(self) -> None:
        """Another example is done."""
        self.done += 1
        total = None if self.total is None or self.done > self.total else self.total  # stragglers are run twice
        self.source.report(self.done, total, self.message)


class Compilation(NamedTuple):
    """An optimiser that runs."""

    name: str
    evaluations: list[int]
    """The number of the last one, alone in a list."""


class AutomaticEvents:
    """Tells whatever call runs what DSPy does for it. One for the process; owner of what runs, by DSPy's call ids.

    Each method is one of DSPy's callbacks, as in `CallEvents`.
    """

    def __init__(self, current: Callable[[], Context | None]) -> None:
        self._current = current
        self._lock = threading.Lock()
        self._evaluations: dict[str, Evaluation] = {}
        self._compilations: dict[str, Compilation] = {}
        self._examples: dict[str, Evaluation] = {}
        """Calls of a program that an evaluation made."""

    def on_compile_start(self, *, call_id: str, instance: Any, **_call: Any) -> None:
        """An optimiser begins."""
        self._compilations[call_id] = Compilation(type(instance).__name__, [0])
        self._log(f"{type(instance).__name__} started")

    def on_compile_end(self, *, call_id: str, **_call: Any) -> None:
        """An optimiser is done."""
        self._compilations.pop(call_id, None)

    def on_evaluate_start(self, *, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """An evaluation begins; raises where the call was cancelled, as the next ones do."""
        source = begin_progress()
        if source is None:
            return
        source.check()
        devset = inputs.get("devset") or instance.devset
        compilation = self._compilations.get(_parent() or "")
        if compilation is not None:
            compilation.evaluations[0] += 1
        message = (
            "evaluating" if compilation is None else f"{compilation.name}, evaluation {compilation.evaluations[0]}"
        )
        total = len(devset) if hasattr(devset, "__len__") else None
        self._evaluations[call_id] = Evaluation(source, total, message)
        source.report(0, total, message)

    def on_evaluate_end(self, *, call_id: str, **_call: Any) -> None:
        """An evaluation is done."""
        if evaluation := self._evaluations.pop(call_id, None):
            evaluation.source.close()

    def on_module_start(self, *, call_id: str, instance: Any, **_call: Any) -> None:
        """A module begins."""
        self._check()
        if evaluation := self._evaluations.get(_parent() or ""):
            self._examples[call_id] = evaluation
        else:
            self._log(f"{type(instance).__name__} started", "debug")

    def on_module_end(self, *, call_id: str, **_call: Any) -> None:
        """A module is done."""
        if evaluation := self._examples.pop(call_id, None):
            with self._lock:
                evaluation.count()

    def on_lm_start(self, *, instance: Any, **_call: Any) -> None:
        """A request goes to a model, unless the call was cancelled."""
        self._check()
        self._log(f"model {getattr(instance, 'model', '?')} asked", "debug")

    def on_tool_start(self, *, instance: Any, **_call: Any) -> None:
        """An agent calls a tool, unless the call was cancelled."""
        self._check()
        self._log(f"tool {getattr(instance, 'name', '?')} called")

    def _check(self) -> None:
        ctx = self._current()
        if ctx is not None:
            ctx.check()

    def _log(self, message: str, level: str = "info") -> None:
        ctx = self._current()
        if ctx is not None and ctx.streaming:
            ctx.log(message, level)


def install(current: Callable[[], Context | None]) -> None:
    """Have DSPy, whose settings are imported, tell the running call what it does for it.

    `dspy.configure` is left alone: it belongs to whichever thread comes first, and what that one sets stays as it is.
    """
    settings = sys.modules["dspy.dsp.utils.settings"].Settings
    original = settings.get

    @wraps(original)
    def get(self: Any, key: str, default: Any = None) -> Any:
        value = original(self, key, default)
        if key != "callbacks" or current() is None or any(isinstance(each, CallEvents) for each in value or ()):
            return value
        return [*(value or ()), _automatic(current)]

    settings.get = get


@cache
def _automatic(current: Callable[[], Context | None]) -> Any:
    """`AutomaticEvents` as a DSPy callback."""
    from dspy.utils.callback import BaseCallback

    return type("DSPyAutomaticEvents", (AutomaticEvents, BaseCallback), {"__module__": __name__})(current)


def _parent() -> str | None:
    """The id of DSPy's call around the one that begins."""
    from dspy.utils.callback_context import ACTIVE_CALL_ID

    return ACTIVE_CALL_ID.get()  # type: ignore[no-any-return]  # DSPy's own, untyped

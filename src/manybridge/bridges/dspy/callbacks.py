"""DSPy's callbacks as log events of the call, and as the places where a cancelled call notices it."""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from manybridge.bridge import Context


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
        self._end("module", exception)

    def on_lm_end(self, *, exception: BaseException | None = None, **_call: Any) -> None:
        """A model answered, or failed."""
        if exception is not None:
            self.last_error = exception
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

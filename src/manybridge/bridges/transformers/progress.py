"""What a Trainer does, told to the caller: steps as progress, metrics as chunks, and the caller's cancel as a stop.

`TrainingCallback` is what this bridge's own runs use. `install` gives the same, without checkpoints, to every Trainer
that a handler of any bridge makes: a team's own code that calls `Trainer(...).train()` reports and stops without a line
about it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Protocol

from manybridge.bridge import BridgeError, Context
from manybridge.bridge.progress import ProgressSource, begin_progress
from manybridge.protocol.errors import ErrorCode

METRICS: Final = {
    "loss": "loss", "eval_loss": "eval_loss", "eval_accuracy": "eval_accuracy", "learning_rate": "learning_rate",
    "grad_norm": "grad_norm", "epoch": "epoch",
}  # fmt: skip
"""Entries of Trainer's logs that are passed on; the others are timings of its own."""


class Listener(Protocol):
    """Whoever wants to know what happens in a run, beside the caller."""

    def stepped(self, step: int, total: int) -> None:
        """A step has ended."""
        ...

    def measured(self, row: dict[str, Any]) -> None:
        """Metrics were logged."""
        ...


class Reporter:
    """Turns a Trainer's events into those of a call. One per training.

    Args:
        ctx: the call.
        listener: told in addition.
        is_ours: whether the training is this bridge's own: then a cancel writes a last checkpoint, and a loss that is
            not a number ends it.
    """

    def __init__(self, ctx: Context, listener: Listener | None = None, *, is_ours: bool = False) -> None:
        self.ctx = ctx
        self._listener = listener
        self._is_ours = is_ours
        self._message = "training"
        self.between_steps = True
        """False while weights and optimizer may be half way between two steps, and until a step's loss is kept: a
        checkpoint of it would have a run resumed behind a step that is missing from the loss curve."""

    def began(self, step: int, total: int) -> None:
        """Training begins, or goes on behind `step`."""
        self.ctx.progress(step, total, self._message)

    def stepped(self, state: Any, control: Any) -> None:
        """One step has ended: report it, and stop here if the call was cancelled."""
        step, total = state.global_step, state.max_steps
        if self._listener is not None:
            self._listener.stepped(step, total)
        if step % max(int(state.logging_steps or 1), 1):  # else it is logged in a moment, and reported with its loss
            self.ctx.progress(step, total, self._message)
        if self.ctx.cancelled:
            control.should_training_stop = True
            control.should_evaluate = False
            control.should_save = self._is_ours
        self.between_steps = not control.should_log  # Trainer's own callback, which decides it, comes first

    def logged(self, step: int, total: int, logs: dict[str, Any]) -> None:
        """Metrics were logged: send them.

        Raises:
            BridgeError: `handler_error`, the loss is not a number any more.
        """
        row = {"step": step, **{name: logs[key] for key, name in METRICS.items() if key in logs}}
        if not {"loss", "eval_loss"} & set(row):
            return
        if self._is_ours and not math.isfinite(row.get("loss", row.get("eval_loss", 0.0))):
            raise BridgeError(
                ErrorCode.HANDLER_ERROR,
                f"The loss of step {step} is not a number: training went astray. The last checkpoint is kept; try a "
                "lower learning_rate or a warmup.",
                details={"reason": "loss_not_finite", "step": step},
                type="TrainingDiverged",
            )
        row = {name: value for name, value in row.items() if isinstance(value, int) or math.isfinite(value)}
        if "loss" in row:
            self._message = loss_text(row)
            self.ctx.progress(step, total, self._message)
        if self._listener is not None:
            self._listener.measured(row)
        self.between_steps = True
        self.ctx.emit(row)


def loss_text(row: dict[str, Any]) -> str:
    """What a person wants to know of a step."""
    rate = row.get("learning_rate")
    return f"loss {row['loss']:.4g}" + ("" if rate is None else f", learning rate {rate:.2g}")


class TrainingCallback:
    """Hands a Trainer's events to a `Reporter`. Made a `TrainerCallback` by `callback_class`."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called by Trainer before the first step."""
        self.reporter.began(state.global_step, state.max_steps)

    def on_step_begin(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Called by Trainer before each step."""
        self.reporter.between_steps = False

    def on_step_end(self, _args: Any, state: Any, control: Any, **_: Any) -> None:
        """Called by Trainer when weights and optimizer have made a step."""
        self.reporter.stepped(state, control)

    def on_prediction_step(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Called by Trainer for each batch of a measurement."""
        self.reporter.ctx.check()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Called by Trainer with what it would print."""
        self.reporter.logged(state.global_step, state.max_steps, logs or {})


@cache
def callback_class() -> Any:
    """`TrainingCallback` as Trainer wants it; made when Transformers is there."""
    from transformers import TrainerCallback

    return type("TrainingCallback", (TrainingCallback, TrainerCallback), {})


# ---------------------------------------------------------------- every Trainer of this process


def install(_current: Callable[[], Context | None]) -> None:
    """Have every Trainer that is made from now on report to the call that trains, and stop when that is cancelled.

    Called by `manybridge.worker.auto_progress`, when `transformers.trainer` has been imported. Doing it again changes
    nothing.
    """
    trainer: Any = sys.modules["transformers.trainer"]
    if not any(getattr(each, "is_automatic", False) for each in trainer.DEFAULT_CALLBACKS):
        own = type("AutomaticProgress", (AutomaticProgress, trainer.TrainerCallback), {})
        trainer.DEFAULT_CALLBACKS.append(own)


class AutomaticProgress:
    """Reports the steps of a training to the call that it serves, if any. Made a `TrainerCallback` by `install`.

    Only progress: chunks are the handler's own. Trainer's bar begins later, so that of the two this is shown.
    """

    is_automatic = True

    def __init__(self) -> None:
        self.source: ProgressSource | None = None
        self.message = "training"

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called by Trainer before the first step."""
        self.source = begin_progress()
        self._report(state)

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called by Trainer after each step."""
        if state.global_step < state.max_steps:  # the last one is reported below, together with its loss
            self._report(state)
        self._check()

    def on_prediction_step(self, _args: Any, _state: Any, _control: Any, **_: Any) -> None:
        """Called by Trainer for each batch of a measurement."""
        self._check()

    def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
        """Called by Trainer with what it would print."""
        if "loss" in (logs or {}):
            self.message = loss_text(logs)
            self._report(state)

    def on_train_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Called by Trainer after the last step."""
        self._report(state)
        source, self.source = self.source, None
        if source is not None:
            source.close()

    def _report(self, state: Any) -> None:
        if self.source is not None:
            self.source.report(state.global_step, state.max_steps, self.message)

    def _check(self) -> None:
        if self.source is not None:
            self.source.check()

"""What a Trainer does, told to the caller: steps as progress, metrics as chunks, and the caller's cancel as a stop.

`TrainingCallback` is what this bridge's own runs use. `install` gives the same, without checkpoints, to every Trainer
that a handler of any bridge makes: a team's own code that calls `Trainer(...).train()` reports and stops without a line
about it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Protocol

from manybridge.bridge import BridgeError, Context
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
        """False while weights and optimizer may be half way between two steps."""

    def began(self, step: int, total: int) -> None:
        """Training begins, or goes on behind `step`."""
        self.ctx.progress(step, total, self._message)

    def stepped(self, step: int, total: int, control: Any) -> None:
        """One step has ended: report it, and stop here if the call was cancelled."""
        self.between_steps = True
        if self._listener is not None:
            self._listener.stepped(step, total)
        self.ctx.progress(step, total, self._message)
        if self.ctx.cancelled:
            control.should_training_stop = True
            control.should_evaluate = False
            control.should_save = self._is_ours

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
            rate = f", learning rate {row['learning_rate']:.2g}" if "learning_rate" in row else ""
            self._message = f"loss {row['loss']:.4g}{rate}"
            self.ctx.progress(step, total, self._message)
        if self._listener is not None:
            self._listener.measured(row)
        self.ctx.emit(row)


@cache
def callback_class() -> Any:
    """The TrainerCallback that hands a Trainer's events to a `Reporter`; made when Transformers is there."""
    from transformers import TrainerCallback

    class TrainingCallback(TrainerCallback):  # type: ignore[misc]  # Transformers has no types here
        """Reports to a call what a Trainer does."""

        def __init__(self, reporter: Reporter) -> None:
            self.reporter = reporter

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # a hook
            self.reporter.began(state.global_step, state.max_steps)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.reporter.between_steps = False

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.reporter.stepped(state.global_step, state.max_steps, control)

        def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self.reporter.ctx.check()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            self.reporter.logged(state.global_step, state.max_steps, logs or {})

    return TrainingCallback


# ---------------------------------------------------------------- every Trainer of this process


def install(current: Callable[[], Context | None]) -> None:
    """Have every Trainer that is made from now on report to the call that trains, and stop when that is cancelled.

    Imports `transformers.trainer`; call it when that is loaded anyway. Doing it again changes nothing.

    Args:
        current: returns the call that the asking thread serves, or None.
    """
    from transformers import trainer

    if not any(getattr(each, "is_automatic", False) for each in trainer.DEFAULT_CALLBACKS):
        trainer.DEFAULT_CALLBACKS.append(_automatic(current))


def _automatic(current: Callable[[], Context | None]) -> type:
    from transformers import TrainerCallback

    class AutomaticProgress(TrainerCallback):  # type: ignore[misc]  # as above
        """Reports to the call that trains, if there is one and no other callback of ours does."""

        is_automatic = True

        def __init__(self) -> None:
            self.reporter: Reporter | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002  # a hook
            ctx = current()
            self.reporter = None if ctx is None else Reporter(ctx)
            if self.reporter is not None:
                self.reporter.began(state.global_step, state.max_steps)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if self.reporter is not None:
                self.reporter.stepped(state.global_step, state.max_steps, control)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            if self.reporter is not None:
                self.reporter.logged(state.global_step, state.max_steps, logs or {})

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            reporter, self.reporter = self.reporter, None
            if reporter is not None:
                reporter.ctx.check()

    return AutomaticProgress

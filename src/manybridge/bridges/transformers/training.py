"""Fine-tuning: the resource type `training`, and the function behind `transformers:train`.

Theory of operation. A run is a folder (`runs.py`) and outlives the worker that trains it. Whoever trains it holds its
lock. `train` either begins a new run, whose recipe it writes down first, or resumes one from its newest sound
checkpoint; settings that a run began with never change, so a resumed run ends where an uninterrupted one would have.
The steps themselves are those of `transformers.Trainer` (`trainer.py`).

PyTorch has one random generator for the whole process. Two trainings at once in one worker would draw each other's
numbers, so they take turns.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from manybridge.bridge import BridgeError, Cancelled, Context
from manybridge.bridges.common.held import Held
from manybridge.bridges.transformers.data import recipe_of
from manybridge.bridges.transformers.locating import is_local
from manybridge.bridges.transformers.lora import Lora
from manybridge.bridges.transformers.models import held_models
from manybridge.bridges.transformers.pretrained import model_folder
from manybridge.bridges.transformers.runs import RunFolder, Runs
from manybridge.bridges.transformers.sources import invalid
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge

Task = Literal["causal-lm", "sequence-classification"]
Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup", "polynomial"]

DEFAULT_TASK: Final[Task] = "causal-lm"
TURN_POLL: Final = 0.05
"""Seconds between two looks at the cancel flag while another training of this worker goes on."""

_turn = threading.Lock()


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train. Kept with the run: a resumed one goes on with what it began with."""

    epochs: float = 3.0
    max_steps: int | None = None
    """Takes the place of `epochs`."""
    batch_size: int = 8
    gradient_accumulation: int = 1
    learning_rate: float = 5e-5
    schedule: Schedule = "linear"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 42
    max_length: int | None = None
    """Tokens of one example; longer ones are cut. By default as many as the model takes, 512 at most."""
    packing: bool = False
    """Join the texts and cut them into examples of `max_length` tokens, so that none is padding (causal-lm)."""
    text_column: str = "text"
    label_column: str = "label"
    """For sequence-classification."""
    eval_fraction: float = 0.0
    """Rows that are held back, to measure the loss on them."""
    eval_every: int | None = None
    """Steps between two measurements; by default one at the end."""
    save_every: int = 100
    """Steps between two checkpoints; one more is written at the end and on cancel."""
    keep_checkpoints: int = 2
    log_every: int = 1
    """Steps between two entries of the loss curve."""
    lora: Lora | None = None
    """Train an adapter and not the whole model."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "gradient_accumulation", "save_every", "keep_checkpoints", "log_every"):
            _check(name, getattr(self, name), at_least=1)
        for name in ("max_steps", "max_length", "eval_every"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), at_least=1)
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "seed"):
            _check(name, getattr(self, name), at_least=0)
        if self.epochs <= 0 or self.learning_rate <= 0:
            raise ValueError("expected epochs and learning_rate above 0")
        if not 0 <= self.eval_fraction < 1:
            raise ValueError("expected eval_fraction from 0 to below 1")


def _check(name: str, value: float, *, at_least: int) -> None:
    if value < at_least:
        raise ValueError(f"expected {name} from {at_least} on")


DEFAULTS: Final = TrainingSettings()


class Training(Held):
    """A training run: what to train, on what, and how. Its checkpoints survive its worker."""

    bridge: TransformersBridge

    def create(
        self,
        model: str,
        dataset: str | dict[str, Any],
        settings: TrainingSettings = DEFAULTS,
        task: Task = DEFAULT_TASK,
        run: str | None = None,
    ) -> None:
        """Describe a run; nothing is trained yet.

        Args:
            model: what to train: a folder, a hub id, "package:NAME", or the id of a model of this worker.
            dataset: id of a dataset, or a dataset's recipe.
            settings: how to train.
            task: what the model is for.
            run: name of the run's folder; by default the resource's id.
        """
        self.run = runs_of(self.bridge).at(run or self.id).name
        self.model, self.dataset, self.settings, self.task = model, dataset, settings, task

    def execute(self, action: Literal["train", "status", "metrics"] = "train", *, ctx: Context) -> dict[str, Any]:
        """Train, or resume from the last checkpoint; steps come as progress, metrics as chunks.

        Args:
            action: train (a run that is done just gives its result again), or only look at the run.
            ctx: the call.
        """
        run = runs_of(self.bridge).at(self.run)
        if action == "status":
            return run.describe()
        if action == "metrics":
            return {"run": run.name, "metrics": run.metrics()}
        return train(
            self.bridge, ctx, run=self.run, model=self.model, dataset=self.dataset, settings=self.settings,
            task=self.task, resume=True,
        )  # fmt: skip


def runs_of(bridge: TransformersBridge) -> Runs:
    """The folder of this bridge's runs."""
    named = bridge.options.runs_folder
    if named is not None:
        return Runs(Path(named).expanduser().resolve())
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Runs(Path(state) / "manybridge" / "runs")


# ---------------------------------------------------------------- train


def train(
    bridge: TransformersBridge,
    ctx: Context,
    *,
    run: str | None,
    model: str | None,
    dataset: str | dict[str, Any] | None,
    settings: TrainingSettings,
    task: Task = DEFAULT_TASK,
    resume: bool = False,
) -> dict[str, Any]:
    """Begin a run, or resume one; the function behind `transformers:train`.

    Raises:
        BridgeError: `resource_exists` (a run of that name, and not `resume`), `resource_not_found`, `conflict` (it is
            being trained, or was begun as something else), `invalid_argument`, or what the training failed with.
        Cancelled: the call was cancelled; the run has a checkpoint of its last step.
    """
    folder = runs_of(bridge).at(run or f"run-{os.urandom(4).hex()}")
    if folder.exists and not resume:
        raise BridgeError(
            ErrorCode.RESOURCE_EXISTS,
            f"A run {folder.name!r} exists already ({folder.describe()['state']}). Give resume = true to go on, "
            "another name, or delete it (transformers:delete_run).",
            details={"run": folder.name},
        )
    asked = {"model": model, "dataset": dataset, "task": task, "settings": settings}
    if not folder.exists:
        recipe = _new_recipe(bridge, ctx, folder, asked)
        with folder.lock():
            if folder.exists:
                raise _lost_race(folder)
            folder.write_recipe(recipe)
            return _train(bridge, ctx, folder, recipe)
    with folder.lock():
        recipe = folder.recipe()
        _same_or_refuse(bridge, ctx, folder, recipe, asked)
        done = folder.state().get("result")
        return done if done is not None else _train(bridge, ctx, folder, recipe)


def _lost_race(folder: RunFolder) -> BridgeError:
    return BridgeError(
        ErrorCode.CONFLICT, f"Somebody began a run {folder.name!r} in this very moment.", details={"run": folder.name}
    )


def _new_recipe(bridge: TransformersBridge, ctx: Context, folder: RunFolder, asked: dict[str, Any]) -> dict[str, Any]:
    missing = [name for name in ("model", "dataset") if asked[name] is None]
    if missing:
        raise invalid(
            f"{missing[0]}: missing; there is no run {folder.name!r} to resume, and a new one needs model and dataset",
            argument=missing[0],
        )
    source = _source_of(bridge, asked["model"], ctx)
    # Now, while there is no run: one with a name that nothing can be found by would only be in the way.
    model_folder(bridge, source["model"], source.get("revision"))
    return {
        **source,
        "dataset": recipe_of(bridge, asked["dataset"], ctx),
        "task": asked["task"],
        "settings": asdict(asked["settings"]),
    }


def _source_of(bridge: TransformersBridge, model: str, ctx: Context) -> dict[str, Any]:
    """Return what a recipe says of a model. An id is gone with its worker, so the source of what it names is kept."""
    held = held_models(bridge).get(model)
    if held is None or held.session_id not in (None, ctx.session_id) or is_local(model, bridge.options):
        return {"model": model}
    located = held.plan.located
    pinned = {} if located.revision is None else {"revision": located.revision}
    return {"model": located.name, **pinned, "model_id": model}


def _same_or_refuse(
    bridge: TransformersBridge, ctx: Context, folder: RunFolder, recipe: dict[str, Any], asked: dict[str, Any]
) -> None:
    """What is said again about a run must be what was said first; what is left out counts as the same."""
    said: dict[str, Any] = {}
    if asked["model"] is not None:
        source = _source_of(bridge, asked["model"], ctx)
        if source.pop("model_id", None) is not None or asked["model"] != recipe.get("model_id"):
            said.update(source)
    if isinstance(asked["dataset"], dict) and not _names_another(asked["dataset"]):
        said["dataset"] = asked["dataset"]
    if asked["task"] != DEFAULT_TASK:
        said["task"] = asked["task"]
    if asked["settings"] != DEFAULTS:
        said["settings"] = asdict(asked["settings"])
    for name, value in said.items():
        if recipe.get(name) != value:
            raise BridgeError(
                ErrorCode.CONFLICT,
                f"Run {folder.name!r} was begun with another {name}, and it is resumed as it was begun. Leave {name} "
                "out, or train under another name.",
                retryable=False,
                details={"run": folder.name, "argument": name},
            )


def _names_another(recipe: dict[str, Any]) -> bool:
    """Whether a recipe names a dataset by its id; which recipe that stood for, only the worker knows that held it."""
    source = recipe.get("source")
    return isinstance(source, str) or (isinstance(source, dict) and _names_another(source))


def _train(bridge: TransformersBridge, ctx: Context, folder: RunFolder, recipe: dict[str, Any]) -> dict[str, Any]:
    """Train a run that this call owns, and keep its state true whatever happens."""
    folder.clear_staging()
    folder.update(
        state="running", worker=f"worker {bridge.worker.id or os.getpid()}", pid=os.getpid(), started_at=time.time(),
        error=None,
    )  # fmt: skip
    try:
        with _Turn(ctx):
            from manybridge.bridges.transformers.trainer import give_back_memory, run_trainer

            try:
                result = run_trainer(bridge, ctx, folder, recipe)
            finally:
                give_back_memory()
        folder.update(state="done", result=result, step=result["steps"])
    except Cancelled as cancelled:
        _note(folder, "cancelled", {"code": cancelled.reason})
        raise
    except BridgeError as error:
        _note(folder, "failed", {"code": str(error.code), "message": error.message})
        raise
    except Exception as error:
        # Not the text: it may quote a row of somebody's data.
        _note(folder, "failed", {"code": str(ErrorCode.HANDLER_ERROR), "message": type(error).__name__})
        raise
    return result


def _note(folder: RunFolder, state: str, error: dict[str, str]) -> None:
    # On a full disk the state can't be written either; the run then counts as interrupted, and the error is the first.
    with contextlib.suppress(OSError):
        folder.update(state=state, error=error)


class _Turn:
    """One training at a time in this process."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    def __enter__(self) -> None:
        if _turn.acquire(blocking=False):
            return
        self._ctx.progress(0, None, "waiting for another training of this worker")
        while not _turn.acquire(timeout=TURN_POLL):
            self._ctx.check()

    def __exit__(self, *_: object) -> None:
        _turn.release()

"""The steps of a run: `transformers.Trainer`, with checkpoints that are complete or not there.

Trainer writes a checkpoint file by file into the folder that it will resume from; whoever dies in between leaves half
of one that looks like a whole. Here it writes into a staging folder, which is renamed when everything is on the disk.
It also prints its metrics on standard output, which is switched off.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import BridgeError, Cancelled, Context
from manybridge.bridges.transformers.data import Split, known_columns, open_dataset, split_rows, texts_of, token_ids
from manybridge.bridges.transformers.lora import Lora, add_adapter
from manybridge.bridges.transformers.memory import give_back
from manybridge.bridges.transformers.pretrained import load_model, load_tokenizer, longest_input, model_folder
from manybridge.bridges.transformers.progress import Reporter, callback_class
from manybridge.bridges.transformers.runs import Checkpoint, RunFolder, disk_full, put_in_place
from manybridge.bridges.transformers.sources import invalid
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge
    from manybridge.bridges.transformers.training import TrainingSettings

DEFAULT_MAX_LENGTH: Final = 512
"""Tokens of an example where nobody says; attention costs grow with the square."""
IGNORED: Final = -100
"""PyTorch's label for "not to be learned"."""
STATE_SECONDS: Final = 1.0
"""How old the state on the disk may get between checkpoints."""


@dataclass(slots=True)
class Prepared:
    """What a run trains with."""

    model: Any
    tokenizer: Any
    train: Any
    evaluation: Any | None
    settings: TrainingSettings
    task: str


def run_trainer(bridge: TransformersBridge, ctx: Context, folder: RunFolder, recipe: dict[str, Any]) -> dict[str, Any]:
    """Train from the newest sound checkpoint to the end, and write the result.

    The caller owns the run.

    Raises:
        BridgeError: see `training.train`.
        Cancelled: the call was cancelled; a checkpoint was written where there was time.
    """
    from transformers import set_seed

    settings = settings_from(recipe["settings"])
    found = folder.newest_sound()
    for warning in found.warnings:
        ctx.log(f"run {folder.name}: {warning}", level="warning")
    ctx.progress(0, None, "loading")
    set_seed(settings.seed)
    prepared = _prepare(bridge, ctx, recipe, settings)
    _check_same_rows(folder, prepared.train)
    trainer = _make_trainer(bridge, ctx, folder, prepared)
    if found.checkpoint is not None:
        ctx.log(f"run {folder.name}: resumed from the checkpoint of step {found.checkpoint.step}")
    folder.rewind_metrics(0 if found.checkpoint is None else found.checkpoint.step)
    began = time.monotonic()
    _train(ctx, trainer, found.checkpoint)
    evaluated = _evaluate(ctx, trainer, folder, prepared)
    place = _write_result(folder, prepared, model_folder(bridge, recipe["model"], recipe.get("revision")))
    return {
        "run": folder.name,
        "state": "done",
        "steps": trainer.state.global_step,
        "epochs": trainer.state.epoch,
        "metrics": {**_metrics(folder), **evaluated, "seconds": round(time.monotonic() - began, 3)},
        "resumed_from": None if found.checkpoint is None else found.checkpoint.step,
        "warnings": found.warnings,
        "kind": place.name,
        "model": str(place),
        "base": recipe["model"],
        "parameters": sum(each.numel() for each in prepared.model.parameters()),
        "trained_parameters": sum(each.numel() for each in prepared.model.parameters() if each.requires_grad),
        "folder": str(folder.path),
    }


def give_back_memory() -> None:
    """Free model and optimizer now: Trainer and its parts hold each other, so that only the collector frees them."""
    import torch

    give_back()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def settings_from(kept: dict[str, Any]) -> TrainingSettings:
    """Read the settings that a run began with."""
    from manybridge.bridges.transformers.training import TrainingSettings

    lora = kept.get("lora")
    return TrainingSettings(**{**kept, "lora": None if lora is None else Lora(**lora)})


# ---------------------------------------------------------------- what is trained


def _prepare(bridge: TransformersBridge, ctx: Context, recipe: dict[str, Any], settings: TrainingSettings) -> Prepared:
    task = recipe["task"]
    data = open_dataset(bridge, recipe["dataset"], ctx)
    folder = model_folder(bridge, recipe["model"], recipe.get("revision"))
    tokenizer = load_tokenizer(bridge, folder)
    labels = _labels(data, settings.label_column) if task == "sequence-classification" else None
    extra = {} if labels is None else {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
    model = load_model(bridge, folder, task, **extra)
    if labels is not None:
        model.config.label2id = {name: number for number, name in enumerate(labels)}
        model.config.pad_token_id = _padding(tokenizer)
    length = _length(model, settings)
    rows = _examples(tokenizer, data, labels, length, settings, ctx)
    if settings.lora is not None:
        model = add_adapter(model, settings.lora, task)
    train, evaluation = rows, None
    if settings.eval_fraction:
        halves = [split_rows(rows, Split(part, settings.eval_fraction, settings.seed)) for part in ("train", "test")]
        train, evaluation = halves
    return Prepared(model, tokenizer, train, evaluation, settings, task)


def _length(model: Any, settings: TrainingSettings) -> int:
    most = longest_input(model)
    if settings.max_length is None:
        return min(DEFAULT_MAX_LENGTH, most or DEFAULT_MAX_LENGTH)
    if most is not None and settings.max_length > most:
        raise invalid(
            f"settings.max_length: {settings.max_length} tokens, but this model takes {most} at most",
            argument="settings.max_length",
        )
    return settings.max_length


def _labels(data: Any, column: str) -> list[str]:
    known_columns(data, [column])
    values = list(data[column])
    for number, value in enumerate(values):
        if value is None:
            raise invalid(f"row {number}, column {column!r}: expected a label, found null", row=number)
    names = sorted({str(value) for value in values})
    if len(names) < 2:
        raise invalid(f"column {column!r}: expected two labels or more, found {len(names)}", column=column)
    return names


def _examples(
    tokenizer: Any, data: Any, labels: list[str] | None, length: int, settings: TrainingSettings, ctx: Context
) -> Any:
    """Rows of `input_ids` and, for a classifier, `labels`."""
    from manybridge.bridges.transformers.pretrained import import_datasets

    if "input_ids" in data.column_names:
        ids = [list(row)[:length] for row in data["input_ids"]]
    else:
        whole = settings.packing and labels is None
        texts = texts_of(data, settings.text_column)
        ids = token_ids(tokenizer, texts, None if whole else length, ctx)
    if settings.packing and labels is None:
        ids = _packed(ids, tokenizer.eos_token_id, length)
    columns: dict[str, list[Any]] = {"input_ids": ids}
    if labels is not None:
        numbers = {name: number for number, name in enumerate(labels)}
        columns["labels"] = [numbers[str(value)] for value in data[settings.label_column]]
    least = 1 if labels is not None else 2  # one token predicts nothing
    kept = [number for number, row in enumerate(ids) if len(row) >= least]
    if not kept:
        raise invalid("dataset: no row has text to learn from")
    return import_datasets().Dataset.from_dict({name: [rows[n] for n in kept] for name, rows in columns.items()})


def _packed(rows: list[list[int]], end: int | None, length: int) -> list[list[int]]:
    joined: list[int] = []
    for row in rows:
        joined += row if end is None else [*row, end]
    if len(joined) < length:
        return [joined]
    # The rest at the end is dropped, so that all examples are equally long.
    return [joined[start : start + length] for start in range(0, len(joined) - length + 1, length)]


def _padding(tokenizer: Any) -> int:
    for found in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0):
        if found is not None:
            return int(found)
    return 0


def _check_same_rows(folder: RunFolder, rows: Any) -> None:
    """Refuse to resume on other rows than the run began with: a file may have changed meanwhile."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows.with_format(None)["input_ids"]:
        digest.update(repr(list(row)).encode())
    known = folder.state().get("rows_digest")
    if known not in (None, digest.hexdigest()):
        raise BridgeError(
            ErrorCode.CONFLICT,
            f"Run {folder.name!r}: the rows of its dataset are not those that it began with, so it can't be resumed. "
            "Put the files back as they were, or train a new run.",
            retryable=False,
            details={"run": folder.name, "argument": "dataset"},
        )
    folder.update(rows_digest=digest.hexdigest())


class Collator:
    """Makes a batch of rows: pads them to the longest, and marks padding as not to be learned."""

    def __init__(self, padding: int, *, is_classifier: bool) -> None:
        self.padding = padding
        self.is_classifier = is_classifier

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return `input_ids`, `attention_mask`, `labels`, (batch, tokens) int64; a classifier's labels are (batch,)."""
        import torch

        longest = max(len(row["input_ids"]) for row in rows)
        ids = [list(row["input_ids"]) for row in rows]
        gaps = [longest - len(row) for row in ids]
        labels: list[Any] = (
            [row["labels"] for row in rows]
            if self.is_classifier
            else [row + [IGNORED] * gap for row, gap in zip(ids, gaps, strict=True)]
        )
        return {
            "input_ids": torch.tensor([row + [self.padding] * gap for row, gap in zip(ids, gaps, strict=True)]),
            "attention_mask": torch.tensor([[1] * (longest - gap) + [0] * gap for gap in gaps]),
            "labels": torch.tensor(labels),
        }


# ---------------------------------------------------------------- Trainer


class StateKeeper:
    """Writes what happens into the run's folder. The `Listener` of a run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._written = time.monotonic()
        self._loss: float | None = None

    def stepped(self, step: int, total: int) -> None:
        """A step has ended."""
        if time.monotonic() - self._written >= STATE_SECONDS or step == total:
            self.write(step, total)

    def write(self, step: int, total: int) -> None:
        """Write the state now."""
        self._folder.update(step=step, total=total, loss=self._loss)
        self._written = time.monotonic()

    def measured(self, row: dict[str, Any]) -> None:
        """Metrics were logged."""
        self._loss = row.get("loss", self._loss)
        self._folder.add_metrics(row)


def _make_trainer(bridge: TransformersBridge, ctx: Context, folder: RunFolder, prepared: Prepared) -> Any:
    from transformers import PrinterCallback

    keeper = StateKeeper(folder)
    reporter = Reporter(ctx, keeper, is_ours=True)
    trainer = _trainer_class()(
        model=prepared.model,
        args=_arguments(bridge, folder, prepared),
        train_dataset=prepared.train,
        eval_dataset=prepared.evaluation,
        data_collator=Collator(_padding(prepared.tokenizer), is_classifier=prepared.task != "causal-lm"),
        callbacks=[callback_class()(reporter)],
    )
    trainer.run_folder, trainer.keeper, trainer.reporter = folder, keeper, reporter
    trainer.keep_checkpoints = prepared.settings.keep_checkpoints
    trainer.remove_callback(PrinterCallback)  # prints on standard output
    for each in list(trainer.callback_handler.callbacks):
        if getattr(each, "is_automatic", False):  # what any other Trainer reports; this one does it better
            trainer.remove_callback(each)
    return trainer


def _arguments(bridge: TransformersBridge, folder: RunFolder, prepared: Prepared) -> Any:
    from transformers import TrainingArguments

    settings = prepared.settings
    evaluates = prepared.evaluation is not None and settings.eval_every is not None
    arguments = TrainingArguments(
        output_dir=str(folder.checkpoints_path),
        num_train_epochs=settings.epochs,
        max_steps=settings.max_steps or -1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.eval_every if evaluates else None,
        save_strategy="steps",
        save_steps=settings.save_every,
        logging_strategy="steps",
        logging_steps=settings.log_every,
        logging_nan_inf_filter=False,  # it would hide that training went astray
        report_to="none",
        disable_tqdm=True,
        use_cpu=bridge.options.device == "cpu",
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    if bridge.options.device.startswith("cuda:"):
        # Trainer would spread a batch over all devices; a worker has the one that its options name.
        import torch

        torch.cuda.set_device(bridge.options.device)
        arguments._n_gpu = 1
    return arguments


@cache
def _trainer_class() -> Any:
    from transformers import Trainer

    class RunTrainer(Trainer):  # type: ignore[misc]  # Transformers has no types here
        """A Trainer whose checkpoints are complete or not there. Attributes are set by `_make_trainer`."""

        run_folder: RunFolder
        keeper: StateKeeper
        reporter: Reporter
        keep_checkpoints: int
        saved_step = -1
        _writes_to: Path | None = None

        def _get_output_dir(self, trial: Any) -> str:
            # Where `_save_checkpoint` of the base class writes, and looks for old ones to delete: it finds none.
            return str(self._writes_to or super()._get_output_dir(trial))

        def _save_checkpoint(self, model: Any, trial: Any) -> None:
            step = self.state.global_step
            with writing(self.run_folder) as staging:
                self._writes_to = staging
                try:
                    super()._save_checkpoint(model, trial)
                finally:
                    self._writes_to = None
                self.run_folder.keep(staging / f"checkpoint-{step}", step, self.keep_checkpoints)
            self.saved_step = step
            self.keeper.write(step, self.state.max_steps)

    return RunTrainer


@contextlib.contextmanager
def writing(folder: RunFolder) -> Any:
    """A staging folder of the run.

    Raises:
        BridgeError: in the place of whatever a full disk made a library raise.
    """
    try:
        with folder.staging() as staging:
            try:
                yield staging
            except Exception as error:
                full = disk_full(error, folder.path)  # asked before the half-written files are gone
                if full is None:
                    raise
                raise full from error
    except OSError as error:
        full = disk_full(error, folder.path)
        if full is None:
            raise
        raise full from error


def _train(ctx: Context, trainer: Any, checkpoint: Checkpoint | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint.path))
    except Cancelled:
        # The caller's patience ended inside of a step or of a measurement. Between two steps everything is sound.
        if trainer.reporter.between_steps and trainer.state.global_step > max(trainer.saved_step, 0):
            trainer._save_checkpoint(trainer.model, None)
        raise
    ctx.check()


def _evaluate(ctx: Context, trainer: Any, folder: RunFolder, prepared: Prepared) -> dict[str, float]:
    if prepared.evaluation is None:
        return {}
    last = [row for row in folder.metrics() if "eval_loss" in row and row["step"] == trainer.state.global_step]
    if not last:
        ctx.progress(trainer.state.global_step, trainer.state.max_steps, "measuring the held-back rows")
        trainer.evaluate()
        last = [row for row in folder.metrics() if "eval_loss" in row]
    return {"eval_loss": last[-1]["eval_loss"]}


def _metrics(folder: RunFolder) -> dict[str, float]:
    losses = [row["loss"] for row in folder.metrics() if "loss" in row]
    return {"first_loss": losses[0], "last_loss": losses[-1]} if losses else {}


def _write_result(folder: RunFolder, prepared: Prepared, base: Path) -> Path:
    """Save the model, or the adapter with the path of its base, so that it can be loaded as a model."""
    name = "model" if prepared.settings.lora is None else "adapter"
    place = folder.path / name
    with writing(folder) as staging:
        written = staging / name
        if prepared.settings.lora is not None:
            prepared.model.peft_config["default"].base_model_name_or_path = str(base)
        prepared.model.save_pretrained(written, safe_serialization=True)
        prepared.tokenizer.save_pretrained(written)
        put_in_place(written, place)
    return place

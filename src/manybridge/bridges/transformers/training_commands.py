"""The commands around datasets and training runs. A base class of the bridge, so that they stand in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from manybridge.bridge import Context, command
from manybridge.bridges.transformers.data import PAGE, describe, open_dataset, page
from manybridge.bridges.transformers.merging import merge
from manybridge.bridges.transformers.training import (
    DEFAULT_TASK,
    DEFAULTS,
    Task,
    TrainingSettings,
    runs_of,
    train,
)

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge


class TrainingCommands:
    """Commands of `TransformersBridge`."""

    @command("train")
    def train(
        self,
        run: str | None = None,
        model: str | None = None,
        dataset: str | dict[str, Any] | None = None,
        settings: TrainingSettings = DEFAULTS,
        task: Task = DEFAULT_TASK,
        resume: bool = False,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Fine-tune a model, whole or with LoRA; a cancelled or killed run is resumed from its last checkpoint.

        Steps come as progress, metrics as chunks {step, loss, learning_rate, epoch, ...}.

        Args:
            run: name of the run; a new one gets a name if it has none.
            model: what to train: a folder, a hub id, "package:NAME", or the id of a model of this worker.
            dataset: id of a dataset of this worker, or a dataset's recipe.
            settings: how to train.
            task: what the model is for.
            resume: go on with the run of that name as it was begun; nothing else has to be said then.
            ctx: the call.
        """
        return train(
            self._bridge, ctx, run=run, model=model, dataset=dataset, settings=settings, task=task, resume=resume
        )

    @command("list_runs", idempotent=True)
    def list_runs(self) -> dict[str, Any]:
        """List the training runs in the runs folder, oldest first, whoever began them."""
        runs = [run.describe() for run in runs_of(self._bridge).all()]
        return {"runs": runs, "total_count": len(runs)}

    @command("get_run", idempotent=True)
    def get_run(self, run: str, metrics: bool = False) -> dict[str, Any]:
        """Describe a run: its state, step, checkpoints and result; with `metrics`, its loss curve."""
        found = runs_of(self._bridge).find(run)
        return {**found.describe(), **({"metrics": found.metrics()} if metrics else {})}

    @command("delete_run", idempotent=True)
    def delete_run(self, run: str) -> dict[str, Any]:
        """Delete a run with its checkpoints and its result; `conflict` while it is trained."""
        runs_of(self._bridge).delete(run)
        return {"run": run, "deleted": True}

    @command("merge_adapter")
    def merge_adapter(
        self, adapter: str, output: str | None = None, base: str | None = None, *, ctx: Context
    ) -> dict[str, Any]:
        """Add a LoRA adapter's weights into its base model and save the whole as a model of its own.

        Args:
            adapter: name of a run that trained one, or the folder of an adapter.
            output: name of a new folder in models_folder; by default `merged` in the run's folder.
            base: the base model; by default the one that the adapter names.
            ctx: the call.
        """
        return merge(self._bridge, ctx, adapter, output, base)

    @command("preview_dataset", idempotent=True)
    def preview_dataset(self, dataset: str | dict[str, Any], limit: int = PAGE, *, ctx: Context) -> dict[str, Any]:
        """Follow a dataset's recipe, and show its size, columns and first rows; nothing is kept."""
        data = open_dataset(self._bridge, dataset, ctx)
        return {**describe(data), "rows": page(data, 0, limit)}

    @property
    def _bridge(self) -> TransformersBridge:
        return cast("TransformersBridge", self)

"""`TransformersBridge`: what a client can ask of Hugging Face Transformers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, ClassVar

from manybridge.bridge import Bridge, BridgeError, command, resource
from manybridge.bridges.transformers.data import Dataset
from manybridge.bridges.transformers.devices import list_devices
from manybridge.bridges.transformers.errors import translate
from manybridge.bridges.transformers.framework import preload, settle
from manybridge.bridges.transformers.loading import Models, describe
from manybridge.bridges.transformers.locating import locate
from manybridge.bridges.transformers.memory import resident_bytes, unshared_bytes
from manybridge.bridges.transformers.models import Model
from manybridge.bridges.transformers.options import Options, read_options
from manybridge.bridges.transformers.pipelines import Pipeline
from manybridge.bridges.transformers.tokenizing import Tokenizer
from manybridge.bridges.transformers.training import Training
from manybridge.bridges.transformers.training_commands import TrainingCommands


class TransformersBridge(TrainingCommands, Bridge):
    """Hugging Face Transformers: models, tokenizers, pipelines, datasets, fine-tuning.

    Options: `device` ("cpu", "cuda:0", or "auto" for the one with most free memory), `threads` (of one worker's tensor
    operations, 1), `dtype` ("auto" as stored), `cache_bytes` (how much the loaded models may take together),
    `local_files_only` (true: nothing is fetched), `revision` (of every hub id that names none), `trust_remote_code`
    (false), `models_folder`, `runs_folder`, `data_folders`, `max_batch` and `max_wait_ms` (how calls share one run).
    """

    name: ClassVar[str] = "transformers"
    capabilities: ClassVar[tuple[str, ...]] = (
        "text-generation", "embeddings", "classification", "tokenization", "pipelines", "training", "streaming",
    )  # fmt: skip
    required_modules: ClassVar[tuple[str, ...]] = ("torch", "transformers")
    zygote_safe: ClassVar[bool] = True
    max_concurrency: ClassVar[int] = 16

    model: ClassVar[type[Model]] = resource("model")(Model)
    tokenizer: ClassVar[type[Tokenizer]] = resource("tokenizer")(Tokenizer)
    pipeline: ClassVar[type[Pipeline]] = resource("pipeline")(Pipeline)
    dataset: ClassVar[type[Dataset]] = resource("dataset")(Dataset)
    training: ClassVar[type[Training]] = resource("training")(Training)

    def __init__(self) -> None:
        self.options = Options()
        self.models = Models(self.options)

    @classmethod
    def preload(cls) -> None:
        """Import PyTorch and Transformers; run nothing."""
        preload()

    def setup(self, options: dict[str, Any]) -> None:
        """Read the options and set the number of threads.

        Raises:
            BridgeError: `config_error` for an unknown or wrong option.
        """
        self.options = read_options(options)
        self.models = Models(self.options)
        settle(self.options.threads, local_files_only=self.options.local_files_only)

    def close(self) -> None:
        """Unload every model."""
        self.models.close()

    def stats(self) -> dict[str, Any]:
        """Loaded models, what the cache did, and the memory of this process."""
        return {
            "cache": self.models.cache.stats(),
            "models": self.models.cache.describe(),
            "resident_bytes": resident_bytes(),
        }

    def translate_error(self, error: BaseException) -> BridgeError | None:
        """See `errors.py`."""
        return translate(error)

    # ------------------------------------------------------------------ what there is

    @command("devices", idempotent=True)
    def devices(self) -> dict[str, Any]:
        """List the devices of this worker with their free memory."""
        return {"devices": [device.to_object() for device in list_devices()], "default": self.options.device}

    @command("loaded_models", idempotent=True)
    def loaded_models(self) -> dict[str, Any]:
        """List the models that this worker has in memory, and what unloading others has freed."""
        cache = self.models.cache
        return {"models": cache.describe(), **cache.stats(), "unshared_bytes": unshared_bytes()}

    @command("unload")
    def unload(self) -> dict[str, Any]:
        """Unload every model of this worker that is not in use; the next call that needs one loads it again."""
        done = [asdict(eviction) for eviction in self.models.cache.evict_unused()]
        return {"unloaded": done, "freed_bytes": sum(each["freed_bytes"] for each in done)}

    @command("model_info", idempotent=True)
    def model_info(self, model: str, revision: str | None = None) -> dict[str, Any]:
        """Describe a model by its files, without loading it: task, architecture, size, longest input, commit.

        Args:
            model: a folder, "package:NAME" of a package that carries a model, or a hub id.
            revision: branch, tag or commit of a hub id.
        """
        return describe(locate(model, self.options, revision))

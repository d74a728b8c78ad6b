"""`TransformersBridge`: what a client can ask of Hugging Face Transformers."""

from __future__ import annotations

from typing import Any, ClassVar

from manybridge.bridge import Bridge, resource
from manybridge.bridges.transformers.data import Dataset
from manybridge.bridges.transformers.framework import preload, settle
from manybridge.bridges.transformers.options import Options, read_options
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

    dataset: ClassVar[type[Dataset]] = resource("dataset")(Dataset)
    training: ClassVar[type[Training]] = resource("training")(Training)

    def __init__(self) -> None:
        self.options = Options()

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
        settle(self.options.threads, local_files_only=self.options.local_files_only)

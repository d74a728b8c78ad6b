"""Models and tokenizers as a training needs them: a copy of its own, in full precision, from a local folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridges.transformers.errors import blaming
from manybridge.bridges.transformers.framework import import_torch, import_transformers
from manybridge.bridges.transformers.locating import ADAPTER_CONFIG, locate
from manybridge.bridges.transformers.sources import invalid
from manybridge.bridges.transformers.weights import inspect

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge

MODEL_CLASSES: Final = {
    "causal-lm": "AutoModelForCausalLM",
    "sequence-classification": "AutoModelForSequenceClassification",
}


def import_datasets() -> Any:
    """Import the library datasets, told to count no downloads, and return the module."""
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()
    return datasets


def model_folder(bridge: TransformersBridge, name: str, revision: str | None = None) -> Path:
    """Return the local folder of a whole model.

    Raises:
        BridgeError: as `locate`; `invalid_argument` for an adapter.
    """
    folder = locate(name, bridge.options, revision).folder
    if (folder / ADAPTER_CONFIG).is_file():
        raise invalid(
            f"model: {name!r} is an adapter, not a whole model; merge it first (transformers:merge_adapter)",
            argument="model",
        )
    return folder


def load_tokenizer(bridge: TransformersBridge, folder: Path) -> Any:
    """Load the tokenizer in a folder.

    Raises:
        BridgeError: `invalid_argument`, there is none.
    """
    with blaming(f"the tokenizer in {folder.name}"):
        return import_transformers().AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=bridge.options.trust_remote_code
        )


def load_model(bridge: TransformersBridge, folder: Path, task: str, **settings: Any) -> Any:
    """Load a model to be trained, in float32: small steps vanish in half precision.

    Raises:
        BridgeError: `permission_denied` for pickled weights, `invalid_argument` for damaged ones.
    """
    inspect(folder)
    cls = getattr(import_transformers(), MODEL_CLASSES[task])
    with blaming(f"the model in {folder.name}"):
        return cls.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=import_torch().float32,
            trust_remote_code=bridge.options.trust_remote_code, **settings,
        )  # fmt: skip


def longest_input(model: Any) -> int | None:
    """Tokens that the model takes at most, or None if it does not say."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        found = getattr(model.config, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return None

"""Models and tokenizers as a training needs them: a copy of its own, in full precision, from a local folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridges.transformers.framework import import_torch, import_transformers
from manybridge.bridges.transformers.sources import invalid

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


def model_folder(bridge: TransformersBridge, reference: str) -> Path:
    """Return the local folder that a reference stands for.

    Raises:
        BridgeError: `invalid_argument`, there is none.
    """
    path = Path(reference).expanduser()
    base = bridge.options.models_path
    for candidate in (base / path if base is not None else path, path):
        if (candidate / "config.json").is_file() or (candidate / "tokenizer_config.json").is_file():
            return candidate.resolve()
    raise invalid(f"model: {reference!r} is no folder with a model in it (no config.json)", argument="model")


def load_tokenizer(bridge: TransformersBridge, reference: str) -> Any:
    """Load the tokenizer of a model."""
    folder = model_folder(bridge, reference)
    return import_transformers().AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=bridge.options.trust_remote_code
    )


def load_model(bridge: TransformersBridge, folder: Path, task: str, **settings: Any) -> Any:
    """Load a model to be trained, in float32: small steps vanish in half precision."""
    cls = getattr(import_transformers(), MODEL_CLASSES[task])
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

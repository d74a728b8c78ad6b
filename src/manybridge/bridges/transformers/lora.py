"""LoRA: a small adapter is trained instead of the whole model, and can be merged into it afterwards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

ADAPTER_CONFIG: Final = "adapter_config.json"
INSTALL: Final = 'pip install "peft>=0.18"'
LISTED_MODULES: Final = 12
"""Names of layers that an error lists."""


@dataclass(frozen=True, slots=True)
class Lora:
    """An adapter. See https://arxiv.org/abs/2106.09685 for what the numbers mean."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    target_modules: list[str] | None = None
    """Ends of the names of layers; by default what PEFT takes for the architecture, or else all linear layers."""

    def __post_init__(self) -> None:
        if self.r < 1 or self.alpha < 1 or not 0 <= self.dropout < 1:
            raise ValueError("expected r >= 1, alpha >= 1 and 0 <= dropout < 1")


def import_peft() -> Any:
    """Import PEFT.

    Raises:
        BridgeError: `missing_package` with the command that installs it.
    """
    try:
        import peft
    except ImportError as error:
        raise BridgeError(
            ErrorCode.MISSING_PACKAGE,
            f"LoRA needs the package peft in the environment of this bridge: {INSTALL}",
            details={"package": "peft", "install": INSTALL},
        ) from error
    return peft


def add_adapter(model: Any, lora: Lora, task: str) -> Any:
    """Wrap a model so that only the adapter is trained.

    Raises:
        BridgeError: `invalid_argument`, no layer has one of the names; those that could be taken are listed.
    """
    peft = import_peft()
    config = peft.LoraConfig(
        task_type={"causal-lm": "CAUSAL_LM", "sequence-classification": "SEQ_CLS"}[task],
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules or _targets(peft, model),
        fan_in_fan_out=_is_transposed(model),
    )
    try:
        return peft.get_peft_model(model, config)
    except ValueError as error:
        if lora.target_modules is None:
            raise
        known = ", ".join(linear_modules(model)[:LISTED_MODULES])
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"settings.lora.target_modules: no layer of this model is called like that; it has {known}",
            details={"argument": "settings.lora.target_modules"},
        ) from error


def _targets(peft: Any, model: Any) -> list[str] | str:
    known: dict[str, list[str]] = peft.utils.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    return known.get(model.config.model_type) or "all-linear"


def _is_transposed(model: Any) -> bool:
    """GPT-2 and its relatives keep their weights as (in, out); PEFT would find out, and warn each time."""
    return any(type(module).__name__ == "Conv1D" for module in model.modules())


def linear_modules(model: Any) -> list[str]:
    """The last parts of the names of the layers that an adapter can sit on."""
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if type(module).__name__ in {"Linear", "Conv1D", "Embedding"}
    }
    return sorted(names)


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and not a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


def base_of(folder: Path) -> str:
    """Where an adapter's base model lay when it was trained.

    Raises:
        BridgeError: `invalid_argument`, it does not say.
    """
    base = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT, f"{folder.name}: the adapter does not name its base model; give it as `base`"
        )
    return base


def merged(model: Any, adapter: Path) -> Any:
    """Return the model with the adapter's weights added into it."""
    return import_peft().PeftModel.from_pretrained(model, str(adapter), local_files_only=True).merge_and_unload()

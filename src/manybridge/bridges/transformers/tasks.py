"""What a model is for, which class of Transformers that is, and how the files say so."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

Task = Literal[
    "causal-lm", "seq2seq-lm", "sequence-classification", "token-classification", "masked-lm", "embedding"
]  # fmt: skip


class TaskClass(NamedTuple):
    """The class of Transformers for a task."""

    auto_class: str
    endings: tuple[str, ...]
    """Of the names of the architectures that have this head."""


TASKS: Final[Mapping[Task, TaskClass]] = MappingProxyType(
    {
        "causal-lm": TaskClass("AutoModelForCausalLM", ("ForCausalLM", "LMHeadModel")),
        "seq2seq-lm": TaskClass("AutoModelForSeq2SeqLM", ("ForConditionalGeneration",)),
        "sequence-classification": TaskClass(
            "AutoModelForSequenceClassification", ("ForSequenceClassification",)
        ),
        "token-classification": TaskClass("AutoModelForTokenClassification", ("ForTokenClassification",)),
        "masked-lm": TaskClass("AutoModelForMaskedLM", ("ForMaskedLM", "ForPreTraining")),
        "embedding": TaskClass("AutoModel", ("Model",)),
    }
)  # fmt: skip
GENERATIVE: Final = frozenset({"causal-lm", "seq2seq-lm"})

UNUSED_BY_EMBEDDINGS: Final = ("pooler.",)
"""Weights that a base model may lack, because pooling happens over its tokens."""


def task_of(config: Mapping[str, Any], folder: Path) -> Task:
    """What the files of a model say it is for.

    Raises:
        BridgeError: `invalid_argument`, they do not say; name the task.
    """
    if (folder / "modules.json").is_file():  # as sentence-transformers writes it
        return "embedding"
    names = [name for name in config.get("architectures") or () if isinstance(name, str)]
    for task, kind in TASKS.items():
        if any(name.endswith(ending) for name in names for ending in kind.endings):
            return task
    said = f"its config.json says {', '.join(names)}" if names else "its config.json names no architecture"
    raise BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"task: can't be told for this model, {said}; name one of {', '.join(TASKS)}",
        details={"architectures": names, "known": list(TASKS)},
    )


def check_head(task: Task, missing: set[str], config: Mapping[str, Any], name: str) -> None:
    """Refuse a model whose files lack the weights of the task: Transformers would make up random ones.

    Raises:
        BridgeError: `invalid_argument` with the architecture that the files were saved from.
    """
    optional = UNUSED_BY_EMBEDDINGS if task == "embedding" else ()
    lacking = sorted(key for key in missing if not any(mark in key for mark in optional))
    if not lacking:
        return
    saved = ", ".join(config.get("architectures") or ()) or "another model"
    shown = ", ".join(lacking[:4]) + (f" and {len(lacking) - 4} more" if len(lacking) > 4 else "")
    raise BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"task: {name} can't be used as {task}: its files (saved from {saved}) have no {shown}. "
        "Name the task it was made for, or fine-tune it first.",
        details={"task": task, "missing_weights": lacking, "architectures": list(config.get("architectures") or ())},
    )

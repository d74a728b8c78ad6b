"""Texts to vectors: the model's tokens, pooled and normalised as its files say.

A model of sentence-transformers says in `modules.json` what follows the transformer: pooling, perhaps normalisation.
Those two are done here; what else it may name is refused, because leaving it out would give other vectors. Without
`modules.json` it is the mean over the tokens, normalised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.batching import Item
from manybridge.bridges.transformers.framework import import_torch
from manybridge.bridges.transformers.inputs import pad_right, too_long
from manybridge.bridges.transformers.loading import LoadedModel
from manybridge.bridges.transformers.locating import read_json
from manybridge.protocol.errors import ErrorCode

Pooling = Literal["mean", "cls", "max", "last"]

_FLAGS: Final[dict[str, Pooling]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last",
}
_NAMES: Final[dict[str, Pooling]] = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How vectors are made of token vectors."""

    pooling: Pooling = "mean"
    normalize: bool = True
    lower_case: bool = False


def recipe_of(folder: Path, pooling: Pooling | None = None, normalize: bool | None = None) -> Recipe:
    """What the files of a model say, and over it what the caller says.

    Raises:
        BridgeError: `not_supported`, the files name a step that is not done here.
    """
    path = folder / "modules.json"
    said = Recipe() if not path.is_file() else _sentence_recipe(folder, path)
    return Recipe(
        pooling or said.pooling, said.normalize if normalize is None else normalize, lower_case=said.lower_case
    )


def _sentence_recipe(folder: Path, path: Path) -> Recipe:
    steps = [(step["type"].rpartition(".")[2], folder / step["path"]) for step in json.loads(path.read_text("utf-8"))]
    kinds = [kind for kind, _ in steps]
    unknown = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if unknown:
        raise _unsupported(folder, f"the step {unknown[0]}")
    pooling: Pooling = next((_pooling(where) for kind, where in steps if kind == "Pooling"), "mean")
    lower = bool(read_json(folder / "sentence_bert_config.json").get("do_lower_case"))
    return Recipe(pooling, "Normalize" in kinds, lower_case=lower)


def _pooling(folder: Path) -> Pooling:
    config = read_json(folder / "config.json")
    if isinstance(config.get("pooling_mode"), str):
        chosen = [config["pooling_mode"]]
        found = [_NAMES[name] for name in chosen if name in _NAMES]
    else:
        chosen = [name for name, value in config.items() if name.startswith("pooling_mode_") and value is True]
        found = [_FLAGS[name] for name in chosen if name in _FLAGS]
    if len(chosen) != 1 or len(found) != 1:
        raise _unsupported(folder, f"the pooling {' and '.join(chosen) or 'that it does not name'}")
    return found[0]


def _unsupported(folder: Path, what: str) -> BridgeError:
    return BridgeError(
        ErrorCode.NOT_SUPPORTED,
        f"{folder} asks for {what}, which this bridge does not do; pooling may be mean, cls, max or last",
        details={"folder": str(folder)},
    )


@dataclass(frozen=True)
class Embedding:
    """The operation: texts of one model, pooled in the same way.

    Args:
        model: loaded.
        recipe: how.
        truncate: whether a text that is too long is cut; otherwise it fails.
    """

    model: LoadedModel
    recipe: Recipe
    truncate: bool = False

    def limit(self, max_batch: int) -> int:
        """As many texts as the model takes."""
        return max_batch

    def run(self, items: Sequence[Item]) -> Sequence[Any]:
        """For each text `(vector as floats, tokens)`; the vectors are `(dimensions,) float32` inside."""
        model = self.model
        texts = [item.payload.lower() if self.recipe.lower_case else item.payload for item in items]
        encoded = encode(model, texts, truncate=self.truncate)
        good = [ids for ids in encoded if isinstance(ids, list)]
        if not good:
            return encoded
        with import_torch().inference_mode():
            input_ids, mask = pad_right(good, model.pad_id, model.device)
            reader = model.module.get_encoder() if model.config.is_encoder_decoder else model.module
            tokens = reader(input_ids=input_ids, attention_mask=mask).last_hidden_state
            vectors = pool(tokens.float(), mask, self.recipe).cpu().tolist()
        found = iter(zip(vectors, good, strict=True))
        outcomes = [next(found) if isinstance(ids, list) else ids for ids in encoded]
        return [(each[0], len(each[1])) if isinstance(each, tuple) else each for each in outcomes]


def encode(model: LoadedModel, texts: Sequence[str], *, truncate: bool) -> list[Any]:
    """The token ids of each text, special ones included; an error in the place of one that is too long."""
    rows: list[list[int]] = model.tokenizer(list(texts), add_special_tokens=True)["input_ids"]
    limit = model.max_tokens
    if limit is None or max(map(len, rows)) <= limit:
        return rows
    if truncate:
        long = [number for number, row in enumerate(rows) if len(row) > limit]
        cut = model.tokenizer([texts[number] for number in long], truncation=True, max_length=limit)["input_ids"]
        for number, row in zip(long, cut, strict=True):
            rows[number] = row
        return rows
    return [row if len(row) <= limit else too_long(len(row), limit) for row in rows]


def pool(tokens: Any, mask: Any, recipe: Recipe) -> Any:
    """Vectors `(rows, dimensions) float32` of token vectors `(rows, length, dimensions) float32`."""
    torch = import_torch()
    weights = mask.unsqueeze(-1).to(tokens.dtype)
    if recipe.pooling == "cls":
        vectors = tokens[:, 0]
    elif recipe.pooling == "last":
        vectors = tokens[torch.arange(tokens.shape[0], device=tokens.device), mask.sum(1) - 1]
    elif recipe.pooling == "max":
        vectors = tokens.masked_fill(weights == 0, float("-inf")).max(1).values
    else:
        vectors = (tokens * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
    return torch.nn.functional.normalize(vectors, dim=-1) if recipe.normalize else vectors

"""Labels for texts, labels for their tokens, words for their gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.batching import Item
from manybridge.bridges.transformers.embedding import encode
from manybridge.bridges.transformers.framework import import_torch
from manybridge.bridges.transformers.inputs import pad_right
from manybridge.bridges.transformers.loading import LoadedModel
from manybridge.protocol.errors import ErrorCode

DEFAULT_FILLS: Final = 5
"""Words offered for a gap, as the framework's pipeline does."""


@dataclass(frozen=True)
class Labelling:
    """The operation of the three tasks whose answer comes from one run of the model over the text.

    Args:
        model: loaded.
        top_k: labels or words for each text, the likeliest first; None for all labels, or `DEFAULT_FILLS` words.
        truncate: whether a text that is too long is cut; otherwise it fails.
    """

    model: LoadedModel
    top_k: int | None = None
    truncate: bool = False

    def limit(self, max_batch: int) -> int:
        """As many texts as the model takes."""
        return max_batch

    def run(self, items: Sequence[Item]) -> Sequence[Any]:
        """For each text the object that its task answers with."""
        model = self.model
        texts = [item.payload for item in items]
        encoded = encode(model, texts, truncate=self.truncate)
        if model.plan.task == "masked-lm":
            encoded = [ids if not isinstance(ids, list) else self._with_gap(ids) for ids in encoded]
        good = [number for number, ids in enumerate(encoded) if isinstance(ids, list)]
        if not good:
            return encoded
        with import_torch().inference_mode():
            input_ids, mask = pad_right([encoded[number] for number in good], model.pad_id, model.device)
            scores = model.module(input_ids=input_ids, attention_mask=mask).logits.float().cpu()
        answer = {
            "sequence-classification": self._labels,
            "token-classification": self._token_labels,
            "masked-lm": self._fills,
        }[model.plan.task]
        outcomes = list(encoded)
        for number, row in zip(good, scores, strict=True):
            usage = {"prompt_tokens": len(encoded[number])}
            outcomes[number] = {**answer(row, encoded[number], texts[number]), "usage": usage}
        return outcomes

    def _labels(self, scores: Any, _ids: list[int], _text: str) -> dict[str, Any]:
        """`scores` is `(labels,) float32`."""
        config = self.model.config
        several = config.problem_type == "multi_label_classification"
        if config.problem_type == "regression" or len(scores) == 1:
            return {"label": config.id2label[0], "score": float(scores[0]), "scores": []}
        shares = scores.sigmoid() if several else scores.softmax(-1)
        best = shares.topk(min(self.top_k or len(shares), len(shares)))
        found = [
            {"label": config.id2label[index], "score": score}
            for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        return {**found[0], "scores": found}

    def _token_labels(self, scores: Any, ids: list[int], _text: str) -> dict[str, Any]:
        """`scores` is `(length, labels) float32`, rows of padding behind."""
        tokenizer, config = self.model.tokenizer, self.model.config
        best = scores[: len(ids)].softmax(-1).max(-1)
        special = set(tokenizer.all_special_ids)
        words = tokenizer.convert_ids_to_tokens(ids)
        rows = zip(words, best.values.tolist(), best.indices.tolist(), ids, strict=True)
        return {
            "tokens": [
                {"token": word, "label": config.id2label[index], "score": score, "index": place}
                for place, (word, score, index, token_id) in enumerate(rows)
                if token_id not in special
            ]
        }

    def _fills(self, scores: Any, ids: list[int], _text: str) -> dict[str, Any]:
        """`scores` is `(length, words) float32`; one list of words for each gap."""
        tokenizer = self.model.tokenizer
        gaps: list[list[dict[str, Any]]] = []
        for place, token_id in enumerate(ids):
            if token_id != tokenizer.mask_token_id:
                continue
            best = scores[place].softmax(-1).topk(min(self.top_k or DEFAULT_FILLS, scores.shape[-1]))
            pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
            gaps.append(
                [
                    {"word": tokenizer.decode([index]).strip(), "token_id": index, "score": score}
                    for score, index in pairs
                ]
            )
        return {"gaps": gaps}

    def _with_gap(self, ids: list[int]) -> list[int] | BridgeError:
        tokenizer = self.model.tokenizer
        if tokenizer.mask_token_id in ids:
            return ids
        return BridgeError(
            ErrorCode.INVALID_ARGUMENT, f"text: expected at least one {tokenizer.mask_token}, the gap to fill"
        )

"""The resource type `pipeline`: a pipeline of Transformers, in its own terms, on a shared model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.common.held import Held
from manybridge.bridges.transformers.batching import Item
from manybridge.bridges.transformers.embedding import encode
from manybridge.bridges.transformers.errors import blaming
from manybridge.bridges.transformers.framework import import_torch, import_transformers
from manybridge.bridges.transformers.generation import DEFAULT_NEW_TOKENS, OURS
from manybridge.bridges.transformers.inputs import too_long
from manybridge.bridges.transformers.loading import LoadedModel
from manybridge.bridges.transformers.models import chat_text, errors_of, raise_if_error, submission_of
from manybridge.bridges.transformers.options import DtypeName
from manybridge.bridges.transformers.tasks import Task
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge

PIPELINES: Final[Mapping[str, Task]] = {
    "text-generation": "causal-lm",
    "text-classification": "sequence-classification",
    "token-classification": "token-classification",
    "fill-mask": "masked-lm",
    "feature-extraction": "embedding",
    "zero-shot-classification": "sequence-classification",
}
ALIASES: Final = {"sentiment-analysis": "text-classification", "ner": "token-classification"}

REMOVED: Final = {
    "summarization": "the pipeline text-generation with a chat model",
    "translation": "the pipeline text-generation with a chat model",
    "text2text-generation": "a resource `model` with task seq2seq-lm",
    "question-answering": "the pipeline text-generation with a chat model",
}
"""Tasks that Transformers 4 had, and what takes their place."""

REFUSED: Final = OURS - {
    "max_new_tokens", "max_length", "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
    "num_return_sequences", "stop_strings",
} | {"batch_size", "num_workers", "device", "model"}  # fmt: skip
"""Parameters that would take the place of something of ours, or run somebody's code."""


CUTTING: Final = frozenset({"text-classification", "feature-extraction"})
"""Pipelines with a parameter `truncation`."""

KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "text-classification": frozenset(
        {"top_k", "function_to_apply", "truncation", "max_length", "padding", "add_special_tokens"}
    ),
    "feature-extraction": frozenset({"truncation", "tokenize_kwargs", "return_tensors"}),
    "zero-shot-classification": frozenset({"candidate_labels", "hypothesis_template", "multi_label"}),
}
"""The parameters of those pipelines that take any and use what they know; the others refuse by themselves."""


class Pipeline(Held):
    """A pipeline: what goes in, what comes out and which parameters there are is Transformers' own."""

    bridge: TransformersBridge

    async def create(
        self,
        task: str,
        model: str,
        revision: str | None = None,
        dtype: DtypeName | None = None,
        device: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        """Make a pipeline.

        Args:
            task: text-generation, text-classification, token-classification, fill-mask, feature-extraction or
                zero-shot-classification.
            model: a folder, "package:NAME" of a package that carries a model, or a hub id.
            revision: branch, tag or commit of a hub id.
            dtype: of the weights in memory; by default the bridge's, "auto" for as stored.
            device: "cpu", "cuda:0", or "auto" for the one with most free memory; by default the bridge's.
            parameters: of every call, unless the call says otherwise.
        """
        self.task = check_task(task)
        self.parameters = check_parameters(self.task, parameters or {})
        models = self.bridge.models
        self.plan = await asyncio.to_thread(models.plan, model, PIPELINES[self.task], revision, dtype, device)
        (await models.lease(self.plan)).release()

    async def execute(
        self, inputs: str | list[Any], parameters: dict[str, Any] | None = None, *, ctx: Context
    ) -> dict[str, Any]:
        """Run the pipeline on one input, or on many; with many each has a result or an error of its own.

        Args:
            inputs: a text or a list of texts; for text-generation also a conversation, a list of {role, content}.
            parameters: of the pipeline, for example {"top_k": 2} or {"candidate_labels": ["a", "b"]}.
            ctx: the call.
        """
        payloads, is_one = _payloads(self.task, inputs)
        chosen = check_parameters(self.task, {**self.parameters, **(parameters or {})})
        lease = await self.bridge.models.lease(self.plan)
        streams = is_one and ctx.streaming and self.task == "text-generation"
        operation = PipelineRun(lease.value, self.task, json.dumps(chosen, sort_keys=True), ctx if streams else None)
        submission = submission_of(operation, payloads, ctx)
        try:
            lease.value.batcher.submit(submission)
        except BaseException:
            lease.release()
            raise
        submission.when_done(lease.release)
        found = await submission.wait()
        if is_one:
            raise_if_error(found[0])
            return {"output": found[0]}
        return {
            "outputs": [None if isinstance(each, BaseException) else each for each in found],
            "errors": errors_of(found),
        }


def check_task(task: str) -> str:
    """The task's name in `PIPELINES`.

    Raises:
        BridgeError: `not_supported` for one that Transformers 5 removed, `invalid_argument` for others.
    """
    task = ALIASES.get(task, task)
    if task in PIPELINES:
        return task
    removed = "translation" if task.startswith("translation_") else task
    if removed in REMOVED:
        raise BridgeError(
            ErrorCode.NOT_SUPPORTED,
            f"task: {task!r} was removed in Transformers 5; use {REMOVED[removed]}",
            details={"task": task, "known": list(PIPELINES)},
        )
    close = get_close_matches(task, PIPELINES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"task: {task!r} is not served here; expected one of {', '.join(PIPELINES)}.{hint}",
        details={"task": task, "known": list(PIPELINES)},
    )


def check_parameters(task: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a pipeline, or an error for one that is not the caller's to give, or that nobody would read."""
    refused = sorted(REFUSED & parameters.keys())
    if refused:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"parameters.{refused[0]}: can't be given over the wire",
            details={"argument": f"parameters.{refused[0]}"},
        )
    known = KNOWN.get(task)
    unread = sorted(parameters.keys() - known) if known is not None else []
    if known is not None and unread:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"parameters.{unread[0]}: the pipeline {task} knows no such parameter; it takes {', '.join(sorted(known))}",
            details={"argument": f"parameters.{unread[0]}", "known": sorted(known)},
        )
    return dict(parameters)


def _payloads(task: str, inputs: str | list[Any]) -> tuple[list[Any], bool]:
    if isinstance(inputs, str):
        return [inputs], True
    is_chat = task == "text-generation" and inputs and all(_is_message(each) for each in inputs)
    if is_chat:
        return [inputs], True
    wrong = [place for place, each in enumerate(inputs) if not isinstance(each, str)]
    if not inputs or wrong:
        where = f"inputs[{wrong[0]}]" if wrong else "inputs"
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{where}: expected a text"
            + (", or a conversation as a list of {role, content}" if task == "text-generation" else ""),
            details={"argument": where},
        )
    return list(inputs), False


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


@dataclass(frozen=True)
class PipelineRun:
    """The operation: inputs of one pipeline with the same parameters.

    Args:
        model: loaded.
        task: of `PIPELINES`.
        parameters: as JSON, so that runs can be compared.
        ctx: a call that streams its tokens, for which a run of its own is made; None otherwise.
    """

    model: LoadedModel
    task: str
    parameters: str
    ctx: Context | None = None

    def limit(self, max_batch: int) -> int:
        """Prompts go one by one: a pipeline writes for all of them as long as for the longest."""
        return 1 if self.task == "text-generation" else max_batch

    def run(self, items: Sequence[Item]) -> Sequence[Any]:
        """Run the pipeline over the items together."""
        parameters = json.loads(self.parameters)
        outcomes: list[Any] = self._too_long(items, parameters)
        good = [item for item, outcome in zip(items, outcomes, strict=True) if outcome is None]
        if good:
            with blaming(f"the pipeline {self.task}"), import_torch().inference_mode():
                found = iter(self._call(good, parameters))
            outcomes = [next(found) if outcome is None else outcome for outcome in outcomes]
        return outcomes

    def _too_long(self, items: Sequence[Item], parameters: Mapping[str, Any]) -> list[Any]:
        """An error for each text that the model can't take, None for the others."""
        texts = [item.payload if isinstance(item.payload, str) else "" for item in items]
        if parameters.get("truncation"):
            return [None] * len(items)
        encoded = encode(self.model, texts, truncate=False)
        advice = "set the parameter truncation = true" if self.task in CUTTING else "split it"
        return [
            too_long(found.details["input_tokens"], found.details["max_tokens"], advice=advice)
            if isinstance(found, BridgeError)
            else None
            for found in encoded
        ]

    def _call(self, items: Sequence[Item], parameters: dict[str, Any]) -> list[Any]:
        model, pipeline = self.model, self._pipeline()
        if self.task == "text-generation":
            return [self._write(pipeline, items[0], parameters)]
        payloads = [item.payload for item in items]
        size = {} if self.task == "zero-shot-classification" else {"batch_size": len(payloads)}
        if model.tokenizer.pad_token is None:
            size = {}
        found = pipeline(payloads, **size, **self._cut(parameters))
        if self.task == "fill-mask" and len(payloads) == 1:  # which unwraps a list of one
            found = [found]
        return [plain(each) for each in found]

    def _cut(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Say where to cut: not every tokenizer knows how much its model takes."""
        limit = self.model.max_tokens
        if limit is None or not parameters.get("truncation"):
            return parameters
        if self.task == "feature-extraction":
            more = parameters.get("tokenize_kwargs") or {}
            return {**parameters, "tokenize_kwargs": {"max_length": limit, **more}}
        return {"max_length": limit, **parameters}

    def _pipeline(self) -> Any:
        model = self.model
        found = model.pipelines.get(self.task)
        if found is None:
            found = import_transformers().pipeline(
                self.task, model=model.module, tokenizer=model.tokenizer, device=model.device
            )
            model.pipelines[self.task] = found
        return found

    def _write(self, pipeline: Any, item: Item, parameters: dict[str, Any]) -> Any:
        transformers = import_transformers()
        extra: dict[str, Any] = {"stopping_criteria": transformers.StoppingCriteriaList([Gone(item)])}
        extra["max_new_tokens"] = self._room(pipeline, item.payload, parameters)
        if self.ctx is not None:
            item.is_visible = True
            extra["streamer"] = Streamer(pipeline.tokenizer, self.ctx)
        return plain(pipeline(item.payload, **{**parameters, **extra}))

    def _room(self, pipeline: Any, payload: Any, parameters: Mapping[str, Any]) -> int:
        """How many tokens to write: as the caller says, else the pipeline's default as far as the model has room."""
        said = parameters.get("max_new_tokens")
        if said is not None and (not isinstance(said, int) or said < 1):
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT, f"parameters.max_new_tokens: expected 1 or more, found {said!r}"
            )
        default = getattr(pipeline._default_generation_config, "max_new_tokens", None) or DEFAULT_NEW_TOKENS
        wanted = said or default
        limit = self.model.max_tokens
        if limit is None:
            return int(wanted)
        text = payload if isinstance(payload, str) else chat_text(self.model, payload)
        used = len(self.model.tokenizer(text, add_special_tokens=isinstance(payload, str))["input_ids"])
        if used + (said or 1) > limit:
            raise too_long(used, limit, said or 1)
        return int(min(wanted, limit - used))


class Gone:
    """A stopping criterion: the caller has gone."""

    def __init__(self, item: Item) -> None:
        self._item = item

    def __call__(self, input_ids: Any, _scores: Any, **_: Any) -> Any:
        """Called by `generate` after each step."""
        return import_torch().full((input_ids.shape[0],), self._item.cancelled, device=input_ids.device)


class Streamer:
    """A streamer of Transformers that sends every token as a chunk."""

    def __init__(self, tokenizer: Any, ctx: Context) -> None:
        from manybridge.bridges.transformers.writing import TextWriter

        self._writer = TextWriter(lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True)))
        self._ctx = ctx
        self._is_prompt = True

    def put(self, value: Any) -> None:
        """Called by `generate`: first with the prompt, then with each token."""
        if self._is_prompt:
            self._is_prompt = False
            return
        for token_id in value.reshape(-1).tolist():
            self._ctx.emit({"text": self._writer.add(token_id), "token_id": token_id})

    def end(self) -> None:
        """Called by `generate` when it is done."""
        rest = self._writer.finish()
        if rest:
            self._ctx.emit({"text": rest, "token_id": None})


def plain(value: Any) -> Any:
    """Numbers of numpy and PyTorch as numbers that JSON has."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    return value

"""The resource type `model`: a model for one task, loaded when needed, shared with everybody who names the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.common.held import Held
from manybridge.bridges.common.problems import invalid
from manybridge.bridges.transformers.batching import Operation, Submission
from manybridge.bridges.transformers.embedding import Embedding, Pooling, recipe_of
from manybridge.bridges.transformers.errors import blaming, describe_item
from manybridge.bridges.transformers.generation import Generation, Prompt, check_arguments, sampling_of
from manybridge.bridges.transformers.inputs import as_list, by_length
from manybridge.bridges.transformers.labelling import Labelling
from manybridge.bridges.transformers.loading import LoadedModel
from manybridge.bridges.transformers.options import DtypeName
from manybridge.bridges.transformers.tasks import GENERATIVE, Task
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge

WRITING: Sequence[str] = (
    "messages", "max_new_tokens", "do_sample", "temperature", "top_p", "min_p", "repetition_penalty", "seed", "stop",
    "generate_args",
)  # fmt: skip
"""Inputs that only models which write text take."""


class Message(TypedDict):
    """One turn of a conversation."""

    role: str
    content: str


class Model(Held):
    """A model for one task. Holds its plan and not its weights, which stay in the worker while there is room."""

    bridge: TransformersBridge

    async def create(
        self,
        model: str,
        task: Task | None = None,
        revision: str | None = None,
        dtype: DtypeName | None = None,
        device: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """Load a model.

        Args:
            model: a folder, "package:NAME" of a package that carries a model, or a hub id.
            task: what it is for; by default what its files say.
            revision: branch, tag or commit of a hub id.
            dtype: of the weights in memory; by default the bridge's, "auto" for as stored.
            device: "cpu", "cuda:0", or "auto" for the one with most free memory; by default the bridge's.
            pooling: for embeddings; by default what the files say, else the mean.
            normalize: for embeddings: to length 1; by default what the files say, else true.
            trust_remote_code: refused unless the bridge's option allows it.
        """
        if trust_remote_code and not self.bridge.options.trust_remote_code:
            raise BridgeError(
                ErrorCode.PERMISSION_DENIED,
                "trust_remote_code: this bridge runs no code that comes with a model; its option trust_remote_code "
                "would have to be true",
                details={"option": "trust_remote_code"},
            )
        self.plan = await asyncio.to_thread(self.bridge.models.plan, model, task, revision, dtype, device)
        if self.plan.task == "embedding":
            self.recipe = recipe_of(self.plan.located.folder, pooling, normalize)
        elif pooling is not None or normalize is not None:
            raise invalid("pooling", f"it and normalize are for embeddings, and this model is for {self.plan.task}")
        (await self.bridge.models.lease(self.plan)).release()
        held_models(self.bridge)[self.id] = self

    def close(self) -> None:
        """Let nobody name it any more; the weights stay in the worker while there is room."""
        held_models(self.bridge).pop(self.id, None)

    async def execute(
        self,
        text: str | list[str] | None = None,
        messages: list[Message] | None = None,
        max_new_tokens: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | None = None,
        stop: list[str] | None = None,
        truncate: bool = False,
        generate_args: dict[str, Any] | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Run the model on one text, or on many; texts of concurrent calls share its runs.

        Args:
            text: one text, or a list of them; with a list each has a result or an error of its own.
            messages: a conversation in place of a text, for models with a chat template.
            max_new_tokens: for models that write; those that stream give each token as {text, token_id}.
            do_sample: whether to draw the next token; by default if any of the following says how.
            temperature: 0 for always the likeliest token.
            top_k: draw from the k likeliest tokens; for labels and gaps: how many of them to give.
            top_p: draw from the likeliest tokens that together have this probability.
            min_p: draw from the tokens that have at least this share of the likeliest one's probability.
            repetition_penalty: above 1 against repetitions.
            seed: the same seed draws the same text.
            stop: strings that end the text and are not part of it.
            truncate: cut what is too long; otherwise it is an error. Not for models that write.
            generate_args: further arguments of the framework's `generate`, for example {"num_beams": 4}.
            ctx: the call.
        """
        given = {
            "messages": messages, "max_new_tokens": max_new_tokens, "do_sample": do_sample, "temperature": temperature,
            "top_k": top_k, "top_p": top_p, "min_p": min_p, "repetition_penalty": repetition_penalty, "seed": seed,
            "stop": stop, "generate_args": generate_args, "truncate": truncate or None,
        }  # fmt: skip
        said = {name: value for name, value in given.items() if value is not None}
        self._check_names(said)
        lease = await self.bridge.models.lease(self.plan)
        try:
            submission, finish = self._job(lease.value, text, said, ctx)
            lease.value.batcher.submit(submission)
        except BaseException:
            lease.release()
            raise
        submission.when_done(lease.release)  # not before: a cancelled call's row may run on for one step
        return finish(await submission.wait())

    def _check_names(self, said: dict[str, Any]) -> None:
        task = self.plan.task
        if task in GENERATIVE:
            if "truncate" in said:
                raise invalid("truncate", "a prompt is not cut; shorten it")
            return
        wrong = [name for name in said if name in WRITING or (name == "top_k" and task == "embedding")]
        if wrong:
            raise invalid(wrong[0], f"does not go with this model, which is for {task}")

    def _job(self, model: LoadedModel, text: Any, said: dict[str, Any], ctx: Context) -> Job:
        if self.plan.task in GENERATIVE:
            return _write(model, text, said, ctx)
        texts, is_one = as_list(text)
        truncate = bool(said.get("truncate"))
        if self.plan.task == "embedding":
            return _embed(Embedding(model, self.recipe, truncate), texts, ctx, is_one=is_one)
        top_k = said.get("top_k")
        if top_k is not None and top_k < 1:
            raise invalid("top_k", f"expected 1 or more, found {top_k}")
        return _label(Labelling(model, top_k, truncate), texts, ctx, is_one=is_one)


def held_models(bridge: TransformersBridge) -> dict[str, Model]:
    """The model resources that this worker holds, by id."""
    held: dict[str, Model] = bridge.__dict__.setdefault("_held_models", {})
    return held


Job = tuple[Submission, Callable[[list[Any]], dict[str, Any]]]
"""What goes to the model's thread, and what makes the answer of its outcomes."""


def submission_of(operation: Operation, payloads: Sequence[Any], ctx: Context, *, steps: int = 1) -> Submission:
    """A call's items; it tells its progress where there are many."""
    told = (lambda done, total: ctx.progress(done, total, "items")) if len(payloads) > steps and ctx.streaming else None
    return Submission(operation, payloads, told)


def in_order(
    operation: Operation, texts: Sequence[str], ctx: Context
) -> tuple[Submission, Callable[[list[Any]], list[Any]]]:
    """The items of texts, sorted by length, and what puts their outcomes into the caller's order."""
    places = by_length(texts)

    def restore(outcomes: list[Any]) -> list[Any]:
        restored: list[Any] = [None] * len(outcomes)
        for place, outcome in zip(places, outcomes, strict=True):
            restored[place] = outcome
        return restored

    return submission_of(operation, [texts[place] for place in places], ctx), restore


def _embed(operation: Embedding, texts: list[str], ctx: Context, *, is_one: bool) -> Job:
    submission, restore = in_order(operation, texts, ctx)

    def finish(outcomes: list[Any]) -> dict[str, Any]:
        found = restore(outcomes)
        if is_one:
            raise_if_error(found[0])
            vector, tokens = found[0]
            return {
                "embedding": vector, "shape": [len(vector)], "dtype": "float32", "usage": {"prompt_tokens": tokens},
            }  # fmt: skip
        vectors = [None if isinstance(each, BaseException) else each[0] for each in found]
        dimensions = next((len(vector) for vector in vectors if vector is not None), None)
        tokens = sum(each[1] for each in found if not isinstance(each, BaseException))
        return {
            "embeddings": vectors, "shape": [len(vectors), dimensions], "dtype": "float32", "errors": errors_of(found),
            "usage": {"prompt_tokens": tokens},
        }  # fmt: skip

    return submission, finish


def _label(operation: Labelling, texts: list[str], ctx: Context, *, is_one: bool) -> Job:
    submission, restore = in_order(operation, texts, ctx)
    return submission, lambda outcomes: one_or_many(restore(outcomes), is_one=is_one)


def _write(model: LoadedModel, text: Any, said: dict[str, Any], ctx: Context) -> Job:
    messages = said.get("messages")
    if (messages is None) == (text is None):
        raise invalid("text", "expected either text or messages")
    texts, is_one = ([chat_text(model, messages)], True) if messages is not None else as_list(text)
    max_new_tokens = said.get("max_new_tokens")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise invalid("max_new_tokens", f"expected 1 or more, found {max_new_tokens}")
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    sampling = sampling_of(model, said.get("do_sample"), {name: said[name] for name in names if name in said})
    arguments = check_arguments(said.get("generate_args") or {})
    if dict(arguments).get("num_beams", 1) > 1 and sampling.temperature > 0:
        raise invalid("generate_args.num_beams", "beams take the likeliest text; leave out what asks for sampling")
    stop = tuple(said.get("stop") or ())
    if not all(stop):
        raise invalid("stop", "expected strings that are not empty")
    prompts = [
        Prompt(
            text=each, is_templated=messages is not None, max_new_tokens=max_new_tokens, stop=stop, sampling=sampling,
            emit=ctx.emit if ctx.streaming else None, index=None if is_one else number,
        )
        for number, each in enumerate(texts)
    ]  # fmt: skip
    submission = submission_of(Generation(model, arguments), prompts, ctx)
    return submission, lambda outcomes: one_or_many(outcomes, is_one=is_one)


class HasTokenizer(Protocol):
    """A loaded model, or a tokenizer alone."""

    tokenizer: Any


def chat_text(owner: HasTokenizer, messages: list[Message], **settings: Any) -> str:
    """A conversation as the text that the model was trained on.

    Args:
        owner: has the tokenizer with the template.
        messages: the conversation.
        settings: further arguments of `apply_chat_template`.

    Raises:
        BridgeError: `invalid_argument`, the model has no chat template, or it refuses these messages.
    """
    if not messages:
        raise invalid("messages", "expected at least one message")
    template_error = _template_error()
    with blaming("messages"):
        try:
            chosen = {"add_generation_prompt": True, **settings}
            return str(owner.tokenizer.apply_chat_template(messages, tokenize=False, **chosen))
        except template_error as error:
            raise ValueError(str(error)) from error


def _template_error() -> type[Exception]:
    """What a template raises; Transformers itself imports its engine only where there is one."""
    try:
        found: type[Exception] = import_module("jinja2").TemplateError
    except ImportError:
        return ValueError
    return found


def raise_if_error(outcome: Any) -> None:
    """Raise what the only item of a call failed with."""
    if isinstance(outcome, BaseException):
        raise outcome


def errors_of(outcomes: Sequence[Any]) -> list[dict[str, Any]]:
    """The failed items of an explicit batch."""
    return [describe_item(each, place) for place, each in enumerate(outcomes) if isinstance(each, BaseException)]


def one_or_many(outcomes: list[Any], *, is_one: bool) -> dict[str, Any]:
    """The answer of a call: the only result; or all, null where there is an error beside them."""
    if is_one:
        raise_if_error(outcomes[0])
        only: dict[str, Any] = outcomes[0]
        return only
    results = [None if isinstance(each, BaseException) else each for each in outcomes]
    return {"results": results, "errors": errors_of(outcomes), "usage": _total([each for each in results if each])}


def _total(results: Sequence[dict[str, Any]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for result in results:
        for name, count in result.get("usage", {}).items():
            total[name] = total.get(name, 0) + count
    return total

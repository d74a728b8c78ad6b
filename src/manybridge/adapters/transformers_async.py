"""`TransformersAdapter` for `AsyncMLBridge`: every method but the streams is awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Unpack, overload

from manybridge.adapters.base import AsyncCaller, AsyncGenericAdapter
from manybridge.adapters.handles import AsyncHandle, given
from manybridge.adapters.transformers_types import (
    Batch,
    Dtype,
    Label,
    Labels,
    Messages,
    Pooling,
    Task,
    Writing,
    Written,
    answer_of,
    prompt_inputs,
    read_batch,
    read_gaps,
    read_tags,
    vector,
)


class AsyncTransformersAdapter(AsyncGenericAdapter):
    """Transformers on an asynchronous host. Every method takes `timeout` (seconds) and `session` as keywords."""

    def __init__(self, ml: AsyncCaller, bridge: str = "transformers") -> None:
        super().__init__(ml, bridge, "transformers")

    # ------------------------------------------------------------------ what works on text

    async def load_model(
        self,
        model: str,
        task: Task | None = None,
        *,
        revision: str | None = None,
        dtype: Dtype | None = None,
        device: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        **options: Any,
    ) -> AsyncModel:
        """Load a model for a task.

        Args:
            model: a folder, "package:NAME" of a package that carries a model, or a hub id.
            task: by default what the model's files say.
            revision: branch, tag or commit of a hub id.
            dtype: of the weights in memory.
            device: "cpu", "cuda:0" or "auto".
            pooling: for embeddings.
            normalize: for embeddings: to length 1.
            options: timeout, session.
        """
        config = given(
            model=model, task=task, revision=revision, dtype=dtype, device=device, pooling=pooling, normalize=normalize
        )
        return AsyncModel(self, (await self.create("model", config, **options)).id, config, options)

    async def load_tokenizer(self, model: str, *, revision: str | None = None, **options: Any) -> AsyncTokenizer:
        """Load a model's tokenizer, without the model."""
        config = given(model=model, revision=revision)
        return AsyncTokenizer(self, (await self.create("tokenizer", config, **options)).id, config, options)

    async def pipeline(
        self,
        task: str,
        model: str,
        *,
        revision: str | None = None,
        dtype: Dtype | None = None,
        device: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncPipeline:
        """Make a pipeline of Transformers; `parameters` are the defaults of its calls."""
        kept = None if parameters is None else dict(parameters)
        config = given(task=task, model=model, revision=revision, dtype=dtype, device=device, parameters=kept)
        return AsyncPipeline(self, (await self.create("pipeline", config, **options)).id, config, options)

    # ------------------------------------------------------------------ looking

    async def model_info(self, model: str, *, revision: str | None = None, **options: Any) -> dict[str, Any]:
        """Describe a model by its files, without loading it."""
        found: dict[str, Any] = await self.call("model_info", given(model=model, revision=revision), **options)
        return found

    async def devices(self, **options: Any) -> list[dict[str, Any]]:
        """List the devices of the worker that answers, with their free memory."""
        found: list[dict[str, Any]] = (await self.call("devices", **options))["devices"]
        return found

    async def loaded_models(self, **options: Any) -> list[dict[str, Any]]:
        """List the models that the worker that answers has in memory."""
        found: list[dict[str, Any]] = (await self.call("loaded_models", **options))["models"]
        return found

    async def unload(self, **options: Any) -> int:
        """Unload what is not in use on the worker that answers; return the bytes that were freed, measured."""
        freed: int = (await self.call("unload", **options))["freed_bytes"]
        return freed

    # ------------------------------------------------------------------ training

    async def create_dataset(self, recipe: Mapping[str, Any], **options: Any) -> Any:
        """Make a dataset; `recipe` as for the resource type `dataset`: rows or files, and what to do with them."""
        return await self.create("dataset", dict(recipe), **options)

    async def finetune(
        self,
        model: str,
        dataset: str | Mapping[str, Any],
        *,
        settings: Mapping[str, Any] | None = None,
        task: str | None = None,
        run: str | None = None,
        **options: Any,
    ) -> Any:
        """Train a model as a job, which has progress, a result, and can be cancelled.

        Args:
            model: what to train.
            dataset: a recipe, or the id of a dataset.
            settings: epochs, batch_size, learning_rate, lora, ...; see the arguments of `transformers:train`.
            task: causal-lm or sequence-classification.
            run: name of the run, for resuming it.
            options: timeout, session.
        """
        data = dataset if isinstance(dataset, str) else dict(dataset)
        kept = None if settings is None else dict(settings)
        args = given(model=model, dataset=data, settings=kept, task=task, run=run)
        ml: Any = self.ml
        return await ml.submit(self.bridge, "transformers:train", args, **options)

    async def resume_training(self, run: str, **options: Any) -> Any:
        """Go on with a run from its last checkpoint, as a job."""
        ml: Any = self.ml
        return await ml.submit(self.bridge, "transformers:train", {"run": run, "resume": True}, **options)

    async def list_runs(self, **options: Any) -> list[dict[str, Any]]:
        """List the training runs."""
        found: list[dict[str, Any]] = (await self.call("list_runs", **options))["runs"]
        return found

    async def get_run(self, run: str, *, metrics: bool = False, **options: Any) -> dict[str, Any]:
        """Describe a training run; with `metrics`, its loss curve."""
        found: dict[str, Any] = await self.call("get_run", {"run": run, "metrics": metrics}, **options)
        return found

    async def delete_run(self, run: str, **options: Any) -> None:
        """Delete a training run with its checkpoints."""
        await self.call("delete_run", {"run": run}, **options)


class AsyncModel(AsyncHandle):
    """A model on a host. A list in gives a `Batch` out, with an error of its own for each item that failed."""

    @overload
    async def generate(self, prompt: str, *, timeout: float | None = None, **writing: Unpack[Writing]) -> Written: ...
    @overload
    async def generate(
        self, prompt: list[str], *, timeout: float | None = None, **writing: Unpack[Writing]
    ) -> Batch[Written]: ...
    async def generate(
        self, prompt: str | list[str], *, timeout: float | None = None, **writing: Unpack[Writing]
    ) -> Written | Batch[Written]:
        """Write on from a prompt."""
        result = await self._execute(prompt_inputs(prompt, None, writing), timeout)
        with answer_of("writing"):
            return Written.read(result) if isinstance(prompt, str) else read_batch(result, "results", Written.read)

    async def chat(self, messages: Messages, *, timeout: float | None = None, **writing: Unpack[Writing]) -> Written:
        """Answer a conversation, through the model's chat template."""
        result = await self._execute(prompt_inputs(None, messages, writing), timeout)
        with answer_of("writing"):
            return Written.read(result)

    def stream(
        self, prompt: str | Messages, *, timeout: float | None = None, **writing: Unpack[Writing]
    ) -> AsyncIterator[Any]:
        """Write on from a prompt or a conversation and yield events; chunks are `{"text", "token_id"}`.

        `.result` of the iterator is the whole answer, after the last event.
        """
        inputs = (
            prompt_inputs(prompt, None, writing) if isinstance(prompt, str) else prompt_inputs(None, prompt, writing)
        )
        return self._stream(inputs, timeout)

    @overload
    async def embed(self, text: str, *, truncate: bool = False, timeout: float | None = None) -> list[float]: ...
    @overload
    async def embed(
        self, text: list[str], *, truncate: bool = False, timeout: float | None = None
    ) -> Batch[list[float]]: ...
    async def embed(
        self, text: str | list[str], *, truncate: bool = False, timeout: float | None = None
    ) -> list[float] | Batch[list[float]]:
        """Turn texts into vectors, `(dimensions,) float32` in the worker."""
        result = await self._about(text, timeout, truncate=truncate)
        with answer_of("embedding"):
            return vector(result["embedding"]) if isinstance(text, str) else read_batch(result, "embeddings", vector)

    @overload
    async def classify(
        self, text: str, *, top_k: int | None = None, truncate: bool = False, timeout: float | None = None
    ) -> Labels: ...
    @overload
    async def classify(
        self, text: list[str], *, top_k: int | None = None, truncate: bool = False, timeout: float | None = None
    ) -> Batch[Labels]: ...
    async def classify(
        self,
        text: str | list[str],
        *,
        top_k: int | None = None,
        truncate: bool = False,
        timeout: float | None = None,
    ) -> Labels | Batch[Labels]:
        """Label texts, the likeliest label first."""
        result = await self._about(text, timeout, truncate=truncate, top_k=top_k)
        with answer_of("classifying"):
            return Labels.read(result) if isinstance(text, str) else read_batch(result, "results", Labels.read)

    async def fill(self, text: str, *, top_k: int | None = None, timeout: float | None = None) -> list[list[Label]]:
        """Offer words for each gap of a text, the likeliest first."""
        result = await self._about(text, timeout, top_k=top_k)
        with answer_of("filling gaps"):
            return read_gaps(result)

    async def tag(self, text: str, *, truncate: bool = False, timeout: float | None = None) -> list[tuple[str, Label]]:
        """Label each token of a text."""
        result = await self._about(text, timeout, truncate=truncate)
        with answer_of("tagging"):
            return read_tags(result)

    async def _about(self, text: str | list[str], timeout: float | None, **settings: Any) -> Any:
        return await self._execute(given(text=text, **settings), timeout)


class AsyncTokenizer(AsyncHandle):
    """A tokenizer on a host."""

    @overload
    async def encode(
        self, text: str, *, add_special_tokens: bool = True, max_length: int | None = None
    ) -> list[int]: ...
    @overload
    async def encode(
        self, text: list[str], *, add_special_tokens: bool = True, max_length: int | None = None
    ) -> list[list[int]]: ...
    async def encode(
        self, text: str | list[str], *, add_special_tokens: bool = True, max_length: int | None = None
    ) -> list[int] | list[list[int]]:
        """Turn text into token ids."""
        found: list[int] | list[list[int]] = await self._ask(
            "encode", "token_ids", text=text, add_special_tokens=add_special_tokens, max_length=max_length
        )
        return found

    @overload
    async def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...
    @overload
    async def decode(self, token_ids: list[list[int]], *, skip_special_tokens: bool = False) -> list[str]: ...
    async def decode(
        self, token_ids: list[int] | list[list[int]], *, skip_special_tokens: bool = False
    ) -> str | list[str]:
        """Turn token ids into text."""
        found: str | list[str] = await self._ask(
            "decode", "text", token_ids=token_ids, skip_special_tokens=skip_special_tokens
        )
        return found

    async def count(self, text: str | Messages, *, add_special_tokens: bool = True) -> int:
        """Count the tokens of a text, or of a conversation with all that its template adds."""
        if isinstance(text, str):
            return int(await self._ask("count", "count", text=text, add_special_tokens=add_special_tokens))
        return int(await self._ask("count", "count", messages=[dict(each) for each in text]))

    async def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[str]:
        """Turn text into tokens as strings."""
        found: list[str] = await self._ask("tokenize", "tokens", text=text, add_special_tokens=add_special_tokens)
        return found

    async def chat(self, messages: Messages, *, add_generation_prompt: bool = True) -> str:
        """Turn a conversation into the text that the model was trained on."""
        turns = [dict(each) for each in messages]
        return str(await self._ask("chat", "text", messages=turns, add_generation_prompt=add_generation_prompt))

    async def vocabulary(self) -> dict[str, Any]:
        """Size and special tokens of the vocabulary."""
        found: dict[str, Any] = await self._execute({"action": "vocabulary", "limit": 0}, None)
        return found

    async def _ask(self, action: str, key: str, *, text: Any = None, **inputs: Any) -> Any:
        plain = text if text is None or isinstance(text, str) else list(text)
        return (await self._execute({"action": action, **given(text=plain, **inputs)}, None))[key]


class AsyncPipeline(AsyncHandle):
    """A pipeline on a host; what goes in and out is Transformers' own."""

    async def run(self, inputs: str | Messages, *, timeout: float | None = None, **parameters: Any) -> Any:
        """Run it on one text, or on one conversation; `parameters` are the pipeline's."""
        one = inputs if isinstance(inputs, str) else [dict(each) for each in inputs]
        return (await self._execute({"inputs": one, "parameters": parameters}, timeout))["output"]

    async def run_many(self, inputs: Sequence[str], *, timeout: float | None = None, **parameters: Any) -> Batch[Any]:
        """Run it on many texts; each has a result or an error of its own."""
        result = await self._execute({"inputs": list(inputs), "parameters": parameters}, timeout)
        return read_batch(result, "outputs", lambda output: output)

    def stream(self, inputs: str | Messages, *, timeout: float | None = None, **parameters: Any) -> AsyncIterator[Any]:
        """Run it and yield its events; a pipeline that writes gives each token as `{"text", "token_id"}`."""
        one = inputs if isinstance(inputs, str) else [dict(each) for each in inputs]
        return self._stream({"inputs": one, "parameters": parameters}, timeout)

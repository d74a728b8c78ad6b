"""What the bridge adds to a DSPy call that takes 100 ms: the same program in its own environment, with and without."""

from __future__ import annotations

import json
import statistics
import subprocess
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import repeat
from benchmarks.pools import DSPY_PYTHON, pool_config
from examples.local_llm.server import LocalLLM
from manybridge import MLBridge

MODEL_SECONDS: Final = 0.1
CALLS: Final = 15
ROUNDS: Final = 4

_DIRECT: Final = """
import sys, time, json
import dspy
base, calls = sys.argv[1], int(sys.argv[2])
lm = dspy.LM("openai/gpt-4o-mini", api_base=base, api_key="none", cache=False, num_retries=0)
program = dspy.Predict("question -> answer")
print("ready", flush=True)
for line in sys.stdin:
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        with dspy.context(lm=lm):
            program(question="What is 2 + 3?")
        times.append(time.perf_counter() - begun)
    print(json.dumps(times), flush=True)
"""


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    with LocalLLM(delay=MODEL_SECONDS) as endpoint:
        direct = subprocess.Popen(
            [DSPY_PYTHON, "-I", "-c", _DIRECT, endpoint.openai_base, str(CALLS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        config = pool_config("dspy", 1, "auto")
        config["bridges"]["dspy"]["options"] = {
            "model": "openai/gpt-4o-mini",
            "api_base": endpoint.openai_base,
            "api_key": "none",
        }
        with direct, MLBridge.from_config(config) as ml:
            program = ml.create_resource("dspy", "program", {"signature": "question -> answer"})
            return _compare(direct, ml, program.id)


def _compare(direct: subprocess.Popen[str], ml: MLBridge, program: str) -> dict[str, Any]:
    assert direct.stdin is not None
    assert direct.stdout is not None
    direct.stdout.readline()
    question = {"question": "What is 2 + 3?"}
    ours, theirs = [], []
    begun = perf_counter()
    ml.execute_resource("dspy", program, question)
    first = perf_counter() - begun
    for number in range(ROUNDS + 1):
        direct.stdin.write("go\n")
        direct.stdin.flush()
        without = json.loads(direct.stdout.readline())
        through = repeat(lambda: ml.execute_resource("dspy", program, question), CALLS)
        if number:  # the first round warms connections up on both sides
            theirs.append(statistics.median(without))
            ours.append(statistics.median(through))
    direct.stdin.close()
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return {
        "model_ms": MODEL_SECONDS * 1000,
        "direct_ms": statistics.median(theirs) * 1000,
        "through_bridge_ms": statistics.median(ours) * 1000,
        "first_call_ms": first * 1000,
        "overhead_percent": (ratio - 1) * 100,
    }

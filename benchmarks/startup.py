"""Pool start: until 1, 4 and 8 workers are ready, spawned and forked, beside a process pool that imports DSPy."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.pools import DSPY_PYTHON, pool_config
from manybridge import AsyncMLBridge

SIZES: Final = (1, 4, 8)
ROUNDS: Final = 3

_PEER: Final = """
import sys, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def ready(_):
    import dspy
    time.sleep(0.05)  # long enough that every process of the pool gets one

if __name__ == "__main__":
    size = int(sys.argv[1])
    begun = time.perf_counter()
    with ProcessPoolExecutor(size, mp_context=get_context("spawn")) as pool:
        list(pool.map(ready, range(size)))
        print(time.perf_counter() - begun)
"""


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    kinds = {
        "mock spawn": ("mock", "never"),
        "mock zygote": ("mock", "auto"),
        "dspy spawn": ("dspy", "never"),
        "dspy zygote": ("dspy", "auto"),
    }
    results = {label: _sizes(lambda size, k=kind: asyncio.run(_start(*k, size))) for label, kind in kinds.items()}
    results["dspy executor"] = _sizes(_start_executor)
    return results


def _sizes(start: Any) -> dict[str, Any]:
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for _ in range(ROUNDS):
        for size in SIZES:
            seconds[size].append(start(size))
    one = seconds[1]
    return {
        str(size): {
            "p50_ms": statistics.median(each) * 1000,
            "times_one_worker": statistics.median(n / o for n, o in zip(each, one, strict=True)),
        }
        for size, each in seconds.items()
    }


async def _start(bridge: str, zygote: str, size: int) -> float:
    begun = perf_counter()
    async with AsyncMLBridge.from_config(pool_config(bridge, size, zygote)) as ml:
        await ml.wait_ready(bridge)
        return perf_counter() - begun


def _start_executor(size: int) -> float:
    with TemporaryDirectory() as folder:
        script = Path(folder) / "peer.py"
        script.write_text(_PEER)
        done = subprocess.run(
            [DSPY_PYTHON, "-I", str(script), str(size)], capture_output=True, text=True, check=True, timeout=120
        )
    return float(done.stdout)

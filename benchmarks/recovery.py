"""How fast the host notices, fails, stops and replaces."""

from __future__ import annotations

import asyncio
import os
import signal
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import Spread
from benchmarks.pools import pool_config, workers
from manybridge import AsyncMLBridge, ManybridgeError

ROUNDS: Final = 8
SETTLE_SECONDS: Final = 0.1
"""After this the call to be cancelled is well inside its handler."""


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    results: dict[str, Any] = {
        f"{bridge} {how}": asyncio.run(_crashes(bridge, zygote))
        for bridge in ("mock", "dspy")
        for how, zygote in (("zygote", "auto"), ("spawn", "never"))
    }
    results["cancel"] = asyncio.run(_cancels())
    return results


async def _crashes(bridge: str, zygote: str) -> dict[str, Any]:
    config = pool_config(bridge, 1, zygote)
    # This suite kills on purpose and must not be taken for a bridge that can't live.
    config["bridges"][bridge]["restart"] = {"max_crashes": 1000, "initial_backoff": 0.0, "max_backoff": 0.0}
    replaced = []
    async with AsyncMLBridge.from_config(config) as ml:
        await ml.wait_ready(bridge)
        for _ in range(ROUNDS):
            (worker,) = await workers(ml, bridge)
            begun = perf_counter()
            os.kill(worker["pid"], signal.SIGKILL)
            await until_another_answers(ml, bridge, worker["pid"])
            replaced.append(perf_counter() - begun)
    return {"replaced_ms": _milliseconds(replaced)}


async def until_another_answers(ml: AsyncMLBridge, bridge: str, killed: int) -> None:
    """Call until a worker with another process id answers."""
    while True:
        try:
            pong = await ml.call(bridge, "common:ping", {})
        except ManybridgeError:  # it was on the way to the worker that died
            continue
        if pong["pid"] != killed:
            return


async def _cancels() -> dict[str, Any]:
    """From the cancel to the caller's error, and to the answer of the next call on the same pool of one."""
    kinds = {
        "cooperative": ("mock:sleep", {"seconds": 60}),
        "exception (Python loop)": ("mock:busy", {"seconds": 60, "mode": "python"}),
        "sigkill (C that holds the interpreter)": ("mock:busy", {"seconds": 60, "mode": "c"}),
    }
    results = {}
    async with AsyncMLBridge.from_config(pool_config("mock", 1, "auto")) as ml:
        await ml.wait_ready("mock")
        for name, (command, args) in kinds.items():
            results[name] = await _cancel_often(ml, command, args, 3 if "sigkill" in name else ROUNDS)
    return results


async def _cancel_often(ml: AsyncMLBridge, command: str, args: dict[str, Any], rounds: int) -> dict[str, Any]:
    stopped, free = [], []
    for _ in range(rounds):
        job = await ml.submit("mock", command, args)
        await asyncio.sleep(SETTLE_SECONDS)
        begun = perf_counter()
        await job.cancel()
        try:
            await job.result()
        except ManybridgeError:
            stopped.append(perf_counter() - begun)
        await ml.call("mock", "mock:echo", {})
        free.append(perf_counter() - begun)
    return {"stopped_ms": _milliseconds(stopped), "slot_free_ms": _milliseconds(free)}


def _milliseconds(seconds: list[float]) -> dict[str, float]:
    spread = Spread.of(seconds)
    return {"p50": spread.p50 * 1000, "worst": max(seconds) * 1000, "count": spread.count}

"""Round trip and throughput of a call, beside the limit and `ProcessPoolExecutor`, in interleaved rounds."""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import uvloop

from benchmarks.limit import Limit, limit
from benchmarks.measure import Spread, median_ratio, repeat
from manybridge import AsyncMLBridge, MLBridge

CONFIG: Final[dict[str, Any]] = {
    "default": "echo",
    "bridges": {"echo": {"python_script": str(Path(__file__).with_name("echo_bridge.py")), "max_queue": 1000}},
}
SIZES: Final = {"100 B": 100, "100 KB": 100_000, "10 MB": 10_000_000}
CONCURRENCIES: Final = (1, 8, 64)
ROUNDS: Final = 5
THROUGHPUT_ROUNDS: Final = {"100 B": 25, "100 KB": 5, "10 MB": 2}
"""More of the small ones: a round takes 0.1 s, and both sides swing by a third from one to the next."""

ROUND_TRIPS: Final = {"100 B": 600, "100 KB": 100, "10 MB": 4}
"""Round trips of one round, per size; the five rounds take a few seconds for each size."""
THROUGHPUT_CALLS: Final = {"100 B": 4000, "100 KB": 256, "10 MB": 8}


def payload_of(size: int) -> dict[str, Any]:
    """Arguments whose JSON has about `size` bytes."""
    return {"text": "x" * max(1, size - 12)}


def echo(value: dict[str, Any]) -> dict[str, Any]:
    """What the executor's worker runs."""
    return value


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    with limit() as reference:
        executor = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        with executor, MLBridge.from_config(CONFIG) as bridge:
            executor.submit(echo, {}).result()
            bridge.call("echo", "echo:echo", payload_of(100))
            return uvloop.run(_measure(reference, executor, bridge))


async def _measure(reference: Limit, executor: ProcessPoolExecutor, bridge: MLBridge) -> dict[str, Any]:
    async with AsyncMLBridge.from_config(CONFIG) as abridge:
        await abridge.call("echo", "echo:echo", payload_of(100))
        round_trips = {name: await _round_trips(name, reference, executor, bridge, abridge) for name in SIZES}
        throughput = {
            name: {str(n): await _throughputs(name, n, reference, executor, abridge) for n in CONCURRENCIES}
            for name in SIZES
        }
    return {"round_trip": round_trips, "throughput": throughput}


async def _round_trips(
    name: str, reference: Limit, executor: ProcessPoolExecutor, bridge: MLBridge, abridge: AsyncMLBridge
) -> dict[str, Any]:
    payload, times = payload_of(SIZES[name]), ROUND_TRIPS[name]
    rounds: dict[str, list[list[float]]] = {"limit": [], "async": [], "sync": [], "executor": []}
    for _ in range(ROUNDS):
        rounds["limit"].append(repeat(lambda: reference.round_trip(payload), times))
        rounds["async"].append([await _timed(abridge, payload) for _ in range(times)])
        rounds["sync"].append(repeat(lambda: bridge.call("echo", "echo:echo", payload), times))
        rounds["executor"].append(repeat(lambda: executor.submit(echo, payload).result(), times))
    p50 = {side: [Spread.of(one).p50 for one in each] for side, each in rounds.items()}
    result: dict[str, Any] = {
        side: Spread.of([seconds for one in each for seconds in one]).to_object() for side, each in rounds.items()
    }
    for side in ("async", "sync", "executor"):
        result[side]["times_the_limit"] = median_ratio(p50[side], p50["limit"])
    return result


async def _timed(abridge: AsyncMLBridge, payload: dict[str, Any]) -> float:
    begun = perf_counter()
    await abridge.call("echo", "echo:echo", payload)
    return perf_counter() - begun


async def _throughputs(
    name: str, in_flight: int, reference: Limit, executor: ProcessPoolExecutor, abridge: AsyncMLBridge
) -> dict[str, Any]:
    size, total = SIZES[name], max(THROUGHPUT_CALLS[name], in_flight)
    payload = payload_of(size)
    rates: dict[str, list[float]] = {"limit": [], "async": [], "executor": []}
    for number in range(THROUGHPUT_ROUNDS[name]):
        rates["limit"].append(reference.throughput(payload, size, in_flight, total))
        rates["async"].append(await _async_rate(abridge, payload, in_flight, total))
        if number < ROUNDS:  # it takes ten times as long, and nothing is promised of it
            rates["executor"].append(_executor_rate(executor, payload, in_flight, total))
    result: dict[str, Any] = {f"{side}_per_s": statistics.median(each) for side, each in rates.items()}
    result["async_share_of_limit"] = median_ratio(rates["async"], rates["limit"])
    result["executor_share_of_limit"] = median_ratio(rates["executor"], rates["limit"][:ROUNDS])
    return result


async def _async_rate(abridge: AsyncMLBridge, payload: dict[str, Any], in_flight: int, total: int) -> float:
    left = total

    async def caller() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await abridge.call("echo", "echo:echo", payload)

    begun = perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return total / (perf_counter() - begun)


def _executor_rate(executor: ProcessPoolExecutor, payload: dict[str, Any], in_flight: int, total: int) -> float:
    begun = perf_counter()
    pending: set[Future[dict[str, Any]]] = set()
    for _ in range(total):
        if len(pending) >= in_flight:
            pending = wait(pending, return_when="FIRST_COMPLETED").not_done
        pending.add(executor.submit(echo, payload))
    wait(pending)
    return total / (perf_counter() - begun)

"""Streams: what the way through the host adds to the first chunk, and how many chunks a second one worker sustains."""

from __future__ import annotations

import statistics
from time import monotonic, perf_counter
from typing import Any, Final

import uvloop

from benchmarks.calls import CONFIG
from benchmarks.measure import Spread
from manybridge import AsyncMLBridge, MLBridge

CHUNKS: Final = 30_000
ROUNDS: Final = 5
FIRST_CHUNKS: Final = 200


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    with MLBridge.from_config(CONFIG) as bridge:
        bridge.call("echo", "echo:echo", {"text": ""})
        blocking = [_blocking_rate(bridge) for _ in range(ROUNDS)]
    return {**uvloop.run(_measure()), "sync_chunks_per_s": statistics.median(blocking)}


async def _measure() -> dict[str, Any]:
    async with AsyncMLBridge.from_config(CONFIG) as bridge:
        await bridge.call("echo", "echo:echo", {"text": ""})
        delays = [await _first_chunk(bridge) for _ in range(FIRST_CHUNKS)]
        rates = [await _rate(bridge) for _ in range(ROUNDS)]
    return {"first_chunk": Spread.of(delays).to_object(), "chunks_per_s": statistics.median(rates), "chunks": CHUNKS}


async def _first_chunk(bridge: AsyncMLBridge) -> float:
    """Seconds from the moment when the handler emits its first chunk to the moment when the caller has it.

    Both read the same clock: CLOCK_MONOTONIC is one for all processes of a machine.
    """
    stream = bridge.stream("echo", "echo:tokens", {"count": 3})
    delays = [monotonic() - event.data["at"] async for event in stream]
    return delays[0]


async def _rate(bridge: AsyncMLBridge) -> float:
    begun, received = perf_counter(), 0
    async for event in bridge.stream("echo", "echo:tokens", {"count": CHUNKS}):
        assert event.seq == received
        received += 1
    assert received == CHUNKS
    return CHUNKS / (perf_counter() - begun)


def _blocking_rate(bridge: MLBridge) -> float:
    begun = perf_counter()
    received = sum(1 for _ in bridge.stream("echo", "echo:tokens", {"count": CHUNKS}))
    assert received == CHUNKS
    return CHUNKS / (perf_counter() - begun)

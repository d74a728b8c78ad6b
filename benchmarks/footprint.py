"""What an idle worker costs, and how soon the drop-in answers."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from time import perf_counter
from typing import Any, Final

from benchmarks.limit import READ_BYTES
from benchmarks.measure import Spread
from benchmarks.pools import DSPY_PYTHON, REPOSITORY, pool_config
from manybridge import AsyncMLBridge
from manybridge.protocol import codec
from manybridge.protocol.frames import FrameDecoder, OversizedFrame, encode_frame

STARTS: Final = 15


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    pings = [_first_ping() for _ in range(STARTS)]
    spread = Spread.of(pings)
    return {
        "drop_in_first_ping_ms": {"p50": spread.p50 * 1000, "worst": max(pings) * 1000, "count": STARTS},
        "python_idle_unshared_mb": asyncio.run(_idle_memory("python", "never")),
        "python_forked_unshared_mb": asyncio.run(_idle_memory("python", "auto")),
        "dspy_idle_unshared_mb": asyncio.run(_idle_memory("dspy", "never")),
        "dspy_forked_unshared_mb": asyncio.run(_idle_memory("dspy", "auto")),
    }


def _first_ping() -> float:
    """Seconds from the start of the drop-in script to its first answer, as a pool of DSPex sees it."""
    near, far = socket.socketpair()
    script = REPOSITORY / "src" / "manybridge" / "dropin" / "dspy_bridge.py"
    begun = perf_counter()
    process = subprocess.Popen(
        [DSPY_PYTHON, script, "--mode", "pool-worker", "--worker-id", "bench"],
        stdin=far,
        stdout=far,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "MANYBRIDGE_HOME": str(REPOSITORY / "src")},
    )
    far.close()
    with process, near:  # in this order: closing the socket is what ends the process
        args = {"initialization": True, "worker_id": "bench"}
        near.sendall(encode_frame(codec.encode({"id": 0, "command": "ping", "args": args})))
        decoder, frames = FrameDecoder(), []
        while not frames:
            frames = decoder.receive_data(near.recv(READ_BYTES))
        seconds = perf_counter() - begun
    assert not isinstance(frames[0], OversizedFrame)
    assert codec.decode(frames[0])["success"]
    return seconds


async def _idle_memory(bridge: str, zygote: str) -> float:
    """Unshared memory of an idle worker in MB, as the kernel counts it."""
    async with AsyncMLBridge.from_config(pool_config(bridge, 2, zygote)) as ml:
        await ml.wait_ready(bridge)
        stats = await ml.call(bridge, "common:get_stats", {})
        return float(stats["memory"]["unshared_bytes"]) / 1e6

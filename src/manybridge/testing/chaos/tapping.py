"""Getting taps onto the wires of workers that live already: each is replaced by one that was started with a tap."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

from manybridge.host.pool import Pool
from manybridge.host.worker import WorkerHandle
from manybridge.testing.chaos.injection import ChaosError

LOOK_SECONDS: Final = 0.005

TAP_SECONDS: Final = 30.0
"""What replacing the workers of a bridge may take; frameworks import for seconds."""


async def replace_untapped(pool: Pool, is_tapped: Callable[[WorkerHandle], bool], *, every: bool = False) -> None:
    """Replace workers without a tap, replacement first, as recycling does.

    Args:
        pool: whose supervisor gives new workers a tap by now.
        is_tapped: whether a worker has one.
        every: wait until all have, and those without have ended; else until one has.

    Raises:
        ChaosError: not in time.
    """
    pool.start()

    def done() -> bool:
        for worker in list(pool.ready):
            if not is_tapped(worker):
                pool.supervisor.recycle(worker, "its wire gets a tap")  # one at a time: refused while another is
        tapped = [is_tapped(worker) for worker in pool.ready]
        if not every:
            return any(tapped)
        return all(tapped) and len(tapped) >= pool.config.pool_size and len(pool.workers) == len(tapped)

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TAP_SECONDS):
            while not done():  # noqa: ASYNC110  # pools tell nobody
                await asyncio.sleep(LOOK_SECONDS)
            return
    raise ChaosError(
        f'no worker of bridge "{pool.name}" could be replaced by one with a tap on its wire; one that holds pinned '
        "resources never is: begin before they are made"
    )

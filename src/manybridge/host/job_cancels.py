"""Stopping a job that another host runs: asked through the store, noticed by its host within a second.

A request is an event of the job with a number that no event reaches: it needs no table of its own, goes with the job,
and asking twice is asking once. Readers of events never see it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from manybridge.errors import ManybridgeError
from manybridge.store.base import JobStore
from manybridge.store.records import JobEvent

if TYPE_CHECKING:
    from manybridge.host.jobs import LiveJob

_log = logging.getLogger("manybridge.host")

CANCEL_SEQ: Final = 2**62
"""The number of the request: no job has so many events, and every database can count so far."""

LOOK_SECONDS: Final = 1.0
"""How often a host looks for requests."""

LOOKED_AT_ONCE: Final = 100
"""Jobs that are looked at each time: a thousand waiting ones must not load the store."""


async def request_cancel(store: JobStore, id: str) -> None:
    """Ask the host that runs a job to stop it."""
    await store.append_events(id, [JobEvent(CANCEL_SEQ, "cancel", {})])


async def is_cancel_requested(store: JobStore, id: str) -> bool:
    """Whether somebody asked for that."""
    return bool(await store.read_events(id, CANCEL_SEQ, 1))


def without_request(events: Sequence[JobEvent]) -> list[JobEvent]:
    """Return events of the job itself."""
    return [event for event in events if event.seq < CANCEL_SEQ]


class CancelWatch:
    """Owner of the task that looks for requests while this host has jobs that have not ended."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._jobs: dict[str, LiveJob] = {}
        self._cancelled: set[asyncio.Task[bool]] = set()
        self._task: asyncio.Task[None] | None = None

    def add(self, job: LiveJob) -> None:
        """Look for requests to stop this job until it has ended."""
        self._jobs[job.id] = job
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look(), name="job cancels")

    async def close(self) -> None:
        """Look no more."""
        for task in {self._task, *self._cancelled} - {None}:
            assert task is not None
            task.cancel()
            await asyncio.wait({task})

    async def _look(self) -> None:
        while self._jobs:
            await asyncio.sleep(LOOK_SECONDS)
            self._jobs = {id: job for id, job in self._jobs.items() if not job.done}
            for id in list(self._jobs)[:LOOKED_AT_ONCE]:
                job = self._jobs.pop(id)
                try:
                    wanted = await is_cancel_requested(self._store, id)
                except ManybridgeError as error:
                    _log.warning("the store could not say whether job %s is to be cancelled: %s", id, error)
                    wanted = False
                if wanted:
                    task = asyncio.get_running_loop().create_task(job.cancel(), name=f"cancel {id}")
                    self._cancelled.add(task)
                    task.add_done_callback(self._cancelled.discard)
                else:
                    self._jobs[id] = job  # behind the others

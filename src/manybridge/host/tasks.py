"""Background tasks with an owner: none is forgotten, none fails silently, all end with their owner."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from manybridge.errors import ManybridgeError

_log = logging.getLogger("manybridge.host")


class TaskSet:
    """Owner of background tasks."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` in the background. An error that it raises is logged: whoever starts it does not wait."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def join(self) -> None:
        """Wait until every task has ended."""
        while others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def cancel(self) -> None:
        """Cancel every task and wait until it has ended."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()
        await self.join()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, ManybridgeError):  # it says itself what went wrong; where in our code is no help
            _log.warning("in the background, %s: %s", task.get_name(), error)
        else:
            _log.error("background task %s failed", task.get_name(), exc_info=error)

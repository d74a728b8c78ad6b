"""Threads for functions of the host's program: each call has one of its own, and nobody waits for one that hangs.

The loop's own executor will not do. It has a handful of threads, so that a few tools that hang would leave none for the
others; and the end of the loop, and of the interpreter, waits for every one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from manybridge.errors import CallError
from manybridge.protocol.errors import ErrorCode

MAX_THREADS: Final = 500
"""Calls at the same time, those that hang counted too: enough for any real load, and not enough to fill the memory."""


class ToolThreads:
    """Runs functions on threads. Owner of the count of those that run."""

    def __init__(self, max_threads: int = MAX_THREADS) -> None:
        self._free = threading.BoundedSemaphore(max_threads)
        self._max = max_threads

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run a function on a thread, in the context of the caller, and return what it returns.

        A caller that is cancelled leaves the thread behind: it can't be stopped, and what it returns is dropped.

        Args:
            function: must not raise; see `host.tools`.

        Raises:
            CallError: `overloaded`, so many run that there is no thread for it.
        """
        if not self._free.acquire(blocking=False):
            text = f"{self._max} calls of tools run at the same time already; some of them may hang"
            raise CallError(text, code=ErrorCode.OVERLOADED, details={"running": self._max})
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        work = partial(contextvars.copy_context().run, function)
        try:
            threading.Thread(target=self._run, args=(work, loop, answer), name="manybridge-tool", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            self._free.release()
            raise CallError(f"no thread for a tool: {error}", code=ErrorCode.OVERLOADED) from error
        return await answer

    def _run(self, work: Callable[[], Any], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[Any]) -> None:
        try:
            result = work()
        finally:
            self._free.release()
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to tell
            loop.call_soon_threadsafe(_tell, answer, result)


def _tell(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():  # else its caller has gone
        answer.set_result(result)

"""Where user code runs.

By default on the main thread, one call at a time, because many frameworks need the main thread and because only there
a blocking system call can be interrupted. A bridge that says `max_concurrency > 1` gets a pool of threads for plain
functions and one event loop, which lives as long as the worker, for coroutines.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from manybridge.bridge import Result

if TYPE_CHECKING:
    import asyncio

    from manybridge.worker.calls import WorkerCall


class Chunks:
    """Collects what a generator yields for a caller that takes no events."""

    def __init__(self, call: WorkerCall) -> None:
        self._call = call
        self._kept: list[Any] | None = None if call.request.stream else []

    def take(self, chunk: Any) -> None:
        """Send or keep one chunk."""
        if self._kept is None:
            self._call.emit_event("chunk", chunk)
        else:
            self._kept.append(chunk)

    def result(self, returned: Any) -> Any:
        """What the call answers: what the generator returned, else what it yielded if that went nowhere else."""
        if returned is not None:
            return returned
        return {} if self._kept is None else {"chunks": self._kept}


def drain(call: WorkerCall, generator: Iterator[Any]) -> Any:
    """Run a generator handler to its end."""
    chunks = Chunks(call)
    while True:
        try:
            chunk = next(generator)
        except StopIteration as end:
            return chunks.result(end.value)
        chunks.take(chunk)


async def adrain(call: WorkerCall, generator: AsyncIterator[Any]) -> Any:
    """Run an async generator handler to its end."""
    chunks = Chunks(call)
    returned = None
    async for chunk in generator:
        if isinstance(chunk, Result):
            returned = chunk.value
        else:
            chunks.take(chunk)
    return chunks.result(returned)


class EventLoop:
    """The worker's one event loop. Clients of frameworks cache it, so it is never closed and never replaced."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, call: WorkerCall, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the calling thread until it is done."""
        loop = self._get()
        call.task = loop.create_task(work)
        try:
            return loop.run_until_complete(call.task)
        finally:
            task, call.task = call.task, None
            if task is not None and not task.done():
                # The stop ladder's exception left the loop in the middle of the task: end the task, keep the loop.
                self._abandon(loop, task)

    def run_elsewhere(self, call: WorkerCall, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop's own thread, beside others, and wait for it here."""
        import asyncio

        with self._lock:
            loop = self._get()
            if self._thread is None:
                self._thread = threading.Thread(target=loop.run_forever, name="manybridge-loop", daemon=True)
                self._thread.start()

        async def tracked() -> Any:
            call.task = asyncio.current_task()
            try:
                return await work
            finally:
                call.task = None

        return asyncio.run_coroutine_threadsafe(tracked(), loop).result()

    def _get(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    @staticmethod
    def _abandon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        import asyncio

        task.cancel()
        try:
            loop.run_until_complete(asyncio.wait({task}, timeout=0.1))
        except BaseException:  # noqa: BLE001, S110  # a second interrupt while cleaning up; the first is already on its way
            pass


class ThreadPool:
    """Threads for plain handlers of a concurrent bridge. Daemons, so that abandoned code can't hold the process."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._idle = 0
        self._threads = 0
        self._lock = threading.Lock()
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        """Run `work` on a thread; it handles its own outcome."""
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._threads < self._size:
                self._threads += 1
                threading.Thread(target=self._serve, name=f"manybridge-call-{self._threads}", daemon=True).start()
        self._work.put(work)

    def _serve(self) -> None:
        while True:
            self._work.get()()
            with self._lock:
                self._idle += 1

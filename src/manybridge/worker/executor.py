"""Where user code runs.

By default on the main thread, one call at a time, because many frameworks need the main thread and because only there
a blocking system call can be interrupted. A bridge that says `max_concurrency > 1` gets a pool of threads for plain
functions and one event loop, which lives as long as the worker, for coroutines.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import aclosing, closing
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from manybridge.bridge import Cancelled, Result
from manybridge.worker.interrupt import Terminated

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


def drain(call: WorkerCall, generator: Generator[Any, None, Any]) -> Any:
    """Run a generator handler to its end; its `finally` blocks run here too if it does not get there.

    Each `yield` is a place where the call can be stopped: `Cancelled` is raised there, as `ctx.check()` would.
    """
    chunks = Chunks(call)
    with closing(generator):
        try:
            chunk = next(generator)
            while True:
                chunks.take(chunk)
                chunk = generator.throw(Cancelled(call.stop_reason)) if call.stop_reason else next(generator)
        except StopIteration as end:
            return chunks.result(end.value)


async def adrain(call: WorkerCall, generator: AsyncGenerator[Any, None]) -> Any:
    """Run an async generator handler to its end, as `drain`."""
    from asyncio import sleep

    chunks = Chunks(call)
    returned = None
    async with aclosing(generator):
        async for chunk in generator:
            if isinstance(chunk, Result):
                returned = chunk.value
            else:
                chunks.take(chunk)
            if call.stop_reason:
                await sleep(0)  # the task's cancellation arrives here, also where the generator itself never waits
    return chunks.result(returned)


class EventLoop:
    """The worker's one event loop. Clients of frameworks cache it, so it is replaced only if the user's code closed it.

    Two ways to use it, and a worker uses one of them: `run` on the main thread, `run_elsewhere` for concurrent calls.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def run(self, call: WorkerCall, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the calling thread until it is done, however it ends: no code is left behind."""
        loop = self._get()
        call.loop = loop  # before there is a task: from here on an interrupt waits for it
        try:
            task = call.task = loop.create_task(work)
            if call.cancelled:
                task.cancel()
            try:
                return loop.run_until_complete(task)
            except Terminated:
                raise
            except BaseException:
                _end(loop, task)
                raise
        finally:
            call.task = call.loop = None

    def run_elsewhere(self, call: WorkerCall, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the loop's own thread, beside others, and wait for it here."""
        import asyncio

        async def tracked() -> tuple[Any, BaseException | None]:
            # An outcome, not an exception: SystemExit would leave the task, and then the loop with all its calls.
            call.task = asyncio.current_task()
            try:
                if call.cancelled:
                    work.close()
                    return None, Cancelled(call.stop_reason or "cancelled")
                return await work, None
            except BaseException as error:  # noqa: BLE001  # raised again by whoever waits
                return None, error
            finally:
                call.task = None

        with self._lock:
            loop = self._get()
            if self._thread is None:
                self._thread = threading.Thread(target=_run_forever, args=(loop,), name="manybridge-loop", daemon=True)
                self._thread.start()
        result, error = asyncio.run_coroutine_threadsafe(tracked(), loop).result()
        if error is not None:
            raise error
        return result

    def _get(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            import asyncio

            self._loop = asyncio.new_event_loop()
            self._thread = None
            asyncio.set_event_loop(self._loop)
        return self._loop


def _end(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """End a task that the loop was left without: another task called `sys.exit`, or somebody stopped the loop."""
    import asyncio

    while not task.done() and not loop.is_closed():
        task.cancel()
        try:
            loop.run_until_complete(asyncio.wait({task}))
        except Terminated:
            raise
        except BaseException:  # noqa: BLE001, S112  # once more; the call is over only when its code is
            continue


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    while not loop.is_closed():
        try:
            loop.run_forever()
        except BaseException as error:  # noqa: BLE001  # a thread's border: SystemExit in a task that a handler left behind
            sys.stderr.write(f"the event loop met {type(error).__qualname__}: {error}; it goes on\n")


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
            work = self._work.get()
            try:
                work()
            except BaseException as error:  # noqa: BLE001  # a thread's border: a pool that loses threads hangs in the end
                sys.stderr.write(f"a call's thread met {type(error).__qualname__}: {error}\n")
            with self._lock:
                self._idle += 1

"""Functions of somebody else, called from an event loop: tools of the host's program, functions of a team's agent.

Here because both sides need it and neither imports the other. Each call of a plain function has a thread of its own.
The loop's own executor will not do: it has a handful of threads, so that a few functions that hang would leave none for
the others; and the end of the loop, and of the interpreter, waits for every one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any


class NoThreadError(Exception):
    """There is no thread for another function."""


class FunctionEndedError(Exception):
    """A function raised what may not travel through an event loop; `kind` is the name of that.

    `SystemExit` and `KeyboardInterrupt` would end the loop, and its process. `StopIteration`, which `next()` of nothing
    raises, can't be put into a future. `CancelledError` and `GeneratorExit` would look like the end of our own task,
    and whoever waits for the function would never hear of it.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(*error.args)
        self.kind = type(error).__name__


class FunctionThreads:
    """Calls functions. Owner of the count of the threads that run.

    Args:
        max_threads: plain functions at the same time, those that hang counted too.
    """

    def __init__(self, max_threads: int) -> None:
        self._max = max_threads
        self._running = 0
        self._lock = threading.Lock()  # not a semaphore: an interrupt inside one would leave it taken (worker/lane.py)

    async def call(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Call a coroutine function on this loop, any other function on a thread, and return its result.

        Who is cancelled meanwhile leaves the thread behind: it can't be stopped, and its result is dropped.

        Raises:
            NoThreadError: so many run that there is no thread for it.
            FunctionEndedError: it called `sys.exit()`, or raised `StopIteration`, `CancelledError` and the like.
            Exception: whatever else it raises.
        """
        try:
            if inspect.iscoroutinefunction(function):
                return await function(**arguments)
            result, error = await self._on_thread(partial(_outcome, function, arguments))
            if error is not None:
                raise error
            return await result if inspect.isawaitable(result) else result
        except SystemExit as error:
            raise FunctionEndedError(error) from error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise FunctionEndedError(error) from error  # nobody cancelled us

    async def _on_thread(self, work: Callable[[], _Outcome]) -> _Outcome:
        with self._lock:
            if self._running >= self._max:
                raise NoThreadError(f"{self._max} functions run at the same time already; some of them may hang")
            self._running += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Outcome] = loop.create_future()
        in_context = partial(contextvars.copy_context().run, work)
        try:
            threading.Thread(target=self._run, args=(in_context, loop, answer), name="function", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads
            self._ended()
            raise NoThreadError(f"no thread for another function: {error}") from error
        return await answer

    def _run(
        self, work: Callable[[], _Outcome], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[_Outcome]
    ) -> None:
        try:
            outcome = work()
        finally:
            self._ended()
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to tell
            loop.call_soon_threadsafe(_tell, answer, outcome)

    def _ended(self) -> None:
        with self._lock:
            self._running -= 1


_Outcome = tuple[Any, Exception | None]
"""What a function returned, or what it raised in a form that a task can raise."""


def _outcome(function: Callable[..., Any], arguments: Mapping[str, Any]) -> _Outcome:
    try:
        return function(**arguments), None
    except StopIteration as error:
        return None, FunctionEndedError(error)
    except Exception as error:  # noqa: BLE001  # a border, as below
        return None, error
    except BaseException as error:  # noqa: BLE001  # a border: the thread is ours, and the function has ended
        return None, FunctionEndedError(error)


def _tell(answer: asyncio.Future[_Outcome], outcome: _Outcome) -> None:
    if not answer.done():  # else its caller has gone
        answer.set_result(outcome)

"""A team's functions, called from a worker's event loop: each on a thread of its own.

The loop's own executor has a handful of threads, which providers' clients need too: a few functions that hang would
leave none for them, and every later question to a model would wait until its deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

MAX_THREADS: Final = 200
"""Functions that run at the same time, those that hang counted too; a worker with more of them is better replaced."""

_free = threading.BoundedSemaphore(MAX_THREADS)


class FunctionEndedError(Exception):
    """A function raised what may not travel through an event loop, or would look like its end; `kind` names it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(*error.args)
        self.kind = type(error).__name__


async def call_function(function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    """Call a coroutine function on this loop, any other function on a thread, and return its result.

    Who is cancelled meanwhile leaves the thread behind: it can't be stopped, and its result is dropped.

    Raises:
        BridgeError: `overloaded`, there is no thread for it.
        FunctionEndedError: it called `sys.exit()`, or raised `StopIteration`, `CancelledError` and the like.
        Exception: whatever else it raises.
    """
    try:
        if inspect.iscoroutinefunction(function):
            return await function(**arguments)
        result, error = await _on_thread(partial(_outcome, function, arguments))
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


def _outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, Exception | None]:
    """Run a function on this thread; return its result, or what it raised in a form that a task can raise."""
    try:
        return function(**arguments), None
    except StopIteration as error:
        return None, FunctionEndedError(error)
    except Exception as error:  # noqa: BLE001  # a border, as below
        return None, error
    except BaseException as error:  # noqa: BLE001  # a border: the thread is ours, and the function has ended
        return None, FunctionEndedError(error)


async def _on_thread(work: Callable[[], tuple[Any, Exception | None]]) -> tuple[Any, Exception | None]:
    if not _free.acquire(blocking=False):
        raise BridgeError(ErrorCode.OVERLOADED, f"{MAX_THREADS} functions run in this worker; some of them may hang")
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[Any, Exception | None]] = loop.create_future()
    in_context = partial(contextvars.copy_context().run, work)
    try:
        threading.Thread(target=_run, args=(in_context, loop, answer), name="function", daemon=True).start()
    except RuntimeError as error:  # the system has no more threads
        _free.release()
        raise BridgeError(ErrorCode.OVERLOADED, f"no thread for a function: {error}") from error
    return await answer


def _run(
    work: Callable[[], tuple[Any, Exception | None]],
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[tuple[Any, Exception | None]],
) -> None:
    try:
        outcome = work()
    finally:
        _free.release()
    with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to tell
        loop.call_soon_threadsafe(_tell, answer, outcome)


def _tell(answer: asyncio.Future[tuple[Any, Exception | None]], outcome: tuple[Any, Exception | None]) -> None:
    if not answer.done():  # else its caller has gone
        answer.set_result(outcome)

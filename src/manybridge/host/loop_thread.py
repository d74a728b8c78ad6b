"""The event loop of a blocking host, its thread, and how callers on other threads get their answers.

Theory of operation. Everything about a host happens in turn, where its loop runs: normally on a thread of its own. To
hand a call over to that thread and its answer back takes two wake-ups, longer than a short call itself. So after a
brief call, when the host has nothing else to do, the thread *stands aside*: it blocks inside a callback, ASIDE_SECONDS
at a time, for as long as callers use it. Meanwhile a caller with a call for the same pool takes the *turn*, acts in the
thread's place and reads its answer itself. A call that turns out not to be brief, and everything else that is posted,
ends that at once. What comes by itself, a timer or a message of a worker that nobody waits for, waits ASIDE_SECONDS at
most.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import weakref

# The functions of `signal` look every value up in an enum: 14 µs instead of 1 for what is done here.
from _signal import getsignal, signal  # type: ignore[import-not-found]  # CPython's own, without a stub
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from signal import SIGINT
from time import monotonic
from types import FrameType
from typing import Any, Final, TypeVar

from manybridge.errors import ClosedError
from manybridge.host.calls import Call
from manybridge.host.pool import Pool
from manybridge.host.worker import WorkerHandle

T = TypeVar("T")

ASIDE_SECONDS: Final = 0.01
"""What a timer of the host waits at most for a caller who makes one brief call after the other; deadlines are kept to
no less than this anyway (`deadlines.RESOLUTION`). Coming back costs such a caller two wake-ups each time."""

BRIEF_SECONDS: Final = 0.001
"""Calls that take longer, from the caller's view, are not worth standing aside for: a wake-up is little beside them."""


class Answer:
    """Where the answer of one call goes: a lock that is released when it is there. A tenth of a `Future`'s cost."""

    __slots__ = ("_error", "_lock", "_result", "_there", "then")

    def __init__(self) -> None:
        self.then: Callable[[], None] | None = None
        """Called when it is there, by whom it comes from."""
        self._lock = threading.Lock()
        self._lock.acquire()
        self._there = False
        self._result: Any = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        """Whether it is there."""
        return self._there

    def set_result(self, result: Any) -> None:
        """The call succeeded."""
        self._result = result
        self._bring()

    def set_exception(self, exception: Any) -> None:
        """The call failed."""
        self._error = exception
        self._bring()

    def _bring(self) -> None:
        self._there = True
        self._lock.release()
        if self.then is not None:
            self.then()

    def wait(self) -> Any:
        """Wait for it and return it, or raise it."""
        self._lock.acquire()
        if self._error is not None:
            raise self._error
        return self._result


class LoopThread:
    """Owner of the host's loop and of the thread that runs it.

    Args:
        is_quiet: whether the host has nothing to do but what it is asked for; asked on the loop.
    """

    def __init__(self, is_quiet: Callable[[], bool]) -> None:
        _fill_standard_descriptors()
        self.loop = new_loop()
        self._maker = os.getpid()
        self.is_forked = False
        """Whether this is a copy in a process that the host's own has forked: threads are not copied with it."""
        self._is_quiet = is_quiet
        self._open_runs = 0
        self._on_way: deque[None] = deque()
        """One for each post that has not arrived."""
        self._turn = threading.Lock()
        """Held by the one thread that may touch the host: the loop's, but while it stands aside."""
        self._aside_for: Pool | None = None
        self._used = False
        """Whether a caller has acted in the thread's place since it began to stand aside."""
        self._come_back = threading.Lock()
        self._come_back.acquire()
        self._thread = threading.Thread(target=self._serve, name="manybridge-host", daemon=True)
        self._thread.start()
        _threads.add(self)

    def is_current(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.get_ident() == self._thread.ident

    # ------------------------------------------------------------------ for any thread

    def submit(self, pool: Pool, call: Call, answer: Answer) -> None:
        """Give a pool a call: here and now if the thread stands aside for that, else there and soon.

        Raises:
            ClosedError: in a process that was forked.
        """
        if self.is_forked:
            raise self._not_here()
        if self._aside_for is not pool or not self._act_in_its_place(pool, call, answer):
            self.post(self._submit, pool, call, answer)
        elif not answer.done():
            self._end_standing_aside()  # the loop is needed to wait for it

    def post(self, callback: Callable[..., Any], *args: Any) -> None:
        """Have the loop call something soon.

        Raises:
            RuntimeError: the loop has ended, or is another process's.
        """
        if self.is_forked:
            raise RuntimeError("the loop is another process's")
        self._on_way.append(None)
        try:
            self.loop.call_soon_threadsafe(self._arrive, callback, *args)
        except RuntimeError:
            self._on_way.pop()
            raise
        if self._aside_for is not None:
            self._end_standing_aside()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, with the caller's context variables, and wait for it on the caller's thread.

        Raises:
            ClosedError: in a process that was forked, or the host was closed meanwhile.
        """
        if self.is_forked:
            work.close()
            raise self._not_here()
        answer = Answer()
        tasks: list[asyncio.Task[T]] = []
        self.post(self._begin, work, answer, tasks)
        try:
            outcome: T = answer.wait()
        except BaseException:
            if not answer.done() and tasks:  # Ctrl-C
                self.post(tasks[0].cancel)
            raise
        return outcome

    def forget_in_child(self) -> None:
        """Right after a fork, in the new process: neither the thread nor anything that it owns is there."""
        self.is_forked = True

    def stop(self) -> None:
        """Stop the loop and wait for the thread."""
        if self._thread.is_alive():
            self.post(self.loop.stop)
            self._thread.join()

    def _not_here(self) -> ClosedError:
        text = f"this host belongs to process {self._maker}, which forked this one; make a host here, after the fork"
        return ClosedError(text)

    # ------------------------------------------------------------------ in place of the thread

    def _act_in_its_place(self, pool: Pool, call: Call, answer: Answer) -> bool:
        """Make a call on this thread. Returns False if somebody else has the turn."""
        is_main = threading.get_ident() == threading.main_thread().ident
        if not is_main or not callable(handler := getsignal(SIGINT)):
            return self._act_in_turn(pool, call, answer)
        # Signal handlers run on the main thread, between any two steps, and Ctrl-C's raises. Half of a change of the
        # host's state would be worse than none, so it waits for the end.
        came: list[tuple[int, FrameType | None]] = []
        signal(SIGINT, lambda number, frame: came.append((number, frame)))
        try:
            return self._act_in_turn(pool, call, answer)
        finally:
            signal(SIGINT, handler)
            if came:
                handler(*came[-1])

    def _act_in_turn(self, pool: Pool, call: Call, answer: Answer) -> bool:
        if not self._turn.acquire(blocking=False):
            return False
        self._used = True
        own = asyncio._get_running_loop()
        asyncio._set_running_loop(self.loop)
        try:
            pool.submit(call)
            if not answer.done() and call.worker is not None:
                _read_answer(call.worker, answer)
        finally:
            asyncio._set_running_loop(own)
            self._turn.release()
        return True

    def _end_standing_aside(self) -> None:
        self._aside_for = None
        with contextlib.suppress(RuntimeError):  # somebody else just did
            self._come_back.release()

    # ------------------------------------------------------------------ the thread itself

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self._turn.acquire()
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def _arrive(self, callback: Callable[..., Any], *args: Any) -> None:
        self._on_way.pop()
        callback(*args)

    def _begin(self, work: Coroutine[Any, Any, Any], answer: Answer, tasks: list[asyncio.Task[Any]]) -> None:
        self._open_runs += 1
        task = self.loop.create_task(work)
        tasks.append(task)
        task.add_done_callback(partial(self._end, answer))

    def _end(self, answer: Answer, task: asyncio.Task[Any]) -> None:
        self._open_runs -= 1
        if task.cancelled():
            answer.set_exception(ClosedError("the call was cancelled because its host was closed"))
        elif (error := task.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())

    def _submit(self, pool: Pool, call: Call, answer: Answer) -> None:
        if not self.loop.get_debug():  # asyncio's debug mode minds which thread uses a loop
            answer.then = partial(self._answered, pool, call)
        pool.submit(call)

    def _answered(self, pool: Pool, call: Call) -> None:
        if monotonic() - call.created_at < BRIEF_SECONDS:
            self.loop.call_soon(self._stand_aside, pool)  # its caller takes longer to wake up

    def _stand_aside(self, pool: Pool) -> None:
        self._come_back.acquire(blocking=False)  # from somebody who asked when it had come back by itself
        self._used = False
        self._aside_for = pool  # from here on whoever posts ends it, so who did before must be looked for after it
        if not self._on_way and not self._open_runs and self._is_quiet():
            self._turn.release()
            was_called = self._come_back.acquire(timeout=ASIDE_SECONDS)
            self._aside_for = None  # before the turn is taken, or callers would take it first for ever
            self._turn.acquire()
            if self._used and not was_called:
                self.loop.call_soon(self._stand_aside, pool)  # after whatever else there is to do
        self._aside_for = None


_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()


def _forget_in_child() -> None:
    # Whoever asked a thread that is not there would wait for ever, and every program asks at its end: to close.
    for thread in _threads:
        thread.forget_in_child()


os.register_at_fork(after_in_child=_forget_in_child)


def _fill_standard_descriptors() -> None:
    """Open the null device in place of standard streams that whoever started the program has closed.

    Their numbers would go to the loop's own sockets otherwise, for which libuv ends the process, and which anything
    that is printed would go to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _read_answer(worker: WorkerHandle, answer: Answer) -> None:
    until = monotonic() + BRIEF_SECONDS
    while not answer.done() and worker.wait(max(0.0, until - monotonic())):
        pass


def new_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop: the fast one where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()

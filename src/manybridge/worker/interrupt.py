"""Raising `Cancelled` in the thread that runs a call's code: the second rung of the stop ladder.

Theory of operation. Three kinds of threads run calls, and each needs its own way in:

* The main thread is interrupted by a signal, whose handler raises there. That also ends a blocking system call
  (`time.sleep`, a socket read), which an exception set from another thread can't. The handler runs between two
  bytecodes of the very thread that it concerns, so it needs no lock.
* A thread of the pool gets an asynchronous exception, which arrives at its next bytecode, that is: some time later.
  `_gate` makes sure that what arrives late arrives nowhere: whoever ends a call or begins a frame takes it back.
* A coroutine is cancelled, again and again. While the main thread runs the event loop, the signal only raises inside
  the code of a task: raised anywhere else, it would tear the loop, which lives as long as the worker.

Three promises. A frame is never cut in half: whoever writes does it under the *shield*, and an interrupt that falls due
there is raised at its end. An interrupt never hits another call than the one that it was meant for. And it never takes
the place of `Terminated`: both tend to come in the same millisecond, since whoever started us sends SIGTERM when our
grace is over.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from types import CodeType, FrameType, TracebackType
from typing import Final

from manybridge.bridge import Cancelled
from manybridge.worker.calls import WorkerCall

INTERRUPT_SIGNAL: Final = signal.SIGRTMIN + 3
"""A real-time signal: no framework, debugger or shell gives it a meaning."""


class Terminated(BaseException):
    """SIGTERM arrived: unwind, close the bridge, exit."""


class _TakenBack(BaseException):  # nobody sees it
    """Takes the place of an interrupt that shall not arrive."""


class _PoolThread:
    """What is known of a thread of the pool while it runs a call. Guarded by the interrupter's gate."""

    __slots__ = ("call", "owed", "shielded")

    def __init__(self, call: WorkerCall) -> None:
        self.call = call
        self.shielded = False
        self.owed = False


class Interrupter:
    """Owner of the interrupt signal and of the knowledge which call may be interrupted on which thread."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._armed: WorkerCall | None = None
        self._aim: WorkerCall | None = None  # whom the signal that is under way is meant for
        self._owed: WorkerCall | None = None
        self._leave_owed = False
        self._leaving = False
        self._leaver: CodeType | None = None
        self._shields = 0
        self._gate = threading.Lock()
        self._pool: dict[int, _PoolThread] = {}

    def install(self, leaver: CodeType) -> None:
        """Take the signal. Main thread only.

        Args:
            leaver: the code of the signal handler that calls `leave`; an interrupt that falls into it is dropped.
        """
        self._leaver = leaver
        signal.signal(INTERRUPT_SIGNAL, self._on_signal)

    # ------------------------------------------------------------------ on the thread that runs the call

    def arm(self, call: WorkerCall) -> None:
        """From here on `call` runs on this thread, and may be interrupted."""
        thread_id = threading.get_ident()
        if thread_id != self._main:
            with self._gate:
                self._pool[thread_id] = _PoolThread(call)
        call.thread_id = thread_id
        if thread_id == self._main:
            self._armed = call

    def disarm(self) -> None:
        """The call's code is over; an interrupt that comes later is dropped.

        Raises:
            Cancelled: on the main thread, if one came in the last moment; call it again then.
        """
        if threading.get_ident() == self._main:
            self._armed = None
        else:
            self._disarm_pool_thread()

    def __enter__(self) -> None:
        """Shield: no interrupt between here and the exit, on a thread that runs a call."""
        if threading.get_ident() == self._main:
            self._shields += 1
        elif self._pool:
            self._shield_pool_thread()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.get_ident() != self._main:
            if self._pool:
                self._unshield_pool_thread(kind)
            return
        self._shields -= 1
        if kind is None and not self._shields and (self._leave_owed or self._owed is not None):
            self._raise_owed()

    def leave(self) -> None:
        """Raise `Terminated` here, or at the end of the shield. For a signal handler on the main thread.

        Raises:
            Terminated: at once, if no frame is being written.
        """
        self._leaving = True
        if self._shields:
            self._leave_owed = True
        else:
            raise Terminated

    # ------------------------------------------------------------------ from any thread

    def wake_main(self) -> None:
        """Interrupt a system call of the main thread, so that it runs the handlers of signals that arrived before."""
        if self._main is not None:
            signal.pthread_kill(self._main, INTERRUPT_SIGNAL)

    def interrupt(self, call: WorkerCall) -> None:
        """Raise `Cancelled` where `call` runs; does nothing when it does not run."""
        is_coroutine = call.cancel_task()
        thread_id = call.thread_id
        if thread_id is None:
            return
        if thread_id != self._main:
            if not is_coroutine:  # else the thread only waits for the event loop's, where the coroutine runs
                self._interrupt_pool_thread(thread_id, call)
        elif self._armed is call:
            self._aim = call
            signal.pthread_kill(thread_id, INTERRUPT_SIGNAL)

    # ------------------------------------------------------------------ the main thread

    def _on_signal(self, _number: int, frame: FrameType | None) -> None:
        if self._leaving or (frame is not None and frame.f_code in (self._leaver, _LEAVE)):
            return
        call = self._armed
        if call is None or call is not self._aim or not _in_user_code(call):
            return
        if self._shields:
            self._owed = call
        else:
            self._raise(call)

    def _raise_owed(self) -> None:
        if self._leave_owed:
            self._leave_owed = False
            raise Terminated
        call, self._owed = self._owed, None
        if call is not None and call is self._armed:
            self._raise(call)

    @staticmethod
    def _raise(call: WorkerCall) -> None:
        call.interrupted = True
        raise Cancelled(call.stop_reason or "cancelled")

    # ------------------------------------------------------------------ threads of the pool

    def _interrupt_pool_thread(self, thread_id: int, call: WorkerCall) -> None:
        with self._gate:
            thread = self._pool.get(thread_id)
            if thread is None or thread.call is not call:
                return
            call.interrupted = True
            if thread.shielded:
                thread.owed = True
            else:
                _set_exception(thread_id, Cancelled)

    def _disarm_pool_thread(self) -> None:
        thread_id = threading.get_ident()
        while True:
            try:
                with self._gate:
                    self._take_back(self._pool.get(thread_id))
                    self._pool.pop(thread_id, None)
            except Cancelled:  # it was under way when we took the gate
                continue
            return

    def _shield_pool_thread(self) -> None:
        with self._gate:
            thread = self._pool.get(threading.get_ident())
            if thread is not None:
                self._take_back(thread)
                thread.shielded = True

    @staticmethod
    def _take_back(thread: _PoolThread | None) -> None:
        """Drop an exception that is under way to this thread; the stop ladder repeats it soon enough.

        Another one takes its place and is caught here. Setting none would do too, were it not for CPython 3.11, which
        then believes for ever that one is under way: every later look for it is slow, and the first function that runs
        under a profiler, a debugger or a coverage tool never ends.
        """
        if thread is not None and thread.call.interrupted:
            with contextlib.suppress(_TakenBack):
                _set_exception(threading.get_ident(), _TakenBack)
                while True:  # raised when that function returns
                    pass

    def _unshield_pool_thread(self, kind: type[BaseException] | None) -> None:
        with self._gate:
            thread = self._pool.get(threading.get_ident())
            if thread is None:
                return
            thread.shielded = False
            owed, thread.owed = thread.owed and kind is None, False
        if owed:
            raise Cancelled(thread.call.stop_reason or "cancelled")


_LEAVE: Final = Interrupter.leave.__code__


def _in_user_code(call: WorkerCall) -> bool:
    """Whether the main thread is where an exception harms nobody but the call: not in the event loop's own code."""
    if call.loop is None:
        return True
    from asyncio import current_task

    return current_task(call.loop) is not None


def _set_exception(thread_id: int, error: type[BaseException]) -> None:
    """Set the exception that a thread raises at its next bytecode, in the place of one that it did not raise yet."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(error))

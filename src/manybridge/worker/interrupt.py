"""Raising `Cancelled` in the thread that runs a call's code: the second rung of the stop ladder.

The main thread is interrupted by a signal, whose handler raises there. That also ends a blocking system call
(`time.sleep`, a socket read), which an exception set from another thread can't. Other threads get an asynchronous
exception at their next bytecode.

A frame must never be cut in half: the main thread writes under `shield`, and an interrupt that falls due inside it is
raised at its end.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Final

from manybridge.bridge import Cancelled
from manybridge.worker.calls import WorkerCall

INTERRUPT_SIGNAL: Final = signal.SIGRTMIN + 3
"""A real-time signal: no framework, debugger or shell gives it a meaning."""


class Interrupter:
    """Owner of the interrupt signal and of the knowledge which call may be interrupted on the main thread."""

    def __init__(self) -> None:
        self._main = threading.main_thread().ident
        self._armed: WorkerCall | None = None
        self._shields = 0
        self._owed = False

    def install(self) -> None:
        """Take the signal. Main thread only."""
        signal.signal(INTERRUPT_SIGNAL, self._on_signal)

    def arm(self, call: WorkerCall) -> None:
        """From here on `call` runs on this thread, and may be interrupted."""
        call.thread_id = threading.get_ident()
        if call.thread_id == self._main:
            self._owed = False
            self._armed = call

    def disarm(self) -> None:
        """The call's code is over. An interrupt that comes later is dropped. Main thread only; others simply end."""
        self._armed = None

    def interrupt(self, call: WorkerCall) -> None:
        """Raise `Cancelled` where `call` runs; does nothing when it does not run. Any thread."""
        thread_id = call.thread_id
        if thread_id is None:
            return
        if thread_id == self._main:
            if self._armed is call:
                signal.pthread_kill(thread_id, INTERRUPT_SIGNAL)
            return
        import ctypes

        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(Cancelled))

    def __enter__(self) -> None:
        """Shield: no interrupt between here and the exit, on the main thread."""
        if threading.get_ident() == self._main:
            self._shields += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if threading.get_ident() != self._main:
            return
        self._shields -= 1
        if self._owed and not self._shields and kind is None:
            self._raise_owed()

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed is None:
            return
        self._owed = True
        if not self._shields:
            self._raise_owed()

    def _raise_owed(self) -> None:
        self._owed = False
        call = self._armed
        if call is not None:
            call.interrupted = True
            raise Cancelled(call.stop_reason or "cancelled")

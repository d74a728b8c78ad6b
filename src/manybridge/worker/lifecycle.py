"""How a worker begins to be a process of its own, and how it ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Final, NoReturn

from manybridge.worker.interrupt import Interrupter
from manybridge.worker.process import enable_crash_reports, exit_now, lead_own_group
from manybridge.worker.stdio import ProtocolDescriptors

CLOSE_SECONDS: Final = 2.0
"""What unwinding after SIGTERM and `Bridge.close` may take each. A host waits longer than that before it kills."""


TERMINATING: Final = (signal.SIGTERM, signal.SIGINT)


class Lifecycle:
    """Owner of the process: its signals, its end, and what its forked children must not have.

    Args:
        descriptors: where the protocol is.
        interrupter: raises `Terminated` where no frame is cut by it.
        nudge_fd: wakes the watch when something is written there, by the kernel's handler of a signal.
    """

    def __init__(self, descriptors: ProtocolDescriptors, interrupter: Interrupter, nudge_fd: int) -> None:
        self._descriptors = descriptors
        self._interrupter = interrupter
        self._nudge_fd = nudge_fd
        self._ignore_signals = False
        self._asked = 0
        self._raised = False
        self.has_forked = False
        """Whether this process is a child that user code forked."""
        self._leave_by: float | None = None

    @property
    def terminating(self) -> bool:
        """Whether SIGTERM arrived. User code may have swallowed the exception that says so."""
        return self._leave_by is not None

    def begin(self, *, ignore_signals: bool, forked: Callable[[], None]) -> None:
        """Take the process over. Main thread only.

        Args:
            ignore_signals: whether SIGTERM and SIGINT mean nothing.
            forked: called in a process that user code forks.
        """
        lead_own_group(self._descriptors.input)
        enable_crash_reports()
        self._interrupter.install(leaver=self._on_terminate.__code__)
        for number in TERMINATING:
            # A handler that does nothing, not SIG_IGN, which programs started from here would inherit.
            signal.signal(number, (lambda *_: None) if ignore_signals else self._on_terminate)
        self._ignore_signals = ignore_signals
        # While the main thread is inside C its handlers wait; the watch learns of the signal all the same.
        signal.set_wakeup_fd(self._nudge_fd, warn_on_full_buffer=False)
        os.register_at_fork(after_in_child=lambda: self._after_fork(forked))

    def nudged(self, numbers: bytes) -> None:
        """Signals arrived, as the watch finds. They are counted: asked twice means now. Watch only."""
        asked = 0 if self._ignore_signals else sum(number in TERMINATING for number in numbers)
        self._asked += asked
        if self._asked > 1:
            exit_now(0)
        if asked and self._leave_by is None:
            self._leave_by = monotonic() + CLOSE_SECONDS
        if asked and not self._raised:
            self._interrupter.wake_main()

    def seconds_left(self, now: float) -> float | None:
        """Seconds until the process ends whatever its code does, or None; ends it when they are over. Watch only."""
        if self._leave_by is None:
            return None
        if now >= self._leave_by:
            exit_now(0)
        return self._leave_by - now

    def output_hung_up(self) -> bool:
        """Whether nobody can read what we write. A closed port closes both directions; a shell only our input."""
        poller = select.poll()
        poller.register(self._descriptors.output, 0)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poller.poll(0))

    def end(self, close: Callable[[], None]) -> NoReturn:
        """Run `close`, but not for long, and end the process with status 0."""
        timer = threading.Timer(CLOSE_SECONDS, exit_now, (0,))
        timer.daemon = True
        timer.start()
        try:
            close()
        except BaseException as error:  # noqa: BLE001  # the last thing that this process does must not fail it
            sys.stderr.write(f"closing the bridge failed: {type(error).__qualname__}: {error}\n")
        exit_now(0)

    def fail(self, error: BaseException) -> NoReturn:
        """End the process because of an error of our own: a worker in doubt is replaced, not repaired."""
        import traceback

        sys.stderr.write("the worker failed:\n" + "".join(traceback.format_exception(error)))
        exit_now(1)

    @staticmethod
    def leave_fork(failure: BaseException | None) -> NoReturn:
        """End a child that user code forked and that came back from it: the parent answers the call, the child not."""
        status = 0
        if isinstance(failure, SystemExit):
            status = failure.code if isinstance(failure.code, int) else int(failure.code is not None)
        elif failure is not None:
            status = 1
            sys.stderr.write(f"a forked child failed with {type(failure).__qualname__}: {failure}\n")
        os._exit(status & 0xFF)

    def _on_terminate(self, _number: int, _frame: FrameType | None) -> None:
        if self._raised:
            exit_now(0)  # asked twice: now
        self._raised = True
        if self._leave_by is None:
            self._leave_by = monotonic() + CLOSE_SECONDS
        self._interrupter.leave()

    def _after_fork(self, forked: Callable[[], None]) -> None:
        # The child must not hold the stream open after our death, write into it, or answer signals as we do: a pool of
        # processes that ends its children with SIGTERM would wait for ever for those that ignore it.
        self.has_forked = True
        null = os.open(os.devnull, os.O_RDWR)
        for fd in self._descriptors:
            os.dup2(null, fd, inheritable=False)
        os.close(null)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        forked()

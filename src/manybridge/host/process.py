"""One child process: its exit, its standard error, its process group.

The exit is seen through a pidfd (https://man7.org/linux/man-pages/man2/pidfd_open.2.html), which belongs to exactly
one process: no SIGCHLD handler, no waiting for "any child", nothing stolen from the program that the host runs in.
The whole group is killed before the leader is collected, while the number can't belong to anybody else yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, NamedTuple

from manybridge.host.stderr_tail import StderrTail

READ_BYTES: Final = 256 * 1024
"""One read of standard error; the size of four full pipes, so that a flood costs few loop iterations."""

DUMP_SIGNAL: Final = signal.SIGUSR1
"""A worker answers it with the stacks of its threads on standard error, even from inside C (see worker/process.py)."""


class ExitStatus(NamedTuple):
    """How a process ended. Both fields are None where nobody could tell (its parent died first)."""

    exit_code: int | None = None
    signal: str | None = None
    """A name such as SIGKILL."""

    @classmethod
    def from_returncode(cls, returncode: int | None) -> ExitStatus:
        """Read what `subprocess` reports: an exit code, or a negative signal number."""
        if returncode is None:
            return cls()
        return cls(signal=signal_name(-returncode)) if returncode < 0 else cls(exit_code=returncode)

    @classmethod
    def from_wait_status(cls, status: int) -> ExitStatus:
        """Read what `waitpid` reports; that number is no exit code."""
        return cls.from_returncode(os.waitstatus_to_exitcode(status))

    def __str__(self) -> str:
        if self.signal is not None:
            return f"signal {self.signal}"
        return "unknown exit status" if self.exit_code is None else f"exit code {self.exit_code}"

    def details(self) -> dict[str, Any]:
        """The fields that are known, for `details` of an error."""
        return {key: value for key, value in self._asdict().items() if value is not None}


def signal_name(number: int) -> str:
    """The name of a signal; real-time signals, which have none, become SIGRTMIN+n."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number > signal.SIGRTMIN else f"signal {number}"


class WorkerProcess:
    """A process that leads its own group. Owner of its pid, its pidfd and the reading end of its standard error.

    Args:
        pid: of the process, which is its group's number too.
        stderr_fd: the reading end of its standard error; owned from here on.
        tail: keeps the last lines.
        popen: of a child of this process, which must be collected here; None for a child of a zygote, whose exit
            status comes by `receive_status`.
        on_raw: gets the bytes of standard error as they are, where they are not captured.
    """

    def __init__(
        self,
        pid: int,
        stderr_fd: int,
        tail: StderrTail,
        *,
        popen: subprocess.Popen[bytes] | None = None,
        on_raw: Callable[[bytes], None] | None = None,
    ) -> None:
        self.pid = pid
        self.tail = tail
        self.started_at = monotonic()
        self.status: ExitStatus | None = None
        """None while it runs."""
        self._popen = popen
        self._on_raw = on_raw
        self._loop = asyncio.get_running_loop()
        self._on_exit: Callable[[ExitStatus], None] | None = None
        self._told_status: ExitStatus | None = None
        self._stderr_fd: int | None = stderr_fd
        os.set_blocking(stderr_fd, False)
        self._loop.add_reader(stderr_fd, self._read_stderr)
        self._pidfd: int | None = self._open_pidfd()

    @property
    def uptime(self) -> float:
        """Seconds since the start."""
        return monotonic() - self.started_at

    def watch(self, on_exit: Callable[[ExitStatus], None]) -> None:
        """Have `on_exit` called once on the event loop after the process has ended."""
        self._on_exit = on_exit
        if self.status is not None:
            self._loop.call_soon(on_exit, self.status)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and everything that it started. Does nothing once it has ended."""
        if self.status is not None:
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            # Just forked: it does not lead its group yet.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def dump_stacks(self) -> None:
        """Have the worker write the stacks of its threads on its standard error; it goes on running."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, DUMP_SIGNAL)

    def receive_status(self, status: ExitStatus) -> None:
        """Its zygote collected it."""
        self._told_status = status
        self._ended()

    def lost_parent(self) -> None:
        """Its zygote died, so no status will come."""
        if self.status is None and self._pidfd is None:
            self.signal_group(signal.SIGKILL)
            self._ended()

    def close(self) -> None:
        """Let go of all descriptors. Does not kill."""
        self._close_pidfd()
        if self._stderr_fd is not None:
            self._loop.remove_reader(self._stderr_fd)
            os.close(self._stderr_fd)
            self._stderr_fd = None

    def _open_pidfd(self) -> int | None:
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # a zygote's child that ended at once; its status comes by message
            return None
        self._loop.add_reader(pidfd, self._pidfd_readable)
        return pidfd

    def _close_pidfd(self) -> None:
        if self._pidfd is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None

    def _pidfd_readable(self) -> None:
        self._close_pidfd()
        self._ended() if self._popen is not None else self._await_status()

    def _await_status(self) -> None:
        # The zygote's message is on its way; a zygote that is gone will not send one.
        if self.status is None:
            self._loop.call_later(STATUS_PATIENCE, self._ended)

    def _ended(self) -> None:
        if self.status is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._read_stderr()
        if self._popen is not None:
            self.status = ExitStatus.from_returncode(self._popen.wait())
        else:
            self.status = self._told_status or ExitStatus()
        self._close_pidfd()
        if self._on_exit is not None:
            self._on_exit(self.status)

    def _read_stderr(self) -> None:
        fd = self._stderr_fd
        while fd is not None:
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.remove_reader(fd)
                os.close(fd)
                self._stderr_fd = fd = None
                return
            self.tail.feed(data)
            if self._on_raw is not None:
                self._on_raw(data)
            if self.status is None and len(data) == READ_BYTES:
                return  # a flood: let the loop serve others in between


STATUS_PATIENCE: Final = 0.1
"""Seconds between the end of a zygote's child and the zygote's message about it; beyond, the status stays unknown."""

"""What a worker died of, as one word that a program can branch on and a counter can be kept of.

The word stands in `details["cause"]` of the error that a death gives, in `stats()` under `crash_causes`, and in health.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

from manybridge.errors import ManybridgeError
from manybridge.host.process import ExitStatus


class CrashCause(StrEnum):
    """Why a worker ended, or did not become ready, without the host having wanted that."""

    EXIT = "exit"
    """It ended by itself; `exit_code` says how."""
    SEGFAULT = "segfault"
    """SIGSEGV or SIGBUS: code in C touched memory that is not its own."""
    ABORT = "abort"
    """SIGABRT: a library gave up (a failed assertion, a damaged heap)."""
    ILLEGAL_INSTRUCTION = "illegal_instruction"
    """SIGILL: most likely built for another processor."""
    ARITHMETIC = "arithmetic"
    """SIGFPE."""
    OOM_KILL = "oom_kill"
    """SIGKILL by the kernel, because memory ran out."""
    KILLED = "killed"
    """SIGKILL by somebody else."""
    TERMINATED = "terminated"
    """SIGTERM, SIGINT or SIGHUP from outside."""
    SIGNAL = "signal"
    """Any other signal; `signal` names it."""
    STREAM_CLOSED = "stream_closed"
    """It closed its end of the stream and went on running, so it was killed."""
    BROKEN_PROTOCOL = "broken_protocol"
    """It sent what is not legal, so it was killed."""
    START_TIMEOUT = "start_timeout"
    """It was not ready within `start_timeout`, so it was killed."""
    START_FAILED = "start_failed"
    """Its process could not be started."""
    UNKNOWN = "unknown"
    """Nobody could tell: its parent died first."""


_OF_SIGNAL: Final = {
    "SIGSEGV": CrashCause.SEGFAULT,
    "SIGBUS": CrashCause.SEGFAULT,
    "SIGABRT": CrashCause.ABORT,
    "SIGILL": CrashCause.ILLEGAL_INSTRUCTION,
    "SIGFPE": CrashCause.ARITHMETIC,
    "SIGKILL": CrashCause.KILLED,
    "SIGTERM": CrashCause.TERMINATED,
    "SIGINT": CrashCause.TERMINATED,
    "SIGHUP": CrashCause.TERMINATED,
}


def cause_of_exit(status: ExitStatus, *, closed_stream: bool, out_of_memory: Callable[[], bool]) -> CrashCause:
    """Classify the end of a process.

    Args:
        status: how it ended.
        closed_stream: whether the host killed it because it had closed its stream.
        out_of_memory: whether the kernel killed somebody for memory; asked only where that is in question.
    """
    if closed_stream:
        return CrashCause.STREAM_CLOSED
    if status.signal is None:
        return CrashCause.UNKNOWN if status.exit_code is None else CrashCause.EXIT
    if status.signal == "SIGKILL" and out_of_memory():
        return CrashCause.OOM_KILL
    return _OF_SIGNAL.get(status.signal, CrashCause.SIGNAL)


def cause_of(error: ManybridgeError) -> str:
    """The word for a failure: its cause, or its code where a worker said itself what was wrong."""
    cause = error.details.get("cause")
    return cause if isinstance(cause, str) else error.code


class OomWatch:
    """Tells deaths by the kernel's out-of-memory killer from other SIGKILLs. Owner of what it has counted.

    The kernel says nothing to a parent but SIGKILL. What it does say is a counter of the control group that the
    process was in, which workers share with their host. Each increase explains one death.

    Args:
        count: reads the counter.
    """

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._explained = count()

    def explains_a_death(self) -> bool:
        """Whether the kernel has killed for memory, and no death was explained by that yet."""
        if self._count() <= self._explained:
            return False
        self._explained += 1
        return True


@cache
def oom_watch() -> OomWatch:
    """The watch of this process. Made before its first worker."""
    return OomWatch(count_oom_kills)


def count_oom_kills(root: Path = Path("/")) -> int:
    """Read how often the kernel has killed for memory in the control group of this process; 0 where it does not say.

    Version 2 has it in memory.events, version 1 in memory.oom_control; without either it is the whole machine's.
    https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    """
    for file in (*_group_files(root), root / "proc/vmstat"):
        with contextlib.suppress(OSError, ValueError):
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _group_files(root: Path) -> list[Path]:
    files: list[Path] = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            group = path.lstrip("/")
            base = root / "sys/fs/cgroup"
            if "memory" in controllers.split(","):
                # In a container the path may be the host's, while the group itself is mounted at the top.
                files += [base / "memory" / group / "memory.oom_control", base / "memory" / "memory.oom_control"]
            elif not controllers:
                files += [base / group / "memory.events", base / "memory.events"]
    return files

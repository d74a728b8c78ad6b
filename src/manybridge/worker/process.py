"""What a worker owes the system: to die with its parent, to take its children along, to say why it crashed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Final, NoReturn

DUMP_SIGNAL: Final = signal.SIGUSR1
"""Sent by the host before it kills a stuck worker: every thread's stack goes to the log, even from inside C."""

_PR_SET_PDEATHSIG: Final = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html


FLUSH_SECONDS: Final = 0.1
"""What a process that ends gives its log to take the rest. A log that nobody reads is full and never takes it."""

KILL_ROUNDS: Final = 5
"""How often the group is looked through: one that is killed may have forked a moment before."""


def lead_own_group(input_fd: int) -> None:
    """Become leader of a process group, so that everything forked from here can be stopped with one signal.

    Not on a terminal: a background group that reads from its terminal is stopped by the kernel.
    """
    if os.getpgrp() != os.getpid() and not os.isatty(input_fd):
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)


def enable_crash_reports() -> None:
    """Write every thread's Python stack to the log on a fatal signal, and on `DUMP_SIGNAL` without dying."""
    import faulthandler

    faulthandler.enable(file=2, all_threads=True)
    faulthandler.register(DUMP_SIGNAL, file=2, all_threads=True, chain=False)


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies; end of input is the other, gentler way to learn of it.

    Needed for code that is stuck in C and so never sees the end of input. Called off the hot start-up path, because
    ctypes costs some milliseconds to import.
    """
    try:
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    except (OSError, ImportError, AttributeError):
        return
    if os.getppid() != parent:  # it died while we asked
        exit_now(0)


def exit_now(status: int) -> NoReturn:
    """End the process without the interpreter's finalisation, which takes a framework up to 1.4 s. Any thread."""
    _flush_logs()
    kill_group_members()
    os._exit(status)


def _flush_logs() -> None:
    import threading

    def flush() -> None:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()

    # Another thread may hold the stream's lock while it waits for a reader who went away.
    flusher = threading.Thread(target=flush, daemon=True)
    with contextlib.suppress(RuntimeError):  # no thread can be had
        flusher.start()
        flusher.join(FLUSH_SECONDS)


def kill_group_members() -> None:
    """SIGKILL everything that was started from here and is still alive (same process group, other process)."""
    group = os.getpgrp()
    if group != os.getpid() or not os.path.isdir("/proc"):
        return  # not our group: its other members are not our children
    for _ in range(KILL_ROUNDS):
        members = [int(name) for name in os.listdir("/proc") if name.isdecimal() and _is_member(name, group)]
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if not members:
            return


def _is_member(pid: str, group: int) -> bool:
    """Whether a process belongs to the group, is not its leader, and is not dead already."""
    if int(pid) == group or _group_of(pid) != group:
        return False
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    return False


def _group_of(pid: str) -> int | None:
    with contextlib.suppress(OSError):
        return os.getpgid(int(pid))
    return None


def thread_count() -> int:
    """How many operating-system threads this process has, those of C libraries included."""
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task"))
    import threading

    return threading.active_count()


def memory() -> dict[str, int]:
    """Resident and unshared memory of this process in bytes (0 where the kernel does not say)."""
    facts = {"rss_bytes": 0, "unshared_bytes": 0}
    with contextlib.suppress(OSError), open("/proc/self/smaps_rollup", encoding="ascii") as lines:
        for line in lines:
            name, _, rest = line.partition(":")
            if name == "Rss":
                facts["rss_bytes"] = int(rest.split()[0]) * 1024
            elif name in ("Private_Clean", "Private_Dirty"):
                facts["unshared_bytes"] += int(rest.split()[0]) * 1024
    return facts

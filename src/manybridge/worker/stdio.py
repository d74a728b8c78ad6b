"""Takes file descriptors 0, 1 and 2 before any user code runs.

The bug that this prevents: a `print`, a progress bar or a C library's `puts` lands between two frames and the stream
can't be read any more. Replacing `sys.stdout` is not enough, since C code writes to descriptor 1. So the protocol
moves to private descriptors, 0 becomes empty, and 1 becomes a copy of 2, the log.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
import sys
from typing import Any, Final, NamedTuple

FIRST_PRIVATE_FD: Final = 10
"""Private descriptors start here: code that closes or reuses 3 to 9 "because nobody has them" stays harmless."""


class ProtocolDescriptors(NamedTuple):
    """Where the protocol lives after `take_stdio`."""

    input: int
    output: int


def take_stdio() -> ProtocolDescriptors:
    """Move the protocol off 0 and 1; make 0 empty and 1 a log stream. Call once, first thing in the process.

    Raises:
        OSError: there is no descriptor 0 or 1.
    """
    descriptors = ProtocolDescriptors(private_copy(0), private_copy(1))
    for fd in descriptors:
        os.set_blocking(fd, True)  # it may be shared with somebody who wants it otherwise; we can't serve half a frame
    # A port opened with stderr merged into stdout (DSPex's :pool_debug_mode) has one pipe for both. Then there is no
    # place for text at all: silence is the only way not to break a frame.
    leave_standard_streams(log=is_open(2) and not _same_file(2, descriptors.output))
    return descriptors


def leave_standard_streams(*, log: bool) -> None:
    """Make 0 empty and 1 a copy of 2, the log; where there is no log, both lead nowhere."""
    opened = os.open(os.devnull, os.O_RDWR)
    null = private_copy(opened)  # `opened` may be 2 itself, if that was closed
    os.close(opened)
    os.dup2(null, 0)
    if not log:
        os.dup2(null, 2)
    os.dup2(2, 1)
    os.close(null)
    renew_text_streams()


def renew_text_streams() -> None:
    """Give `print` new streams on 1 and 2. The old ones remember what kind of file lay there, and seek in a pipe."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        # They live as long as the process.
        buffer = io.BufferedWriter(_Log(fd, "w", closefd=False))
        stream = io.TextIOWrapper(buffer, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


class _Log(io.FileIO):
    """A log that nobody may read any more: text for it is lost, but no call fails because it printed something."""

    def write(self, data: Any, /) -> int:
        try:
            written: int | None = super().write(data)
        except BrokenPipeError:
            written = None
            _silence()  # for C code and for programs that are started from here, too
        except OSError:
            written = None
        return len(data) if written is None else written


def _silence() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def private_copy(fd: int) -> int:
    """Duplicate a descriptor to where user code does not expect one; not inherited by programs."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE_FD)


def _same_file(first: int, second: int) -> bool:
    a, b = os.fstat(first), os.fstat(second)
    # Terminals and /dev/null are character devices that everybody shares; a pipe, socket or file is "the stream".
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) and not stat.S_ISCHR(a.st_mode)


def is_open(fd: int) -> bool:
    """Whether there is such a descriptor."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

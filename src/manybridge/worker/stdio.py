"""Takes file descriptors 0, 1 and 2 before any user code runs.

The bug that this prevents: a `print`, a progress bar or a C library's `puts` lands between two frames and the stream
can't be read any more. Replacing `sys.stdout` is not enough, since C code writes to descriptor 1. So the protocol
moves to private descriptors, 0 becomes empty, and 1 becomes a copy of 2, the log.
"""

from __future__ import annotations

import fcntl
import os
import sys
from typing import Final, NamedTuple

FIRST_PRIVATE_FD: Final = 10
"""Private descriptors start here: code that closes or reuses 3 to 9 "because nobody has them" stays harmless."""


class ProtocolDescriptors(NamedTuple):
    """Where the protocol lives after `take_stdio`."""

    input: int
    output: int


def take_stdio() -> ProtocolDescriptors:
    """Move the protocol off 0 and 1; make 0 empty and 1 a log stream. Call once, first thing in the process."""
    descriptors = ProtocolDescriptors(_private_copy(0), _private_copy(1))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(_log_descriptor(descriptors.output, null), 1)
    if _same_file(2, descriptors.output) or not _is_open(2):
        os.dup2(null, 2)
    os.close(null)
    renew_text_streams()
    return descriptors


def renew_text_streams() -> None:
    """Give `print` new streams on 1 and 2. The old ones remember what kind of file lay there, and seek in a pipe."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        # They live as long as the process.
        stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _log_descriptor(output: int, null: int) -> int:
    # A port opened with stderr merged into stdout (DSPex's :pool_debug_mode) has one pipe for both. Then there is no
    # place for text at all: silence is the only way not to break a frame.
    return null if not _is_open(2) or _same_file(2, output) else 2


def _private_copy(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_PRIVATE_FD)


def _same_file(first: int, second: int) -> bool:
    try:
        a, b = os.fstat(first), os.fstat(second)
    except OSError:
        return False
    # Terminals and /dev/null are character devices that everybody shares; only a pipe or socket is "the stream".
    import stat

    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) and (stat.S_ISFIFO(a.st_mode) or stat.S_ISSOCK(a.st_mode))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

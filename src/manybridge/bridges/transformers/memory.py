"""What this process and this machine have in memory, in bytes."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from pathlib import Path
from typing import Final

UNLIMITED: Final = -1
_PAGE: Final = resource.getpagesize()


def resident_bytes() -> int:
    """Memory of this process that is in RAM, shared pages included (RSS). About 20 us."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def unshared_bytes() -> int:
    """Memory that this process has alone (USS): what its end would give back. Some ms in a process with PyTorch."""
    text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    private = [line.split() for line in text.splitlines() if line.startswith("Private_")]
    return sum(int(words[1]) for words in private) * 1024


def available_bytes() -> int:
    """What this process may still take: of the machine, of its control group and of its own limit; the smallest."""
    found = [_machine_available(), _group_available(), _limit_available()]
    return max(0, min(value for value in found if value is not None))


def _machine_available() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 1 << 62


def _group_available() -> int | None:
    folder = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        if limit != "max":
            return int(limit) - int((folder / "memory.current").read_text(encoding="ascii"))
    return None


def _limit_available() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    return soft - int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * _PAGE


def give_back() -> None:
    """Collect garbage and return free memory of the C library to the system."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # musl has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def shown(count: int) -> str:
    """A number of bytes for people."""
    if count < 1 << 20:
        return f"{count / (1 << 10):.1f} KiB"
    return f"{count / (1 << 20):.1f} MiB" if count < 1 << 30 else f"{count / (1 << 30):.2f} GiB"

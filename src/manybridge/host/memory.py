"""How much memory a worker uses, together with everything that it started."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def group_memory(pid: int) -> int:
    """Return the resident bytes of a process and its descendants; 0 once it is gone or where there is no /proc.

    Pages that they share are counted once for each: a limit set by this number is kept early rather than late.
    """
    total, found = 0, [pid]
    while found:
        current = found.pop()
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{current}/statm").read_bytes().split()[1]) * PAGE_BYTES
            for task in Path(f"/proc/{current}/task").iterdir():
                found += map(int, (task / "children").read_bytes().split())
    return total

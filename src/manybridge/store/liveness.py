"""Whether a host lives: by its process where it is on this machine, by its lease where it is not.

A lease alone would keep what a killed host held from everybody until it runs out. On the same machine we can know
better: the process is gone, or its pid belongs to one that began later.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from manybridge.store.records import HostRecord


@cache
def this_machine() -> str:
    """Return what tells where a pid means something: this boot of this kernel, and this process namespace.

    Containers on one kernel share the boot id but not the namespace, so a pid of one is not looked up in another.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def started_at(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None where there is none, or only a zombie of it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command name stands in parentheses and may hold spaces and parentheses itself; the state follows the last.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def this_host(id: str) -> HostRecord:
    """Return the record of a host in this process."""
    pid = os.getpid()
    return HostRecord(id=id, machine=this_machine(), pid=pid, started=started_at(pid) or 0)


def has_gone(host: HostRecord) -> bool:
    """Whether a host is known to be dead. False where that can't be known from here."""
    return host.machine == this_machine() and started_at(host.pid) != host.started

"""What this process holds: child processes of any depth and descriptors. For finding leaks."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from pathlib import Path
from time import monotonic, sleep
from typing import Final, NamedTuple, Self

LEAK_SECONDS: Final = 5.0
"""How long something may take to go away: a worker that is asked to end has 2.5 s to close its bridge."""

_NUMBER: Final = re.compile(r"[\[\d\]]+")


class Holdings(NamedTuple):
    """How much of each kind. Replacing a worker changes which things these are, but not how many."""

    processes: int
    descriptors: Counter[str]
    """By kind, such as `socket:` or the path of a file."""

    @classmethod
    def now(cls) -> Self:
        """Look."""
        return cls(len(descendants(os.getpid())), _descriptors())

    @staticmethod
    def children() -> set[int]:
        """The processes that this one has started, and theirs."""
        return descendants(os.getpid())

    @classmethod
    def left(cls, before: set[int], patience: float) -> list[str]:
        """Say which processes there are beyond those that were, after they were given time to end. Blocks."""
        deadline = monotonic() + patience
        while (left := cls.children() - before) and monotonic() < deadline:
            sleep(0.01)
        return [f"process {pid} ({_command(pid)})" for pid in sorted(left)]

    def beyond(self, before: Holdings) -> list[str]:
        """Say what there is more of than there was."""
        more = [] if self.processes <= before.processes else [f"{self.processes - before.processes} processes"]
        extra = self.descriptors - before.descriptors
        return more + [f"{count} descriptors of {kind}" for kind, count in sorted(extra.items())]


async def leaks_since(before: Holdings, patience: float = LEAK_SECONDS) -> list[str]:
    """Say what this process still holds beyond what it did, after that was given time to go away."""
    deadline = monotonic() + patience
    while (leaked := Holdings.now().beyond(before)) and monotonic() < deadline:  # noqa: ASYNC110  # no event tells
        await asyncio.sleep(0.02)
    return leaked


def still_running(pids: dict[int, str]) -> list[str]:
    """Say which of these workers still run, by process id."""
    return [f"worker {name}, process {pid}" for pid, name in pids.items() if _is_worker(pid)]


def descendants(pid: int) -> set[int]:
    """Return the children of a process, and theirs."""
    found: set[int] = set()
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in listing.read_text(encoding="ascii").split()]
        except (FileNotFoundError, ProcessLookupError):
            continue  # the thread ended meanwhile
        for child in children:
            found |= {child} | descendants(child)
    return found


def _is_worker(pid: int) -> bool:
    """Whether a process with that number runs and is one of ours: the number may have been given to another."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"} and "manybridge" in _command(pid)


def _command(pid: int) -> str:
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        raw = b""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()[:200] or "ended, not waited for"


def _descriptors() -> Counter[str]:
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[_NUMBER.sub("", str(entry.readlink()))] += 1
        except FileNotFoundError:
            continue  # the one that listed the folder
    return found

"""The error that tells of a worker's death: who it was, how it ended, and what it said last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from manybridge.errors import ManybridgeError, WorkerCrashedError, WorkerStartError
from manybridge.host.causes import cause_of_exit, oom_watch
from manybridge.host.process import ExitStatus

if TYPE_CHECKING:
    from manybridge.host.worker import WorkerHandle

FATAL_MARK: Final = "Fatal Python error"
"""How the interpreter's fault handler begins."""

LONGEST_QUOTE: Final = 300
"""Characters of a log line that an error's text quotes; the whole lines are in its details."""


def crash_error(worker: WorkerHandle, what: str = "") -> ManybridgeError:
    """The error of a call, or of a start, that a worker's death has ended.

    Args:
        worker: the dead one.
        what: what became of it, where that is not simply that it died.
    """
    status = worker.exit_status or ExitStatus()
    tail = worker.process.tail.lines()
    what = what or (f"died ({status})" if worker.was_ready else f"died while it started ({status})")
    text = f"worker {worker.id} (pid {worker.process.pid}) {what} after {worker.process.uptime:.1f} s"
    if last := _last_line(tail):
        text += f"; its last words: {last}"
    details = {"cause": _cause(worker, status), **worker.facts(), **status.details(), "stderr_tail": tail}
    return (WorkerCrashedError if worker.was_ready else WorkerStartError)(text, details=details)


def _cause(worker: WorkerHandle, status: ExitStatus) -> str:
    if worker.death_cause is None:  # asked once, since an answer of the watch is for one death
        watch = oom_watch()
        cause = cause_of_exit(status, closed_stream=worker.closed_stream, out_of_memory=watch.explains_a_death)
        worker.death_cause = cause.value
    return worker.death_cause


def _last_line(lines: list[str]) -> str:
    # The cause stands before the stacks that a fatal signal leaves, and their end says nothing.
    fatal = next((line for line in lines if FATAL_MARK in line), None)
    if fatal is not None:  # behind whatever had not ended its line, a progress bar for example
        return fatal[fatal.index(FATAL_MARK) :].strip()[:LONGEST_QUOTE]
    return next((line.strip()[:LONGEST_QUOTE] for line in reversed(lines) if line.strip()), "")

"""How a job is shown: like a call, with its rate and the time that is left; and how a list of jobs is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from manybridge.cli.output import stdout_console
from manybridge.cli.progress import SECONDS_BETWEEN_LINES, CallView, count_of, plain
from manybridge.host.jobs import AsyncJob
from manybridge.host.progress import JobProgress

_UNITS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


class JobView(CallView):
    """Shows the events of one job. Owns the bar while it is entered, as `CallView`."""

    def __init__(self, job: AsyncJob, *, stream: bool, as_json: bool, console: Console | None = None) -> None:
        super().__init__(stream=stream, as_json=as_json, console=console)
        self._job = job

    def _move_bar(self, current: Any, total: Any, message: str) -> None:
        if self._bar is None or self._task is None:
            said = TextColumn("{task.description}", markup=False)
            columns = (SpinnerColumn(), said, BarColumn(), MofNCompleteColumn())
            pace = TextColumn("{task.fields[pace]}")
            self._bar = Progress(*columns, pace, console=self._console, transient=True)
            self._task = self._bar.add_task(message, total=total, pace="")
            self._bar.start()
        pace_now = pace_text(self._job.progress)
        self._bar.update(self._task, completed=current or 0, total=total, description=message, pace=pace_now)

    def _write_line(self, current: Any, total: Any, message: str) -> None:
        now = time.monotonic()
        if current != total and now - self._last_line < SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        pace = pace_text(self._job.progress)
        self._note(" ".join(filter(None, [steps_text(current, total), f"({pace})" if pace else "", message])))


def print_jobs(jobs: Sequence[dict[str, Any]]) -> None:
    """Print described jobs: a table on a terminal, a line each elsewhere."""
    console = stdout_console()
    rows = [[job["id"], job["state"], job["command"], _progress_text(job), _age(job)] for job in jobs]
    if not console.is_terminal:
        for row in rows:
            console.print(Text("  ".join(filter(None, row))), soft_wrap=True)
        return
    table = Table("Job", "State", "Command", "Progress", "Age", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def steps_text(current: Any, total: Any) -> str:
    """Return `3/10`, or `3` where the total is not known; nothing where not even that is."""
    done, of = count_of(current), count_of(total)
    if done is None:
        return ""
    return f"{done:.10g}/{of:.10g}" if of is not None else f"{done:.10g}"


def pace_text(progress: JobProgress | None) -> str:
    """Return `2.5/s, 8 s left`, as far as it is known."""
    if progress is None or progress.rate is None:
        return ""
    rate = f"{progress.rate:.3g}/s" if progress.rate >= 1 else f"{1 / progress.rate:.3g} s each"
    left = progress.time_left
    return rate if not left else f"{rate}, {seconds_text(left)} left"


def seconds_text(seconds: float) -> str:
    """Return a length of time for people."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _progress_text(job: dict[str, Any]) -> str:
    progress = job["progress"]
    if progress is None:
        return ""
    message = plain(progress["message"]).replace("\n", " ")
    return f"{steps_text(progress['current'], progress['total'])} {message}".strip()


def _age(job: dict[str, Any]) -> str:
    return f"{seconds_text(max(0.0, time.time() - job['created_at']))} ago"

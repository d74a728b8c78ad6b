"""Progress that code reports without knowing: which call runs here, and which of several bars is the one to show.

A hook into a library (`manybridge.worker.auto_progress` has the table of them) asks `current_context` for the call that
its thread serves, or begins a `ProgressSource` there. A handler that calls `ctx.progress` itself is right: from then on
the sources of its call are silent, but for the cancel that they still notice.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from math import isfinite
from time import monotonic
from typing import Any, Final, Protocol

from manybridge.bridge.context import Context
from manybridge.bridge.errors import Cancelled

REPORT_SECONDS: Final = 0.05
"""The least time between two reports of one source: what a person can see, and no load on the wire."""


class RunningCall(Protocol):
    """A call while its code runs, as the worker has it."""

    progress_sources: list[ProgressSource] | None

    @property
    def cancelled(self) -> bool:
        """Whether its code should stop."""
        ...

    def context(self) -> Context:
        """What its handler gets."""
        ...

    def report_automatically(self, data: dict[str, Any]) -> None:
        """Send progress, unless the handler reports its own."""
        ...


running_call: ContextVar[RunningCall | None] = ContextVar("manybridge_running_call", default=None)
"""The call whose code runs here. Set by the worker on the thread of the call; tasks inherit it, threads do not."""

_find_sole_call: Callable[[], RunningCall | None] = lambda: None  # noqa: E731  # replaced as a whole


def serve_threads(find_sole_call: Callable[[], RunningCall | None]) -> None:
    """Tell which call a thread belongs to that some handler has started: the only one that runs, or none."""
    global _find_sole_call  # noqa: PLW0603  # one worker is one process
    _find_sole_call = find_sole_call


def _current_call() -> RunningCall | None:
    return running_call.get() or _find_sole_call()


def current_context() -> Context | None:
    """Return the context of the call that this code serves, or None where it serves none."""
    call = _current_call()
    return None if call is None else call.context()


def begin_progress() -> ProgressSource | None:
    """Begin a source of progress in the call that this code serves, or None where it serves none."""
    call = _current_call()
    return None if call is None else ProgressSource(call)


class ProgressSource:
    """One thing that reports progress by itself: a bar, an evaluation, a training. Any thread may use it.

    Of several the outermost is shown: one that began while another was under way is silent until that is closed. A bar
    that nobody closes, but which has reached its total, is not under way.
    """

    def __init__(self, call: RunningCall) -> None:
        self._call = call
        self._next = 0.0
        self._finished = False
        if call.progress_sources is None:
            call.progress_sources = []
        self._outer = [source for source in call.progress_sources if not source._finished]
        call.progress_sources.append(self)

    def check(self) -> None:
        """Stop here if the call was cancelled.

        Raises:
            Cancelled: let it pass; the runtime turns it into the reply.
        """
        if self._call.cancelled:
            raise Cancelled

    def report(self, current: Any, total: Any = None, message: str = "") -> None:
        """Tell how far it is. Never raises; values that are no finite numbers are left out."""
        now_at, of = _plain(current), _plain(total)
        if now_at is None:
            return
        arrived, self._finished = not self._finished, of is not None and now_at >= of
        now = monotonic()
        if now < self._next and not (arrived and self._finished):
            return
        if self._is_shown():
            self._next = now + REPORT_SECONDS
            self._call.report_automatically({"current": now_at, "total": of, "message": str(message)})

    def close(self) -> None:
        """It has ended, in whatever way. Calling it again does nothing."""
        sources = self._call.progress_sources
        if sources is not None and self in sources:
            sources.remove(self)

    def _is_shown(self) -> bool:
        sources = self._call.progress_sources or ()
        return not any(source in sources for source in self._outer)


def _plain(value: Any) -> float | None:
    """A finite number that JSON can carry, or None. Libraries count with numbers of their own types."""
    if type(value) is int:
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isfinite(number) else None

"""Tokens: for one call, for a session, and since the worker started."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

TOKEN_COUNTS: Final = ("prompt_tokens", "completion_tokens", "total_tokens")


@cache
def shared_tracker_class(dspy: Any) -> Any:
    """DSPy's usage tracker, but shared between the threads of one call.

    DSPy copies its tracker into each thread of an evaluation and drops the copies, so their tokens are lost.
    """
    from dspy.utils.usage_tracker import UsageTracker

    class SharedUsageTracker(UsageTracker):  # type: ignore[misc]  # an untyped base class
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self._adding = threading.Lock()

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            return self

        def add_usage(self, lm: str, usage_entry: dict[str, Any]) -> None:
            with self._adding:
                self.calls += 1
                super().add_usage(lm, usage_entry)

    assert dspy is not None  # the key of the cache, so that a re-imported DSPy gets its own class
    return SharedUsageTracker


def summarize(tracker: Any) -> dict[str, Any]:
    """The tracker's content as `{calls, prompt_tokens, completion_tokens, total_tokens, by_model}`."""
    by_model = {
        model: {name: int(counts.get(name) or 0) for name in TOKEN_COUNTS}
        for model, counts in tracker.get_total_tokens().items()
    }
    totals = {name: sum(counts[name] for counts in by_model.values()) for name in TOKEN_COUNTS}
    return {"calls": tracker.calls, **totals, "by_model": by_model}


def nothing_used() -> dict[str, Any]:
    """The summary of no call at all."""
    return {"calls": 0, **dict.fromkeys(TOKEN_COUNTS, 0), "by_model": {}}


class UsageLedger:
    """Sums of usage. Owned by the bridge; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = nothing_used()
        self._sessions: dict[str, dict[str, Any]] = {}

    def add(self, used: Mapping[str, Any], session_id: str | None) -> None:
        """Add one call's summary."""
        with self._lock:
            _add(self._total, used)
            if session_id:
                _add(self._sessions.setdefault(session_id, nothing_used()), used)

    def total(self) -> dict[str, Any]:
        """Everything since the worker started."""
        with self._lock:
            return _copy(self._total)

    def session(self, session_id: str) -> dict[str, Any]:
        """What one session used."""
        with self._lock:
            return _copy(self._sessions.get(session_id, nothing_used()))

    def forget(self, session_id: str) -> None:
        """Drop a session's sum; the total keeps it."""
        with self._lock:
            self._sessions.pop(session_id, None)


def _add(sum_: dict[str, Any], used: Mapping[str, Any]) -> None:
    for name in ("calls", *TOKEN_COUNTS):
        sum_[name] += used[name]
    for model, counts in used["by_model"].items():
        mine = sum_["by_model"].setdefault(model, dict.fromkeys(TOKEN_COUNTS, 0))
        for name in TOKEN_COUNTS:
            mine[name] += counts[name]


def _copy(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {**summary, "by_model": {model: dict(counts) for model, counts in summary["by_model"].items()}}

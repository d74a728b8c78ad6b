"""Sums of what models used: for a session, and since the worker started. Each framework names its counts itself."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any


def nothing_used(counts: Sequence[str]) -> dict[str, Any]:
    """The summary of no call at all: `{calls, COUNT..., by_model: {}}`."""
    return {"calls": 0, **dict.fromkeys(counts, 0), "by_model": {}}


def add_usage(sum_: dict[str, Any], used: Mapping[str, Any]) -> None:
    """Add one summary to another, in place."""
    for name, amount in used.items():
        if name == "by_model":
            for model, counts in amount.items():
                add_usage(sum_["by_model"].setdefault(model, {}), counts)
        else:
            sum_[name] = sum_.get(name, 0) + amount


def copy_usage(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A summary that nobody else changes."""
    return {**summary, "by_model": {model: dict(counts) for model, counts in summary["by_model"].items()}}


class UsageLedger:
    """Sums of usage. Owned by the bridge; safe from any thread.

    Args:
        counts: what is counted for a request, in the framework's words, for example `total_tokens`.
    """

    def __init__(self, counts: Sequence[str]) -> None:
        self._counts = counts
        self._lock = threading.Lock()
        self._total = nothing_used(counts)
        self._sessions: dict[str, dict[str, Any]] = {}

    def add(self, used: Mapping[str, Any], session_id: str | None) -> None:
        """Add one call's summary."""
        with self._lock:
            add_usage(self._total, used)
            if session_id:
                add_usage(self._sessions.setdefault(session_id, nothing_used(self._counts)), used)

    def total(self) -> dict[str, Any]:
        """Everything since the worker started."""
        with self._lock:
            return copy_usage(self._total)

    def session(self, session_id: str) -> dict[str, Any]:
        """What one session used."""
        with self._lock:
            return copy_usage(self._sessions.get(session_id, nothing_used(self._counts)))

    def told(self, session_id: str | None) -> dict[str, Any]:
        """For the command `usage`: `{total, session}`, the second null for a caller without a session."""
        return {"total": self.total(), "session": None if session_id is None else self.session(session_id)}

    def forget(self, session_id: str) -> None:
        """Drop a session's sum; the total keeps it."""
        with self._lock:
            self._sessions.pop(session_id, None)

"""Tokens, in LangChain's words: for one call, for a session, and since the worker started."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final

COUNTS: Final = ("input_tokens", "output_tokens", "total_tokens")


def nothing_used() -> dict[str, Any]:
    """The summary of no call at all."""
    return {"calls": 0, **dict.fromkeys(COUNTS, 0), "by_model": {}}


class UsageMeter:
    """Counts the model requests of one call."""

    def __init__(self) -> None:
        self._summary = nothing_used()

    def add(self, model: str, usage: Mapping[str, Any] | None) -> None:
        """Count one answered request; a provider that tells no usage counts as a request of no tokens."""
        counts = {name: int((usage or {}).get(name) or 0) for name in COUNTS}
        _add(self._summary, {"calls": 1, **counts, "by_model": {model: {"calls": 1, **counts}}})

    def summary(self) -> dict[str, Any]:
        """`{calls, input_tokens, output_tokens, total_tokens, by_model}`."""
        return _copy(self._summary)


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
    for name in ("calls", *COUNTS):
        sum_[name] += used[name]
    for model, counts in used["by_model"].items():
        mine = sum_["by_model"].setdefault(model, {"calls": 0, **dict.fromkeys(COUNTS, 0)})
        for name in ("calls", *COUNTS):
            mine[name] += counts[name]


def _copy(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {**summary, "by_model": {model: dict(counts) for model, counts in summary["by_model"].items()}}

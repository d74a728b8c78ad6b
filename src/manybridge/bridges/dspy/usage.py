"""Tokens of one call, as DSPy counts them."""

from __future__ import annotations

import threading
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

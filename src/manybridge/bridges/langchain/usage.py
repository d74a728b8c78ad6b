"""Tokens of one call, in LangChain's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from manybridge.bridges.common.usage import add_usage, copy_usage, nothing_used

TOKEN_COUNTS: Final = ("input_tokens", "output_tokens", "total_tokens")


class UsageMeter:
    """Counts the model requests of one call."""

    def __init__(self) -> None:
        self._summary = nothing_used(TOKEN_COUNTS)

    def add(self, model: str, usage: Mapping[str, Any] | None) -> None:
        """Count one answered request; a provider that tells no usage counts as a request of no tokens."""
        counts = {"calls": 1, **{name: int((usage or {}).get(name) or 0) for name in TOKEN_COUNTS}}
        add_usage(self._summary, {**counts, "by_model": {model: counts}})

    def summary(self) -> dict[str, Any]:
        """`{calls, input_tokens, output_tokens, total_tokens, by_model}`."""
        return copy_usage(self._summary)

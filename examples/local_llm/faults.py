"""Ways to fail on purpose, so that every branch of a client can be seen to work.

Two knobs. The model's name, which needs no shared state: ``local-rules-fail-429`` or ``local-rules-slow-250ms``.
And a server-wide plan (``POST /control``): ``{"fail": "500", "times": 2, "delay_ms": 100, "retry_after_s": 1}``, or
``{"hold_after": 3}``: every stream stops after three pieces, until ``{"hold_after": null}``.
"""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

#: kind -> (HTTP status, OpenAI error type, OpenAI error code, message)
FAILURES: dict[str, tuple[int, str, str | None, str]] = {
    "400": (400, "invalid_request_error", None, "The request was refused on purpose."),
    "401": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "404": (404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "429": (429, "rate_limit_error", "rate_limit_exceeded", "Too many requests."),
    "500": (500, "server_error", None, "The server failed on purpose."),
    "context": (
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8 tokens. Please reduce the length of the messages.",
    ),
}
#: these answer 200 and then break: the stream stops in the middle, or it ends in good order before its last event (only
#: streams), or the text is not what was asked for
BROKEN_ANSWERS = frozenset({"cut", "short", "garbage"})


@dataclass
class Faults:
    """The server-wide plan. Safe to change while requests run.

    Attributes:
        delay: seconds to wait before every answer.
        chunk_delay: seconds to wait before every streamed piece.
        retry_after: seconds, sent with a 429.
        hold_after: pieces of a stream, after which it stops until this is None again.
    """

    delay: float = 0.0
    chunk_delay: float = 0.0
    retry_after: float = 1.0
    hold_after: int | None = None
    _queued: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, kind: str, times: int = 1) -> None:
        """Make the next requests fail.

        Raises:
            ValueError: for a kind that is not one of FAILURES or BROKEN_ANSWERS.
        """
        if kind not in FAILURES and kind not in BROKEN_ANSWERS:
            raise ValueError(f"unknown failure {kind!r}; known: {sorted({*FAILURES, *BROKEN_ANSWERS})}")
        with self._lock:
            self._queued.extend([kind] * times)

    def control(self, body: dict[str, Any]) -> None:
        """Apply a ``POST /control`` body; see the module docstring."""
        self.delay = float(body.get("delay_ms", self.delay * 1000)) / 1000
        self.chunk_delay = float(body.get("chunk_delay_ms", self.chunk_delay * 1000)) / 1000
        self.retry_after = float(body.get("retry_after_s", self.retry_after))
        if "hold_after" in body:
            self.hold_after = body["hold_after"]
        if "fail" in body:
            self.plan(str(body["fail"]), int(body.get("times", 1)))

    def holds(self, sent: int) -> bool:
        """Whether a stream of which so many pieces are out has to wait."""
        limit = self.hold_after
        return limit is not None and sent >= limit

    def next_failure(self, model: str) -> str | None:
        """What is wrong with this request: a planned failure first, then what the model's name asks for."""
        with self._lock:
            if self._queued:
                return self._queued.pop(0)
        named = re.search(r"fail-(\w+)", model)
        return named.group(1) if named else None

    def delay_for(self, model: str) -> float:
        """Seconds to wait before answering this request."""
        named = re.search(r"slow-(\d+)ms", model)
        return self.delay + (int(named.group(1)) / 1000 if named else 0.0)

"""The endpoint: HTTP and wire formats are those of `manybridge.testing`; what it answers are the rules."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

from manybridge.testing import ChatRequest, Fault, Reply, ScriptedLLM, ToolCall

from .agent import tool_call
from .answers import reply_text
from .prompts import read_task

GARBAGE = "This text fills no field at all."
BROKEN: dict[str, Literal["cut", "short"]] = {"cut": "cut", "short": "short"}
"""Answers that begin and do not end; see `Reply.broken`."""


class LocalLLM(ScriptedLLM):
    """A running endpoint; a context manager.

    It can be made to fail on purpose. By the model's name, which needs no shared state: ``local-rules-fail-429`` or
    ``local-rules-slow-250ms``. Or for all, over HTTP (``POST /control``): ``{"fail": "500", "times": 2, "delay_ms":
    100, "chunk_delay_ms": 10, "retry_after_s": 1}``, or ``{"hold_after": 3}``: every stream stops after three words,
    until ``{"hold_after": null}``. ``GET /requests`` says what was asked.

    Args:
        host, port, api_key, delay: as of `ScriptedLLM`.
    """

    model = "local-rules"

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, api_key: str | None = None, delay: float = 0.0
    ) -> None:
        super().__init__(host, port, api_key=api_key, delay=delay)
        self.retry_after = 1.0
        self.answers(self.by_rules)

    def check(self) -> None:
        """Whatever was asked is fine: there are rules for everything."""

    def by_rules(self, request: ChatRequest) -> Reply | Fault:
        """Answer a request, or fail as the model's name says."""
        slow = re.search(r"slow-(\d+)ms", request.model)
        failing = re.search(r"fail-(\w+)", request.model)
        reply = self.failure(failing[1], request) if failing else rule_reply(request)
        return replace(reply, delay=int(slow[1]) / 1000) if slow else reply

    def failure(self, kind: str, request: ChatRequest) -> Reply | Fault:
        """What goes wrong: an HTTP status, or `context`, `cut`, `short`, `garbage`.

        Raises:
            ValueError: it is none of these.
        """
        if kind == "garbage":
            return Reply(GARBAGE)
        if kind in BROKEN:
            return replace(rule_reply(request), broken=BROKEN[kind])
        code = "context_length_exceeded" if kind == "context" else int(kind)
        return Fault(code, self.retry_after if kind == "429" else None)

    def aside(self, path: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        """Answer what is asked at a path of no format."""
        if path == "/control" and body is not None:
            self.control(body)
            return {"ok": True}
        if path == "/requests" and body is None:
            asked = [{"model": each.model, "path": each.path, "stream": each.stream} for each in self.requests]
            return {"requests": asked, "streamed": self.streamed}
        return {"status": "ok", "what": "a local rule-based endpoint, not a model"} if body is None else None

    def control(self, body: dict[str, Any]) -> None:
        """Apply the body of a ``POST /control``."""
        self.delay = float(body.get("delay_ms", self.delay * 1000)) / 1000
        self.chunk_delay = float(body.get("chunk_delay_ms", self.chunk_delay * 1000)) / 1000
        self.retry_after = float(body.get("retry_after_s", self.retry_after))
        if "hold_after" in body:
            self.hold_after = body["hold_after"]
        if "fail" in body:
            kind = str(body["fail"])
            self.replies(*[lambda request: self.failure(kind, request)] * int(body.get("times", 1)))


def rule_reply(request: ChatRequest) -> Reply:
    """What the rules say: tool calls where tools are offered, else a text."""
    last = request.messages[-1] if request.messages else {"role": "user", "content": ""}
    if request.tools and (last["role"] == "user" or request.must_call):
        return Reply(tool_calls=tuple(_calls(request, last)))
    if last["role"] == "tool":
        return Reply("; ".join(_answers_of_tools(request)))
    return Reply(reply_text(read_task(request.messages)))


def _calls(request: ChatRequest, last: dict[str, str]) -> list[ToolCall]:
    """One call for each part of the text between semicolons; after a tool's answer, the last of the tools."""
    if last["role"] == "user":
        parts = [part.strip() for part in last["content"].split(";") if part.strip()]
        return [ToolCall(*tool_call(request.tools, part)) for part in parts]
    return [ToolCall(*tool_call(request.tools[-1:], last["content"]))]


def _answers_of_tools(request: ChatRequest) -> list[str]:
    """What tools said since the model spoke last."""
    told: list[str] = []
    for message in reversed(request.messages):
        if message["role"] != "tool":
            break
        told.insert(0, message["content"])
    return told

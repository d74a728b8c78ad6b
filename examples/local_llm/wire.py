"""The two wire formats, as plain dictionaries: read a request, write a reply. No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .agent import tool_call
from .answers import reply_text
from .prompts import read_task

MODEL = "local-rules"
GEMINI_STATUS = {"401": "UNAUTHENTICATED", "404": "NOT_FOUND", "429": "RESOURCE_EXHAUSTED", "500": "INTERNAL"}
_GEMINI_PATH = re.compile(r"/models/([^/:]+):(generateContent|streamGenerateContent)")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request in neither format: messages with ``role`` and ``content`` text."""

    flavour: str
    model: str
    messages: list[dict[str, str]]
    stream: bool
    tools: list[Mapping[str, Any]]
    with_usage: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """Text, or one tool call (name, arguments as JSON text), with the token counts."""

    text: str
    call: tuple[str, str] | None
    prompt_tokens: int
    completion_tokens: int


def read_request(path: str, body: Mapping[str, Any]) -> ChatRequest | None:
    """The request, or None where the path is neither format's."""
    if path.partition("?")[0].endswith("/chat/completions"):
        messages = [{"role": m["role"], "content": _text(m.get("content"))} for m in body.get("messages", [])]
        for message in messages:
            message["role"] = "system" if message["role"] == "developer" else message["role"]
        usage = bool((body.get("stream_options") or {}).get("include_usage"))
        tools = [] if body.get("tool_choice") == "none" else body.get("tools") or []
        return ChatRequest("openai", body.get("model", ""), messages, bool(body.get("stream")), tools, usage)
    if match := _GEMINI_PATH.search(path):
        stream = match.group(2) == "streamGenerateContent"
        return ChatRequest("gemini", match.group(1), _gemini_messages(body), stream, [], True)
    return None


def _gemini_messages(body: Mapping[str, Any]) -> list[dict[str, str]]:
    system = body.get("systemInstruction") or body.get("system_instruction")
    messages = [{"role": "system", "content": _parts(system)}] if system else []
    roles = {"model": "assistant"}
    for content in body.get("contents", []):
        role = content.get("role", "user")
        messages.append({"role": roles.get(role, role), "content": _parts(content)})
    return messages


def _parts(content: Mapping[str, Any]) -> str:
    return "".join(part.get("text", "") for part in content.get("parts", []))


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, dict))
    return content or ""


def reply_to(request: ChatRequest, text: str | None = None) -> Reply:
    """Answer by the rules, or with the given text; a token is a word here."""
    last = request.messages[-1] if request.messages else {"role": "user", "content": ""}
    asked = sum(len(message["content"].split()) for message in request.messages)
    if text is None and request.tools and last["role"] == "user":
        call = tool_call(request.tools, last["content"])
        return Reply("", call, asked, len(call[1].split()) + 1)
    if text is None:
        text = last["content"] if last["role"] == "tool" else reply_text(read_task(request.messages))
    return Reply(text, None, asked, len(text.split()))


def whole(request: ChatRequest, reply: Reply) -> dict[str, Any]:
    """The reply as one body."""
    if request.flavour == "gemini":
        return _gemini_body(reply.text, reply)
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.call is not None:
        message = {"role": "assistant", "content": None, "tool_calls": [_call(reply.call)]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.call else "stop"}
    return {**_openai_head("chat.completion"), "choices": [choice], "usage": _usage(reply)}


def pieces(request: ChatRequest, reply: Reply) -> Iterator[str]:
    """The ``data:`` values of a streamed reply, word by word."""
    words = re.findall(r"\S+\s*|\s+", reply.text)
    if request.flavour == "gemini":
        for number, word in enumerate(words):
            yield json.dumps(_gemini_body(word, reply, last=number == len(words) - 1))
        return
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    if reply.call is not None:
        deltas.append({"tool_calls": [{"index": 0, **_call(reply.call)}]})
    for delta in deltas:
        yield _openai_chunk([{"index": 0, "delta": delta, "finish_reason": None}])
    yield _openai_chunk([{"index": 0, "delta": {}, "finish_reason": "tool_calls" if reply.call else "stop"}])
    if request.with_usage:
        yield _openai_chunk([], usage=_usage(reply))
    yield "[DONE]"


def _openai_head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-local", "object": kind, "created": 0, "model": MODEL}


def _openai_chunk(choices: list[dict[str, Any]], **extra: Any) -> str:
    return json.dumps({**_openai_head("chat.completion.chunk"), "choices": choices, **extra})


def _call(call: tuple[str, str]) -> dict[str, Any]:
    return {"id": "call_0", "type": "function", "function": {"name": call[0], "arguments": call[1]}}


def _usage(reply: Reply) -> dict[str, int]:
    total = reply.prompt_tokens + reply.completion_tokens
    return {
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "total_tokens": total,
    }


def _gemini_body(text: str, reply: Reply, *, last: bool = True) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if last:
        candidate["finishReason"] = "STOP"
    usage = {
        "promptTokenCount": reply.prompt_tokens,
        "candidatesTokenCount": reply.completion_tokens,
        "totalTokenCount": reply.prompt_tokens + reply.completion_tokens,
    }
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL}

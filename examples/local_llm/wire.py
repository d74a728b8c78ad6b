"""The two wire formats, as plain dictionaries: read a request, write a reply. No I/O."""

from __future__ import annotations

import itertools
import json
import math
import re
import zlib
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
    """One request in neither format: messages with ``role`` and ``content`` text.

    Attributes:
        must_call: whether the caller insists on a tool call, as those do who want an answer in a form.
    """

    flavour: str
    model: str
    messages: list[dict[str, str]]
    stream: bool
    tools: list[Mapping[str, Any]]
    with_usage: bool
    must_call: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """Text, or tool calls (name, arguments as JSON text), with the token counts."""

    text: str
    calls: tuple[tuple[str, str], ...]
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
        must_call = body.get("tool_choice") in {"required", "any"}
        return ChatRequest("openai", body.get("model", ""), messages, bool(body.get("stream")), tools, usage, must_call)
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
    if text is None and request.tools and (last["role"] == "user" or request.must_call):
        calls = _calls(request, last)
        return Reply("", calls, asked, sum(len(arguments.split()) + 1 for _, arguments in calls))
    if text is None:
        answers = itertools.takewhile(lambda m: m["role"] == "tool", reversed(request.messages))
        told = "; ".join(reversed([message["content"] for message in answers]))
        text = told if last["role"] == "tool" else reply_text(read_task(request.messages))
    return Reply(text, (), asked, len(text.split()))


def _calls(request: ChatRequest, last: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """One call for each part of the text between semicolons; after a tool's answer, the last of the tools."""
    if last["role"] == "user":
        return tuple(tool_call(request.tools, part.strip()) for part in last["content"].split(";") if part.strip())
    return (tool_call(request.tools[-1:], last["content"]),)


def embedding_of(text: str) -> list[float]:
    """A vector of word counts in 16 drawers: texts that share words are near each other, and nothing more."""
    counts = [0.0] * 16
    for word in re.findall(r"\w+", text.lower()):
        counts[zlib.crc32(word.encode()) % len(counts)] += 1.0
    length = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / length for count in counts]


def embeddings(body: Mapping[str, Any]) -> dict[str, Any]:
    """The reply to an embeddings request."""
    given = body.get("input", [])
    texts = [given] if isinstance(given, str) else given
    data = [{"object": "embedding", "index": n, "embedding": embedding_of(str(text))} for n, text in enumerate(texts)]
    words = sum(len(str(text).split()) for text in texts)
    return {"object": "list", "data": data, "model": MODEL, "usage": {"prompt_tokens": words, "total_tokens": words}}


def whole(request: ChatRequest, reply: Reply) -> dict[str, Any]:
    """The reply as one body."""
    if request.flavour == "gemini":
        return _gemini_body(reply.text, reply)
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.calls:
        message = {
            "role": "assistant",
            "content": None,
            "tool_calls": [_call(*each) for each in enumerate(reply.calls)],
        }
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if reply.calls else "stop"}
    return {**_openai_head("chat.completion"), "choices": [choice], "usage": _usage(reply)}


def pieces(request: ChatRequest, reply: Reply) -> Iterator[str]:
    """The ``data:`` values of a streamed reply, word by word."""
    words = re.findall(r"\S+\s*|\s+", reply.text)
    if request.flavour == "gemini":
        for number, word in enumerate(words):
            yield json.dumps(_gemini_body(word, reply, last=number == len(words) - 1))
        return
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
    deltas += [{"tool_calls": [{"index": n, **_call(n, call)}]} for n, call in enumerate(reply.calls)]
    for delta in deltas:
        yield _openai_chunk([{"index": 0, "delta": delta, "finish_reason": None}])
    yield _openai_chunk([{"index": 0, "delta": {}, "finish_reason": "tool_calls" if reply.calls else "stop"}])
    if request.with_usage:
        yield _openai_chunk([], usage=_usage(reply))
    yield "[DONE]"


def _openai_head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-local", "object": kind, "created": 0, "model": MODEL}


def _openai_chunk(choices: list[dict[str, Any]], **extra: Any) -> str:
    return json.dumps({**_openai_head("chat.completion.chunk"), "choices": choices, **extra})


def _call(number: int, call: tuple[str, str]) -> dict[str, Any]:
    return {"id": f"call_{number}", "type": "function", "function": {"name": call[0], "arguments": call[1]}}


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

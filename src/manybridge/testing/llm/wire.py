"""The wire formats, as plain dictionaries: read a request, write a reply. No I/O."""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from manybridge.testing.llm.replies import FaultBody, Reply, ToolCall

VECTOR_LENGTH: Final = 16
"""Of the embeddings: enough that few words share a place, and still easy to read in a failing test."""

_GEMINI_PATH: Final = re.compile(r"/models/([^/:]+):(generateContent|streamGenerateContent)")
_GEMINI_STATUS: Final = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL"}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request for an answer, as it came. It holds no key."""

    flavour: Literal["openai", "gemini"]
    path: str
    """Without its query, where Gemini's clients put the key."""
    model: str
    messages: list[dict[str, str]]
    """Of either format: `role` (system, user, assistant, tool) and `content`, the text alone."""
    stream: bool = False
    tools: list[dict[str, Any]] = field(default_factory=list)
    """What the model may call, as OpenAI writes it."""
    must_call: bool = False
    """Whether the caller insists on a tool call, as those do who want an answer in a form."""
    with_usage: bool = True
    """Whether a stream ends with the token counts."""
    has_key: bool = False
    body: dict[str, Any] = field(default_factory=dict, repr=False)
    """Everything that was sent; the key of the request is masked wherever it occurs."""

    @property
    def text(self) -> str:
        """The last message of the user."""
        return next((each["content"] for each in reversed(self.messages) if each["role"] == "user"), "")

    @property
    def prompt(self) -> str:
        """All messages, as one text."""
        return "\n\n".join(each["content"] for each in self.messages)

    @property
    def tool_names(self) -> list[str]:
        """What the model may call."""
        return [str(tool.get("function", {}).get("name")) for tool in self.tools]


def read_request(path: str, body: dict[str, Any], *, has_key: bool = False) -> ChatRequest | None:
    """The request, or None where the path is neither format's."""
    path = path.partition("?")[0]
    if path.endswith("/chat/completions"):
        return _read_openai(path, body, has_key)
    if match := _GEMINI_PATH.search(path):
        stream = match[2] == "streamGenerateContent"
        return ChatRequest(
            "gemini", path, match[1], _gemini_messages(body), stream=stream, has_key=has_key, body=body
        )  # fmt: skip
    return None


def _read_openai(path: str, body: dict[str, Any], has_key: bool) -> ChatRequest:
    roles = {"developer": "system"}
    choice = body.get("tool_choice")
    tools = [] if choice == "none" else body.get("tools") or []
    if isinstance(choice, Mapping):  # one tool, by its name
        named = choice.get("function", {}).get("name")
        tools = [tool for tool in tools if tool.get("function", {}).get("name") == named] or tools
    return ChatRequest(
        "openai",
        path,
        str(body.get("model", "")),
        [
            {"role": roles.get(each["role"], each["role"]), "content": _text(each.get("content"))}
            for each in body.get("messages") or []
        ],
        stream=bool(body.get("stream")),
        tools=tools,
        must_call=choice in ("required", "any") or isinstance(choice, Mapping),
        with_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        has_key=has_key,
        body=body,
    )


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


# ---------------------------------------------------------------- replies


def whole(request: ChatRequest, reply: Reply, model: str) -> dict[str, Any]:
    """The reply as one body."""
    if request.flavour == "gemini":
        return _gemini_body(reply.text, _tokens(request, reply), model)
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.tool_calls:
        message = {"role": "assistant", "content": reply.text or None, "tool_calls": _calls(request, reply)}
    choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
    return {**_openai_head("chat.completion", model), "choices": [choice], "usage": _usage(request, reply)}


def pieces(request: ChatRequest, reply: Reply, model: str) -> Iterator[tuple[bool, str]]:
    """The `data:` values of a streamed reply, word by word; whether each is a part of the answer."""
    words = list(reply.pieces) if reply.pieces is not None else re.findall(r"\S+\s*|\s+", reply.text)
    if request.flavour == "gemini":
        for number, word in enumerate(words):
            body = _gemini_body(word, _tokens(request, reply), model, last=number == len(words) - 1)
            yield True, json.dumps(body)
        return
    yield False, _openai_chunk(model, [_delta({"role": "assistant", "content": ""})])
    for word in words:
        yield True, _openai_chunk(model, [_delta({"content": word})])
    for number, call in enumerate(_calls(request, reply)):
        yield True, _openai_chunk(model, [_delta({"tool_calls": [{"index": number, **call}]})])
    yield False, _openai_chunk(model, [_delta({}, _finish(reply))])
    if request.with_usage:
        yield False, _openai_chunk(model, [], usage=_usage(request, reply))
    yield False, "[DONE]"


def error_body(fault: FaultBody) -> dict[str, Any]:
    """The body of a refusal, as OpenAI writes it, with what Gemini's clients look for."""
    error = {"message": fault.message, "type": fault.type, "code": fault.code}
    return {"error": {**error, "status": _GEMINI_STATUS.get(fault.status, "UNKNOWN")}}


def _openai_head(kind: str, model: str) -> dict[str, Any]:
    return {"id": "chatcmpl-local", "object": kind, "created": 0, "model": model}


def _openai_chunk(model: str, choices: list[dict[str, Any]], **extra: Any) -> str:
    return json.dumps({**_openai_head("chat.completion.chunk", model), "choices": choices, **extra})


def _delta(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish}


def _finish(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls else "stop"


def _calls(request: ChatRequest, reply: Reply) -> list[dict[str, Any]]:
    """An id is of its own in its conversation: as many tool calls as were answered came before it."""
    before = sum(each["role"] == "tool" for each in request.messages)
    return [_call(before + number, call) for number, call in enumerate(reply.tool_calls)]


def _call(number: int, call: ToolCall) -> dict[str, Any]:
    arguments = call.args if isinstance(call.args, str) else json.dumps(dict(call.args), ensure_ascii=False)
    return {"id": f"call_{number}", "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _tokens(request: ChatRequest, reply: Reply) -> tuple[int, int]:
    """What the reply says, else words."""
    if reply.usage is not None:
        return reply.usage
    asked = sum(len(each["content"].split()) for each in request.messages)
    called = (call["function"]["arguments"] for call in _calls(request, reply))
    return asked, len(reply.text.split()) + sum(len(arguments.split()) + 1 for arguments in called)


def _usage(request: ChatRequest, reply: Reply) -> dict[str, int]:
    asked, answered = _tokens(request, reply)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _gemini_body(text: str, tokens: tuple[int, int], model: str, *, last: bool = True) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if last:
        candidate["finishReason"] = "STOP"
    asked, answered = tokens
    usage = {"promptTokenCount": asked, "candidatesTokenCount": answered, "totalTokenCount": asked + answered}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": model}


# ---------------------------------------------------------------- embeddings


def embedding_of(text: str) -> list[float]:
    """A vector of word counts, of length 1: texts that share words are near each other, and nothing more."""
    counts = [0.0] * VECTOR_LENGTH
    for word in re.findall(r"\w+", text.lower()):
        counts[zlib.crc32(word.encode()) % VECTOR_LENGTH] += 1.0
    length = math.sqrt(sum(count * count for count in counts)) or 1.0
    return [count / length for count in counts]


def embeddings(body: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The reply to an embeddings request."""
    given = body.get("input", [])
    texts = [given] if isinstance(given, str) else given
    data = [{"object": "embedding", "index": n, "embedding": embedding_of(str(text))} for n, text in enumerate(texts)]
    words = sum(len(str(text).split()) for text in texts)
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": words, "total_tokens": words}}

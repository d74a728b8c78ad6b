"""Messages: between the wire's `{role, content, ...}` and LangChain's classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import expected, invalid, only_keys
from manybridge.protocol.codec import marker_for
from manybridge.protocol.errors import ErrorCode

ROLES: Final = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant",
    "ai": "assistant", "tool": "tool",
}  # fmt: skip
_KEYS: Final = {
    "system": ("role", "content", "name", "id"),
    "user": ("role", "content", "name", "id"),
    "assistant": ("role", "content", "name", "id", "tool_calls", "usage", "finish_reason"),
    "tool": ("role", "content", "name", "id", "tool_call_id", "status"),
}


# ---------------------------------------------------------------- in


def check_messages(given: Any, where: str) -> list[dict[str, Any]]:
    """Check messages, a string being one of the user; pure.

    Raises:
        BridgeError: `invalid_argument`, naming the message and the key.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise invalid(where, "expected a text, or a non-empty array of {role, content}")
    return [_check_message(each, f"{where}[{number}]") for number, each in enumerate(given)]


def _check_message(given: Any, where: str) -> dict[str, Any]:
    if isinstance(given, str):
        return {"role": "user", "content": given}
    if not isinstance(given, Mapping):
        raise expected(where, "an object {role, content}", given)
    role = ROLES.get(str(given.get("role")))
    if role is None:
        raise invalid(f"{where}.role", f"expected one of {', '.join(ROLES)}, found {given.get('role')!r}")
    only_keys(given, _KEYS[role], where)
    check_content(given.get("content") or "", f"{where}.content")
    if role == "tool" and not isinstance(given.get("tool_call_id"), str):
        raise invalid(f"{where}.tool_call_id", "missing: it says which tool call this answers")
    for number, call in enumerate(given.get("tool_calls") or []):
        _check_tool_call(call, f"{where}.tool_calls[{number}]")
    return {**given, "role": role}


def check_content(content: Any, where: str) -> None:
    """Content is a text or LangChain's content blocks, objects with a type."""
    if isinstance(content, str):
        return
    if not isinstance(content, list) or not all(
        isinstance(b, Mapping) and isinstance(b.get("type"), str) for b in content
    ):
        raise invalid(where, "expected a text, or an array of content blocks, each an object with a type")


def _check_tool_call(call: Any, where: str) -> None:
    if (
        not isinstance(call, Mapping)
        or not isinstance(call.get("name"), str)
        or not isinstance(call.get("args"), Mapping)
    ):
        raise invalid(where, "expected {id, name, args}")


def to_langchain(messages: list[dict[str, Any]]) -> list[Any]:
    """Make LangChain's messages of checked ones."""
    from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

    classes: dict[str, Any] = {
        "system": SystemMessage,
        "user": HumanMessage,
        "assistant": AIMessage,
        "tool": ToolMessage,
    }
    made = []
    for message in messages:
        # The usage of an earlier answer is not sent back: what it cost was counted then.
        keys = {k: v for k, v in message.items() if k not in ("role", "usage", "finish_reason") and v is not None}
        keys["content"] = message.get("content") or ""
        if message.get("tool_calls"):
            keys["tool_calls"] = [
                {"id": c.get("id"), "name": c["name"], "args": dict(c["args"])} for c in message["tool_calls"]
            ]
        made.append(classes[message["role"]](**keys))
    return made


# ---------------------------------------------------------------- out

_TYPES: Final = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}


def from_langchain(message: Any) -> dict[str, Any]:
    """A message as JSON; what is empty is left out."""
    kind = message.type.removesuffix("MessageChunk").lower()
    told: dict[str, Any] = {"role": _TYPES.get(kind, kind), "content": to_json(message.content)}
    calls = getattr(message, "tool_calls", None)
    if calls:
        told["tool_calls"] = [{"id": c["id"], "name": c["name"], "args": to_json(c["args"])} for c in calls]
    broken = getattr(message, "invalid_tool_calls", None)
    if broken:
        told["invalid_tool_calls"] = [{"id": c["id"], "name": c["name"], "error": c.get("error")} for c in broken]
    usage = getattr(message, "usage_metadata", None)
    finish = message.response_metadata.get("finish_reason") or message.response_metadata.get("stop_reason")
    facts = {
        "name": message.name, "id": message.id, "tool_call_id": getattr(message, "tool_call_id", None),
        "status": getattr(message, "status", None), "usage": to_json(dict(usage)) if usage else None,
        "finish_reason": finish,
    }  # fmt: skip
    return {**told, **{name: value for name, value in facts.items() if value is not None}}


def text_of(message: Any) -> str:
    """The text of a message, whatever other blocks it has."""
    content = message.content
    if isinstance(content, str):
        return content
    parts = [block if isinstance(block, str) else block.get("text", "") for block in content]
    return "".join(part for part in parts if isinstance(part, str))


def to_json(value: Any) -> Any:
    """What a chain returned, as JSON values; what has no JSON form becomes the codec's marker."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if hasattr(value, "response_metadata") and hasattr(value, "content"):
        return from_langchain(value)
    if hasattr(value, "to_messages"):  # a prompt's value
        return [from_langchain(message) for message in value.to_messages()]
    if hasattr(value, "model_dump"):
        return to_json(value.model_dump(mode="json"))
    return marker_for(value)


def check_result(name: str, value: Any) -> Any:
    """Return a tool's result if JSON can carry it.

    Raises:
        BridgeError: `handler_error`, naming the type that can't be carried.
    """
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BridgeError(
            ErrorCode.HANDLER_ERROR,
            f"tool {name!r} returned a {type(value).__name__} that JSON can't carry ({error}); return text, numbers, "
            f"booleans, null, or lists and dicts with text keys of these",
            details={"tool": name, "found": type(value).__name__},
            type="UnserialisableResult",
        ) from None
    return value

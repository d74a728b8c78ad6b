"""What a test says that the model answers, and how the model fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from manybridge.testing.problems import KitError

if TYPE_CHECKING:
    from manybridge.testing.llm.wire import ChatRequest


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool. Arguments that are a text go out as they are, so they may be no JSON on purpose."""

    name: str
    args: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer of the model; `ScriptedLLM.replies` makes it of a text, of fields or of tool calls."""

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: tuple[int, int] | None = None
    """Tokens of the prompt and of the answer; by default words."""
    delay: float = 0.0
    """Seconds before the answer."""
    chunk_delay: float = 0.0
    """Seconds before each piece of a stream."""
    pieces: tuple[str, ...] | None = None
    """How a stream cuts the text; by default into words."""
    broken: Literal["cut", "short"] | None = None
    """`cut`: the connection ends in the middle. `short`: the stream ends in good order, but before its last piece, as
    a proxy ends it whose provider was cut off; an answer in one piece is whole."""
    broken_after: int = 2
    """Pieces of a stream that still arrive where it is broken."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The model refuses; `ScriptedLLM.fails` makes it."""

    kind: str | int
    """A code of the taxonomy that providers cause (see `FAULTS`), or an HTTP status."""
    retry_after: float | None = None
    """Seconds, sent as Retry-After; 1 for 429 if left out, and not sent otherwise."""
    message: str | None = None
    delay: float = 0.0
    """Seconds before it."""


Answer = str | Mapping[str, Any] | ToolCall | Sequence[ToolCall] | Reply | Fault | Callable[["ChatRequest"], Any]
"""What a test may say. A mapping has the fields of a structured answer; a function gets the request."""


class FaultBody(NamedTuple):
    """A refusal as it goes out."""

    status: int
    type: str
    code: str | None
    message: str


FAULTS: Final[Mapping[str, FaultBody]] = {
    "provider_bad_request": FaultBody(400, "invalid_request_error", None, "The request was refused on purpose."),
    "provider_auth": FaultBody(401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    "provider_not_found": FaultBody(404, "invalid_request_error", "model_not_found", "The model does not exist."),
    "rate_limited": FaultBody(429, "rate_limit_error", "rate_limit_exceeded", "Too many requests."),
    "provider_unavailable": FaultBody(500, "server_error", None, "The server failed on purpose."),
    "context_length_exceeded": FaultBody(
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "This model's maximum context length is 8 tokens. Please reduce the length of the messages.",
    ),
}
"""Code of the taxonomy -> what a provider says that causes it."""


def fault_body(fault: Fault) -> FaultBody:
    """How a fault goes out.

    Raises:
        KitError: there is no such fault.
    """
    if isinstance(fault.kind, str):
        if fault.kind not in FAULTS:
            raise KitError(
                f"a model can't fail with {fault.kind!r}; it can with {', '.join(FAULTS)}, or an HTTP status from 400 "
                "to 599. A model that is too slow is Reply(..., delay=seconds), one that is cut off llm.cuts(...)"
            )
        found = FAULTS[fault.kind]
    elif 400 <= fault.kind <= 599:
        like = next((each for each in FAULTS.values() if each.status == fault.kind), None)
        other = FAULTS["provider_unavailable" if fault.kind >= 500 else "provider_bad_request"]
        found = like or other._replace(status=fault.kind)
    else:
        raise KitError(f"expected an HTTP status from 400 to 599, found {fault.kind}")
    return found if fault.message is None else found._replace(message=fault.message)


def settle(answer: Any, request: ChatRequest) -> Reply | Fault:
    """Make an answer of what a test said; functions are called until they say one.

    Raises:
        KitError: it is nothing that can be answered.
    """
    while callable(answer):
        answer = answer(request)
    match answer:
        case Reply() | Fault():
            return answer
        case str():
            return Reply(answer)
        case Mapping():
            return in_form(answer, request)
        case ToolCall():
            return Reply(tool_calls=(answer,))
        case Sequence() if answer and all(isinstance(each, ToolCall) for each in answer):
            return Reply(tool_calls=tuple(answer))
    raise KitError(
        f"expected a text, a mapping of fields, ToolCall, a list of them, Reply or Fault, found {answer!r:.80}"
    )


def in_form(fields: Mapping[str, Any], request: ChatRequest) -> Reply:
    """Write a structured answer in the form that the request asks for.

    That is the call of a tool where one must be called (LangChain's structured answers), the format that DSPy's
    prompt describes (chat, JSON or XML), and a JSON object in every other case.
    """
    if request.must_call and request.tools:
        return Reply(tool_calls=(ToolCall(_tool_for(fields, request), fields),))
    prompt = request.prompt
    if "Outputs will be a JSON object" not in prompt and "[[ ## completed ## ]]" in prompt:
        sections = [f"[[ ## {name} ## ]]\n{_as_text(value)}" for name, value in fields.items()]
        return Reply("\n\n".join([*sections, "[[ ## completed ## ]]"]))
    if "wrapped in XML tags" in prompt:
        return Reply("\n".join(f"<{name}>\n{_as_text(value)}\n</{name}>" for name, value in fields.items()))
    return Reply(json.dumps(dict(fields), ensure_ascii=False))


def _tool_for(fields: Mapping[str, Any], request: ChatRequest) -> str:
    """The first tool that knows all of the fields; the last one if none does, where LangChain puts a form."""
    for tool in request.tools:
        function = tool.get("function", {})
        if fields.keys() <= ((function.get("parameters") or {}).get("properties") or {}).keys():
            return str(function.get("name"))
    return request.tool_names[-1]


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

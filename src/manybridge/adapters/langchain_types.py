"""What the LangChain adapters take and return: plain values, the same for both of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, TypeAlias, TypedDict

from manybridge.adapters.handles import EXECUTE
from manybridge.errors import InvalidArgumentError


class Message(TypedDict, total=False):
    """One message. `role` is system, user, assistant or tool."""

    role: str
    content: str | list[dict[str, Any]]
    name: str
    id: str
    tool_calls: list[dict[str, Any]]
    tool_call_id: str
    status: str
    usage: dict[str, Any]
    finish_reason: str


Messages: TypeAlias = str | Sequence[Message] | Sequence[Mapping[str, Any]]
"""A text is one message of the user."""

Model: TypeAlias = str | Mapping[str, Any]
"""`provider:model`, or settings `{model, temperature, ...}`."""

ErrorsGoTo: TypeAlias = Literal["model", "caller"]


class Described(Protocol):
    """Something made by an adapter, with the recipe that it was made of."""

    @property
    def config(self) -> dict[str, Any]:
        """The recipe."""


ToolLike: TypeAlias = str | Mapping[str, Any] | Described | Callable[..., Any]
"""A tool for an agent: `"module:function"` of an allowed module in the worker; the name of a tool registered on the
host; a description `{name, description, parameters}`; what `create_tool` returned; or a function of this process, which
is registered on the host under its own name."""


@dataclass(frozen=True, slots=True)
class ChainResult:
    """What a chain gave: `output` is text or JSON, whatever its last step makes."""

    output: Any
    usage: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> Self:
        """Make one of what the bridge returned."""
        return cls(result["output"], result.get("usage", {}))


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model said.

    Attributes:
        message: the whole message, tool calls included.
        usage: `{calls, input_tokens, output_tokens, total_tokens, by_model}`.
    """

    message: Message
    usage: dict[str, Any]

    @property
    def text(self) -> str:
        """The text of the message."""
        content = self.message.get("content", "")
        return content if isinstance(content, str) else "".join(str(block.get("text", "")) for block in content)

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> Self:
        """Make one of what the bridge returned."""
        return cls(result["message"], result["usage"])


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What an agent answered in one turn.

    Attributes:
        output: the text of its last message.
        messages: everything that this turn added to the thread, without what was asked.
        thread_id: the thread, or None for a turn that nobody remembers.
        structured: the answer in the form of `response_format`; None for an agent without one.
    """

    output: str
    messages: list[Message]
    thread_id: str | None
    usage: dict[str, Any]
    structured: Any = None

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> Self:
        """Make one of what the bridge returned."""
        return cls(**{name: result[name] for name in cls.__slots__ if name in result})

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The tools that were called, in order: `{id, name, args}`."""
        return [call for message in self.messages for call in message.get("tool_calls", [])]


@dataclass(frozen=True, slots=True)
class FormattedPrompt:
    """A prompt with its inputs in place."""

    text: str
    messages: list[Message]


# ---------------------------------------------------------------- recipes


class ToolHost(Protocol):
    """The part of a host that knows tools of this process."""

    def register_tool(self, name: str, function: Callable[..., Any]) -> None:
        """Offer a function."""

    def tools(self) -> list[dict[str, Any]]:
        """Describe what is offered."""


def recipe(**given: Any) -> dict[str, Any]:
    """A recipe of what was given; what was not is left out."""
    return {name: plain(value) for name, value in given.items() if value is not None}


def plain(value: Any) -> Any:
    """The recipe of something that an adapter made; any other value as it is."""
    if isinstance(value, Mapping | str | bytes) or not hasattr(value, "config"):
        return value
    return dict(value.config)


def memory_of(value: Any) -> Any:
    """The memory of an agent's recipe.

    Raises:
        InvalidArgumentError: a memory in memory is given, which no agent can share.
    """
    found = plain(value)
    if found is not value and found.get("kind", "memory") == "memory":
        raise InvalidArgumentError(
            "memory: a memory of kind 'memory' can't be shared; give the agent memory='memory', or one of kind 'sqlite'"
        )
    return found


def tools_of(ml: ToolHost, given: Iterable[ToolLike]) -> list[Any]:
    """The tools of a recipe; functions of this process are registered on the host.

    Raises:
        InvalidArgumentError: a name that no tool of the host has.
    """
    return [_tool_of(ml, tool) for tool in given]


def _tool_of(ml: ToolHost, tool: ToolLike) -> Any:
    if isinstance(tool, str):
        return tool if ":" in tool else _registered(ml, tool)
    found = plain(tool)
    if found is not tool or isinstance(tool, Mapping):
        return dict(found)
    if not callable(tool):
        raise InvalidArgumentError(f"tools: {tool!r} is neither a tool nor a function")
    name = getattr(tool, "__name__", "")
    if not name.isidentifier():
        raise InvalidArgumentError(
            "tools: a function without a name; register it with ml.register_tool(name, function)"
        )
    ml.register_tool(name, tool)
    return _registered(ml, name)


def _registered(ml: ToolHost, name: str) -> dict[str, Any]:
    for known in ml.tools():
        if known["name"] == name:
            return dict(known)
    names = ", ".join(known["name"] for known in ml.tools()) or "none"
    raise InvalidArgumentError(
        f"tools: no tool {name!r} is registered on this host (there are: {names}); a function in the worker is written "
        f"'module:function'"
    )


def batch_calls(id: str, inputs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The calls of a batch on one resource."""
    return [{"command": EXECUTE, "args": {"id": id, "inputs": dict(given)}} for given in inputs]


def read_batch(outcomes: Iterable[Any]) -> list[ChainResult | Exception]:
    """The results of a batch, with errors in their places."""
    return [each if isinstance(each, Exception) else ChainResult.read(each) for each in outcomes]

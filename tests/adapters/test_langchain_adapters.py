"""The recipes that the LangChain adapters write, without a host."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from manybridge.adapters import langchain as blocking
from manybridge.adapters import langchain_async as asynchronous
from manybridge.adapters.langchain_types import (
    AgentAnswer,
    ChainResult,
    ModelAnswer,
    memory_of,
    plain,
    read_batch,
    recipe,
    tools_of,
)
from manybridge.errors import InvalidArgumentError


class ToolBox:
    """The part of a host that knows tools."""

    def __init__(self) -> None:
        self.known: dict[str, Callable[..., Any]] = {}

    def register_tool(self, name: str, function: Callable[..., Any]) -> None:
        """Keep it."""
        self.known[name] = function

    def tools(self) -> list[dict[str, Any]]:
        """Describe them."""
        return [{"name": name, "description": "", "parameters": {}} for name in self.known]


class Made:
    """Something that an adapter made."""

    def __init__(self, **config: Any) -> None:
        self.config = config


def look_up(order: int) -> str:
    """Look an order up."""
    return str(order)


def test_tools_are_named_in_five_ways() -> None:
    """A function of this process is registered on the host on the way."""
    box = ToolBox()
    box.register_tool("known", look_up)
    described = {"name": "mine", "parameters": {"type": "object"}}
    made = Made(function="crew.tools:double")
    found = tools_of(box, ["crew.tools:double", "known", described, made, look_up])
    assert found == [
        "crew.tools:double",
        {"name": "known", "description": "", "parameters": {}},
        described,
        {"function": "crew.tools:double"},
        {"name": "look_up", "description": "", "parameters": {}},
    ]
    assert box.known["look_up"] is look_up


@pytest.mark.parametrize("tool", ["nobody", 3, lambda: None])
def test_what_is_no_tool_is_refused(tool: Any) -> None:
    """With the tools that there are."""
    with pytest.raises(InvalidArgumentError, match="tools:"):
        tools_of(ToolBox(), [tool])


def test_a_recipe_has_what_was_given_and_recipes_of_what_was_made() -> None:
    """Nothing else."""
    assert recipe(a=1, b=None, c=Made(template="x")) == {"a": 1, "c": {"template": "x"}}
    assert plain("text") == "text"


def test_an_agent_shares_a_memory_in_a_file_only() -> None:
    """One in memory belongs to what made it."""
    assert memory_of("memory") == "memory"
    assert memory_of(None) is None
    assert memory_of(Made(kind="sqlite", name="x")) == {"kind": "sqlite", "name": "x"}
    with pytest.raises(InvalidArgumentError, match="sqlite"):
        memory_of(Made(kind="memory"))


def test_answers_are_read() -> None:
    """With what a program asks of them."""
    call = {"id": "1", "name": "look_up", "args": {"order": 7}}
    answer = AgentAnswer.read(
        {"output": "x", "messages": [{"role": "assistant", "tool_calls": [call]}], "thread_id": None, "usage": {}}
    )
    assert (answer.tool_calls, answer.structured) == ([call], None)
    blocks = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert ModelAnswer({"role": "assistant", "content": blocks}, {}).text == "ab"
    failed = ValueError("x")
    assert read_batch([{"output": 1}, failed]) == [ChainResult(1), failed]


@pytest.mark.parametrize("name", ["LangChainAdapter", "Prompt", "Chain", "Tool", "Memory", "Agent"])
def test_the_two_kinds_have_the_same_methods(name: str) -> None:
    """With the same parameters; so knowing one is knowing both."""

    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in found if name[0] != "_"}

    assert methods(getattr(blocking, name)) == methods(getattr(asynchronous, f"Async{name}"))

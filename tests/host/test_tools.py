"""Tools of the host's program, called from handlers."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest

from manybridge.errors import CallError
from manybridge.host.tools import schema_of
from tests.host.conftest import HostMaker
from tests.support import MS


def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


async def test_a_handler_calls_a_function_of_the_host(mock_host: HostMaker) -> None:
    """A plain call is enough; nobody has to ask for a stream."""
    ml = await mock_host()
    ml.register_tool("add", add)

    assert (await ml.call("mock", "call_host", {"tool": "add", "args": {"a": 1, "b": 2}}))["result"] == 3


async def test_a_coroutine_function_runs_on_the_hosts_loop(mock_host: HostMaker) -> None:
    """Beside everything else."""
    ml = await mock_host()
    loops = []

    async def where() -> str:
        loops.append(asyncio.get_running_loop())
        return "here"

    ml.register_tool("where", where)
    await ml.call("mock", "call_host", {"tool": "where", "args": {}})
    assert loops == [asyncio.get_running_loop()]


async def test_an_unknown_tool_is_named(mock_host: HostMaker) -> None:
    """unknown_tool, with those that there are."""
    ml = await mock_host()
    ml.register_tool("add", add)

    with pytest.raises(CallError, match="known: add") as caught:
        await ml.call("mock", "call_host", {"tool": "subtract", "args": {}})
    assert caught.value.code == "unknown_tool"


async def test_a_tool_that_fails_fails_the_handlers_call_of_it(mock_host: HostMaker) -> None:
    """With the tool's own error text."""
    ml = await mock_host()

    def broken() -> None:
        raise ValueError("no such customer")

    ml.register_tool("broken", broken)
    with pytest.raises(CallError, match="no such customer"):
        await ml.call("mock", "call_host", {"tool": "broken", "args": {}})


async def test_a_tool_that_is_too_slow_ends_with_the_handlers_timeout(mock_host: HostMaker) -> None:
    """The handler decides how long it waits."""
    ml = await mock_host()

    async def slow() -> None:
        await asyncio.sleep(30)

    ml.register_tool("slow", slow)
    with pytest.raises(CallError) as caught:
        await ml.call("mock", "call_host", {"tool": "slow", "args": {}, "timeout": 100 * MS})
    assert caught.value.code == "timeout"


async def test_a_generators_chunks_are_its_result_with_tools_as_without(mock_host: HostMaker) -> None:
    """That the host asks for a stream because of its tools is not the caller's business."""
    ml = await mock_host()
    without = await ml.call("mock", "count", {"n": 2})
    ml.register_tool("add", add)

    assert await ml.call("mock", "count", {"n": 2}) == without


async def test_a_tool_may_call_the_host_in_its_own_session(mock_host: HostMaker) -> None:
    """It works for the call that holds the session, so it does not wait for it."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock", 10)

    async def ask() -> Any:
        return await ml.call("mock", "echo", {"from": "tool"}, session="s")

    ml.register_tool("ask", ask)
    answer = await ml.call("mock", "call_host", {"tool": "ask", "args": {}}, session="s", timeout=5)
    assert answer["result"] == {"from": "tool"}


async def test_a_tool_can_be_taken_back(mock_host: HostMaker) -> None:
    """It is no longer listed."""
    ml = await mock_host()
    ml.register_tool("add", add)
    assert [tool["name"] for tool in ml.tools()] == ["add"]
    ml.unregister_tool("add")

    assert ml.tools() == []
    with pytest.raises(CallError):
        ml.unregister_tool("add")


def test_the_schema_of_a_tool_comes_from_its_annotations() -> None:
    """Types, defaults, what is required."""

    def search(query: str, limit: int = 10, kind: Literal["new", "old"] | None = None, *tags: str) -> None: ...

    assert schema_of(search) == {
        "type": "object",
        "properties": {
            "query": {"type": "string"},
            "limit": {"type": "integer", "default": 10},
            "kind": {"anyOf": [{"enum": ["new", "old"]}, {"type": "null"}]},
        },
        "required": ["query"],
        "additionalProperties": False,
    }

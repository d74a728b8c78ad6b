"""Tools of the host's program, called from handlers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, Literal

import pytest

from manybridge import MLBridge
from manybridge.errors import CallError
from manybridge.host.sessions import current_session
from manybridge.host.tools import ToolRegistry, schema_of
from manybridge.protocol.functions import FunctionThreads
from tests.host.conftest import HostMaker
from tests.support import DEFAULT_TIMEOUT, MS, PATIENT


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


class MuteError(Exception):
    """An error whose text can't be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


ODD = [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, MuteError]
"""Each would end the host's loop, be lost in a future, or be taken for the end of the host's own task."""


@pytest.mark.parametrize("kind", ODD)
async def test_whatever_a_tool_raises_the_handler_hears_of_it(mock_host: HostMaker, kind: type[BaseException]) -> None:
    """And the host goes on: `next()` of nothing in a tool, or its `sys.exit()`, are the tool's affair."""
    ml = await mock_host()

    def odd() -> None:
        raise kind

    ml.register_tool("odd", odd)
    ml.register_tool("add", add)
    with pytest.raises(CallError, match=f"tool odd failed: {kind.__name__}") as caught:
        await ml.call("mock", "call_host", {"tool": "odd", "args": {}})
    assert caught.value.code == "handler_error"
    assert (await ml.call("mock", "call_host", {"tool": "add", "args": {"a": 1}}))["result"] == 2


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError])
async def test_whatever_a_coroutine_raises_the_handler_hears_of_it(
    mock_host: HostMaker, kind: type[BaseException]
) -> None:
    """Nobody cancelled the host's task, so a `CancelledError` is the tool's own."""
    ml = await mock_host()

    async def odd() -> None:
        raise kind

    ml.register_tool("odd", odd)
    with pytest.raises(CallError, match=f"tool odd failed: {kind.__name__}") as caught:
        await ml.call("mock", "call_host", {"tool": "odd", "args": {}})
    assert caught.value.code == "handler_error"


async def test_a_result_that_cannot_be_sent_is_the_tools_failure(mock_host: HostMaker) -> None:
    """Not a wrong argument of anybody's: the error names the tool."""
    ml = await mock_host()
    ml.register_tool("thing", object)

    with pytest.raises(CallError, match=r"tool thing returned what can't be sent: .*object") as caught:
        await ml.call("mock", "call_host", {"tool": "thing", "args": {}})
    assert (caught.value.code, caught.value.type) == ("handler_error", "WrongResult")


async def test_tools_that_hang_take_nothing_from_the_others() -> None:
    """More of them than the loop's own executor has threads on any machine."""
    gate = threading.Event()
    tools = ToolRegistry()
    tools.register("hang", gate.wait, "", {})
    tools.register("add", add, None, None)
    try:
        hanging = [asyncio.ensure_future(tools.run("hang", {}, None)) for _ in range(40)]
        assert await tools.run("add", {"a": 1}, None) == 2
    finally:
        gate.set()
    assert await asyncio.gather(*hanging) == [True] * 40


def test_a_host_does_not_wait_for_a_tool_that_hangs() -> None:
    """Nothing can stop a thread, so waiting for it could last for ever."""
    gate, hangs = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        gate.wait()

    try:
        with MLBridge.from_config({"bridges": {"mock": PATIENT}}) as ml:
            ml.register_tool("hang", hang)
            job = ml.submit("mock", "mock:call_host", {"tool": "hang", "args": {}})
            assert hangs.wait(DEFAULT_TIMEOUT)
            job.cancel()
        assert not gate.is_set()
    finally:
        gate.set()


async def test_there_is_an_end_to_the_threads_of_tools() -> None:
    """A tool that hangs at every call would fill the memory."""
    gate = threading.Event()
    tools = ToolRegistry()
    tools._threads = FunctionThreads(1)
    tools.register("hang", gate.wait, "", {})
    hanging = asyncio.ensure_future(tools.run("hang", {}, None))
    await asyncio.sleep(0)
    try:
        with pytest.raises(CallError, match="tool hang: 1 functions run at the same time") as caught:
            await tools.run("hang", {}, None)
        assert caught.value.code == "overloaded"
    finally:
        gate.set()
    assert await hanging is True


async def test_a_tool_on_a_thread_knows_its_session(mock_host: HostMaker) -> None:
    """As a coroutine does: what it asks the host for belongs to the call that it works for."""
    ml = await mock_host()
    ml.register_tool("session", current_session.get)

    answer = await ml.call("mock", "call_host", {"tool": "session", "args": {}}, session="s")
    assert answer["result"] == "s"


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

"""What a handler can do with its call."""

# ruff: noqa: D102  # doubles keep the protocol's signatures

from __future__ import annotations

import re
from collections.abc import Awaitable
from time import monotonic
from typing import Any

import pytest

from manybridge.bridge import BridgeError, Cancelled, Context, Result, V1Context
from manybridge.bridge.context import AsyncCallChannel, CallChannel
from manybridge.protocol.errors import ErrorCode


class Channel:
    """A channel that remembers what it was told."""

    def __init__(self) -> None:
        self.cancelled = False
        self.calls: list[tuple[str, dict[str, Any], float | None]] = []
        self.events: list[tuple[str, Any]] = []

    def emit_event(self, event: str, data: Any) -> None:
        self.events.append((event, data))

    def call_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Any:
        self.calls.append((tool, args, timeout))
        return "blocking"


class AsyncChannel(Channel):
    def acall_host(self, tool: str, args: dict[str, Any], timeout: float | None) -> Awaitable[Any]:
        async def answer() -> Any:
            self.calls.append((tool, args, timeout))
            return "awaited"

        return answer()


def test_events_have_the_shapes_of_the_wire() -> None:
    """Progress, chunk and log data are what the protocol says."""
    ctx = Context.detached()
    ctx.progress(1, 3, "training")
    ctx.progress(2)
    ctx.emit({"token": "a"})
    ctx.log("careful", "warning")

    assert ctx.events == [
        ("progress", {"current": 1, "total": 3, "message": "training"}),
        ("progress", {"current": 2, "total": None, "message": ""}),
        ("chunk", {"token": "a"}),
        ("log", {"level": "warning", "message": "careful"}),
    ]


def test_a_cancelled_call_stops_at_the_next_check() -> None:
    """The flag is only asked; `check` is what stops."""
    ctx = Context.detached()
    ctx.check()
    ctx.cancel()

    assert ctx.cancelled
    with pytest.raises(Cancelled) as caught:
        ctx.check()
    assert not isinstance(caught.value, Exception)


def test_the_time_left_never_goes_below_zero() -> None:
    """A deadline that passed leaves no time; no deadline leaves all."""
    left = Context.detached(timeout=100).time_left()

    assert left is not None
    assert 99 < left <= 100
    assert Context.detached(timeout=-5).time_left() == 0
    assert Context.detached().time_left() is None


@pytest.mark.parametrize(
    ("deadline", "timeout", "expected"), [(None, None, None), (None, 5, 5), (100, None, 100), (100, 5, 5), (2, 50, 2)]
)
def test_a_host_call_waits_no_longer_than_its_call_may(
    deadline: float | None, timeout: float | None, expected: float | None
) -> None:
    """The tool's timeout is cut to what is left of the call."""
    channel = Channel()
    ctx = Context(channel, deadline=None if deadline is None else monotonic() + deadline)

    assert ctx.call_host("tool", {"a": 1}, timeout) == "blocking"

    [(tool, args, waited)] = channel.calls
    assert (tool, args) == ("tool", {"a": 1})
    assert waited == (expected if expected is None else pytest.approx(expected, abs=1))


async def test_an_awaited_host_call_uses_the_channels_own_way_or_a_thread() -> None:
    """A channel without `acall_host` is waited for on a thread, so the event loop stays free."""
    plain, awaitable = Channel(), AsyncChannel()

    assert await Context(plain).acall_host("tool") == "blocking"
    assert await Context(awaitable).acall_host("tool", {"a": 1}) == "awaited"
    assert plain.calls == [("tool", {}, None)]
    assert awaitable.calls == [("tool", {"a": 1}, None)]


@pytest.mark.parametrize(
    ("tool", "args", "words"),
    [
        ("tool", [1], "args of tool 'tool': expected a mapping, found list"),
        ("tool", "a=1", "args of tool 'tool': expected a mapping, found str"),
        (5, {}, "tool: expected the name of a tool, a string, found int"),
        (None, None, "tool: expected the name of a tool, a string, found NoneType"),
    ],
)
async def test_a_host_call_that_is_none_is_the_handlers_mistake(tool: Any, args: Any, words: str) -> None:
    """Sent on, it would be a breach of the protocol, for which a host kills the worker."""
    channel = AsyncChannel()
    ctx = Context(channel)

    with pytest.raises(TypeError, match=re.escape(words)):
        ctx.call_host(tool, args)
    with pytest.raises(TypeError, match=re.escape(words)):
        await ctx.acall_host(tool, args)
    assert channel.calls == []


def test_the_doubles_of_these_tests_are_channels() -> None:
    """What the tests use satisfies the protocols that the runtime implements."""
    channel: CallChannel = Channel()

    assert not isinstance(channel, AsyncCallChannel)
    assert isinstance(AsyncChannel(), AsyncCallChannel)


def test_a_detached_context_answers_host_calls_from_its_tools() -> None:
    """A bridge that calls tools is tested without a client."""
    ctx = Context.detached(tools={"add": lambda a, b: a + b}, session_id="s1")

    assert ctx.call_host("add", {"a": 1, "b": 2}) == 3
    assert ctx.session_id == "s1"
    with pytest.raises(BridgeError) as caught:
        ctx.call_host("sub", {})
    assert caught.value.code is ErrorCode.UNKNOWN_TOOL
    assert "['add']" in caught.value.message


def test_resetting_the_counters_returns_what_they_were() -> None:
    """`reset_state` of version 1 replies with the values before the reset."""
    v1 = V1Context(mode="pool-worker", worker_id="w1", command_count=5, error_count=2)

    assert v1.reset_counters() == (5, 2)
    assert (v1.command_count, v1.error_count, v1.mode, v1.worker_id) == (0, 0, "pool-worker", "w1")
    assert isinstance(v1.uptime, float)


def test_a_result_shows_its_type_and_not_its_content() -> None:
    """Content may be a customer's."""
    assert repr(Result("secret")) == "Result(str)"
    assert Result(3).value == 3

"""The in-memory host says what a real one says, and starts no process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.errors import ManybridgeError
from manybridge.testing import AsyncInMemoryMLBridge, InMemoryMLBridge
from manybridge.testing.chaos.holdings import descendants
from manybridge.testing.hosts import start_host
from tests.support import MS, eventually
from tests.testing.bridges import WordBridge

FAST = {"cancel_grace": 1_000 * MS, "term_grace": 100 * MS, "restart": {"initial_backoff": 0.0}}


@pytest.fixture(scope="module", params=["memory", "processes"])
def ml(request: pytest.FixtureRequest) -> Iterator[MLBridge]:
    """The same host twice: in memory, and with worker processes."""
    bridges = {"words": {"bridge": WordBridge, **FAST}}
    with start_host(bridges, real=request.param == "processes") as host:
        # Threads and descriptors that come with the first use are not a test's.
        host.register_tool("answer", lambda question: question.upper())
        host.call("words", "ask", {"question": "warm?"})
        list(host.stream("words", "spell", {"word": "warm"}))
        yield host


def told(ml: MLBridge, command: str, args: Any = None, **options: Any) -> tuple[str, str, dict[str, Any]]:
    """Code, message and details of a call that fails, without what differs between two workers."""
    with pytest.raises(ManybridgeError) as caught:
        ml.call("words", command, args, **options)
    gone = {"pid", "uptime", "worker_id", "stderr_tail"}
    return (
        caught.value.code,
        caught.value.message,
        {key: value for key, value in caught.value.details.items() if key not in gone},
    )


def test_calls_are_validated_run_and_answered(ml: MLBridge) -> None:
    """Results, and the errors of wrong arguments and unknown names."""
    assert ml.call("words", "count", {"text": "a b a"}) == {"a": 2, "b": 1}
    assert told(ml, "count")[:2] == (
        "invalid_argument",
        "Invalid arguments for words:count: text: missing, expected string. It takes text.",
    )
    assert told(ml, "count", {"text": 1})[0] == "invalid_argument"
    assert told(ml, "nothing")[:2] == ("unknown_command", "Unknown command: words:nothing")
    assert told(ml, "refuse") == ("rate_limited", "refused", {"retry_after": 1})


def test_streams_come_in_order(ml: MLBridge) -> None:
    """From a coroutine, with its result at the end."""
    stream = ml.stream("words", "spell", {"word": "abc"})

    assert [event.data for event in stream] == ["a", "b", "c"]
    assert stream.result == 3


def test_resources_live_and_end(ml: MLBridge) -> None:
    """Made, executed, listed, deleted; then not found."""
    made = ml.create_resource("words", "tally", {"start": 5}, id="mine")

    assert ml.execute_resource("words", made.id, {"add": 2}) == 7
    assert [each.id for each in ml.list_resources("words", "tally")] == ["mine"]
    ml.delete_resource("words", made.id)
    with pytest.raises(ManybridgeError) as caught:
        ml.execute_resource("words", made.id)
    assert caught.value.code == "resource_not_found"


def test_tools_sessions_jobs_and_batches_work(ml: MLBridge) -> None:
    """Everything that is the host's own is the host's own."""
    assert ml.call("words", "ask", {"question": "why"}) == "WHY"
    assert ml.call("words", "count", {"text": "x"}, session="s") == {"x": 1}
    assert ml.submit("words", "count", {"text": "x"}).result() == {"x": 1}
    results = ml.batch("words", [{"command": "count", "args": {"text": "y"}}, {"command": "gone"}])
    assert results[0] == {"y": 1}
    assert results[1].code == "unknown_command"


@pytest.mark.parametrize(("cooperative", "rung"), [(True, "cooperative"), (False, "exception")])
def test_a_call_over_time_is_stopped_by_the_same_rung(ml: MLBridge, cooperative: bool, rung: str) -> None:
    """By its flag where it looks, by an exception where it does not."""
    code, _, details = told(ml, "wait", {"cooperative": cooperative}, timeout=500 * MS)

    assert code == "timeout"
    assert details["stopped_by"] == rung


def test_a_host_in_memory_starts_no_process() -> None:
    """Its workers are threads; health says so."""
    before = descendants(os.getpid())
    with InMemoryMLBridge(WordBridge) as ml:
        assert ml.call("words", "count", {"text": "a"}) == {"a": 1}
        assert descendants(os.getpid()) == before
        worker = ml.health()["bridges"]["words"]["workers"][0]
        assert (worker["pid"], worker["started_by"]) == (os.getpid(), "memory")


def test_a_resource_survives_the_end_of_its_worker() -> None:
    """The worker is dropped with its objects; the host makes them again from their snapshot."""
    with InMemoryMLBridge({"words": {"bridge": WordBridge, **FAST}}) as ml:
        made = ml.create_resource("words", "tally", {"start": 1})
        assert ml.execute_resource("words", made.id, {"add": 1}) == 2
        first = ml.health()["bridges"]["words"]["workers"][0]["id"]
        ml.update_bridge("words", options={"prefix": "new-"})
        eventually(lambda: ml.call("words", "count", {"text": "a"}) == {"new-a": 1})

        assert ml.execute_resource("words", made.id, {"add": 1}) in (2, 3)
        # The old worker may still be ending.
        eventually(lambda: first not in {each["id"] for each in ml.health()["bridges"]["words"]["workers"]})


def test_bridges_can_be_registered_and_changed_in_memory_too() -> None:
    """By configuration; a bundled one needs no class."""
    with InMemoryMLBridge({}) as ml:
        ml.register_bridge("mock", {"pool_size": 2})
        ml.wait_ready("mock")
        assert ml.call("mock", "mock:echo", {"a": 1}) == {"a": 1}
        assert {each["started_by"] for each in ml.health()["bridges"]["mock"]["workers"]} == {"memory"}


async def test_the_asynchronous_host_is_the_same() -> None:
    """For applications on an event loop."""
    async with AsyncInMemoryMLBridge({"words": WordBridge}) as ml:
        assert await ml.call("words", "count", {"text": "a a"}) == {"a": 2}
        assert [event.data async for event in ml.stream("words", "spell", {"word": "ab"})] == ["a", "b"]

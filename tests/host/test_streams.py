"""Streams: events, results, leaving early, back-pressure."""

from __future__ import annotations

import asyncio

import pytest

from manybridge.errors import CallCancelledError, CallError, ManybridgeError, WorkerCrashedError
from manybridge.host.streams import HIGH_WATER
from tests.host.conftest import HostMaker
from tests.support import aeventually


async def test_events_come_in_order_and_the_result_after_them(mock_host: HostMaker) -> None:
    """Each has its number."""
    ml = await mock_host()
    stream = ml.stream("mock", "count", {"n": 3})
    events = [(event.event, event.seq, event.data) async for event in stream]

    assert events == [("chunk", 0, 0), ("chunk", 1, 1), ("chunk", 2, 2)]
    assert stream.result == {"count": 3}


@pytest.mark.parametrize(
    ("command", "args", "event", "data"),
    [
        ("progress", {"steps": 1}, "progress", {"current": 1, "total": 1, "message": "step 1"}),
        ("log", {"message": "hi", "level": "warning"}, "log", {"level": "warning", "message": "hi"}),
    ],
)
async def test_progress_and_logs_are_events_too(
    command: str, args: dict[str, object], event: str, data: object, mock_host: HostMaker
) -> None:
    """As the handler sent them."""
    ml = await mock_host()

    assert [(each.event, each.data) async for each in ml.stream("mock", command, args)] == [(event, data)]


async def test_a_failure_comes_after_the_events_before_it(mock_host: HostMaker) -> None:
    """Nothing that was sent is lost."""
    ml = await mock_host()
    stream = ml.stream("mock", "count", {"n": 5, "fail_at": 2})

    assert [(await anext(stream)).data, (await anext(stream)).data] == [0, 1]
    with pytest.raises(CallError):
        await anext(stream)


async def test_a_worker_that_dies_in_a_stream_fails_it(mock_host: HostMaker) -> None:
    """With the cause."""
    ml = await mock_host()

    with pytest.raises(WorkerCrashedError):
        async for _ in ml.stream("mock", "count", {"n": 5, "fail_at": 2, "kind": "kill"}):
            pass


async def test_leaving_the_loop_stops_the_call(mock_host: HostMaker) -> None:
    """The worker is free again at once."""
    ml = await mock_host()
    async for _ in ml.stream("mock", "count", {"n": 1_000_000, "delay": 0.01}):
        break

    await aeventually(lambda: not ml.pool("mock").running)
    assert await ml.call("mock", "echo", {"a": 1}, timeout=5) == {"a": 1}


async def test_a_stream_can_be_a_context(mock_host: HostMaker) -> None:
    """Its end is the end of the call."""
    ml = await mock_host()
    async with ml.stream("mock", "count", {"n": 1_000_000, "delay": 0.01}) as stream:
        await anext(stream)

    await aeventually(lambda: not ml.pool("mock").running)


async def test_who_reads_a_stream_that_another_closes_is_told(mock_host: HostMaker) -> None:
    """`cancelled`, as `result` says it: the reader's own task was not cancelled."""
    ml = await mock_host()
    stream = ml.stream("mock", "sleep", {"seconds": 600})
    reading = asyncio.ensure_future(stream.take_some())
    await aeventually(lambda: ml.pool("mock").running)

    await stream.aclose()

    for again in (reading, stream.take_some()):
        with pytest.raises(CallCancelledError, match="the stream was closed before its call had ended"):
            await again


async def test_there_is_no_result_before_the_end(mock_host: HostMaker) -> None:
    """Asking too early is an error that says so."""
    ml = await mock_host()
    stream = ml.stream("mock", "sleep", {"seconds": 5})

    with pytest.raises(ManybridgeError, match="no result yet"):
        stream.result  # noqa: B018  # reading it is the test
    await stream.aclose()


async def test_a_slow_reader_holds_the_worker_back_and_misses_nothing(mock_host: HostMaker) -> None:
    """The host does not collect a stream that nobody reads."""
    ml = await mock_host(pool_size=2)
    total = HIGH_WATER * 30
    stream = ml.stream("mock", "count", {"n": total}, timeout=15)
    await aeventually(lambda: len(stream._buffer.events) >= HIGH_WATER)
    held = len(stream._buffer.events)
    for _ in range(100):  # time goes on: the other worker works
        await ml.call("mock", "echo")
    assert len(stream._buffer.events) == held < total

    seen = [event.data async for event in stream]
    assert seen == list(range(total))


async def test_a_stream_that_nobody_reads_can_still_be_stopped(mock_host: HostMaker) -> None:
    """Back-pressure must not keep the cancel's answer from being read."""
    ml = await mock_host()
    await ml.call("mock", "echo")
    before = ml.pool("mock").ready[0].process.pid
    stream = ml.stream("mock", "count", {"n": 100_000_000})
    await aeventually(lambda: len(stream._buffer.events) >= HIGH_WATER)
    await stream.aclose()

    await aeventually(lambda: not ml.pool("mock").running)
    assert ml.pool("mock").ready[0].process.pid == before

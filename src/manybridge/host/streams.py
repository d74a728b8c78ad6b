"""A call whose events are read while it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from manybridge.errors import CallCancelledError, ManybridgeError
from manybridge.host.calls import Call
from manybridge.host.options import CallOptions
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import Event

HIGH_WATER: Final = 1024
"""Events that may wait for a slow reader before its worker is no longer read: the worker then blocks in `emit`."""

LOW_WATER: Final = 256


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event of a stream."""

    event: str
    """`chunk`, `progress` or `log`."""
    seq: int
    """Counts up from 0; numbers that are missing were calls of tools. -1: a note of the host's own, beside the call."""
    data: Any


class EventBuffer:
    """Events between the worker and their reader.

    Apart from the stream, so that the call does not keep a stream alive that its reader has dropped.
    """

    def __init__(self) -> None:
        self.events: deque[StreamEvent] = deque()
        self._call: Call | None = None
        self._paused = False
        self._arrived: asyncio.Future[None] | None = None

    def began(self, call: Call) -> None:
        """A call to a worker was made for this stream."""
        self._call = call

    def put(self, event: Event) -> None:
        """An event came."""
        self.events.append(StreamEvent(event.event, event.seq, event.data))
        self.wake()
        if len(self.events) >= HIGH_WATER and not self._paused:
            call = self._call
            if call is not None and call.worker is not None and call.stop_reason is None:
                self._paused = True
                call.worker.pause_for(call)

    def wake(self) -> None:
        """Let the reader look again."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def take(self) -> StreamEvent:
        """Remove the oldest event."""
        event = self.events.popleft()
        if self._paused and len(self.events) <= LOW_WATER:
            self.flow()
        return event

    def flow(self) -> None:
        """Read the worker again."""
        self._paused = False
        if self._call is not None and self._call.worker is not None:
            self._call.worker.resume_for(self._call)

    async def wait(self) -> None:
        """Wait until `wake`."""
        self._arrived = asyncio.get_running_loop().create_future()
        try:
            await self._arrived
        finally:
            self._arrived = None


class AsyncStream:
    """Iterate over it for the events; `result` holds the final result after the last one.

    Leaving early cancels the call: by `async with`, by `aclose`, or by dropping the stream (`break` out of
    `async for event in ml.stream(...)` drops it).

    Args:
        work: makes the call with the options that it is given.
        options: whose events go here.
    """

    def __init__(self, work: Callable[[CallOptions], Coroutine[Any, Any, Any]], options: CallOptions) -> None:
        self._buffer = buffer = EventBuffer()
        options.on_event, options.on_call = buffer.put, buffer.began
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(work(options), name="stream")
        self._task.add_done_callback(lambda task: _wake_reader(buffer, task))

    def __aiter__(self) -> AsyncStream:
        return self

    async def __anext__(self) -> StreamEvent:
        while not self._buffer.events:
            if self._task.done():
                _ = self.result  # raises what the call ended with; a cancelled task is no reason to cancel the reader's
                raise StopAsyncIteration
            await self._buffer.wait()
        return self._buffer.take()

    async def take_some(self) -> list[StreamEvent]:
        """Wait for events and return all that have come; empty at the end.

        Raises:
            ManybridgeError: the call failed.
        """
        try:
            events = [await anext(self)]
        except StopAsyncIteration:
            return []
        while self._buffer.events:
            events.append(self._buffer.take())
        return events

    @property
    def result(self) -> Any:
        """What the call returned.

        Raises:
            ManybridgeError: it failed, or (`not_supported`) it has not ended: read the events to their end first.
        """
        if not self._task.done():
            raise ManybridgeError("the stream has no result yet", code=ErrorCode.NOT_SUPPORTED)
        if self._task.cancelled():
            raise CallCancelledError("the stream was closed before its call had ended")
        return self._task.result()

    async def aclose(self) -> None:
        """Cancel the call if it still runs. Returns at once; the worker is stopped in the background."""
        self._buffer.events.clear()
        self._buffer.flow()
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        task = getattr(self, "_task", None)
        if task is not None and not task.done() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(task.cancel)


def _wake_reader(buffer: EventBuffer, task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # the reader gets it; where there is none any more, nobody needs to be told
    buffer.wake()

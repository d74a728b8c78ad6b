"""Tools that live in the client's process, called from a handler.

A call goes out as an event of the running call and its answer comes in as `common:call_result`, which the lane
delivers while the handler waits. Several may be open at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from math import inf
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import BridgeError, Cancelled
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import EVENT_CALL

if TYPE_CHECKING:
    from manybridge.worker.calls import WorkerCall
    from manybridge.worker.outbox import Outbox

CHECK_SECONDS: Final = 0.05
"""A waiting handler looks this often whether its call was cancelled."""


class _Waiting:
    """One open host call. `deliver` is called once, from the lane's thread."""

    __slots__ = ("call", "deliver", "outcome")

    def __init__(self, call: WorkerCall, deliver: Callable[[], None]) -> None:
        self.call = call
        self.deliver = deliver
        self.outcome: tuple[Any, BridgeError | None] = (None, None)

    def result(self) -> Any:
        value, error = self.outcome
        if error is not None:
            raise error
        return value


class HostCalls:
    """Owner of the open host calls of this worker.

    Args:
        outbox: carries the events.
        attend: asks the lane to read right now, because the thread that would is about to wait.
    """

    def __init__(self, outbox: Outbox, attend: Callable[[], None]) -> None:
        self._outbox = outbox
        self._attend = attend
        self._numbers = itertools.count(1)
        self._open: dict[str, _Waiting] = {}
        self._closed = False

    def call(self, call: WorkerCall, tool: str, args: dict[str, Any], timeout: float | None) -> Any:
        """Call `tool` and block until it answered.

        Raises:
            BridgeError: `unknown_tool`, `timeout`, or the tool's own failure.
            Cancelled: the call was cancelled meanwhile.
        """
        arrived: SimpleQueue[None] = SimpleQueue()  # not an event, see Lane: an interrupt may strike while we wait
        call_id, waiting = self._new(call, lambda: arrived.put(None))
        expires = None if timeout is None else monotonic() + timeout
        try:
            self._begin(call_id, waiting, tool, args, timeout)
            while not _comes(arrived, CHECK_SECONDS):
                if call.cancelled:
                    raise Cancelled(call.stop_reason or "cancelled")
                if expires is not None and monotonic() >= expires:
                    raise _late(tool, timeout)
        finally:
            self._open.pop(call_id, None)
        return waiting.result()

    def acall(self, call: WorkerCall, tool: str, args: dict[str, Any], timeout: float | None) -> Awaitable[Any]:
        """Like `call`, for the event loop; cancellation comes through the task."""
        import asyncio

        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()

        def deliver() -> None:
            loop.call_soon_threadsafe(arrived.set)

        call_id, waiting = self._new(call, deliver)

        async def wait() -> Any:
            try:
                self._begin(call_id, waiting, tool, args, timeout)
                async with asyncio.timeout(timeout):
                    await arrived.wait()
            except TimeoutError:
                raise _late(tool, timeout) from None
            finally:
                self._open.pop(call_id, None)
            return waiting.result()

        return wait()

    def receive_result(self, args: dict[str, Any]) -> dict[str, Any]:
        """Serve `common:call_result {call_id, result | error}`.

        Raises:
            BridgeError: `invalid_argument`, the host call is not open (any more).
        """
        call_id = args.get("call_id")
        waiting = self._open.pop(call_id, None) if isinstance(call_id, str) else None
        if waiting is None:
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, "call_id: no host call of that number waits for a result")
        waiting.outcome = (args.get("result"), _tool_error(args.get("error")))
        waiting.deliver()
        return {}

    def end_of_input(self) -> None:
        """The client closed its end, so no answer can come any more; who waits for one hears so."""
        self._closed = True
        for call_id in list(self._open):
            waiting = self._open.pop(call_id, None)
            if waiting is not None:
                waiting.outcome = (None, _nobody_answers())
                waiting.deliver()

    def _new(self, call: WorkerCall, deliver: Callable[[], None]) -> tuple[str, _Waiting]:
        return f"host-{next(self._numbers)}", _Waiting(call, deliver)

    def _begin(self, call_id: str, waiting: _Waiting, tool: str, args: dict[str, Any], timeout: float | None) -> None:
        request = waiting.call.request
        if not request.stream:
            raise BridgeError(
                ErrorCode.UNKNOWN_TOOL,
                f"The caller takes no host calls, so tool {tool!r} can't be reached; it must send stream: true.",
                details={"tool": tool},
            )
        self._open[call_id] = waiting
        if self._closed:  # asked after it can be found: an end that comes now finds it
            raise _nobody_answers()
        deadline_ms = None if timeout is None or timeout == inf else round(timeout * 1000)
        data = {"call_id": call_id, "tool": tool, "args": args, "deadline_ms": deadline_ms}
        self._outbox.send_event(request.id, EVENT_CALL, data)
        self._attend()


def _comes(arrived: SimpleQueue[None], seconds: float) -> bool:
    try:
        arrived.get(timeout=seconds)
    except Empty:
        return False
    return True


def _nobody_answers() -> BridgeError:
    return BridgeError(ErrorCode.HOST_CLOSED, "The client closed its end; its tools can't answer any more.")


def _late(tool: str, timeout: float | None) -> BridgeError:
    return BridgeError(
        ErrorCode.TIMEOUT, f"Tool {tool!r} of the client did not answer within {timeout:g} s.", details={"tool": tool}
    )


def _tool_error(error: Any) -> BridgeError | None:
    if error is None:
        return None
    if not isinstance(error, dict):
        return BridgeError(ErrorCode.HANDLER_ERROR, str(error))
    return BridgeError(
        str(error.get("code", ErrorCode.HANDLER_ERROR)),
        str(error.get("message", "the client's tool failed")),
        details=error.get("details") if isinstance(error.get("details"), dict) else None,
        type=error.get("type") if isinstance(error.get("type"), str) else None,
    )

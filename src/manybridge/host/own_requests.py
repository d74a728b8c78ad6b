"""Requests that the host itself makes to a worker, beside its callers' calls: hello, cancel, snapshot, cleanup.

Most are answered by our own code, at once. Those that run the bridge's (`snapshot`, `cleanup`) may take for ever, as a
call may: they are *asked* as a `Call`, so that the ladder which stops calls can stop them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from manybridge.errors import ManybridgeError, error_for
from manybridge.host.calls import SENT, Call
from manybridge.host.link import WorkerLink
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import ErrorInfo, ErrorReply, Reply, Request, WorkerMessage

if TYPE_CHECKING:
    from manybridge.host.worker import WorkerHandle

ANSWER_SECONDS: Final = 1.0
"""What the answer to something asked may take at least: its caller's deadline may come right after the real work."""


class OwnRequests:
    """Owner of the host's own requests to one worker that have no answer yet.

    Args:
        link: to the worker.
    """

    def __init__(self, link: WorkerLink) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._open: dict[Any, asyncio.Future[Any]] = {}
        self._refusal: Callable[[], ManybridgeError] | None = None

    def send(self, command: str, args: dict[str, Any], *, session_id: str | None = None) -> asyncio.Future[Any]:
        """Send a request of the host itself. The future fails with `ManybridgeError`.

        Raises:
            LocalProtocolError: it is too large for a frame.
        """
        future = self._loop.create_future()
        if self._refusal is not None:
            future.set_exception(self._refusal())
            return future
        id = next(self._link.ids)
        self._open[id] = future
        self._link.write(self._link.protocol.send_request(Request(id, command, args, session_id=session_id)))
        return future

    def post(self, command: str, args: dict[str, Any]) -> None:
        """Send a request of the host itself whose answer nobody waits for.

        Raises:
            LocalProtocolError: it is too large for a frame.
        """
        self.send(command, args).add_done_callback(ignore_outcome)

    def ask(self, call: Call) -> None:
        """Send a call of the host itself. Its future gets the answer."""
        future = call.future
        assert isinstance(future, asyncio.Future)
        future.add_done_callback(ignore_outcome)
        if self._refusal is not None:
            call.fail(self._refusal())
            return
        call.id, call.stage = next(self._link.ids), SENT
        self._open[call.id] = future
        self._link.write(self._link.protocol.send_request(call.request(call.id, None)))

    def take(self, id: Any) -> bool:
        """Have the answer to a request be somebody else's business. Returns whether it is still open."""
        return self._open.pop(id, None) is not None

    def answered(self, message: WorkerMessage) -> None:
        """A reply came that belongs to no call."""
        future = self._open.pop(message.id, None)
        if future is None or future.done():
            return
        if type(message) is Reply:
            future.set_result(message.result)
        elif type(message) is ErrorReply:
            future.set_exception(error_of(message))

    def end(self, error: ManybridgeError, refusal: Callable[[], ManybridgeError]) -> None:
        """The worker is dead: nothing will be answered. `error` is for what is open, `refusal` for what comes yet."""
        self._refusal = refusal
        for future in self._open.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting any more
        self._open.clear()


async def answer_of(worker: WorkerHandle, call: Call, deadline: float) -> Any:
    """Wait for the answer to what a worker was asked. Code that takes longer, or that nobody waits for, is stopped.

    Args:
        worker: that was asked.
        call: what it was asked.
        deadline: monotonic; `inf` for none.

    Raises:
        ManybridgeError: it failed; `timeout`: it was stopped.
    """
    future = call.future
    assert isinstance(future, asyncio.Future)
    try:
        if not future.done():
            left = max(deadline - monotonic(), ANSWER_SECONDS)
            await asyncio.wait({future}, timeout=None if left == inf else left)
        if not future.done():
            worker.stop_asked(call, "timeout")
        return await future
    except asyncio.CancelledError:
        worker.stop_asked(call, "cancelled")
        raise


async def see_to(worker: WorkerHandle, call: Call, seconds: float) -> None:
    """Wait for a worker to do what no caller waits for. Code that takes longer than `seconds` is stopped.

    They count while no caller's call is ahead of it; nobody looks more often than that.
    """
    future = call.future
    assert isinstance(future, asyncio.Future)
    while not future.done():
        await asyncio.wait({future}, timeout=None if seconds == inf else seconds)
        if not future.done() and all(id >= call.id for id in worker.calls):
            worker.stop_asked(call, "timeout")


def error_of(reply: ErrorReply) -> ManybridgeError:
    """The exception of a failed reply."""
    return error_for(reply.info or ErrorInfo(ErrorCode.HANDLER_ERROR.value, reply.error))


def ignore_outcome(future: asyncio.Future[Any]) -> None:
    """Read a future's exception, so that asyncio does not report that nobody did."""
    if not future.cancelled():
        future.exception()

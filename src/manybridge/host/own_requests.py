"""Requests that the host itself makes to a worker, beside its callers' calls: hello, cancel, snapshot, cleanup."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from manybridge.errors import ManybridgeError, error_for
from manybridge.host.link import WorkerLink
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import ErrorInfo, ErrorReply, Reply, Request, WorkerMessage


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


def error_of(reply: ErrorReply) -> ManybridgeError:
    """The exception of a failed reply."""
    return error_for(reply.info or ErrorInfo(ErrorCode.HANDLER_ERROR.value, reply.error))


def ignore_outcome(future: asyncio.Future[Any]) -> None:
    """Read a future's exception, so that asyncio does not report that nobody did."""
    if not future.cancelled():
        future.exception()

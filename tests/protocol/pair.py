"""Both ends of a connection with nothing between them, so that a test asserts both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from manybridge.protocol.connection import ClientConnection, WorkerConnection
from manybridge.protocol.messages import ErrorInfo, ErrorReply, Event, MessageId, Reply, Request, WorkerMessage
from tests.support import cuts


class Pair:
    """A client and a worker. Each method sends at one end, and asserts that the other end received the same.

    Args:
        cut_at: where every frame is cut on its way, as a stream may.
        limits: arguments of both connections.
    """

    def __init__(self, *, cut_at: Iterable[int] = (), **limits: Any) -> None:
        self.client = ClientConnection(**limits)
        self.worker = WorkerConnection(**limits)
        self._cut_at = list(cut_at)

    def request(self, id: MessageId, command: str = "mock:echo", **fields: Any) -> Request:
        """The client sends a request."""
        sent = Request(id, command, **fields)
        received = self._carry(self.client.send_request(sent), self.worker)
        assert received == [sent]
        self.assert_agree()
        return sent

    def event(self, id: MessageId, event: str = "chunk", data: Any = None) -> Event:
        """The worker sends an event."""
        sent = self.worker.event(id, event, data)
        self._answer(sent)
        return sent

    def reply(self, id: MessageId, result: Any = None) -> Reply:
        """The worker sends a result."""
        sent = Reply(id, {} if result is None else result, 1.5)
        self._answer(sent)
        return sent

    def fail(self, id: MessageId | None, error: str = "no", info: ErrorInfo | None = None) -> ErrorReply:
        """The worker sends a failure."""
        sent = ErrorReply(id, error, info, 1.5)
        self._answer(sent)
        return sent

    def hello(self) -> None:
        """Agree on version 2."""
        self.request("hello", "common:hello", args={"protocol": 2})
        self.worker.accept_hello()
        received = self._carry(self.worker.send(Reply("hello", {"protocol": 2})), self.client)
        assert received == [Reply("hello", {"protocol": 2})]
        self.client.accept_hello()
        self.assert_agree()

    def close(self) -> None:
        """Both ends see the end of the stream."""
        assert self.client.receive_eof() == 0
        assert self.worker.receive_eof() == 0
        self.assert_agree()

    def assert_agree(self) -> None:
        """Both ends have the same picture of the conversation, and wait for no bytes."""
        assert self.client.state is self.worker.state
        assert self.client.version == self.worker.version
        assert self.client.open_calls == self.worker.open_calls
        assert self.client.buffered_bytes == self.worker.buffered_bytes == 0

    def _answer(self, message: WorkerMessage) -> None:
        assert self._carry(self.worker.send(message), self.client) == [message]
        self.assert_agree()

    def _carry(self, data: bytes, to: ClientConnection | WorkerConnection) -> list[Any]:
        return [message for chunk in cuts(data, self._cut_at) for message in to.receive_data(chunk)]

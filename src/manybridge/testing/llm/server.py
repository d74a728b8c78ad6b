"""The HTTP side of the endpoint: a thread for each connection, on loopback, and none left when it stops."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Protocol

from manybridge.host.config_secrets import MASK
from manybridge.testing.llm import wire
from manybridge.testing.llm.replies import Fault, Reply, fault_body

RATE_LIMIT_SECONDS: Final = 1.0
"""What a 429 says that says nothing else; every provider says something."""
HOLD_STEP: Final = 0.01
"""Seconds between two looks whether a held stream may go on."""
STOP_SECONDS: Final = 5.0
"""How long connections may take to end once they are closed; each only has to notice."""
WRONG_KEY: Final = Fault("provider_auth")
SHORTEST_KEY: Final = 6
"""A shorter key than this is no secret, and masking it everywhere would garble the request."""


class Owner(Protocol):
    """What the server asks of the endpoint. Methods are called on the threads of connections, several at a time."""

    model: str
    api_key: str | None
    chunk_delay: float
    hold_after: int | None
    stopping: threading.Event

    def answer(self, request: wire.ChatRequest, *, has_right_key: bool) -> Reply | Fault:
        """Note a request and settle its answer. Never fails."""

    def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Note a request for embeddings and answer it."""

    def stream_ended(self) -> None:
        """A stream was sent to its end."""

    def aside(self, path: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        """What is answered at a path of no format; None is a 404. There is a body where it was sent with POST."""


class EndpointServer(ThreadingHTTPServer):
    """Owner of the connections."""

    daemon_threads = True  # a program that forgets to stop it must still be able to end
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: Owner) -> None:
        self.owner = owner
        self._open: set[socket.socket] = set()
        self._all_closed = threading.Condition()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection. Noted here, on the listening thread, so that none is missed at the end."""
        with self._all_closed:
            self._open.add(request)
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection, until its client closes it or the endpoint stops."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._all_closed:
                self._open.discard(request)
                self._all_closed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of an answer is normal here: say nothing."""

    def end(self) -> None:
        """Stop, close every connection, and wait until none is served."""
        self.shutdown()
        self.server_close()
        with self._all_closed:
            for each in self._open:
                with contextlib.suppress(OSError):  # its client was faster
                    each.shutdown(socket.SHUT_RDWR)
            self._all_closed.wait_for(lambda: not self._open, STOP_SECONDS)


class _Handler(BaseHTTPRequestHandler):
    server: EndpointServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        """Keep the terminal quiet."""

    def do_GET(self) -> None:
        owner = self.server.owner
        if self.path.endswith("/models"):
            self._send(200, {"object": "list", "data": [{"id": owner.model, "object": "model", "owned_by": "tests"}]})
        else:
            self._aside(None)

    def do_POST(self) -> None:
        keys = self._keys()
        body = self._body(keys)
        if body is None:
            return self._refuse(Fault("provider_bad_request", message="expected a JSON object"))
        if self.path.endswith("/embeddings"):
            return self._send(200, self.server.owner.embed(body)) if self._may(keys) else self._refuse(WRONG_KEY)
        try:
            request = wire.read_request(self.path, body, has_key=bool(keys))
        except (AttributeError, KeyError, TypeError) as error:
            text = f"not in the format of {self.path}: {type(error).__name__}: {error}"
            return self._refuse(Fault("provider_bad_request", message=text))
        if request is None:
            return self._aside(body)
        return self._answer(request, self.server.owner.answer(request, has_right_key=self._may(keys)))

    def _aside(self, body: dict[str, Any] | None) -> None:
        found = self.server.owner.aside(self.path.partition("?")[0], body)
        if found is None:
            return self._refuse(Fault("provider_not_found", message=f"This endpoint does not speak {self.path}."))
        return self._send(200, found)

    def _body(self, keys: list[str]) -> dict[str, Any] | None:
        text = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode(errors="replace") or "{}"
        for key in keys:
            text = text.replace(key, MASK) if len(key) >= SHORTEST_KEY else text
        try:
            body = json.loads(text)
        except ValueError:
            return None
        return body if isinstance(body, dict) else None

    def _keys(self) -> list[str]:
        given = (
            self.headers.get("Authorization", "").removeprefix("Bearer "),
            self.headers.get("x-goog-api-key", ""),
            self.path.partition("key=")[2].partition("&")[0],
        )
        return [key for key in given if key]

    def _may(self, keys: list[str]) -> bool:
        return self.server.owner.api_key is None or self.server.owner.api_key in keys

    # ------------------------------------------------------------------ answers

    def _answer(self, request: wire.ChatRequest, answer: Reply | Fault) -> None:
        owner = self.server.owner
        owner.stopping.wait(answer.delay)
        if isinstance(answer, Fault):
            self._refuse(answer)
        elif request.stream:
            self._stream(request, answer)
        elif answer.broken == "cut":
            self._cut()
        else:
            self._send(200, wire.whole(request, answer, owner.model))

    def _refuse(self, fault: Fault) -> None:
        body = fault_body(fault)
        after = RATE_LIMIT_SECONDS if fault.retry_after is None and body.status == 429 else fault.retry_after
        self._send(body.status, wire.error_body(body), {} if after is None else {"Retry-After": f"{after:g}"})

    def _send(self, status: int, body: dict[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _cut(self) -> None:
        """Promise more than is sent, then close."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"id": "cut')
        self.close_connection = True

    def _stream(self, request: wire.ChatRequest, reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        owner, sent = self.server.owner, 0
        for is_answer, event in wire.pieces(request, reply, owner.model):
            if reply.broken is not None and sent >= reply.broken_after:
                return self._break(reply)
            if is_answer:
                self._pace(reply, sent)
                sent += 1
            self._chunk(f"data: {event}\n\n".encode())
        self._chunk(b"")
        return owner.stream_ended()

    def _pace(self, reply: Reply, sent: int) -> None:
        owner = self.server.owner
        owner.stopping.wait(owner.chunk_delay + reply.chunk_delay)
        while owner.hold_after is not None and sent >= owner.hold_after and not owner.stopping.wait(HOLD_STEP):
            pass

    def _break(self, reply: Reply) -> None:
        self.close_connection = True
        if reply.broken == "short":
            self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

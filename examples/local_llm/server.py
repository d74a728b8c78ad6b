"""The HTTP side: OpenAI's chat completions and Gemini's generateContent, plain and streamed, on loopback."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from . import wire
from .faults import BROKEN_ANSWERS, FAILURES, Faults

GARBAGE = "This text fills no field at all."
HOLD_STEP = 0.01  # seconds between two looks whether a held stream may go on


class LocalLLM:
    """A running endpoint; a context manager. Owns its server thread and its faults.

    Args:
        api_key: where given, every other key is answered with 401.
        delay: seconds to wait before every answer.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, api_key: str | None = None, delay: float = 0.0
    ) -> None:
        self.faults = Faults(delay=delay)
        self.api_key = api_key
        self.requests: list[dict[str, Any]] = []
        self.streamed = 0  # streams that were sent to their end
        self.stopping = threading.Event()
        self._server = _Server((host, port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def openai_base(self) -> str:
        """What an OpenAI client wants as its base URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def gemini_base(self) -> str:
        """What a Gemini client wants as its base URL."""
        return f"http://127.0.0.1:{self.port}/v1beta"

    def start(self) -> None:
        """Answer requests from a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Stop answering; requests that are waiting on purpose end at once."""
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def wait(self) -> None:
        """Block until stopped or interrupted."""
        self.stopping.wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], owner: LocalLLM) -> None:
        self.owner = owner
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle of an answer is normal here: say nothing."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        """Keep the terminal quiet."""

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self._send(200, {"object": "list", "data": [{"id": wire.MODEL, "object": "model", "owned_by": "rules"}]})
        elif self.path == "/requests":
            self._send(200, {"requests": self.server.owner.requests, "streamed": self.server.owner.streamed})
        else:
            self._send(200, {"status": "ok", "what": "a local rule-based endpoint, not a model"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if self.path == "/control":
            self.server.owner.faults.control(body)
            return self._send(200, {"ok": True})
        if self.path.endswith("/embeddings"):
            return self._send(200, wire.embeddings(body))
        request = wire.read_request(self.path, body)
        if request is None:
            return self._fail("404")
        self.server.owner.requests.append({"model": request.model, "path": self.path, "stream": request.stream})
        return self._answer(request)

    def _answer(self, request: wire.ChatRequest) -> None:
        owner = self.server.owner
        owner.stopping.wait(owner.faults.delay_for(request.model))
        failure = owner.faults.next_failure(request.model)
        if owner.api_key is not None and owner.api_key not in self._keys():
            failure = "401"
        if failure is not None and failure not in BROKEN_ANSWERS:
            return self._fail(failure)
        reply = wire.reply_to(request, text=GARBAGE if failure == "garbage" else None)
        if request.stream:
            return self._stream(request, reply, broken=failure if failure in {"cut", "short"} else None)
        if failure == "cut":
            return self._cut()
        return self._send(200, wire.whole(request, reply))

    def _keys(self) -> tuple[str | None, ...]:
        query = self.path.partition("key=")[2].partition("&")[0]
        return (
            self.headers.get("Authorization", "").removeprefix("Bearer "),
            self.headers.get("x-goog-api-key"),
            query,
        )

    def _fail(self, kind: str) -> None:
        status, error_type, code, message = FAILURES.get(kind, FAILURES["500"])
        headers = {"Retry-After": f"{self.server.owner.faults.retry_after:g}"} if status == 429 else {}
        error = {
            "message": message,
            "type": error_type,
            "code": code,
            "status": wire.GEMINI_STATUS.get(kind, "UNKNOWN"),
        }
        self._send(status, {"error": error}, headers)

    def _send(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
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

    def _stream(self, request: wire.ChatRequest, reply: wire.Reply, *, broken: str | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, event in enumerate(wire.pieces(request, reply)):
            if broken and number == 3:
                self.close_connection = True
                if broken == "short":
                    self._chunk(b"")
                return
            owner = self.server.owner
            owner.stopping.wait(owner.faults.chunk_delay)
            while owner.faults.holds(number) and not owner.stopping.wait(HOLD_STEP):
                pass
            self._chunk(f"data: {event}\n\n".encode())
        self._chunk(b"")
        self.server.owner.streamed += 1

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

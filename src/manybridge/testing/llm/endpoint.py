"""The script of an endpoint, and what was asked of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from manybridge.testing.llm import wire
from manybridge.testing.llm.replies import Answer, Fault, Reply, ToolCall, fault_body, settle
from manybridge.testing.llm.server import WRONG_KEY, EndpointServer
from manybridge.testing.llm.wire import ChatRequest

POLL_SECONDS: Final = 0.05
"""How often the listening thread looks whether it should stop."""
SHOWN: Final = 80
"""Characters of a request that a message shows: enough to recognise it."""

Answerer = TypeVar("Answerer", bound=Callable[[ChatRequest], Any])


class ScriptedLLM:
    """A running endpoint; a context manager. Owner of the script, of what came, and of the server's threads.

    Replies are given in the order in which they were said, one for each request; where none is left, the function of
    `answers` is asked. A request that nothing is said for is refused with 400 and named by `check`, which leaving the
    `with` calls. Calls may come from any thread.

    Args:
        host: the address to listen on.
        port: 0 picks a free one.
        api_key: where given, every other key is answered with 401.
        delay: seconds to wait before every answer.
    """

    model: str = "scripted"
    """What answers say that wrote them."""

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, *, api_key: str | None = None, delay: float = 0.0
    ) -> None:
        self.api_key = api_key
        self.delay = delay
        """Seconds to wait before every answer; may be changed while requests run, as the next two."""
        self.chunk_delay = 0.0
        """Seconds to wait before every piece of a stream."""
        self.hold_after: int | None = None
        """Pieces of a stream, after which it waits until this is None again."""
        self.requests: list[ChatRequest] = []
        """Every request for an answer, in the order in which they came."""
        self.embedding_requests: list[dict[str, Any]] = []
        """The bodies of the requests for embeddings."""
        self.problems: list[str] = []
        """Requests that nobody said an answer for."""
        self.streamed = 0
        """Streams that were sent to their end."""
        self.stopping = threading.Event()
        self._script: deque[Answer] = deque()
        self._function: Callable[[ChatRequest], Any] | None = None
        self._lock = threading.Lock()
        self._server = EndpointServer((host, port), self)
        self._thread = Thread(target=self._server.serve_forever, args=(POLL_SECONDS,), name="llm", daemon=True)

    # ------------------------------------------------------------------ where it is

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

    # ------------------------------------------------------------------ what it says

    def replies(self, *answers: Answer) -> Self:
        """Answer the next requests with these, one for each.

        Args:
            answers: a text; a mapping, the fields of a structured answer (of a DSPy signature, of a form that LangChain
                asks for); `ToolCall`, or a list of them; `Reply` or `Fault`; or a function of the request that returns
                one of these.
        """
        with self._lock:
            self._script.extend(answers)
        return self

    def calls_tool(self, name: str, /, **args: Any) -> Self:
        """Answer the next request by asking for a tool."""
        return self.replies(ToolCall(name, args))

    def fails(
        self, kind: str | int, *, times: int = 1, retry_after: float | None = None, message: str | None = None
    ) -> Self:
        """Refuse the next request, or the next `times`.

        Args:
            kind: the code that the caller will see (`rate_limited`, `provider_unavailable`, `provider_auth`,
                `provider_not_found`, `provider_bad_request`, `context_length_exceeded`), or an HTTP status.
            times: how many requests.
            retry_after: seconds, for the header of that name.
            message: what the provider says.

        Raises:
            KitError: a model can't fail in that way.
        """
        fault = Fault(kind, retry_after, message)
        fault_body(fault)
        return self.replies(*[fault] * times)

    def cuts(self, text: str, *, after: int = 2) -> Self:
        """Begin the next answer and end the connection; of a stream, so many words arrive."""
        return self.replies(Reply(text, broken="cut", broken_after=after))

    def answers(self, function: Answerer) -> Answerer:
        """Ask this function where no reply is left; it gets the request. Also a decorator."""
        self._function = function
        return function

    def check(self) -> None:
        """Check that everything was asked for, and nothing else.

        Raises:
            AssertionError: it says what was not.
        """
        with self._lock:
            problems, left = list(self.problems), list(self._script)
        problems += [f"nobody asked for: {answer!r:.{SHOWN}}" for answer in left]
        if problems:
            raise AssertionError("scripted model: " + "; ".join(problems))

    # ------------------------------------------------------------------ life

    def start(self) -> Self:
        """Answer requests from a thread of its own."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop answering; requests that wait on purpose end at once. Does nothing the second time."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        if self._thread.is_alive():
            self._server.end()
            self._thread.join()
        else:
            self._server.server_close()

    def wait(self) -> None:
        """Block until stopped or interrupted."""
        self.stopping.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()
        if kind is None:
            self.check()

    # ------------------------------------------------------------------ what the server asks

    def answer(self, request: ChatRequest, *, has_right_key: bool) -> Reply | Fault:
        """Note a request and settle its answer; one with a wrong key takes none of the script. Called by the server."""
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
            if not has_right_key:
                return replace(WRONG_KEY, delay=self.delay)
            said: Answer | None = self._script.popleft() if self._script else self._function
        try:
            settled = self._unexpected(number, request) if said is None else settle(said, request)
            if isinstance(settled, Fault):
                fault_body(settled)
        except Exception as error:  # noqa: BLE001  # a function of the test: told to its caller, and by check
            settled = self._problem(f"request {number} could not be answered: {type(error).__name__}: {error}", 500)
        return replace(settled, delay=settled.delay + self.delay)

    def embed(self, body: dict[str, Any]) -> dict[str, Any]:
        """Note a request for embeddings and answer it: vectors of word counts. Called by the server."""
        with self._lock:
            self.embedding_requests.append(body)
        return wire.embeddings(body, self.model)

    def stream_ended(self) -> None:
        """Count a stream. Called by the server."""
        with self._lock:
            self.streamed += 1

    def aside(self, path: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        """Answer what is asked at another path: nothing. Called by the server; for endpoints that know more."""
        if body is not None:
            self._problem(f"it was asked at {path}, which is no chat completion, embedding or generateContent", 404)
        return None

    def _unexpected(self, number: int, request: ChatRequest) -> Fault:
        shown = request.text if len(request.text) <= SHOWN else f"{request.text[:SHOWN]}..."
        text = f"request {number}, {shown!r}, came when no reply was left; say one with .replies(...)"
        return self._problem(text, 400)

    def _problem(self, text: str, status: int) -> Fault:
        with self._lock:
            self.problems.append(text)
        return Fault(status, message=f"scripted model: {text}")

"""What goes wrong around LangChain: providers, tools, deadlines, cancels. Each has its code, and the worker goes on."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.bridges.langchain.stage import KEY, QUESTION, WEATHER, Stage, failing, sunny
from tests.support import MS, eventually
from tests.timing import bounded, within

pytestmark = pytest.mark.framework

DOUBLE = "Double the number 21"


# ---------------------------------------------------------------- providers


@pytest.mark.parametrize(
    ("failure", "code", "retryable"),
    [
        ("401", "provider_auth", False),
        ("404", "provider_not_found", False),
        ("400", "provider_bad_request", False),
        ("429", "rate_limited", True),
        ("500", "provider_unavailable", True),
        ("context", "context_length_exceeded", False),
        ("cut", "provider_unavailable", True),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", ["invoke", "chain", "agent"])
def test_what_a_provider_does_wrong_has_a_code(
    lc: Stage, failure: str, code: str, retryable: bool, stream: bool, kind: str
) -> None:
    """The framework's own type is kept, nothing is retried, and the key is in no reply."""
    model = f"openai:local-fail-{failure}"
    asked = lc.llm.asked()
    if kind == "agent":
        id = lc.make("agent", model=model)
        args: dict[str, Any] = {"id": id, "inputs": {"messages": "tell me a story", "thread_id": "t"}}
        reply = lc.worker.ask("common:execute_resource", args, stream=stream)
        assert lc.run(id, action="history", thread_id="t")["messages"] == []
    elif kind == "chain":
        chain = {"prompt": "tell me a story", "model": model, "parser": "str"}
        reply = lc.worker.ask("langchain:execute_chain", {"chain": chain, "inputs": {}}, stream=stream)
    else:
        reply = lc.worker.ask("langchain:invoke", {"messages": "tell me a story", "model": model}, stream=stream)
    info = reply["error_info"]
    assert (info["code"], info["retryable"]) == (code, retryable)
    assert info["type"].startswith("OpenAI")
    assert lc.llm.asked() == asked + 1
    assert KEY not in json.dumps(reply)
    if failure == "429":
        assert info["details"]["retry_after"] == 1.0


@pytest.mark.parametrize("kind", ["chain", "agent"])
def test_a_stream_that_ends_too_soon_is_no_answer(lc: Stage, kind: str) -> None:
    """In good order, as a proxy would end it whose provider was cut off."""
    model = "openai:local-fail-short"
    if kind == "agent":
        args = {"id": lc.make("agent", model=model), "inputs": {"messages": "tell me a story"}}
        assert lc.worker.code("common:execute_resource", args, stream=True) == "provider_unavailable"
    else:
        args = {"messages": "tell me a story", "model": model}
        assert lc.worker.code("langchain:invoke", args, stream=True) == "provider_unavailable"


class Garbage(ThreadingHTTPServer):
    """A provider that sends whatever it was told, with status 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = b""

    @property
    def url(self) -> str:
        """What an OpenAI client wants as its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Garbage

    def do_POST(self) -> None:  # the name that the standard library calls
        """Answer, whatever was asked."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        is_stream = self.server.body.startswith(b"data:")
        self.send_header("Content-Type", "text/event-stream" if is_stream else "application/json")
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def garbage() -> Iterator[Garbage]:
    """Return a running provider."""
    with Garbage() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def odd(lc: Stage, garbage: Garbage) -> Iterator[Garbage]:
    """Return the provider that the session `odd` asks."""
    settings = {"model": "openai:x", "base_url": garbage.url, "api_key": KEY}
    lc.worker.result("langchain:configure_model", settings, session_id="odd")
    yield garbage
    lc.worker.result("common:cleanup", {"session_id": "odd"})


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Log in</html>",
        b"null",
        b"{}",
        b'{"choices": []}',
        b'{"choices": null, "error": {"message": "boom", "code": 502}}',
        b'{"choices": [{"message": "text"}]}',
    ],
)
@pytest.mark.parametrize("kind", ["invoke", "agent"])
def test_a_reply_that_is_no_answer_is_the_providers_fault(lc: Stage, odd: Garbage, body: bytes, kind: str) -> None:
    """Plug-ins raise what their own code stumbles over; that is nothing that the caller could have done better."""
    odd.body = body
    if kind == "agent":
        args = {"id": lc.make("agent"), "inputs": {"messages": "x"}}
        reply = lc.worker.ask("common:execute_resource", args, session_id="odd")
    else:
        reply = lc.worker.ask("langchain:invoke", {"messages": "x"}, session_id="odd")
    assert (reply["error_info"]["code"], reply["error_info"]["retryable"]) == ("provider_unavailable", True)


PIECE = (
    b'data: {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": '
    b'[{"index": 0, "delta": {"content": "a"}}]}\n\n'
)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"data: [DONE]\n\n", "provider_unavailable"),
        (PIECE + b"data: {not JSON\n\n", "provider_unavailable"),
        (PIECE + b'data: {"error": {"message": "it failed", "type": "server_error"}}\n\n', "provider_unavailable"),
        (PIECE + b'data: {"error": {"message": "slow", "code": "rate_limit_exceeded"}}\n\n', "rate_limited"),
    ],
)
def test_an_error_in_the_middle_of_a_stream_has_its_code(lc: Stage, odd: Garbage, body: bytes, code: str) -> None:
    """There is no status any more, only what the events say."""
    odd.body = body
    assert lc.worker.code("langchain:invoke", {"messages": "x"}, stream=True, session_id="odd") == code


@pytest.mark.parametrize("body", [b"text", b"null", b"{}", b'{"data": []}', b'{"data": [{"x": 1}]}'])
def test_embeddings_that_are_none_are_the_providers_fault(lc: Stage, odd: Garbage, body: bytes) -> None:
    """Also where the JSON is fine and the vectors are not there."""
    odd.body = body
    args = {"texts": ["x"], "model": "openai:x"}
    assert lc.worker.code("langchain:embed", args, session_id="odd") == "provider_unavailable"


def test_a_provider_that_can_not_be_reached_is_unavailable(lc: Stage) -> None:
    """Nothing listens on that port; said once, with the reason."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        nowhere = {"model": "openai:x", "base_url": address, "api_key": "sk-other-key"}
        lc.worker.result("langchain:configure_model", nowhere, session_id="nowhere")
        reply = lc.worker.ask("langchain:invoke", {"messages": "x"}, session_id="nowhere")
    assert reply["error_info"]["code"] == "provider_unavailable"
    assert "sk-other-key" not in json.dumps(reply)
    lc.worker.result("common:cleanup", {"session_id": "nowhere"})


def test_a_provider_that_is_slow_is_a_provider_timeout(lc: Stage) -> None:
    """After the model's own time, in seconds."""
    args = {"messages": "x", "model": {"model": "openai:local-slow-5000ms", "timeout": 0.2}}
    assert lc.worker.code("langchain:invoke", args) == "provider_timeout"


@bounded
def test_a_call_that_takes_longer_than_its_deadline_ends(lc: Stage) -> None:
    """In time, and the worker goes on."""
    with within(3_000):
        args = {"messages": "x", "model": "openai:local-slow-10000ms"}
        assert lc.worker.code("langchain:invoke", args, deadline_ms=round(200 * MS * 1000)) == "timeout"
    assert lc.worker.result("langchain:invoke", {"messages": "1 + 1"})["message"]["content"] == "2"


def test_a_key_that_is_not_there_is_named(lc: Stage) -> None:
    """The variable, and where to set it."""
    args = {"messages": "x", "model": {"model": "openai:x", "api_key_env": "NO_SUCH_API_KEY"}}
    reply = lc.worker.ask("langchain:invoke", args)
    assert reply["error_info"]["code"] == "missing_variable"
    assert reply["error_info"]["details"]["variable"] == "NO_SUCH_API_KEY"


@bounded
def test_several_calls_run_in_one_worker_at_a_time(lc: Stage) -> None:
    """On its one event loop, each with its own answer."""
    lc.llm.control(delay_ms=300)
    with within(8 * 300):
        sent = {lc.worker.send("langchain:invoke", {"messages": f"{n} + {n}"}): str(2 * n) for n in range(8)}
        got: dict[int, str] = {}
        while len(got) < len(sent):
            message = lc.worker.read()
            got[message["id"]] = message["result"]["message"]["content"]
        assert got == sent


@pytest.mark.parametrize("kind", ["invoke", "agent"])
@bounded
def test_a_cancelled_call_stops_at_once_and_the_worker_goes_on(lc: Stage, kind: str) -> None:
    """While the model is thinking; an agent's thread is as it was."""
    id = lc.make("agent")
    lc.run(id, messages="1 + 1", thread_id="t")
    lc.llm.control(delay_ms=10_000)
    asked = lc.llm.asked()
    if kind == "agent":
        args: dict[str, Any] = {"id": id, "inputs": {"messages": "2 + 2", "thread_id": "t"}}
        number = lc.worker.send("common:execute_resource", args, stream=True)
    else:
        number = lc.worker.send("langchain:invoke", {"messages": "2 + 2"}, stream=True)
    eventually(lambda: lc.llm.asked() > asked)
    with within(1_000):
        lc.worker.send("common:cancel", {"id": number})
        assert lc.worker.receive(number)["error_info"]["code"] == "cancelled"
    lc.llm.control(delay_ms=0)
    assert lc.run(id, action="history", thread_id="t")["total_count"] == 2
    assert lc.run(id, messages="3 + 3", thread_id="t")["output"] == "6"


# ---------------------------------------------------------------- tools


@pytest.mark.parametrize(
    ("error", "said"),
    [("handler_error", "handler_error: it broke"), ("permission_denied", "permission_denied: it broke")],
)
def test_the_model_hears_of_a_tool_that_fails(lc: Stage, error: str, said: str) -> None:
    """By default: it may try something else. The local endpoint repeats what it heard."""
    id = lc.make("agent", tools=[WEATHER])
    result = lc.play("common:execute_resource", {"id": id, "inputs": {"messages": QUESTION}}, failing(error))["result"]
    assert result["output"] == said
    assert [message.get("status") for message in result["messages"]] == [None, "error", None]
    assert lc.chunks("tool_end")[0]["status"] == "error"


@pytest.mark.parametrize("error", ["handler_error", "permission_denied", "timeout"])
def test_the_caller_hears_of_it_where_the_agent_says_so(lc: Stage, error: str) -> None:
    """And the thread is as it was before: no tool call stays without an answer."""
    id = lc.make("agent", tools=[WEATHER], tool_errors="caller")
    lc.run(id, messages=[{"role": "assistant", "content": "hello"}, {"role": "user", "content": QUESTION}, {
        "role": "assistant", "content": "rain"}], thread_id="t")  # fmt: skip
    before = lc.run(id, action="history", thread_id="t")
    args = {"id": id, "inputs": {"messages": QUESTION, "thread_id": "t"}}
    reply = lc.play("common:execute_resource", args, failing(error))
    assert (reply["error_info"]["code"], reply["error_info"]["message"]) == (error, "it broke")
    assert lc.run(id, action="history", thread_id="t") == before
    assert lc.play("common:execute_resource", args, sunny)["result"]["output"] == "sunny in Paris"


@pytest.mark.parametrize("errors", ["model", "caller"])
def test_a_tool_that_hangs_has_a_deadline(lc: Stage, errors: str) -> None:
    """In the client and in the worker."""
    hanging = {**WEATHER, "timeout": 0.1, "errors": errors}
    mine = {"function": "crew.tools:hang", "timeout": 0.1, "errors": errors}
    for tool in (hanging, mine):
        args = {"id": lc.make("agent", tools=[tool]), "inputs": {"messages": QUESTION}}
        reply = lc.worker.ask("common:execute_resource", args, stream=True)
        if errors == "model":
            assert reply["result"]["output"].startswith("timeout: ")
        else:
            assert reply["error_info"]["code"] == "timeout"


def test_functions_that_hang_take_nothing_from_the_others(lc: Stage) -> None:
    """More of them than the loop's own executor has threads: providers' clients need those too."""
    stuck = [{"tool": {"function": "crew.tools:stuck", "timeout": 0.1}}]
    args = {"inputs": [{"number": number} for number in range(40)], "chain": stuck, "max_concurrency": 40}
    results = lc.worker.ask("langchain:batch", args)["result"]["results"]
    assert {each["error"]["code"] for each in results} == {"timeout"}

    args = {"inputs": {"number": 21}, "chain": [{"tool": "crew.tools:double"}]}
    assert lc.worker.ask("langchain:execute_chain", args)["result"]["output"] == 42


def test_a_tool_that_is_not_there_ends_the_call(lc: Stage) -> None:
    """Whatever the agent says: it would go on without it, and pay."""
    id = lc.make("agent", tools=[WEATHER])
    asked = lc.llm.asked()
    args = {"id": id, "inputs": {"messages": QUESTION}}
    assert lc.play("common:execute_resource", args, failing("unknown_tool"))["error_info"]["code"] == "unknown_tool"
    assert lc.run_code(id, messages=QUESTION) == "unknown_tool"
    assert lc.llm.asked() == asked + 2


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("broken", "RuntimeError: no luck with 21"),
        ("odd", "returned a set that JSON can't carry"),
        ("stops", "StopIteration"),  # an event loop can't pass it on, so it was waited for until the deadline
        ("leaves", "SystemExit: bad number 21"),
    ],
)
def test_a_function_that_raises_or_returns_the_wrong_type(lc: Stage, function: str, said: str) -> None:
    """Told to the model, or to the caller."""
    told = lc.run(lc.make("agent", tools=[f"crew.tools:{function}"]), messages=DOUBLE)
    assert said in told["output"]
    strict = lc.make("agent", tools=[f"crew.tools:{function}"], tool_errors="caller")
    reply = lc.worker.ask("common:execute_resource", {"id": strict, "inputs": {"messages": DOUBLE}})
    assert (reply["error_info"]["code"], said in reply["error"]) == ("handler_error", True)


def test_arguments_that_do_not_fit_go_back_to_the_model(lc: Stage) -> None:
    """Also where all other failures go to the caller; the tool is not called."""
    picky = {
        **WEATHER,
        "parameters": {"properties": {"city": {"type": "string", "enum": ["Oslo"]}}},
        "errors": "caller",
    }
    reply = lc.play(
        "common:execute_resource", {"id": lc.make("agent", tools=[picky]), "inputs": {"messages": QUESTION}}, sunny
    )
    assert "city: expected one of 'Oslo'" in reply["result"]["output"]


def test_an_agent_that_does_not_come_to_an_end_is_stopped(lc: Stage) -> None:
    """By its recursion limit, with LangGraph's own type."""
    id = lc.make("agent", tools=["crew.tools:double"], recursion_limit=2)
    reply = lc.worker.ask("common:execute_resource", {"id": id, "inputs": {"messages": DOUBLE, "thread_id": "t"}})
    info = reply["error_info"]
    assert (info["code"], info["type"], info["details"]) == (
        "handler_error", "GraphRecursionError", {"limit": "recursion_limit"},
    )  # fmt: skip
    assert lc.run(id, action="history", thread_id="t")["messages"] == []


def test_an_agent_that_never_finds_the_form_of_its_answer_says_so(lc: Stage) -> None:
    """LangChain asks again until the steps are used up; the cause is the answer's form, and not some tool."""
    form = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    id = lc.make(
        "agent", response_format=form, response_strategy="tool", recursion_limit=5, model="openai:local-fail-garbage"
    )
    assert lc.run_code(id, messages="Which city?") == "output_not_parsed"


def test_over_long_input_has_the_providers_code(lc: Stage) -> None:
    """Which openai 3 keeps in `code`, where LangChain does not look."""
    lc.llm.control(fail="context")
    reply = lc.worker.ask("langchain:invoke", {"messages": "word " * 10_000})
    assert reply["error_info"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"tools": ["os:remove"]}, "permission_denied"),
        ({"tools": [WEATHER, WEATHER]}, "invalid_argument"),
        ({"tools": [{"name": "x", "parameters": {"type": "x"}}]}, "invalid_argument"),
        ({"model": "opnai:x"}, "invalid_argument"),
        ({"model": ""}, "invalid_argument"),
        ({"model": "openai: "}, "invalid_argument"),
        ({"model": "anthropic:x"}, "missing_package"),
        ({"model": {"model": "openai:x", "heat": 1}}, "invalid_argument"),
        ({"memory": "redis"}, "invalid_argument"),
        ({"response_format": {"type": "array"}}, "invalid_argument"),
        ({"recursion_limit": 0}, "invalid_argument"),
    ],
)
def test_an_agent_that_could_not_run_is_not_made(lc: Stage, config: dict[str, Any], code: str) -> None:
    """And nothing is left behind."""
    held = lc.worker.result("common:list_resources")["total_count"]
    assert lc.refused("agent", **config)["code"] == code
    assert lc.worker.result("common:list_resources")["total_count"] == held

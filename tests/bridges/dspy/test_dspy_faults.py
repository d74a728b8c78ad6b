"""What a provider can do wrong with a good status, what few failures do to an evaluation, and odd signatures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from tests.bridges.raw_worker import RawWorker
from tests.support import framework_python

pytestmark = pytest.mark.framework

QA = {"signature": "question -> answer"}
EXAMPLES = [{"question": f"q{number}", "answer": "a"} for number in range(3)]


def answer(text: str | None, **choice: Any) -> bytes:
    """What an OpenAI-compatible endpoint sends for one answer."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message, **choice}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]}).encode()


def answered(field: str, text: str) -> bytes:
    """An answer in the form of DSPy's chat adapter."""
    return answer(f"[[ ## {field} ## ]]\n{text}\n\n[[ ## completed ## ]]")


class Provider(ThreadingHTTPServer):
    """Sends whatever it was told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body = b""
        self.status = 200
        self.refuses = "nothing at all"
        self.asked = 0
        self.last = ""
        self.key: str | None = None

    @property
    def url(self) -> str:
        """What an OpenAI client wants as its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def will_send(self, body: bytes, status: int = 200, refuses: str = "nothing at all") -> None:
        """Set what is sent from now on; prompts with `refuses` in their last message get status 500."""
        self.body, self.status, self.refuses, self.asked = body, status, refuses, 0


class _Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:  # the name that the standard library calls
        """Answer, whatever was asked."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        self.server.last = json.dumps(asked)
        self.server.key = self.headers["Authorization"]
        refused = self.server.refuses in json.dumps(asked["messages"][-1])
        body = b"{}" if refused else self.server.body
        self.send_response(500 if refused else self.server.status)
        self.send_header("Content-Type", "text/event-stream" if body.startswith(b"data:") else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Return a running provider."""
    with Provider() as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def worker(provider: Provider) -> Iterator[RawWorker]:
    """Return a worker that asks it."""
    options = {"model": "openai/m", "api_base": provider.url, "api_key": "sk-test-0123456789"}
    worker = RawWorker("dspy", options, python=framework_python("dspy"), environment={"NO_PROXY": "127.0.0.1"})
    yield worker
    worker.close()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>Log in</html>",
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{}",
        b'{"choices": []}',
        b'{"choices": null, "error": {"message": "boom", "code": 502}}',
        b'{"error": "boom"}',
        b'{"message": "text"}',
        b'{"choices": [{"message": "text"}]}',
        b'{"choices": [null]}',
        answered("answer", "x").replace(b'"model": "m"', b'"model": "m", "usage": {"prompt_tokens": "3"}'),
    ],
)
@pytest.mark.parametrize("module", ["predict", "react"])
def test_a_reply_that_is_no_answer_is_the_providers_fault(
    worker: RawWorker, provider: Provider, body: bytes, module: str
) -> None:
    """DSPy takes some of it for an empty answer and asks, and pays, once more; over the rest it stumbles."""
    provider.will_send(body)
    tools = {"tools": [{"name": "look"}]} if module == "react" else {}
    reply = worker.ask("dspy:predict", {**QA, "module": module, **tools, "inputs": {"question": "q"}})
    assert (reply["error_info"]["code"], reply["error_info"]["retryable"]) == ("provider_unavailable", True)
    assert provider.asked == 1


PIECE = (
    b'data: {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": '
    b'[{"index": 0, "delta": {"content": "[[ ## answer ## ]]\\nhal"}}]}\n\n'
)
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (DONE, "provider_unavailable"),
        (b"data: null\n\n" + DONE, "provider_unavailable"),
        (b'data: {"choices": []}\n\n' + DONE, "provider_unavailable"),
        (PIECE, "provider_unavailable"),
        (PIECE + b"data: {not JSON\n\n", "provider_unavailable"),
        (PIECE + b'data: {"choices": 5}\n\n' + DONE, "provider_unavailable"),
        (PIECE + b'data: {"error": {"message": "it failed", "type": "server_error"}}\n\n', "provider_unavailable"),
        (PIECE + b'data: {"error": {"message": "slow", "code": "rate_limit_exceeded"}}\n\n', "rate_limited"),
    ],
)
def test_a_stream_that_is_no_whole_answer_has_a_code(
    worker: RawWorker, provider: Provider, body: bytes, code: str
) -> None:
    """Half an answer is never taken for one."""
    provider.will_send(body)
    assert worker.code("dspy:predict", {**QA, "inputs": {"question": "q"}}, stream=True) == code


def test_a_stream_that_ends_in_good_order_need_not_say_why(worker: RawWorker, provider: Provider) -> None:
    """Some servers never say it."""
    provider.will_send(PIECE + DONE)
    reply = worker.ask("dspy:predict", {**QA, "inputs": {"question": "q"}}, stream=True)
    assert reply["result"]["outputs"] == {"answer": "hal"}


@pytest.mark.parametrize("body", [answer(None), answer(""), answer("", finish_reason="length"), answer("no fields")])
def test_an_answer_without_the_fields_is_still_an_answer(worker: RawWorker, provider: Provider, body: bytes) -> None:
    """Also an empty one that says why it ended: the model may have thought until `max_tokens` was used up."""
    provider.will_send(body)
    assert worker.code("dspy:predict", {**QA, "inputs": {"question": "q"}}) == "output_not_parsed"


def test_an_answer_that_does_not_say_why_it_ended_is_taken(worker: RawWorker, provider: Provider) -> None:
    """Some servers never say it; a whole reply is whole without."""
    provider.will_send(answered("answer", "x").replace(b'"finish_reason": "stop", ', b""))
    found = worker.result("dspy:predict", {**QA, "inputs": {"question": "q"}})
    assert found["outputs"] == {"answer": "x"}


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(404, "provider_not_found", False), (418, "provider_bad_request", False), (529, "provider_unavailable", True)],
)
def test_a_status_without_a_body_of_openai_has_a_code(
    worker: RawWorker, provider: Provider, status: int, code: str, retryable: bool
) -> None:
    """A wrong address answers so; the status is all that there is to say."""
    provider.will_send(b"<html>", status)
    error = worker.ask("dspy:predict", {**QA, "inputs": {"question": "q"}})["error_info"]
    assert (error["code"], error["retryable"], error["details"]["status"]) == (code, retryable, status)


@pytest.mark.parametrize("command", ["dspy:evaluate", "dspy:optimize"])
@pytest.mark.parametrize(("status", "code"), [(401, "provider_auth"), (200, "provider_unavailable")])
def test_few_examples_that_all_fail_are_no_score(
    worker: RawWorker, provider: Provider, command: str, status: int, code: str
) -> None:
    """DSPy forgives nine failures, and would say 0 percent, or that nothing could be learned."""
    provider.will_send(b"null", status)
    examples = {"devset" if command == "dspy:evaluate" else "trainset": EXAMPLES}
    assert worker.code(command, {"program": QA, **examples}) == code


@pytest.mark.parametrize("threads", [1, 3])
def test_an_example_that_failed_says_why(worker: RawWorker, provider: Provider, threads: int) -> None:
    """It counts as wrong, and is told from a wrong answer."""
    provider.will_send(answered("answer", "a"), refuses="q1")
    found = worker.result("dspy:evaluate", {"program": QA, "devset": EXAMPLES, "num_threads": threads})
    assert [row["score"] for row in found["results"]] == [1.0, 0.0, 1.0]
    assert [row.get("error", {}).get("code") for row in found["results"]] == [None, "provider_unavailable", None]


def test_answers_that_can_not_be_read_are_wrong_answers(worker: RawWorker, provider: Provider) -> None:
    """A weak model has a score of 0."""
    provider.will_send(answer("no fields"))
    found = worker.result("dspy:evaluate", {"program": QA, "devset": EXAMPLES})
    assert (found["score"], found["results"][0]["error"]["code"]) == (0.0, "output_not_parsed")


# ---------------------------------------------------------------- signatures and values


def fields_of(*described: dict[str, Any]) -> dict[str, Any]:
    """A signature with one input and these outputs."""
    return {"inputs": ["q"], "outputs": list(described)}


@pytest.mark.parametrize(
    ("described", "text", "value"),
    [
        ({"type": "List[int]"}, "[1, 2]", [1, 2]),
        ({"type": "Dict[str, int]"}, '{"a": 1}', {"a": 1}),
        ({"type": "Union[int, bool]"}, "7", 7),
        ({"type": "tuple[int, str]"}, '[1, "a"]', [1, "a"]),
        ({"type": "set[str]"}, '["a"]', ["a"]),
        ({"type": "Literal[-1, 1]"}, "-1", -1),
        ({"enum": ["a", None]}, "null", None),
    ],
)
def test_types_that_dspy_takes_as_words_are_types_here_too(
    worker: RawWorker, provider: Provider, described: dict[str, Any], text: str, value: object
) -> None:
    """None of a Literal's choices gets lost."""
    provider.will_send(answered("a", text))
    args = {"signature": fields_of({"name": "a", **described}), "inputs": {"q": "x"}}
    assert worker.result("dspy:predict", args)["outputs"] == {"a": value}


@pytest.mark.parametrize(
    ("signature", "where"),
    [
        (fields_of({"name": "a", "type": "Literal['a', b]"}), "outputs[0].type"),
        (fields_of({"name": "a", "type": "Literal[a, b]"}), "outputs[0].type"),
        (fields_of({"name": "a", "type": []}), "outputs[0].type"),
        (fields_of({"name": "a", "type": "list[" * 200 + "int" + "]" * 200}), "outputs[0].type"),
        (fields_of({"name": "a", "properties": "x"}), "outputs[0].properties"),
        (fields_of({"name": "a", "properties": {"_x": "int"}}), "outputs[0].properties._x"),
        (fields_of({"name": "a", "properties": {"x": "int"}, "required": ["y"]}), "outputs[0].required"),
        (fields_of({"name": "a", "description": 5}), "outputs[0].description"),
        (fields_of({"name": "_a"}), "outputs[0].name"),
        (fields_of({"name": "instructions"}), "outputs[0].name"),
        ({"inputs": ["demos"], "outputs": ["a"]}, "inputs[0].name"),
        ({**fields_of({"name": "a"}), "instructions": 5}, "instructions"),
        ("signature -> a", "signature"),
        ("config -> a", "signature"),
        ("_x -> a", "signature"),
    ],
)
def test_a_signature_that_dspy_would_stumble_over_says_where(
    worker: RawWorker, provider: Provider, signature: object, where: str
) -> None:
    """Also where DSPy would take an input for itself, and no model would see it."""
    provider.will_send(answered("a", "x"))
    error = worker.ask("dspy:predict", {"signature": signature, "inputs": {}})["error_info"]
    assert (error["code"], provider.asked) == ("invalid_argument", 0)
    assert where in error["message"]


def test_the_parts_of_a_structured_field_keep_their_descriptions(worker: RawWorker, provider: Provider) -> None:
    """The model reads them in the field's JSON schema."""
    provider.will_send(answered("a", '{"x": 1}'))
    part = {"type": "int", "description": "how many there are"}
    args = {"signature": fields_of({"name": "a", "properties": {"x": part}}), "inputs": {"q": "x"}}
    assert worker.result("dspy:predict", args)["outputs"] == {"a": {"x": 1}}
    assert "how many there are" in provider.last


@pytest.mark.parametrize("value", [[1, 2], ["a", 1], [{"b": 2}], [None], []])
def test_an_input_without_a_type_takes_any_list(worker: RawWorker, provider: Provider, value: list[Any]) -> None:
    """DSPy fails at members that are no text."""
    provider.will_send(answered("a", "x"))
    args = {"signature": "q -> a", "inputs": {"q": value}}
    assert worker.result("dspy:predict", args)["outputs"] == {"a": "x"}


@pytest.mark.parametrize(("kind", "text"), [("datetime.date", "2026-01-02"), ("str", "x")])
def test_an_output_may_be_a_date_and_may_be_called_trajectory(
    worker: RawWorker, provider: Provider, kind: str, text: str
) -> None:
    """A date has a text in JSON; only what an agent did is a trace."""
    provider.will_send(answered("trajectory", text))
    args = {"signature": f"q -> trajectory: {kind}", "inputs": {"q": "x"}}
    assert worker.result("dspy:predict", args)["outputs"] == {"trajectory": text}


# ---------------------------------------------------------------- models, states and tools

QUESTION = {**QA, "inputs": {"question": "q"}}


@pytest.mark.parametrize(
    "change",
    [
        {"model": ""},
        {"model": "openai/"},
        {"max_tokens": 0},
        {"timeout": -1},
        {"num_retries": -1},
        {"api_base": "not an address", "api_key": "sk-other-0123456789"},
        {"api_key": "sk-other-0123\n456789"},
    ],
)
def test_settings_that_are_refused_change_nothing(
    worker: RawWorker, provider: Provider, change: dict[str, Any]
) -> None:
    """The session goes on with what it had, and no part of a key is in the error."""
    provider.will_send(answered("answer", "x"))
    reply = worker.ask("dspy:configure_lm", change, session_id="refused")
    assert (reply["error_info"]["code"], "sk-other" in json.dumps(reply)) == ("invalid_argument", False)
    assert worker.result("dspy:predict", QUESTION, session_id="refused")["outputs"] == {"answer": "x"}


def test_a_variable_that_is_missing_leaves_the_session_as_it_was(worker: RawWorker, provider: Provider) -> None:
    """The call that named it fails, and not each one after it."""
    provider.will_send(answered("answer", "x"))
    assert worker.code("dspy:configure_lm", {"api_key_env": "NOT_THERE"}, session_id="v") == "missing_variable"
    assert worker.result("dspy:predict", QUESTION, session_id="v")["outputs"] == {"answer": "x"}


def test_a_key_with_the_line_end_of_its_file_is_sent_without(worker: RawWorker, provider: Provider) -> None:
    """It could not be sent with it, and the client's error would show it."""
    provider.will_send(answered("answer", "x"))
    worker.result("dspy:configure_lm", {"api_key": "sk-of-a-file-0123456789\n"}, session_id="file")
    worker.result("dspy:predict", QUESTION, session_id="file")
    assert provider.key == "Bearer sk-of-a-file-0123456789"


def test_a_state_does_not_choose_the_model(worker: RawWorker, provider: Provider) -> None:
    """Or whoever wrote it would choose to whom keys are sent that the worker's environment has."""
    provider.will_send(answered("answer", "x"))
    state = worker.result("dspy:save_state", {"program": QA})["state"]
    state["state"]["lm"] = {"model": "openai/another", "api_base": "http://127.0.0.1:9/v1"}
    args = {"type": "program", "config": {**QA, "state": state}}
    id = worker.result("common:create_resource", args)["id"]
    found = worker.result("common:execute_resource", {"id": id, "inputs": {"question": "q"}})
    assert list(found["usage"]["by_model"]) in ([], ["openai/m"])
    assert provider.asked == 1


@pytest.mark.parametrize(
    ("tool", "where"),
    [
        ({"name": "t", "description": 5}, "tools[0].description"),
        ({"name": "t", "parameters": []}, "tools[0].parameters"),
        ({"name": "t", "parameters": {"properties": 5}}, "tools[0].parameters"),
        ({"name": "t", "parameters": {"properties": {"x": 5}}}, "tools[0].parameters"),
        ({"name": "t", "parameters": {"required": "x"}}, "tools[0].parameters"),
    ],
)
def test_a_tool_that_is_described_wrongly_is_refused(worker: RawWorker, tool: dict[str, Any], where: str) -> None:
    """When the agent is made."""
    config = {**QA, "module": "react", "tools": [tool]}
    error = worker.ask("common:create_resource", {"type": "program", "config": config})["error_info"]
    assert (error["code"], error["details"]["argument"]) == ("invalid_argument", where)


def test_a_tools_argument_may_be_null(worker: RawWorker) -> None:
    """In JSON Schema's own words; and a tool may say nothing of its arguments."""
    parameters = {"type": "object", "properties": {"x": {"type": ["string", "null"]}}}
    for said in (parameters, None):
        tool = {"name": "t", "parameters": said}
        config = {**QA, "module": "react", "tools": [tool], "max_iters": 1}
        assert worker.result("common:create_resource", {"type": "program", "config": config})["type"] == "program"


def test_an_agent_takes_at_least_one_step(worker: RawWorker) -> None:
    """With none it would answer without a look at its tools."""
    config = {**QA, "module": "react", "tools": [{"name": "t"}], "max_iters": 0}
    assert worker.code("common:create_resource", {"type": "program", "config": config}) == "invalid_argument"


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("command", "rows", "field"),
    [
        ("dspy:evaluate", [{"question": "q", "answer": "a"}], "nonsense"),
        ("dspy:evaluate", [{"question": "q", "answer": "a"}, {"question": "q"}], None),
        ("dspy:optimize", [{"question": "q"}], None),
    ],
)
def test_examples_with_nothing_to_compare_are_no_score(
    worker: RawWorker, provider: Provider, command: str, rows: list[dict[str, str]], field: str | None
) -> None:
    """Each would be wrong; by a field that nobody has, each would be right."""
    provider.will_send(answered("answer", "a"))
    argument = "devset" if command == "dspy:evaluate" else "trainset"
    assert worker.code(command, {"program": QA, argument: rows, "metric_field": field}) == "invalid_argument"
    assert provider.asked == 0


def test_wrong_rounds_of_an_optimiser_are_the_callers_to_mend(worker: RawWorker) -> None:
    """They are read before the optimiser reads them."""
    args = {"program": QA, "trainset": EXAMPLES, "settings": {"max_rounds": "many"}}
    assert worker.code("dspy:optimize", args) == "invalid_argument"

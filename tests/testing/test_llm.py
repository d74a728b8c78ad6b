"""The scripted model: what it answers over HTTP, what it notes, and what it says of a script that was not kept."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from manybridge.testing import ChatRequest, Fault, KitError, Reply, ScriptedLLM, ToolCall
from manybridge.testing.llm.replies import FAULTS, in_form
from tests.support import DEFAULT_TIMEOUT, eventually
from tests.timing import bounded, within

KEY = "sk-very-secret-0123456789"
CHAT = "/v1/chat/completions"
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A running endpoint whose script the test itself checks."""
    endpoint = ScriptedLLM()
    endpoint.start()
    yield endpoint
    endpoint.stop()


@contextmanager
def ask(llm: ScriptedLLM, text: str = "hi", path: str = CHAT, **fields: Any) -> Iterator[http.client.HTTPResponse]:
    """Send a request and give its answer."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **fields})
    with closing(http.client.HTTPConnection("127.0.0.1", llm.port, timeout=DEFAULT_TIMEOUT)) as connection:
        connection.request("POST", path, body, {"Authorization": f"Bearer {KEY}"})
        with connection.getresponse() as answer:
            yield answer


def asked(llm: ScriptedLLM, text: str = "hi", path: str = CHAT, **fields: Any) -> tuple[int, Any]:
    """Send a request; return the status and what came."""
    with ask(llm, text, path, **fields) as answer:
        return answer.status, json.loads(answer.read())


def streamed(llm: ScriptedLLM, **fields: Any) -> list[Any]:
    """Send a request for a stream and return its events."""
    with ask(llm, stream=True, **fields) as answer:
        return events(answer.read())


def events(data: bytes) -> list[Any]:
    """What stands behind each `data:`."""
    texts = [line.removeprefix("data: ") for line in data.decode().split("\n\n") if line]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def words(found: list[Any]) -> str:
    """The text of a stream."""
    deltas = [each["choices"][0]["delta"] for each in found if each != "[DONE]" and each["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_requests_are_answered_in_the_order_of_the_script_and_noted(llm: ScriptedLLM) -> None:
    """A text, tokens by hand, tool calls; then the function."""
    llm.replies("one two", Reply("three", usage=(7, 9))).calls_tool("weather", city="Paris")

    @llm.answers
    def shout(request: ChatRequest) -> str:
        return request.text.upper()

    answers = [asked(llm, text, temperature=0.5)[1] for text in ("a", "b", "c", "loud")]

    messages = [answer["choices"][0]["message"] for answer in answers]
    assert [message["content"] for message in messages] == ["one two", "three", None, "LOUD"]
    assert answers[0]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert answers[1]["usage"] == {"prompt_tokens": 7, "completion_tokens": 9, "total_tokens": 16}
    assert answers[2]["choices"][0]["finish_reason"] == "tool_calls"
    assert messages[2]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Paris"}'}
    assert [request.text for request in llm.requests] == ["a", "b", "c", "loud"]
    assert llm.requests[0].body["temperature"] == 0.5
    llm.check()


def test_a_stream_comes_in_words_with_its_usage_and_an_end(llm: ScriptedLLM) -> None:
    """The first piece says whose text it is, the last ones why it ended and what it cost."""
    llm.replies("one two three", Reply("abcd", pieces=("ab", "cd")), [ToolCall("weather", {"city": "Rome"})])

    found = streamed(llm, stream_options={"include_usage": True})

    assert found[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [words([each]) for each in found[1:4]] == ["one ", "two ", "three"]
    assert found[-3]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["usage"]["completion_tokens"] == 3
    assert found[-1] == "[DONE]"
    assert [words([each]) for each in streamed(llm)[1:3]] == ["ab", "cd"]
    call = streamed(llm)[1]["choices"][0]["delta"]["tool_calls"][0]
    assert (call["index"], call["function"]["name"]) == (0, "weather")
    eventually(lambda: llm.streamed == 3)


def test_a_stream_waits_where_the_test_says_so(llm: ScriptedLLM) -> None:
    """After two words, until the test lets it go on: no test has to guess how fast a stream is."""
    llm.replies("one two three")
    llm.hold_after = 2
    with ask(llm, stream=True) as answer:
        begun = b""
        while words(events(begun)) != "one two ":
            begun += answer.readline() + answer.readline()
        assert llm.streamed == 0
        llm.hold_after = None
        assert words(events(begun + answer.read())) == "one two three"


@pytest.mark.parametrize(("code", "fault"), FAULTS.items())
def test_every_fault_of_the_taxonomy_looks_as_a_provider_s(llm: ScriptedLLM, code: str, fault: Any) -> None:
    """Status, type and code of OpenAI; after it the script goes on."""
    llm.fails(code, times=2, retry_after=3).replies("well")

    for _ in range(2):
        with ask(llm) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (fault.status, "3")
            error = json.loads(answer.read())["error"]
            assert (error["type"], error["code"]) == (fault.type, fault.code)
    assert asked(llm)[0] == 200


def test_a_status_is_a_fault_too(llm: ScriptedLLM) -> None:
    """Where a code is not enough; only a rate limit says by itself when to come back."""
    llm.fails(429).fails(503, message="down for lunch")
    with ask(llm) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
    with ask(llm) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, None)
        assert json.loads(answer.read())["error"]["message"] == "down for lunch"


@pytest.mark.parametrize("kind", ["rate_limit", 200, 700])
def test_a_fault_that_there_is_not_is_refused_where_it_is_said(llm: ScriptedLLM, kind: str | int) -> None:
    """With what there is."""
    with pytest.raises(KitError, match=r"rate_limited|from 400 to 599"):
        llm.fails(kind)


def test_an_answer_can_be_cut_or_end_too_soon(llm: ScriptedLLM) -> None:
    """In the middle of a stream or of a body, without its end; or in good order, and still not whole."""
    llm.cuts("one two three", after=2).cuts("one")
    llm.replies(Reply("one two three", broken="short", broken_after=1))
    with ask(llm, stream=True) as answer, pytest.raises(http.client.IncompleteRead) as caught:
        answer.read()
    assert words(events(caught.value.partial)) == "one two "
    with ask(llm) as answer, pytest.raises(http.client.IncompleteRead):
        answer.read()
    assert words(streamed(llm)) == "one "


@bounded
def test_slowness_ends_when_the_endpoint_stops(llm: ScriptedLLM) -> None:
    """A model that takes a minute costs the test nothing."""
    llm.replies(Reply("late", delay=60))
    waiting = threading.Thread(target=lambda: asked(llm))
    waiting.start()
    eventually(lambda: llm.requests)
    with within(2_000):
        llm.stop()
        waiting.join()


def test_a_slow_answer_is_slow(llm: ScriptedLLM) -> None:
    """By its own time and by the endpoint's."""
    llm.delay = 0.05
    llm.replies(Reply("late", delay=0.05))
    begun = time.monotonic()
    assert asked(llm)[0] == 200
    assert time.monotonic() - begun >= 0.1


def test_no_key_is_kept(llm: ScriptedLLM) -> None:
    """Neither of the header, nor where it comes up again in the address or in the body."""
    llm.replies("a", "b")
    asked(llm, f"my key is {KEY}", api_key=KEY)
    asked(llm, path=f"/v1beta/models/gemini-x:generateContent?key={KEY}", contents=[{"parts": [{"text": KEY}]}])
    assert KEY not in repr([(request, request.body) for request in llm.requests])
    assert [request.has_key for request in llm.requests] == [True, True]
    assert llm.requests[0].text == "my key is ********"


def test_a_wrong_key_is_refused_and_takes_nothing_of_the_script(llm: ScriptedLLM) -> None:
    """The request is noted all the same."""
    llm.api_key = "another"
    llm.replies("secret")
    assert asked(llm)[0] == 401
    assert asked(llm, path="/v1/embeddings", input="x")[0] == 401
    llm.api_key = KEY
    assert asked(llm)[0] == 200
    assert len(llm.requests) == 2


def test_a_request_beyond_the_script_is_refused_and_told(llm: ScriptedLLM) -> None:
    """To the caller, by a refusal that nobody retries; and to the test."""
    status, body = asked(llm, "what now?")
    assert status == 400
    assert "request 1, 'what now?', came when no reply was left" in body["error"]["message"]
    with pytest.raises(AssertionError, match="what now"):
        llm.check()


def test_what_nobody_asked_for_is_told_at_the_end() -> None:
    """As long as nothing worse has happened."""
    with pytest.raises(AssertionError, match="nobody asked for: 'never'"), ScriptedLLM() as llm:
        llm.replies("never")
    with pytest.raises(ZeroDivisionError), ScriptedLLM() as llm:
        assert llm.replies("never").delay / 0


def test_what_can_not_be_answered_is_told(llm: ScriptedLLM) -> None:
    """A function that fails, something that is no answer, another path, a body that is no JSON."""
    llm.replies(lambda _: 1 / 0, [], lambda _: Fault("no such"))
    assert [asked(llm)[0] for _ in range(3)] == [500, 500, 500]
    assert asked(llm, path="/v1/responses")[0] == 404
    assert asked(llm, messages=[{"content": "of nobody"}])[0] == 400
    connection = http.client.HTTPConnection("127.0.0.1", llm.port, timeout=DEFAULT_TIMEOUT)
    with closing(connection):
        connection.request("POST", CHAT, "[")
        assert connection.getresponse().status == 400
    assert [problem.split(": ")[-1] for problem in llm.problems[:1]] == ["division by zero"]
    assert "expected a text" in llm.problems[1]
    assert "a model can't fail with 'no such'" in llm.problems[2]
    assert "/v1/responses" in llm.problems[3]


def test_embeddings_of_texts_that_share_words_are_near_each_other(llm: ScriptedLLM) -> None:
    """Vectors of length 1; requests are noted apart from the script."""
    _, body = asked(llm, path="/v1/embeddings", input=["a red fox", "the red fox", "nothing"])
    first, second, third = (each["embedding"] for each in body["data"])

    def near(one: list[float], other: list[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    assert near(first, first) == pytest.approx(1)
    assert near(first, second) > near(first, third)
    assert [request["input"] for request in llm.embedding_requests] == [["a red fox", "the red fox", "nothing"]]
    llm.check()


def test_connections_that_clients_keep_open_end_with_the_endpoint(llm: ScriptedLLM) -> None:
    """And so do their threads; that none is left is checked after every test."""
    connection = http.client.HTTPConnection("127.0.0.1", llm.port, timeout=DEFAULT_TIMEOUT)
    with closing(connection):
        connection.request("GET", "/v1/models")
        assert json.loads(connection.getresponse().read())["data"][0]["id"] == "scripted"
        llm.stop()


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, None),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}, None),
        ({"tools": [TOOL]}, '{"city": "Rome"}'),
        ({"prompt": "... [[ ## completed ## ]] ..."}, "[[ ## city ## ]]\nRome\n\n[[ ## completed ## ]]"),
        ({"prompt": "[[ ## q ## ]] Outputs will be a JSON object [[ ## completed ## ]]"}, '{"city": "Rome"}'),
        ({"prompt": "Respond with the fields wrapped in XML tags"}, "<city>\nRome\n</city>"),
    ],
)
def test_fields_are_written_in_the_form_that_is_asked_for(
    llm: ScriptedLLM, fields: dict[str, Any], text: str | None
) -> None:
    """The call of a tool, the three formats of DSPy, else JSON."""
    llm.replies({"city": "Rome"})
    message = asked(llm, fields.pop("prompt", "hi"), **fields)[1]["choices"][0]["message"]
    assert message["content"] == text
    if text is None:
        assert message["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city": "Rome"}'}


def test_a_form_is_the_tool_that_knows_its_fields() -> None:
    """Among several; the last one if none does."""
    other = {"type": "function", "function": {"name": "other", "parameters": {"properties": {"x": {}}}}}
    request = ChatRequest("openai", CHAT, "m", [], tools=[TOOL, other], must_call=True)
    assert in_form({"city": "Rome"}, request).tool_calls[0].name == "weather"
    assert in_form({"strange": 1}, request).tool_calls[0].name == "other"

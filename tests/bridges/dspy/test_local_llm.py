"""The local endpoint itself: its rules, its prompts and its failures, without DSPy."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from examples.local_llm import LocalLLM
from examples.local_llm.answers import reply_text
from examples.local_llm.prompts import Output, Task, read_task


@pytest.fixture
def llm() -> Iterator[LocalLLM]:
    """Serve."""
    with LocalLLM() as server:
        yield server


def post(url: str, body: dict[str, Any]) -> Any:
    """Send JSON and return the JSON that comes back."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What is 17 * 23?", "391"),
        ("what is 7 plus 8", "15"),
        ("compute (2 + 3) * 4", "20"),
        ("What is 1 / 0?", "undefined"),
        ("What is the capital of France?", "Paris"),
        ("Tell me a story", "No rule of this local endpoint matches: Tell me a story"),
        ("Ana has 3 apples and buys 4 more. How many?", "7"),
        ("Ana has 9 apples and gives 4 away. How many?", "5"),
    ],
)
def test_questions_are_answered_by_rules(question: str, answer: str) -> None:
    """The same question always gets the same answer."""
    assert reply_text(Task("plain", "", {"prompt": question}, (Output("reply"),))) == answer


def test_a_prompt_that_dspy_did_not_write_gets_a_plain_reply() -> None:
    """One output, the reply itself."""
    task = read_task([{"role": "system", "content": "Be nice."}, {"role": "user", "content": "1 + 1"}])
    assert (task.style, task.inputs) == ("plain", {"prompt": "1 + 1"})


def test_the_openai_wire_has_text_usage_and_tool_calls(llm: LocalLLM) -> None:
    """Chat completions."""
    url = f"{llm.openai_base}/chat/completions"
    asked = {"model": "local-rules", "messages": [{"role": "user", "content": "What is 6 * 7?"}]}
    answer = post(url, asked)
    assert answer["choices"][0]["message"]["content"] == "42"
    assert answer["usage"]["total_tokens"] == 6
    assert answer["model"].startswith("local-rules")
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {
        "a": {"type": "integer"}, "b": {"type": "integer"}}}}}  # fmt: skip
    called = post(url, {**asked, "messages": [{"role": "user", "content": "add 2 and 3"}], "tools": [tool]})
    function = called["choices"][0]["message"]["tool_calls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("add", {"a": 2, "b": 3})


def test_the_gemini_wire(llm: LocalLLM) -> None:
    """Its method generateContent."""
    url = f"{llm.gemini_base}/models/gemini-1.5-flash:generateContent"
    answer = post(url, {"contents": [{"role": "user", "parts": [{"text": "2 + 2"}]}]})
    assert answer["candidates"][0]["content"]["parts"][0]["text"] == "4"


@pytest.mark.parametrize(("failure", "status"), [("401", 401), ("429", 429), ("500", 500), ("context", 400)])
def test_failures_on_purpose(llm: LocalLLM, failure: str, status: int) -> None:
    """Planned once, or asked for by the model's name."""
    url = f"{llm.openai_base}/chat/completions"
    body = {"model": "m", "messages": [{"role": "user", "content": "1 + 1"}]}
    post(f"http://127.0.0.1:{llm.port}/control", {"fail": failure, "retry_after_s": 3})
    for asked in (body, {**body, "model": f"m-fail-{failure}"}):
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(url, asked)
        assert caught.value.code == status
        assert caught.value.headers["Retry-After"] == ("3" if status == 429 else None)
        caught.value.close()
    assert post(url, body)["choices"][0]["message"]["content"] == "2"

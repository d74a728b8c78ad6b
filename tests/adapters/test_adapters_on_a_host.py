"""The DSPy adapters on real hosts, with two workers, the real framework and the local endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge import AsyncMLBridge, MLBridge
from manybridge.errors import ManybridgeError
from tests.bridges.dspy.endpoint import Endpoint
from tests.support import framework_python

pytestmark = pytest.mark.framework

KEY = "sk-very-secret-0123456789"
COLOURS = [{"question": f"word{n} colour", "answer": "red" if n % 2 else "blue"} for n in range(4)]


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Configure two DSPy workers that ask the local endpoint."""
    monkeypatch.setenv("LOCAL_LLM_KEY", KEY)
    with Endpoint(KEY) as llm:
        options = {"model": "openai/local-rules", "api_base": llm.openai_base, "api_key_env": "LOCAL_LLM_KEY"}
        yield {
            "default": "dspy",
            "bridges": {
                "dspy": {
                    "python": str(framework_python("dspy")),
                    "pool_size": 2,
                    "required_env": ["LOCAL_LLM_KEY"],
                    "environment": {"NO_PROXY": "127.0.0.1"},
                    "options": options,
                }
            },
        }


def test_a_program_learns_is_saved_and_runs_on_any_worker(config: dict[str, Any], tmp_path: Path) -> None:
    """The whole life of a program, blocking."""
    seen: list[tuple[float, float | None, str]] = []
    with MLBridge.from_config(config) as ml:
        dspy = ml.get_adapter("dspy")
        program = dspy.create_program("question -> answer", module="chain_of_thought")
        answer = program.predict(question="What is 17 * 23?", timeout=30)
        assert (answer.answer, answer.usage["calls"]) == ("391", 1)

        stream = program.stream(question="tell me a story")
        chunks = [event.data for event in stream if event.event == "chunk"]
        text = "".join(chunk["chunk"] for chunk in chunks if chunk["field"] == "answer")
        assert text == stream.result["outputs"]["answer"] != ""

        report = program.optimize(
            COLOURS, "LabeledFewShot", valset=COLOURS, on_progress=lambda *progress: seen.append(progress)
        )
        assert (report.score_before, report.score_after) == (0.0, 100.0)
        assert seen[-1][:2] == (4, 4)
        assert program.predict(question="word3 colour").answer == "red"
        assert program.evaluate(COLOURS).score == 100.0

        program.save(tmp_path / "program.json")
        program.delete()
        assert dspy.list_programs() == []
        again = dspy.load_program(tmp_path / "program.json")
        assert again.predict(question="word2 colour").answer == "blue"
    assert KEY not in (tmp_path / "program.json").read_text(encoding="utf-8")


async def test_an_agent_on_an_async_host_uses_a_tool_of_this_process(config: dict[str, Any]) -> None:
    """Registered on the host, described in the recipe."""

    def weather(city: str) -> str:
        """Weather of a city."""
        return f"rain in {city}"

    async with AsyncMLBridge.from_config(config) as ml:
        ml.register_tool("weather", weather)
        dspy = ml.get_adapter()
        agent = await dspy.create_program("question -> answer", module="react", tools=ml.tools())
        answer = await agent.predict(question="What is the weather in Paris?")
        assert answer.answer == "rain in Paris"
        assert [step["tool_name"] for step in answer.trace] == ["weather", "finish"]
        with pytest.raises(ManybridgeError) as caught:
            await dspy.create_program("no arrow")
        assert caught.value.code == "invalid_argument"

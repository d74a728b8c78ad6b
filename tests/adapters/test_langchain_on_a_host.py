"""LangChain on real hosts: adapters, pools of forked workers, and workers that die."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge import AsyncMLBridge, MLBridge
from manybridge.errors import ManybridgeError
from tests.bridges.dspy.endpoint import Endpoint
from tests.bridges.langchain.stage import KEY, MODEL
from tests.support import MS, eventually, framework_python

pytestmark = pytest.mark.framework

PATIENCE = 40_000 * MS


@pytest.fixture(scope="module")
def llm() -> Iterator[Endpoint]:
    """Serve once for all tests."""
    with Endpoint(KEY) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def config(llm: Endpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Configure two LangChain workers that ask the local endpoint."""
    options = {
        "model": MODEL, "embedding_model": MODEL, "base_url": llm.openai_base, "api_key_env": "LOCAL_LLM_KEY",
        "memory_folder": str(tmp_path_factory.mktemp("threads")), "allow_modules": ["crew"],
        "search_path": [str(Path(__file__).parents[1] / "bridges" / "langchain")],
    }  # fmt: skip
    langchain = {
        "python": str(framework_python("langchain")),
        "pool_size": 2,
        "start_timeout": PATIENCE,
        "required_env": ["LOCAL_LLM_KEY"],
        "environment": {"NO_PROXY": "127.0.0.1"},
        "options": options,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_LLM_KEY", KEY)
        yield {"default": "langchain", "bridges": {"langchain": langchain}}


@pytest.fixture
def ml(config: dict[str, Any]) -> Iterator[MLBridge]:
    """A host that is ready."""
    with MLBridge.from_config(config) as made:
        made.call("langchain", "common:warm_up", timeout=PATIENCE)
        yield made


def where_is(city: str) -> str:
    """Weather of a city."""
    return f"rain in {city}"


def worker_pids(ml: MLBridge) -> set[int]:
    """The processes of the pool."""
    return {worker["pid"] for worker in ml.health(probe=False)["bridges"]["langchain"]["workers"]}


def test_everything_that_an_adapter_makes_works_and_goes(ml: MLBridge) -> None:
    """Prompt, chain, tool, memory and agent, blocking, on a pool."""
    langchain = ml.get_adapter("langchain")
    prompt = langchain.create_prompt("What is {a} + {b}?", timeout=PATIENCE)
    assert prompt.format(a=1, b=2).text == "What is 1 + 2?"

    chain = langchain.create_chain(prompt, parser="json")
    assert chain.invoke(a=1, b=2).output == 3
    stream = chain.stream(a=2, b=2)
    assert [event.data["kind"] for event in stream if event.event == "chunk"] == ["token", "update"]
    assert stream.result["output"] == 4
    outputs = chain.batch([{"a": n, "b": 1} for n in range(5)] + [{"a": 1}])
    assert [getattr(each, "output", None) for each in outputs] == [1, 2, 3, 4, 5, None]
    assert isinstance(outputs[5], ManybridgeError)

    tool = langchain.create_tool(function="crew.tools:double")
    assert tool.invoke(number=4) == 8

    memory = langchain.create_memory("sqlite", "orders")
    agent = langchain.create_agent(tools=[where_is, tool], memory=memory)
    answer = agent.invoke("Weather of Paris?", thread_id="t")
    assert (answer.output, [call["name"] for call in answer.tool_calls]) == ("rain in Paris", ["where_is"])
    assert agent.invoke("Please double number 4", thread_id="t").output == "8"
    assert memory.threads() == agent.threads() == ["t"]
    assert len(memory.history("t")) == 8
    assert memory.append("t", "thanks")[-1]["content"] == "thanks"
    assert memory.delete_thread("t")

    kinds = [event.data["kind"] for event in agent.stream("Weather of Rome?") if event.event == "chunk"]
    assert [kind for kind in kinds if kind != "token"] == ["update", "tool_start", "tool_end", "update", "update"]

    assert langchain.invoke("6 * 7").text == "42"
    assert len(langchain.embed(["a", "b"])) == 2
    assert "openai" in langchain.list_providers()["installed"]
    made = (prompt, chain, tool, memory, agent)
    assert {each.type for each in ml.list_resources("langchain")} == {"prompt", "chain", "tool", "memory", "agent"}
    for each in made:
        each.delete()
    assert ml.list_resources("langchain") == []


async def test_host_tools_are_awaited_together_and_may_fail_in_every_way(config: dict[str, Any]) -> None:
    """Coroutines of this process: all of one turn are under way before any is done; they refuse, hang, and lie."""
    arrived = asyncio.Event()
    waiting = 0

    async def weather(city: str) -> Any:
        """Weather of a city."""
        nonlocal waiting
        if city == "Area51":
            raise PermissionError("not for you")
        if city == "Never":
            await asyncio.Event().wait()
        if city == "Odd":
            return object()
        waiting += 1
        if waiting == 3:
            arrived.set()
        await arrived.wait()
        return f"rain in {city}"

    async with AsyncMLBridge.from_config(config) as host:
        langchain = host.get_adapter()
        agent = await langchain.create_agent(tools=[weather], timeout=PATIENCE)
        answer = await agent.invoke("weather in Paris; weather in Rome; weather in Oslo", timeout=PATIENCE)
        assert answer.output == "rain in Paris; rain in Rome; rain in Oslo"
        assert "PermissionError: not for you" in (await agent.invoke("weather of Area51")).output

        strict = await langchain.create_agent(tools=[weather], tool_errors="caller", tool_timeout=0.2)
        said = {"Area51": ("handler_error", "not for you"), "Never": ("timeout", "weather"), "Odd": (None, "object")}
        for city, (code, text) in said.items():
            with pytest.raises(ManybridgeError) as caught:
                await strict.invoke(f"weather of {city}")
            assert code in (None, caught.value.code)
            assert text in str(caught.value)
        assert (await langchain.invoke("1 + 1")).text == "2"


def test_threads_survive_the_death_of_their_workers(ml: MLBridge) -> None:
    """Every worker is killed between two turns; a thread goes on, from the host's snapshot or from the file."""
    langchain = ml.get_adapter("langchain")
    agents = [langchain.create_agent(memory=memory) for memory in ("memory", {"kind": "sqlite", "name": "chats"})]
    for agent in agents:
        agent.invoke("1 + 1", thread_id="t")
    before = worker_pids(ml)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: worker_pids(ml) and not worker_pids(ml) & before, PATIENCE)
    for agent in agents:
        assert agent.invoke("2 + 2", thread_id="t", timeout=PATIENCE).output == "4"
        assert [message["content"] for message in agent.history("t")] == ["1 + 1", "2", "2 + 2", "4"]


def test_a_thread_in_a_file_survives_its_host(config: dict[str, Any]) -> None:
    """And a chain by its description streams on any worker."""
    memory = {"kind": "sqlite", "name": "lasting"}
    for question, count in (("1 + 1", 2), ("2 + 2", 4)):
        with MLBridge.from_config(config) as ml:
            agent = ml.get_adapter("langchain").create_agent(memory=memory, timeout=PATIENCE)
            agent.invoke(question, thread_id="t", timeout=PATIENCE)
            assert len(agent.history("t")) == count
            args = {"chain": {"prompt": "What is {a} + 1?", "parser": "str"}, "inputs": {"a": count}}
            stream = ml.stream("langchain", "langchain:execute_chain", args)
            tokens = [each.data["text"] for each in stream if each.event == "chunk" and each.data["kind"] == "token"]
            assert "".join(tokens) == stream.result["output"] == str(count + 1)


def test_the_first_token_reaches_the_caller_before_the_model_has_finished(ml: MLBridge, llm: Endpoint) -> None:
    """The model stops after two words; it goes on when the caller, who is told of them, says so."""
    chain = ml.get_adapter("langchain").create_chain("tell me a story", parser="str", timeout=PATIENCE)
    finished = llm.streamed()
    llm.control(hold_after=3)  # the first piece has no text
    tokens: list[str] = []
    stream = chain.stream()
    for event in stream:
        if event.event == "chunk" and event.data["kind"] == "token":
            tokens.append(event.data["text"])
            if len(tokens) == 2:
                assert llm.streamed() == finished
                llm.control(hold_after=None)
    assert "".join(tokens) == stream.result["output"]
    assert len(tokens) > 2


def test_forked_workers_never_get_each_others_answers(ml: MLBridge) -> None:
    """The zygote has imported and connected nothing; every answer is that of its own question."""
    ml.update_bridge("langchain", pool_size=4)
    eventually(lambda: len(worker_pids(ml)) == 4, PATIENCE)
    assert ml.stats()["bridges"]["langchain"]["zygote"]["used"]
    questions = [{"command": "langchain:invoke", "args": {"messages": f"{n} + {n}"}} for n in range(80)]
    answers = ml.batch("langchain", questions, timeout=PATIENCE, return_exceptions=False)
    assert [found["message"]["content"] for found in answers] == [str(2 * n) for n in range(80)]
    workers = ml.health(probe=False)["bridges"]["langchain"]["workers"]
    assert [worker["started_by"] for worker in workers] == ["zygote"] * 4
    assert all(worker["requests"] > 1 for worker in workers)

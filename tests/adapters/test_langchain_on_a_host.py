"""LangChain on real hosts: adapters, pools of forked workers, workers that die, and the command line."""

from __future__ import annotations

import asyncio
import json
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
from tests.cli.support import CommandLine
from tests.support import MS, eventually, framework_python

pytestmark = pytest.mark.framework

PATIENCE = 40_000 * MS


@pytest.fixture(scope="module")
def llm() -> Iterator[Endpoint]:
    """Serve once for all tests."""
    with Endpoint(KEY) as endpoint:
        yield endpoint


@pytest.fixture
def config(llm: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Configure two LangChain workers that ask the local endpoint."""
    monkeypatch.setenv("LOCAL_LLM_KEY", KEY)
    options = {
        "model": MODEL, "embedding_model": MODEL, "base_url": llm.openai_base, "api_key_env": "LOCAL_LLM_KEY",
        "memory_folder": str(tmp_path / "threads"), "allow_modules": ["crew"],
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
    return {"default": "langchain", "bridges": {"langchain": langchain}}


def where_is(city: str) -> str:
    """Weather of a city."""
    return f"rain in {city}"


def worker_pids(ml: MLBridge) -> set[int]:
    """The processes of the pool."""
    return {worker["pid"] for worker in ml.health(probe=False)["bridges"]["langchain"]["workers"]}


def test_everything_that_an_adapter_makes_works_and_goes(config: dict[str, Any]) -> None:
    """Prompt, chain, tool, memory and agent, blocking, on a pool of two."""
    with MLBridge.from_config(config) as ml:
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


async def test_host_tools_are_awaited_together_and_may_refuse(config: dict[str, Any]) -> None:
    """Coroutines of this process: every call of one turn is under way before any is done."""
    arrived = asyncio.Event()
    waiting = 0

    async def weather(city: str) -> str:
        """Weather of a city."""
        nonlocal waiting
        if city == "Area51":
            raise PermissionError("not for you")
        waiting += 1
        if waiting == 3:
            arrived.set()
        await arrived.wait()
        return f"rain in {city}"

    async with AsyncMLBridge.from_config(config) as ml:
        langchain = ml.get_adapter()
        agent = await langchain.create_agent(tools=[weather], timeout=PATIENCE)
        answer = await agent.invoke("weather in Paris; weather in Rome; weather in Oslo", timeout=PATIENCE)
        assert answer.output == "rain in Paris; rain in Rome; rain in Oslo"
        refused = await agent.invoke("weather of Area51")
        assert "PermissionError: not for you" in refused.output
        strict = await langchain.create_agent(tools=[weather], tool_errors="caller")
        with pytest.raises(ManybridgeError) as caught:
            await strict.invoke("weather of Area51")
        assert (caught.value.code, "not for you" in str(caught.value)) == ("handler_error", True)


async def test_a_host_tool_that_is_late_or_odd_is_an_error_of_its_own(config: dict[str, Any]) -> None:
    """A deadline, and a result that JSON can't carry."""

    async def weather(city: str) -> Any:
        """Weather of a city."""
        if city == "Oslo":
            return object()
        return await asyncio.Event().wait()

    async with AsyncMLBridge.from_config(config) as ml:
        langchain = ml.get_adapter()
        agent = await langchain.create_agent(tools=[weather], tool_errors="caller", tool_timeout=0.1, timeout=PATIENCE)
        with pytest.raises(ManybridgeError) as late:
            await agent.invoke("weather in Rome")
        assert late.value.code == "timeout"
        with pytest.raises(ManybridgeError) as odd:
            await agent.invoke("weather in Oslo")
        assert "object" in str(odd.value)
        assert (await langchain.invoke("1 + 1")).text == "2"


@pytest.mark.parametrize("memory", ["memory", {"kind": "sqlite", "name": "chats"}], ids=["memory", "sqlite"])
def test_a_thread_survives_the_death_of_its_worker(config: dict[str, Any], memory: Any) -> None:
    """Every worker is killed between two turns; the thread goes on, from the host's snapshot or from the file."""
    with MLBridge.from_config(config) as ml:
        agent = ml.get_adapter("langchain").create_agent(memory=memory, timeout=PATIENCE)
        agent.invoke("1 + 1", thread_id="t", timeout=PATIENCE)
        before = worker_pids(ml)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: worker_pids(ml) and not worker_pids(ml) & before, PATIENCE)
        assert agent.invoke("2 + 2", thread_id="t", timeout=PATIENCE).output == "4"
        told = [message["content"] for message in agent.history("t")]
        assert told == ["1 + 1", "2", "2 + 2", "4"]


async def test_forked_workers_never_get_each_others_answers(config: dict[str, Any]) -> None:
    """The zygote has imported and connected nothing; every answer is that of its own question."""
    config["bridges"]["langchain"]["pool_size"] = 4
    async with AsyncMLBridge.from_config(config) as ml:
        await ml.call("langchain", "langchain:invoke", {"messages": "1 + 1"}, timeout=PATIENCE)
        await ml.wait_ready("langchain", PATIENCE)
        assert (await ml.stats())["bridges"]["langchain"]["zygote"]["used"]
        questions = [{"messages": f"{n} + {n}"} for n in range(80)]
        asked = [ml.call("langchain", "langchain:invoke", each, timeout=PATIENCE) for each in questions]
        answers = [found["message"]["content"] for found in await asyncio.gather(*asked)]
        assert answers == [str(2 * n) for n in range(80)]
        workers = (await ml.health(probe=False))["bridges"]["langchain"]["workers"]
        assert [worker["started_by"] for worker in workers] == ["zygote"] * 4
        assert all(worker["requests"] > 1 for worker in workers)


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "prompt": ({"template": "{a}?"}, {"a": 1}),
    "chain": ({"prompt": "{a} + 1", "parser": "str"}, {"a": 1}),
    "tool": ({"function": "crew.tools:double"}, {"number": 2}),
    "memory": ({"kind": "sqlite", "name": "cli"}, {"action": "threads"}),
    "agent": ({"tools": ["crew.tools:double"]}, {"messages": "Double number 4"}),
}


@pytest.fixture
def manybridge(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line."""
    return CommandLine(capsys)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_command_line_makes_and_executes_every_type(
    config: dict[str, Any], kind: str, manybridge: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`manybridge resources`, with one worker."""
    langchain = {**config["bridges"]["langchain"], "pool_size": 1}
    lines = ["[bridges.langchain]", *(f"{key} = {to_toml(value)}" for key, value in langchain.items())]
    (tmp_path / "manybridge.toml").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    made, inputs = CONFIGS[kind]
    arguments = ["--args", json.dumps(made), "--execute", json.dumps(inputs), "--json"]
    ended = manybridge("resources", "create", "langchain", kind, *arguments)
    assert ended.code == 0, ended.err
    assert ended.json["resource"]["type"] == kind
    assert len(ended.json["results"]) == 1


def to_toml(value: Any) -> str:
    """A value as TOML; its JSON is close to it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {to_toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)

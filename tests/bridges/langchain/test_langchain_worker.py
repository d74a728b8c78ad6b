"""The LangChain bridge in a real worker, with the real framework and the local endpoint, over the raw wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.langchain.stage import KEY, MODEL, QUESTION, WEATHER, Stage, sunny

pytestmark = pytest.mark.framework

SUM = "What is {a} + {b}?"
STORY = "tell me a story"


# ---------------------------------------------------------------- every resource type


CONFIGS: dict[str, tuple[dict[str, Any], dict[str, Any], Any]] = {
    "prompt": ({"template": SUM}, {"a": 1, "b": 2}, lambda result: result["text"] == "What is 1 + 2?"),
    "chain": ({"prompt": SUM, "parser": "str"}, {"a": 1, "b": 2}, lambda result: result["output"] == "3"),
    "tool": ({"function": "crew.tools:double"}, {"number": 21}, lambda result: result == {"result": 42}),
    "memory": ({"kind": "memory"}, {"action": "threads"}, lambda result: result == {"threads": []}),
    "agent": ({"tools": ["crew.tools:double"]}, {"messages": "Double the number 4"}, lambda r: r["output"] == "8"),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_resource_is_made_executed_streamed_listed_and_deleted(lc: Stage, kind: str) -> None:
    """Its whole life over the wire, with an id of its caller's."""
    config, inputs, right = CONFIGS[kind]
    ask = lc.worker
    made = ask.result("common:create_resource", {"type": kind, "config": config, "id": f"my-{kind}"})
    assert (made["id"], made["type"]) == (f"my-{kind}", kind)
    call = {"id": f"my-{kind}", "inputs": inputs}
    assert right(ask.result("common:execute_resource", call))
    assert right(ask.result("common:execute_resource", call, stream=True))
    listed = ask.result("common:list_resources", {"type": kind})
    assert [(each["id"], each["executions"]) for each in listed["resources"]] == [(f"my-{kind}", 2)]
    assert ask.result("common:delete_resource", {"id": f"my-{kind}"})["deleted"]
    assert ask.code("common:execute_resource", call) == "resource_not_found"


def test_capabilities_tell_every_type_and_command(lc: Stage) -> None:
    """With their policies."""
    found = lc.worker.result("common:capabilities")
    assert {name: each["policy"] for name, each in found["resources"].items()} == {
        "prompt": "recreate", "chain": "recreate", "tool": "recreate", "memory": "restore", "agent": "restore",
    }  # fmt: skip
    assert {"langchain:invoke", "langchain:execute_chain", "langchain:batch", "langchain:embed"} <= set(
        found["commands"]
    )


# ---------------------------------------------------------------- prompts


def test_a_prompt_of_messages_has_places_for_messages(lc: Stage) -> None:
    """And variables that are filled already."""
    template = [
        {"role": "system", "content": "You are {who}."},
        {"placeholder": "history", "optional": True},
        {"role": "user", "content": "{question}"},
    ]
    id = lc.make("prompt", template=template, partials={"who": "kind"}, variables=["who", "history", "question"])
    assert [m["content"] for m in lc.run(id, question="why?")["messages"]] == ["You are kind.", "why?"]
    history = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    told = lc.run(id, question="why?", history=history)["messages"]
    assert [m["role"] for m in told] == ["system", "user", "assistant", "user"]


def test_missing_and_unknown_inputs_are_named(lc: Stage) -> None:
    """All of them, before anything is asked."""
    id = lc.make("prompt", template=SUM)
    reply = lc.worker.ask("common:execute_resource", {"id": id, "inputs": {"a": 1, "c": 3}})
    assert reply["error_info"]["code"] == "invalid_argument"
    assert reply["error_info"]["details"]["problems"] == ["inputs.b: missing", "inputs.c: unknown"]


def test_mustache_is_a_format_too(lc: Stage) -> None:
    """Where braces are text."""
    id = lc.make("prompt", template='{"a": "{{name}}"}', template_format="mustache")
    assert lc.run(id, name="x")["text"] == '{"a": "x"}'


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"template": "broken {"}, "prompt"),
        ({"template": "empty {}"}, "prompt"),
        ({"template": "{a.__class__}"}, "prompt"),
        ({"template": SUM, "variables": ["a"]}, "prompt.variables"),
        ({"template": SUM, "partials": {"c": 1}}, "prompt.partials.c"),
        ({"template": [{"role": "x", "content": ""}]}, "prompt.template[0].role"),
    ],
)
def test_a_wrong_prompt_is_refused_when_it_is_made(lc: Stage, config: dict[str, Any], where: str) -> None:
    """With the place."""
    refused = lc.refused("prompt", **config)
    assert (refused["code"], refused["details"]["argument"]) == ("invalid_argument", where)


# ---------------------------------------------------------------- models


def test_a_model_answers_once_with_usage(lc: Stage) -> None:
    """The whole message, and the tokens."""
    found = lc.worker.result("langchain:invoke", {"messages": [{"role": "user", "content": "What is 17 * 23?"}]})
    assert (found["message"]["role"], found["message"]["content"]) == ("assistant", "391")
    assert list(found["usage"]["by_model"]) == [MODEL]
    assert found["usage"]["total_tokens"] == found["usage"]["input_tokens"] + found["usage"]["output_tokens"] > 0
    assert KEY not in json.dumps(found)


def test_a_model_streams_tokens(lc: Stage) -> None:
    """They add up to the answer, come before the reply, and are counted as one request."""
    found = lc.play("langchain:invoke", {"messages": STORY}, sunny)["result"]
    tokens = [chunk["text"] for chunk in lc.chunks("token")]
    assert "".join(tokens) == found["message"]["content"]
    assert len(tokens) > 3
    assert found["usage"]["calls"] == 1
    assert found["usage"]["output_tokens"] > 3
    logged = [event["data"]["message"] for event in lc.worker.events if event["event"] == "log"]
    assert logged == [f"model {MODEL} asked, request 1"]


@pytest.mark.parametrize("kind", ["invoke", "chain", "agent"])
def test_a_token_arrives_before_the_model_has_finished(lc: Stage, kind: str) -> None:
    """The model stops after two words and goes on only when both have come out of the worker."""
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "invoke": ("langchain:invoke", {"messages": STORY}),
        "chain": ("langchain:execute_chain", {"chain": {"prompt": STORY, "parser": "str"}, "inputs": {}}),
        "agent": ("common:execute_resource", {"id": lc.make("agent"), "inputs": {"messages": STORY}}),
    }
    command, args = calls[kind]
    finished = lc.llm.streamed()
    lc.llm.control(hold_after=3)  # the first piece has no text
    number = lc.worker.send(command, args, stream=True)
    while len(lc.chunks("token")) < 2:
        message = lc.worker.read()
        assert "event" in message, message
        lc.worker.events.append(message)
    assert lc.llm.streamed() == finished
    lc.llm.control(hold_after=None)
    result = lc.worker.receive(number)["result"]
    told = result["message"]["content"] if kind == "invoke" else result["output"]
    assert "".join(chunk["text"] for chunk in lc.chunks("token")) == told
    assert len(lc.chunks("token")) > 2


def test_tools_are_only_offered_to_a_model_that_is_asked_once(lc: Stage) -> None:
    """What it would call is in its message."""
    found = lc.worker.result("langchain:invoke", {"messages": QUESTION, "tools": [WEATHER]})
    assert [(call["name"], call["args"]) for call in found["message"]["tool_calls"]] == [("weather", {"city": "Paris"})]


def test_the_providers_are_listed_with_what_is_installed(lc: Stage) -> None:
    """And the versions of this environment."""
    found = lc.worker.result("langchain:list_providers")
    assert found["providers"]["openai"] == {"package": "langchain-openai", "installed": True}
    assert found["providers"]["anthropic"] == {"package": "langchain-anthropic", "installed": False}
    assert set(found["installed"]) <= set(found["providers"])
    assert found["versions"]["langchain"].startswith("1.")


def test_a_plug_in_that_is_missing_is_named_with_its_command(lc: Stage) -> None:
    """Instead of an ImportError."""
    reply = lc.worker.ask("langchain:invoke", {"messages": "x", "model": "anthropic:claude"})
    info = reply["error_info"]
    assert (info["code"], info["details"]["package"]) == ("missing_package", "langchain-anthropic")
    assert "-m pip install langchain-anthropic" in info["details"]["install"]


@pytest.mark.parametrize("model", ["opnai:gpt", "nonsense", "openai:"])
def test_an_unknown_provider_is_refused_with_those_that_there_are(lc: Stage, model: str) -> None:
    """And the closest one."""
    reply = lc.worker.ask("langchain:invoke", {"messages": "x", "model": model})
    assert reply["error_info"]["code"] == "invalid_argument"
    assert "provider" in reply["error"]
    if model == "opnai:gpt":
        assert "Did you mean openai" in reply["error"]


def test_each_session_has_its_own_model(lc: Stage) -> None:
    """And another session still has the bridge's."""
    ask = lc.worker
    told = ask.result("langchain:configure_model", {"model": "openai:local-other", "temperature": 0.5}, session_id="s7")
    assert (told["model"], told["session"], told["has_key"]) == ("openai:local-other", "s7", True)
    assert KEY not in json.dumps(told)
    for session, model in (("s7", "openai:local-other"), ("s8", MODEL)):
        found = ask.result("langchain:invoke", {"messages": "1 + 1"}, session_id=session)
        assert list(found["usage"]["by_model"]) == [model]
    assert ask.result("langchain:usage", {}, session_id="s7")["session"]["calls"] == 1
    ask.result("common:cleanup", {"session_id": "s7"})
    found = ask.result("langchain:invoke", {"messages": "1 + 1"}, session_id="s7")
    assert list(found["usage"]["by_model"]) == [MODEL]


def test_a_caller_can_not_redirect_the_configured_key(lc: Stage) -> None:
    """Neither for a session, nor in a call, nor in a recipe."""
    elsewhere = {"model": "openai:x", "base_url": "http://127.0.0.1:9/v1"}
    assert lc.worker.code("langchain:configure_model", elsewhere, session_id="s9") == "permission_denied"
    assert lc.worker.code("langchain:invoke", {"messages": "x", "model": elsewhere}) == "permission_denied"
    assert lc.refused("agent", model=elsewhere)["code"] == "permission_denied"
    recipe = {"model": "openai:x", "api_key": "sk-mine-123456"}
    assert lc.refused("chain", prompt="x", model=recipe)["code"] == "invalid_argument"


def test_texts_are_embedded_without_a_download(lc: Stage) -> None:
    """Vectors of the same length."""
    found = lc.worker.result("langchain:embed", {"texts": ["a cat", "a cat", "two dogs"]})
    one, two, three = found["embeddings"]
    assert one == two != three
    assert found["dimensions"] == len(one) == 16
    assert lc.worker.code("langchain:embed", {"texts": []}) == "invalid_argument"
    assert lc.worker.code("langchain:embed", {"texts": ["x"], "model": "cohere:x"}) == "missing_package"


# ---------------------------------------------------------------- chains


def test_a_tree_of_steps_runs(lc: Stage) -> None:
    """Branches, assignments, picks, a tool and a parser of each kind."""
    sum_ = [{"prompt": SUM}, {"model": None}, {"parser": "str"}]
    steps: list[Any] = [
        {"parallel": {"sum": sum_, "given": {"passthrough": True}, "names": [
            {"prompt": "one, two"}, {"model": MODEL}, {"parser": "list"}]}},
        {"assign": {"again": {"pick": "sum"}}},
        {"assign": {"double": [{"pick": ["given"]}, {"pick": "given"}, {"pick": "a"}, {"prompt": "{x} + {x}"},
                               {"model": {"model": MODEL, "temperature": 0}}, {"parser": "json"}]}},
    ]  # fmt: skip
    found = lc.run(lc.make("chain", steps=steps), a=2, b=3)
    output = found["output"]
    assert (output["sum"], output["again"], output["double"]) == ("5", "5", 4)
    assert output["given"] == {"a": 2, "b": 3}
    assert len(output["names"]) > 1
    assert found["usage"]["calls"] == 3


def test_tokens_of_branches_say_which_step_they_are_of(lc: Stage) -> None:
    """By its path."""
    branch = [{"prompt": STORY}, {"model": None}, {"parser": "str"}]
    args = {"chain": {"parallel": {"a": branch, "b": branch}}, "inputs": {}}
    output = lc.play("langchain:execute_chain", args, sunny)["result"]["output"]
    for name in ("a", "b"):
        path = f"steps.parallel.{name}[1].model"
        assert "".join(chunk["text"] for chunk in lc.chunks("token") if chunk["step"] == path) == output[name]
    assert len(lc.chunks("update")) == 2


def test_an_answer_that_must_fit_a_schema(lc: Stage) -> None:
    """The prompt may ask for it; what does not fit is output_not_parsed, without the answer's text."""
    schema = {"properties": {"sum": {"type": "integer"}}, "required": ["sum"]}
    good = lc.make("chain", prompt='Say {{"sum": 3}}', parser="json")
    assert lc.run_code(good) == "output_not_parsed"  # the endpoint says more than that
    id = lc.make("chain", prompt="{a} * 2 = ?", parser={"schema": schema})
    reply = lc.worker.ask("common:execute_resource", {"id": id, "inputs": {"a": 4}})
    assert reply["error_info"]["code"] == "output_not_parsed"
    assert reply["error_info"]["details"]["problems"] == ["answer: expected object, found a number"]
    told = lc.make("chain", steps=[{"prompt": "{format_instructions}"}, {"parser": {"schema": schema}}])
    assert lc.worker.code("common:execute_resource", {"id": told, "inputs": {}}) == "output_not_parsed"


def test_a_chain_calls_tools_of_both_sides(lc: Stage) -> None:
    """As a step, with its input as arguments."""
    args = {"chain": [{"tool": WEATHER}], "inputs": {"city": "Rome"}}
    assert lc.play("langchain:execute_chain", args, sunny)["result"]["output"] == "sunny in Rome"
    assert [chunk["kind"] for chunk in lc.chunks()] == ["tool_start", "tool_end"]
    mine = {"chain": [{"tool": "crew.tools:shout"}], "inputs": {"text": "hi", "times": 2}}
    assert lc.worker.result("langchain:execute_chain", mine)["output"] == "HI HI"
    assert lc.worker.code("langchain:execute_chain", {**mine, "inputs": {"text": 3}}) == "invalid_argument"


def test_a_variable_that_is_missing_is_named_with_its_prompt(lc: Stage) -> None:
    """Deep in a chain too."""
    args = {"chain": [{"parallel": {"a": [{"prompt": SUM}]}}], "inputs": {"a": 1}}
    reply = lc.worker.ask("langchain:execute_chain", args)
    assert reply["error_info"]["code"] == "invalid_argument"
    assert reply["error_info"]["details"]["missing"] == ["b"]
    assert "steps[0].parallel.a[0].prompt" in reply["error"]


@pytest.mark.parametrize(
    ("args", "where"),
    [
        ({}, "chain"),
        ({"id": "x", "chain": []}, "chain"),
        ({"chain": {"prompt": "x", "steps": [{"prompt": "x"}]}}, "prompt"),
        ({"chain": {"prompt": "x", "parsr": "str"}}, "chain.parsr"),
        ({"chain": [{"pick": "a"}]}, "input of steps[0].pick"),
        ({"chain": [{"passthrough": True}, {"assign": {"a": {"pick": "b"}}}], "inputs": {}}, "steps[1].assign.a.pick"),
    ],
)
def test_a_wrong_chain_says_where(lc: Stage, args: dict[str, Any], where: str) -> None:
    """When it is read, or when its input is not what a step takes."""
    reply = lc.worker.ask("langchain:execute_chain", args)
    assert (reply["error_info"]["code"], reply["error_info"]["details"].get("argument")) == ("invalid_argument", where)


def test_a_chain_by_its_id_belongs_to_its_session(lc: Stage) -> None:
    """And is found in this worker."""
    args = {"type": "chain", "config": {"prompt": SUM, "parser": "str"}, "id": "sums"}
    lc.worker.result("common:create_resource", args, session_id="s1")
    call = {"id": "sums", "inputs": {"a": 2, "b": 2}}
    assert lc.worker.result("langchain:execute_chain", call, session_id="s1")["output"] == "4"
    other = {**call, "model": "openai:local-other"}
    used = lc.worker.result("langchain:execute_chain", other, session_id="s1")["usage"]
    assert list(used["by_model"]) == ["openai:local-other"]
    assert lc.worker.code("langchain:execute_chain", call, session_id="s2") == "resource_not_found"


def test_a_batch_has_a_result_or_an_error_for_each_input(lc: Stage) -> None:
    """In their order, with progress."""
    args = {"chain": {"prompt": SUM, "parser": "str"}, "inputs": [{"a": n, "b": n} for n in range(4)] + [{"a": 1}]}
    reply = lc.play("langchain:batch", args, sunny)
    results = reply["result"]["results"]
    assert [each.get("output") for each in results] == ["0", "2", "4", "6", None]
    assert results[4]["error"]["code"] == "invalid_argument"
    progress = [event["data"] for event in lc.worker.events if event["event"] == "progress"]
    assert [each["current"] for each in progress] == [0, 1, 2, 3, 4, 5]
    assert reply["result"]["usage"]["calls"] == 4


# ---------------------------------------------------------------- tools


def test_a_tool_of_python_takes_what_its_annotations_say(lc: Stage) -> None:
    """Bad types, missing and unknown arguments never reach it."""
    id = lc.make("tool", function="crew.tools:weekday")
    assert lc.run(id, day="2026-11-22") == {"result": "Sunday"}
    id = lc.make("tool", function="crew.tools:double")
    for inputs in ({}, {"number": "2"}, {"number": True}, {"number": 1, "more": 2}):
        reply = lc.worker.ask("common:execute_resource", {"id": id, "inputs": inputs})
        assert reply["error_info"]["code"] == "invalid_argument"
        assert "was not called" in reply["error"]
    assert lc.refused("tool", function="os:remove")["code"] == "permission_denied"


def test_a_tool_of_the_client_is_called_with_defaults_and_checked_both_ways(lc: Stage) -> None:
    """Its arguments before, its result after."""
    parameters = {
        "properties": {"city": {"type": "string"}, "unit": {"type": "string", "default": "C"}},
        "required": ["city"],
    }
    id = lc.make("tool", name="weather", parameters=parameters, returns={"type": "integer"})
    seen: list[Any] = []

    def answer(data: dict[str, Any]) -> dict[str, Any]:
        seen.append((data["tool"], data["args"]))
        return {"result": 21 if data["args"]["city"] == "Rome" else "warm"}

    good = lc.play("common:execute_resource", {"id": id, "inputs": {"city": "Rome"}}, answer)
    assert good["result"] == {"result": 21}
    bad = lc.play("common:execute_resource", {"id": id, "inputs": {"city": "Oslo"}}, answer)
    assert (bad["error_info"]["code"], bad["error_info"]["type"]) == ("handler_error", "WrongResult")
    assert lc.run_code(id, town="Rome") == "invalid_argument"
    assert lc.run_code(id, city="Rome") == "unknown_tool"  # this call takes no events
    assert seen == [("weather", {"city": "Rome", "unit": "C"}), ("weather", {"city": "Oslo", "unit": "C"})]


# ---------------------------------------------------------------- agents


def test_an_agent_uses_a_function_that_lives_in_the_client(lc: Stage) -> None:
    """Tokens, updates and tool events come as chunks, steps as progress; the reply has the turn."""
    id = lc.make("agent", tools=[WEATHER], system_prompt="Be brief.")
    reply = lc.play("common:execute_resource", {"id": id, "inputs": {"messages": QUESTION}}, sunny)
    result = reply["result"]
    assert result["output"] == "sunny in Paris"
    assert [message["role"] for message in result["messages"]] == ["assistant", "tool", "assistant"]
    assert result["usage"]["calls"] == 2
    tool = {"id": "call_0", "name": "weather"}
    assert lc.chunks("tool_start") == [{"kind": "tool_start", **tool, "args": {"city": "Paris"}}]
    assert lc.chunks("tool_end") == [
        {"kind": "tool_end", **tool, "status": "success", "output": "sunny in Paris"}
    ]  # fmt: skip
    assert "".join(chunk["text"] for chunk in lc.chunks("token")) == "sunny in Paris"
    assert [chunk["step"] for chunk in lc.chunks("update")] == ["model", "tools", "model"]
    progress = [event["data"]["message"] for event in lc.worker.events if event["event"] == "progress"]
    assert progress == [f"model {MODEL} asked, request 1", "tool weather called", f"model {MODEL} asked, request 2"]


def test_tools_of_one_turn_run_at_the_same_time(lc: Stage) -> None:
    """Each call is out before any is answered, and each gets its own answer."""
    id = lc.make("agent", tools=[WEATHER])
    question = "weather in Paris; weather in Rome; weather in Oslo"
    number = lc.worker.send("common:execute_resource", {"id": id, "inputs": {"messages": question}}, stream=True)
    open_: list[dict[str, Any]] = []
    while len(open_) < 3:
        message = lc.worker.read()
        if message.get("event") == "call":
            open_.append(message["data"])
    for data in reversed(open_):
        lc.worker.send("common:call_result", {"call_id": data["call_id"], **sunny(data)})
    result = lc.worker.receive(number)["result"]
    assert result["output"] == "sunny in Paris; sunny in Rome; sunny in Oslo"


def test_an_agent_answers_in_a_form(lc: Stage) -> None:
    """Asked for as a tool; an answer that has not the form is output_not_parsed."""
    form = {"properties": {"city": {"type": "string"}, "number": {"type": "integer"}}, "required": ["city", "number"]}
    id = lc.make("agent", response_format=form)
    assert lc.run(id, messages="Remember 12 for Rome")["structured"] == {"city": "Rome", "number": 12}
    mixed = lc.make("agent", response_format=form, tools=["crew.tools:double"], response_strategy="tool")
    assert lc.run(mixed, messages="Please double the number 6")["structured"]["number"] == 12
    strict = lc.make("agent", response_format=form, response_strategy="provider")
    assert lc.run_code(strict, messages="Remember 12 for Rome") == "output_not_parsed"


def test_another_model_may_serve_one_turn(lc: Stage) -> None:
    """And the next one has the agent's own again."""
    id = lc.make("agent", model="openai:local-mine")
    other = {"model": "openai:local-other", "temperature": 0.1}
    for model, asked in ((other, "openai:local-other"), (None, "openai:local-mine")):
        found = lc.run(id, messages="1 + 1", **({"model": model} if model else {}))
        assert list(found["usage"]["by_model"]) == [asked]


@pytest.mark.parametrize("memory", ["memory", {"kind": "sqlite", "name": "chats"}], ids=["memory", "sqlite"])
def test_a_thread_goes_on_where_it_was(lc: Stage, memory: Any) -> None:
    """Threads are listed, read, added to and deleted; without a thread nothing is remembered."""
    id = lc.make("agent", tools=["crew.tools:double"], memory=memory)
    lc.run(id, messages="Double the number 4", thread_id="t")
    second = lc.run(id, messages="Double the number 5", thread_id="t")
    assert [message["role"] for message in second["messages"]] == ["assistant", "tool", "assistant"]
    lc.run(id, messages="1 + 1")
    history = lc.run(id, action="history", thread_id="t")
    assert history["total_count"] == 8
    assert [m["content"] for m in history["messages"] if m["role"] == "user"] == [
        "Double the number 4",
        "Double the number 5",
    ]
    assert lc.run(id, action="append", thread_id="t", messages="by the way")["total_count"] == 9
    assert lc.run(id, messages="Double the number 6", thread_id="t")["output"] == "12"
    assert lc.run(id, action="history", thread_id="t", limit=2)["total_count"] == 13
    assert lc.run(id, action="threads") == {"threads": ["t"]}
    assert lc.run(id, action="delete", thread_id="t")["deleted"]
    assert lc.run(id, action="threads") == {"threads": []}
    assert lc.run(id, action="history", thread_id="t")["messages"] == []


def test_two_turns_of_one_thread_wait_for_each_other(lc: Stage) -> None:
    """So neither loses the other's messages; turns of other threads go on meanwhile."""
    id = lc.make("agent")
    lc.llm.control(delay_ms=100)
    sent = [
        lc.worker.send("common:execute_resource", {"id": id, "inputs": {"messages": f"{n} + 1", "thread_id": thread}})
        for n, thread in enumerate(["t", "t", "t", "u"])
    ]
    open_ = set(sent)
    while open_:
        open_.discard(lc.worker.read()["id"])
    history = lc.run(id, action="history", thread_id="t")
    assert sorted(m["content"] for m in history["messages"] if m["role"] == "assistant") == ["1", "2", "3"]


def test_an_agent_without_memory_has_no_threads(lc: Stage) -> None:
    """Which it says."""
    id = lc.make("agent", memory=None)
    assert lc.run_code(id, messages="1 + 1", thread_id="t") == "invalid_argument"
    assert lc.run_code(id, action="threads") == "invalid_argument"
    assert lc.run_code(id) == "invalid_argument"


def test_agents_and_a_memory_of_the_same_file_share_threads(lc: Stage) -> None:
    """Within a session; another session's threads of the same name are others."""
    memory = {"kind": "sqlite", "name": "shared"}
    agent, keeper = lc.make("agent", memory=memory), lc.make("memory", **memory)
    lc.run(keeper, action="append", thread_id="t", messages=[{"role": "user", "content": "I am Ana"}])
    lc.run(agent, messages="1 + 1", thread_id="t")
    told = [message["content"] for message in lc.run(keeper, action="history", thread_id="t")["messages"]]
    assert told == ["I am Ana", "1 + 1", "2"]
    args = {"type": "memory", "config": memory, "id": "other"}
    lc.worker.result("common:create_resource", args, session_id="s5")
    call = {"id": "other", "inputs": {"action": "threads"}}
    assert lc.worker.result("common:execute_resource", call, session_id="s5") == {"threads": []}


@pytest.mark.parametrize("kind", ["agent", "memory"])
def test_threads_in_memory_survive_as_a_snapshot(lc: Stage, kind: str) -> None:
    """Taken of one, put into another of the same recipe."""
    old = lc.make(kind)
    if kind == "agent":
        lc.run(old, messages="1 + 1", thread_id="t")
    else:
        lc.run(
            old, action="append", thread_id="t", messages=[{"role": "user", "content": text} for text in ("1 + 1", "2")]
        )
    state = json.loads(json.dumps(lc.worker.result("common:snapshot_resource", {"id": old})["state"]))
    lc.worker.result("common:delete_resource", {"id": old})
    new = lc.worker.result("common:create_resource", {"type": kind, "config": {}, "state": state})["id"]
    told = lc.run(new, action="history", thread_id="t")["messages"]
    assert [message["content"] for message in told] == ["1 + 1", "2"]
    if kind == "agent":
        lc.run(new, messages="2 + 2", thread_id="t")
        assert lc.run(new, action="history", thread_id="t")["total_count"] == 4


def test_a_snapshot_that_is_none_is_refused(lc: Stage) -> None:
    """With the argument's name."""
    args = {"type": "memory", "config": {}, "state": {"threads": {"t": "msgpack:AAAA"}}}
    assert lc.worker.code("common:create_resource", args) == "invalid_argument"


def test_a_damaged_memory_file_is_named(lc: Stage, tmp_path_factory: pytest.TempPathFactory) -> None:
    """And does not stay open: once it is moved away, a new one is made."""
    lc.run(lc.make("memory", kind="sqlite", name="sound"), action="threads")
    (sound,) = (path for path in Path(tmp_path_factory.getbasetemp()).rglob("sound.sqlite") if path.is_file())
    damaged = sound.with_name("damaged.sqlite")
    damaged.write_bytes(b"no database" * 1000)
    id = lc.make("memory", kind="sqlite", name="damaged")

    reply = lc.worker.ask("common:execute_resource", {"id": id, "inputs": {"action": "threads"}})
    assert (reply["error_info"]["code"], str(damaged) in reply["error"]) == ("handler_error", True)

    damaged.unlink()
    assert lc.run(id, action="threads") == {"threads": []}


def test_files_of_threads_are_private(lc: Stage, shared: Stage, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nobody else on the machine can read them, and no name leaves the folder."""
    lc.make("memory", kind="sqlite", name="private")
    id = lc.make("agent", memory={"kind": "sqlite", "name": "private"})
    lc.run(id, messages="1 + 1", thread_id="t")
    found = [path for path in Path(tmp_path_factory.getbasetemp()).rglob("private.sqlite") if path.is_file()]
    assert [path.stat().st_mode & 0o077 for path in found] == [0]
    assert [path.parent.stat().st_mode & 0o077 for path in found] == [0]
    assert lc.refused("memory", kind="sqlite", name="../x")["code"] == "invalid_argument"

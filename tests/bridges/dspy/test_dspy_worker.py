"""The DSPy bridge in a real worker, with the real framework and the local endpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bridges.dspy.endpoint import Endpoint
from tests.bridges.raw_worker import RawWorker
from tests.support import eventually, framework_python
from tests.timing import bounded, within

pytestmark = pytest.mark.framework

KEY = "sk-very-secret-0123456789"
QA = {"signature": "question -> answer"}
WEATHER = {
    "name": "weather",
    "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
COLOURS = [{"question": f"word{n} colour", "answer": "red" if n % 2 else "blue"} for n in range(6)]


class Setup:
    """One worker and its endpoint, shared by the tests of this module: an import of DSPy costs a second."""

    def __init__(self, llm: Endpoint, worker: RawWorker) -> None:
        self.llm = llm
        self.worker = worker

    def program(self, **config: Any) -> str:
        """Make a program resource and return its id."""
        id: str = self.worker.result("common:create_resource", {"type": "program", "config": {**QA, **config}})["id"]
        return id

    def run(self, id: str, inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Execute a resource and return its result."""
        result: dict[str, Any] = self.worker.result("common:execute_resource", {"id": id, "inputs": inputs}, **fields)
        return result


@pytest.fixture(scope="module")
def shared() -> Iterator[Setup]:
    """Start endpoint and worker once."""
    with Endpoint(KEY) as llm:
        options = {
            "model": "openai/local-rules", "api_base": llm.openai_base, "api_key_env": "LOCAL_LLM_KEY",
            "allow_modules": ["team"], "search_path": [str(Path(__file__).parent)],
        }  # fmt: skip
        environment = {"LOCAL_LLM_KEY": KEY, "NO_PROXY": "127.0.0.1"}
        worker = RawWorker("dspy", options, python=framework_python("dspy"), environment=environment)
        try:
            yield Setup(llm, worker)
        finally:
            worker.close()


@pytest.fixture
def dspy(shared: Setup) -> Iterator[Setup]:
    """Give the shared worker, without faults and events that an earlier test left."""
    shared.llm.control(delay_ms=0)
    shared.worker.events.clear()
    yield shared
    shared.llm.control(delay_ms=0)


# ---------------------------------------------------------------- programs


def test_a_program_answers_with_outputs_and_usage(dspy: Setup) -> None:
    """Through chat completions of the local endpoint."""
    found = dspy.run(dspy.program(), {"question": "What is 17 * 23?"})
    assert found["outputs"] == {"answer": "391"}
    usage = found["usage"]
    assert usage["calls"] == 1
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0
    assert list(usage["by_model"]) == ["openai/local-rules"]


def test_answers_do_not_come_from_a_cache(dspy: Setup) -> None:
    """The same question asks again, so that usage is true."""
    id = dspy.program()
    asked = dspy.llm.asked()
    for _ in range(2):
        assert dspy.run(id, {"question": "What is 1 + 1?"})["usage"]["calls"] == 1
    assert dspy.llm.asked() == asked + 2


def test_typed_fields_come_back_with_their_types(dspy: Setup) -> None:
    """Numbers, booleans, choices, lists and objects."""
    signature = {
        "name": "Triage",
        "instructions": "Judge the text.",
        "inputs": [{"name": "text", "description": "what somebody wrote"}, {"name": "limit", "type": "int"}],
        "outputs": [
            {"name": "label", "enum": ["positive", "negative"]},
            {"name": "score", "type": "float"},
            {"name": "words", "type": "list[str]"},
            {"name": "owner", "properties": {"name": {"type": "str"}, "age": {"type": "int"}}},
        ],
    }
    id = dspy.program(signature=signature)
    outputs = dspy.run(id, {"text": "I love my cats", "limit": 5})["outputs"]
    assert outputs["label"] == "positive"
    assert outputs["score"] == 5.0
    assert outputs["words"][:2] == ["I", "love"]
    assert set(outputs["owner"]) == {"name", "age"}
    info = dspy.worker.result("dspy:get_program_info", {"program_id": id})
    assert [field["type"] for field in info["signature"]["outputs"][:3]] == [
        "Literal['positive', 'negative']", "float", "list[str]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "inputs.question: missing"),
        ({"question": "x", "more": 1}, "inputs.more: unknown input"),
    ],
)
def test_wrong_inputs_are_refused_before_a_model_is_asked(dspy: Setup, inputs: dict[str, Any], said: str) -> None:
    """DSPy itself would warn, ask, and bill."""
    asked = dspy.llm.asked()
    reply = dspy.worker.ask("common:execute_resource", {"id": dspy.program(), "inputs": inputs})
    assert (reply["error_info"]["code"], said in reply["error"]) == ("invalid_argument", True)
    assert dspy.llm.asked() == asked


def test_inputs_are_checked_against_their_types(dspy: Setup) -> None:
    """With the place, and without the value."""
    id = dspy.program(signature={"inputs": [{"name": "n", "type": "list[int]"}], "outputs": ["answer"]})
    reply = dspy.worker.ask("common:execute_resource", {"id": id, "inputs": {"n": [1, "secret"]}})
    assert reply["error_info"]["code"] == "invalid_argument"
    assert "inputs.n[1]" in reply["error"]
    assert "secret" not in json.dumps(reply)


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({"signature": ""}, "signature"),
        ({"signature": "no arrow"}, "signature"),
        ({"signature": {"inputs": ["a"]}}, "signature.outputs"),
        ({"signature": {"inputs": [{"name": "a b"}], "outputs": ["c"]}}, "signature.inputs[0].name"),
        ({"signature": {"inputs": [{"name": "a", "type": "strr"}], "outputs": ["c"]}}, "signature.inputs[0].type"),
        ({"module": "nothing"}, "module"),
        ({"module": "react"}, "tools"),
        ({"module": "predict", "tools": [WEATHER]}, "tools"),
        ({"module": "react", "tools": [{"name": "not a name"}]}, "tools[0]"),
        ({"module": "react", "tools": [{**WEATHER, "name": "finish"}]}, "tools"),
        ({"state": {"state": {}}}, "state"),
    ],
)
def test_a_recipe_that_makes_no_program_says_where_it_is_wrong(dspy: Setup, config: dict[str, Any], where: str) -> None:
    """Every one is an invalid argument, and nothing is left behind."""
    held = dspy.worker.result("dspy:list_programs")["total_count"]
    reply = dspy.worker.ask("common:create_resource", {"type": "program", "config": {**QA, **config}})
    assert reply["error_info"]["code"] == "invalid_argument"
    assert reply["error"].startswith(f"{where}: ")
    assert dspy.worker.result("dspy:list_programs")["total_count"] == held


def test_state_survives_the_program_that_had_it(dspy: Setup) -> None:
    """Snapshot of one, restored into another of the same recipe."""
    old = dspy.program(demos=[{"question": "What is it?", "answer": "teal"}])
    state = dspy.worker.result("common:snapshot_resource", {"id": old})["state"]
    dspy.worker.result("common:delete_resource", {"id": old})
    assert dspy.worker.code("dspy:get_program_info", {"program_id": old}) == "resource_not_found"
    args = {"type": "program", "config": QA, "state": json.loads(json.dumps(state))}
    new = dspy.worker.result("common:create_resource", args)["id"]
    assert dspy.run(new, {"question": "What is it?"})["outputs"] == {"answer": "teal"}


def test_a_teams_own_module_runs_and_its_inputs_are_its_own_business(dspy: Setup) -> None:
    """Named in an allowed module; it has no signature and no asynchronous form."""
    config = {"module": "team.code:Twice", "module_args": {"prefix": "What is "}}
    made = dspy.worker.result("common:create_resource", {"type": "program", "config": config})["id"]
    found = dspy.run(made, {"question": "2 + 2"})
    assert (found["outputs"]["answer"], found["usage"]["calls"]) == ("4", 2)
    refused = {"type": "program", "config": {"module": "os:environ"}}
    assert dspy.worker.code("common:create_resource", refused) == "permission_denied"


def test_programs_by_command_live_in_this_worker_and_belong_to_their_session(dspy: Setup) -> None:
    """The namespaced forms of the old commands."""
    ask = dspy.worker
    ask.result("dspy:create_program", {"id": "mine", **QA}, session_id="s1")
    assert ask.code("dspy:create_program", {"id": "mine", **QA}, session_id="s1") == "resource_exists"
    call = {"program_id": "mine", "inputs": {"question": "3 + 4"}}
    assert ask.result("dspy:execute_program", call, session_id="s1")["outputs"] == {"answer": "7"}
    assert ask.code("dspy:execute_program", call, session_id="s2") == "resource_not_found"
    assert "mine" not in [p["id"] for p in ask.result("dspy:list_programs")["programs"]]
    assert ask.code("dspy:delete_program", {"program_id": dspy.program()}) == "not_supported"
    assert ask.result("common:cleanup", {"session_id": "s1"})["programs_removed"] == 1
    assert ask.code("dspy:get_program_info", {"program_id": "mine"}, session_id="s1") == "resource_not_found"


# ---------------------------------------------------------------- agents and tools


def test_an_agent_uses_a_function_that_lives_in_the_client(dspy: Setup) -> None:
    """A call event goes out, its result comes back, and the trace tells the steps."""
    args = {**QA, "module": "react", "tools": [WEATHER], "inputs": {"question": "What is the weather in Paris?"}}
    number = dspy.worker.send("dspy:predict", args, stream=True)
    while (message := dspy.worker.read()).get("event") != "call":
        pass
    assert (message["data"]["tool"], message["data"]["args"]) == ("weather", {"city": "Paris"})
    dspy.worker.send("common:call_result", {"call_id": message["data"]["call_id"], "result": "sunny, 21 degrees"})
    result = dspy.worker.receive(number)["result"]
    assert result["outputs"]["answer"] == "sunny, 21 degrees"
    assert [step["tool_name"] for step in result["trace"]] == ["weather", "finish"]


def test_a_tool_of_the_client_may_return_a_list_of_anything(dspy: Setup) -> None:
    """DSPy fails at members that are no text; the trace has them as they were."""
    args = {**QA, "module": "react", "tools": [WEATHER], "inputs": {"question": "What is the weather in Paris?"}}
    number = dspy.worker.send("dspy:predict", args, stream=True)
    while (message := dspy.worker.read()).get("event") != "call":
        pass
    dspy.worker.send("common:call_result", {"call_id": message["data"]["call_id"], "result": [21, {"sun": True}]})
    reply = dspy.worker.receive(number)
    assert reply["success"], reply
    assert reply["result"]["trace"][0]["observation"] == [21, {"sun": True}]


def test_an_agent_whose_client_has_no_tools_fails_at_once(dspy: Setup) -> None:
    """DSPy would hand the error to the model as an observation, and go on paying."""
    args = {**QA, "module": "react", "tools": [WEATHER], "inputs": {"question": "What is the weather in Paris?"}}
    asked = dspy.llm.asked()
    assert dspy.worker.code("dspy:predict", args) == "unknown_tool"
    assert dspy.llm.asked() == asked + 1


def test_an_agent_uses_python_functions_of_allowed_modules(dspy: Setup) -> None:
    """Arguments are checked and passed with their types."""
    args = {**QA, "module": "react", "tools": ["team.code:double"], "inputs": {"question": "Double the number 21"}}
    found = dspy.worker.result("dspy:predict", args)
    assert found["trace"][0]["observation"] == 42
    assert found["outputs"]["answer"] == "42"


# ---------------------------------------------------------------- streams, cancel, errors


def test_text_outputs_stream_as_they_are_written(dspy: Setup) -> None:
    """Chunks name their field, add up to the output, and come before the reply."""
    id = dspy.program(module="chain_of_thought")
    found = dspy.run(id, {"question": "tell me a story"}, stream=True)
    chunks = [event["data"] for event in dspy.worker.events if event["event"] == "chunk"]
    for field, value in found["outputs"].items():
        assert "".join(chunk["chunk"] for chunk in chunks if chunk["field"] == field) == value
    assert len(chunks) > 5
    assert [event["seq"] for event in dspy.worker.events] == list(range(len(dspy.worker.events)))
    logged = [event["data"]["message"] for event in dspy.worker.events if event["event"] == "log"]
    assert "model openai/local-rules asked, request 1" in logged


@bounded
def test_a_cancelled_program_stops_at_once_and_the_worker_goes_on(dspy: Setup) -> None:
    """While the model is thinking."""
    id = dspy.program()
    dspy.llm.control(delay_ms=10_000)
    asked = dspy.llm.asked()
    number = dspy.worker.send("common:execute_resource", {"id": id, "inputs": {"question": "1 + 1"}}, stream=True)
    eventually(lambda: dspy.llm.asked() > asked)
    with within(1_000):
        dspy.worker.send("common:cancel", {"id": number})
        assert dspy.worker.receive(number)["error_info"]["code"] == "cancelled"
    dspy.llm.control(delay_ms=0)
    assert dspy.run(id, {"question": "1 + 1"})["outputs"] == {"answer": "2"}


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
        ("garbage", "output_not_parsed", True),
    ],
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@bounded
def test_what_a_provider_does_wrong_has_a_code(
    dspy: Setup, failure: str, code: str, retryable: bool, stream: bool
) -> None:
    """Once: the bridge does not retry. The key is in no reply."""
    args = {**QA, "lm": {"model": f"openai/local-fail-{failure}"}, "inputs": {"question": "x"}}
    with within(2_000):
        reply = dspy.worker.ask("dspy:predict", args, stream=stream)
        assert (reply["error_info"]["code"], reply["error_info"]["retryable"]) == (code, retryable)
        assert KEY not in json.dumps(reply)
    if failure == "429":
        assert reply["error_info"]["details"]["retry_after"] == 1.0


def test_a_model_that_does_not_answer_is_a_provider_timeout(dspy: Setup) -> None:
    """After the model's own timeout, in seconds."""
    args = {**QA, "lm": {"model": "openai/local-slow-5000ms", "timeout": 0.2}, "inputs": {"question": "x"}}
    assert dspy.worker.code("dspy:predict", args) == "provider_timeout"


def test_a_program_that_writes_code_names_what_it_lacks(dspy: Setup) -> None:
    """DSPy runs it with Deno, which is not in this environment."""
    args = {**QA, "module": "program_of_thought", "inputs": {"question": "1 + 1"}}
    reply = dspy.worker.ask("dspy:predict", args)
    assert (reply["error_info"]["code"], "dspy[deno]" in reply["error"]) == ("missing_package", True)


# ---------------------------------------------------------------- models


def test_each_session_has_its_own_model(dspy: Setup) -> None:
    """And another session still has the bridge's."""
    ask = dspy.worker
    set_ = ask.result("dspy:configure_lm", {"model": "openai/local-other", "temperature": 0.5}, session_id="s7")
    assert (set_["model"], set_["session"], set_["has_key"]) == ("openai/local-other", "s7", True)
    assert KEY not in json.dumps(set_)
    args = {**QA, "inputs": {"question": "1 + 1"}}
    for session, model in (("s7", "openai/local-other"), ("s8", "openai/local-rules")):
        found = ask.result("dspy:predict", args, session_id=session)
        assert list(found["usage"]["by_model"]) == [model]
    assert ask.result("dspy:usage", {}, session_id="s7")["session"]["calls"] == 1
    ask.result("common:cleanup", {"session_id": "s7"})
    found = ask.result("dspy:predict", args, session_id="s7")
    assert list(found["usage"]["by_model"]) == ["openai/local-rules"]


def test_a_caller_can_not_redirect_the_configured_key(dspy: Setup) -> None:
    """Neither for a session nor in a program's recipe."""
    elsewhere = {"model": "openai/x", "api_base": "http://127.0.0.1:9/v1"}
    assert dspy.worker.code("dspy:configure_lm", elsewhere, session_id="s9") == "permission_denied"
    args = {**QA, "lm": elsewhere, "inputs": {"question": "x"}}
    assert dspy.worker.code("dspy:predict", args) == "permission_denied"


# ---------------------------------------------------------------- learning


def test_an_optimiser_improves_a_program_and_reports_progress(dspy: Setup) -> None:
    """The local endpoint knows no colours; with the examples in its prompt it does."""
    id = dspy.program()
    args = {"program_id": id, "trainset": COLOURS, "valset": COLOURS, "optimizer": "LabeledFewShot"}
    report = dspy.worker.result("dspy:optimize", args, stream=True)
    assert (report["score_before"], report["score_after"], report["demos"]) == (0.0, 100.0, 6)
    progress = [event["data"] for event in dspy.worker.events if event["event"] == "progress"]
    assert (progress[-1]["current"], progress[-1]["total"]) == (6, 6)
    assert dspy.run(id, {"question": "word3 colour"})["outputs"] == {"answer": "red"}


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        ("BootstrapFewShot", {"max_bootstrapped_demos": 2}),
        ("BootstrapFewShotWithRandomSearch", {"num_candidate_programs": 1}),
    ],
)
def test_optimisers_that_run_the_program_count_their_metric_calls(
    dspy: Setup, optimizer: str, settings: dict[str, Any]
) -> None:
    """Given a recipe they need no program in this worker, and the state comes back."""
    sums = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(4)]
    args = {"program": QA, "trainset": sums, "optimizer": optimizer, "settings": settings}
    held = dspy.worker.result("dspy:list_programs")["total_count"]
    report = dspy.worker.result("dspy:optimize", args, stream=True)
    assert report["metric_calls"] >= 2
    assert report["usage"]["calls"] >= report["metric_calls"]
    dspy.program(state=report["state"])
    assert dspy.worker.result("dspy:list_programs")["total_count"] == held + 1


@bounded
def test_a_cancelled_optimiser_leaves_the_program_as_it_was(dspy: Setup) -> None:
    """Stopped between two examples."""
    id = dspy.program()
    before = dspy.worker.result("dspy:save_state", {"program_id": id})
    dspy.llm.control(delay_ms=50)
    args = {"program_id": id, "trainset": COLOURS * 20, "optimizer": "BootstrapFewShot"}
    number = dspy.worker.send("dspy:optimize", args, stream=True)
    while dspy.worker.read()["event"] != "progress":
        pass
    with within(1_500):
        dspy.worker.send("common:cancel", {"id": number})
        assert dspy.worker.receive(number)["error_info"]["code"] == "cancelled"
    assert dspy.worker.result("dspy:save_state", {"program_id": id}) == before


def test_an_optimiser_that_needs_another_package_names_it(dspy: Setup) -> None:
    """With the command that installs it."""
    reply = dspy.worker.ask("dspy:optimize", {"program": QA, "trainset": COLOURS, "optimizer": "MIPROv2"})
    assert (reply["error_info"]["code"], "optuna" in reply["error"]) == ("missing_package", True)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_evaluation_scores_every_example(dspy: Setup, threads: int) -> None:
    """Usage of all threads is counted."""
    devset = [{"question": "What is 2 + 2?", "answer": "4"}, {"question": "What is 2 + 3?", "answer": "6"}]
    found = dspy.worker.result("dspy:evaluate", {"program": QA, "devset": devset, "num_threads": threads})
    assert (found["score"], found["count"], found["usage"]["calls"]) == (50.0, 2, 2)
    assert found["results"][1] == {
        "inputs": {"question": "What is 2 + 3?"}, "outputs": {"answer": "5"}, "score": 0.0,
    }  # fmt: skip


def test_a_teams_own_metric_is_used(dspy: Setup) -> None:
    """Named in an allowed module."""
    devset = [{"question": "What is 5 * 8?", "answer": "49"}]
    args = {"program": QA, "devset": devset, "metric": "team.code:lenient"}
    assert dspy.worker.result("dspy:evaluate", args)["score"] == 100.0
    assert dspy.worker.code("dspy:evaluate", {**args, "metric": "os:remove"}) == "permission_denied"
    assert dspy.worker.code("dspy:evaluate", {**args, "metric": "nothing"}) == "invalid_argument"


def test_an_evaluation_whose_model_fails_says_why(dspy: Setup) -> None:
    """DSPy gives up after ten errors with a text that does not."""
    program = {**QA, "lm": {"model": "openai/local-fail-401"}}
    assert dspy.worker.code("dspy:evaluate", {"program": program, "devset": COLOURS * 3}) == "provider_auth"


@pytest.mark.parametrize(
    "args",
    [
        {"trainset": COLOURS},
        {"trainset": COLOURS, "program": QA, "program_id": "x"},
        {"trainset": [], "program": QA},
        {"trainset": [{"answer": "x"}], "program": QA},
        {"trainset": COLOURS, "program": QA, "settings": {"nonsense": 1}},
        {"trainset": COLOURS, "program": QA, "num_threads": 0},
    ],
)
def test_wrong_arguments_of_an_optimiser_are_refused(dspy: Setup, args: dict[str, Any]) -> None:
    """Before a model is asked."""
    assert dspy.worker.code("dspy:optimize", args) == "invalid_argument"


# ---------------------------------------------------------------- the two protocols on one connection


def test_version_1_and_2_share_a_connection(dspy: Setup) -> None:
    """Their programs are different ones."""
    assert dspy.worker.result("ping")["dspy_available"] is True
    dspy.worker.result("dspy:create_program", {"id": "v2", **QA})
    assert dspy.worker.result("list_programs") == {"programs": [], "total_count": 0}
    assert "error_info" not in dspy.worker.ask("get_program_info", {"program_id": "v2"})

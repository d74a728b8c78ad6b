"""Adapters over a host that writes down what it is asked; and over a real one, with the real framework."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manybridge.adapters import (
    Adapter,
    AdapterPair,
    AsyncDSPyAdapter,
    AsyncGenericAdapter,
    AsyncPythonAdapter,
    DSPyAdapter,
    GenericAdapter,
    PythonAdapter,
    adapter_for,
    adapter_pair,
    make_adapter,
    make_async_adapter,
    register_adapter,
)
from manybridge.adapters.dspy_types import Prediction
from manybridge.adapters.python import RemoteObject, State
from manybridge.adapters.python_async import AsyncRemoteObject, AsyncState

ANSWER = {"outputs": {"answer": "391"}, "usage": {"calls": 1}}
STATE = {"dspy_version": "3.4.1", "module": "predict", "state": {}}
REPLIES: dict[str, Any] = {
    "dspy:predict": ANSWER,
    "dspy:configure_lm": {"status": "configured"},
    "dspy:usage": {"total": {}},
    "dspy:save_state": {"program_id": None, "state": STATE},
    "dspy:evaluate": {"score": 50.0, "count": 2, "results": [], "usage": {}},
    "dspy:optimize": {
        "program_id": None, "optimizer": "LabeledFewShot", "metric_calls": 3, "demos": 2, "usage": {}, "state": STATE,
        "score_before": 0.0, "score_after": 100.0,
    },
}  # fmt: skip


class Host:
    """A blocking host that answers from `REPLIES` and keeps every call."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self._made = 0

    def _note(self, *asked: Any) -> None:
        self.asked.append(asked)

    def call(self, bridge: str, command: str, args: dict[str, Any], **options: Any) -> Any:
        """Answer a command."""
        self._note("call", bridge, command, args, options)
        return REPLIES.get(command, {})

    def stream(self, bridge: str, command: str, args: dict[str, Any], **options: Any) -> Any:
        """Answer with one event."""
        self._note("stream", bridge, command, args, options)
        return iter([SimpleNamespace(event="chunk", seq=0, data={"field": "answer", "chunk": "3"})])

    def create_resource(self, bridge: str, type: str, config: dict[str, Any], **options: Any) -> Any:
        """Make a resource."""
        self._note("create", bridge, type, config, options)
        self._made += 1
        return SimpleNamespace(id=f"{type}-{self._made}")

    def execute_resource(self, bridge: str, id: str, inputs: dict[str, Any], **options: Any) -> Any:
        """Execute one."""
        self._note("execute", bridge, id, inputs, options)
        return ANSWER

    def list_resources(self, bridge: str, type: str, **options: Any) -> Any:
        """List them."""
        self._note("list", bridge, type, options)
        return [SimpleNamespace(id="program-1")]

    def delete_resource(self, bridge: str, id: str, **options: Any) -> Any:
        """Delete one."""
        self._note("delete", bridge, id, options)


class AsyncHost(Host):
    """The same, awaitable."""

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in {"call", "create_resource", "execute_resource", "list_resources", "delete_resource"}:
            return found

        async def awaitable(*args: Any, **options: Any) -> Any:
            return found(*args, **options)

        return awaitable


def test_the_generic_adapter_leaves_out_what_it_knows() -> None:
    """The bridge's name and the namespace; a full command passes as it is."""
    host = Host()
    adapter = GenericAdapter(host, "mine-eu", "mine")
    adapter.call("train", {"epochs": 3}, timeout=5)
    adapter.call("common:ping")
    adapter.create("model", {"layers": 2})
    adapter.execute("model-1", {"x": 1}, session="s")
    assert [resource.id for resource in adapter.list("model")] == ["program-1"]
    adapter.delete("model-1")
    assert host.asked == [
        ("call", "mine-eu", "mine:train", {"epochs": 3}, {"timeout": 5}),
        ("call", "mine-eu", "common:ping", {}, {}),
        ("create", "mine-eu", "model", {"layers": 2}, {}),
        ("execute", "mine-eu", "model-1", {"x": 1}, {"session": "s"}),
        ("list", "mine-eu", "model", {}),
        ("delete", "mine-eu", "model-1", {}),
    ]


def test_an_adapter_is_found_by_its_framework() -> None:
    """Bundled, registered, or generic; all of them are adapters."""
    host = Host()
    assert isinstance(make_adapter(host, "dspy"), DSPyAdapter)
    second = make_adapter(host, "dspy-eu", "dspy")
    assert (type(second), second.bridge, second.framework) == (DSPyAdapter, "dspy-eu", "dspy")
    assert isinstance(make_adapter(host, "python"), PythonAdapter)
    found = make_adapter(host, "mock")
    assert (type(found), found.framework) == (GenericAdapter, "mock")
    assert isinstance(found, Adapter)


async def test_the_async_adapters_are_found_the_same_way() -> None:
    """For `AsyncMLBridge`."""
    host = AsyncHost()
    assert isinstance(make_async_adapter(host, "dspy"), AsyncDSPyAdapter)
    assert isinstance(make_async_adapter(host, "python"), AsyncPythonAdapter)
    generic = make_async_adapter(host, "mock")
    assert isinstance(generic, AsyncGenericAdapter)
    await generic.call("echo", {"text": "1"})
    assert host.asked == [("call", "mock", "mock:echo", {"text": "1"}, {})]


def test_others_bring_their_own_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """By registration, or by an entry point of the group `manybridge.adapters`."""

    class Mine(GenericAdapter):
        """Has a word of its own."""

    class Entry:
        """An installed entry point."""

        def load(self) -> Any:
            """Return what it names."""
            return (Mine, AsyncGenericAdapter)

    monkeypatch.setattr("manybridge.adapters.registry._registered", {})
    register_adapter("one", AdapterPair(Mine, AsyncGenericAdapter))
    assert isinstance(make_adapter(Host(), "one"), Mine)
    monkeypatch.setattr(
        "manybridge.adapters.registry.entry_points",
        lambda group, name: [Entry()] if (group, name) == ("manybridge.adapters", "two") else [],
    )
    assert adapter_pair("two").blocking is Mine
    assert isinstance(make_adapter(Host(), "three"), GenericAdapter)


def test_a_program_from_recipe_to_deletion(tmp_path: Path) -> None:
    """Each method is one call, or the few that it says."""
    host = Host()
    dspy = DSPyAdapter(host)
    program = dspy.create_program("question -> answer", module="chain_of_thought", session="s", lm={"temperature": 0.1})
    recipe = {"signature": "question -> answer", "module": "chain_of_thought", "lm": {"temperature": 0.1}}
    assert host.asked.pop() == ("create", "dspy", "program", recipe, {"session": "s"})

    answer = program.predict(question="What is 17 * 23?", timeout=3)
    assert (answer.answer, answer.usage) == ("391", {"calls": 1})
    inputs = {"question": "What is 17 * 23?"}
    assert host.asked.pop() == ("execute", "dspy", "program-1", inputs, {"session": "s", "timeout": 3})

    assert [event.data["chunk"] for event in program.stream(question="x")] == ["3"]
    streamed = {"id": "program-1", "inputs": {"question": "x"}}
    assert host.asked.pop() == ("stream", "dspy", "common:execute_resource", streamed, {"session": "s"})

    report = program.optimize([{"question": "a", "answer": "b"}], "LabeledFewShot")
    assert (report.score_after, program.id, program.config["state"]) == (100.0, "program-2", STATE)
    assert [asked[0] for asked in host.asked] == ["call", "create", "delete"]
    assert host.asked[0][3]["program"] == recipe
    assert host.asked[2][2] == "program-1"

    assert program.evaluate([]).score == 50.0
    program.save(tmp_path / "program.json")
    again = dspy.load_program(tmp_path / "program.json")
    assert again.config == program.config
    again.delete()
    assert host.asked[-1] == ("delete", "dspy", "program-3", {})


async def test_a_program_from_recipe_to_deletion_without_blocking(tmp_path: Path) -> None:
    """The async handle asks the same things."""
    host = AsyncHost()
    dspy = AsyncDSPyAdapter(host)
    program = await dspy.create_program("question -> answer")
    assert (await program.predict(question="x")).answer == "391"
    await program.optimize([{"question": "a", "answer": "b"}])
    assert (program.id, (await program.evaluate([])).count) == ("program-2", 2)
    await program.save(tmp_path / "program.json")
    again = await dspy.load_program(tmp_path / "program.json")
    assert again.config == program.config
    await again.delete()
    assert [asked[0] for asked in host.asked] == [
        "create", "execute", "call", "create", "delete", "call", "call", "create", "delete",
    ]  # fmt: skip


def test_a_host_gets_the_adapter_of_its_kind() -> None:
    """`get_adapter` of both hosts asks for it the same way."""
    make = adapter_for("dspy")
    assert isinstance(make(Host(), "dspy"), DSPyAdapter)
    assert isinstance(make(AsyncHost(), "dspy"), AsyncDSPyAdapter)


@pytest.mark.parametrize("framework", ["dspy", "langchain", "transformers", "python", "anything"])
async def test_an_async_adapter_may_be_awaited(framework: str) -> None:
    """As everything else that `AsyncMLBridge` returns; it is the adapter itself."""
    adapter = adapter_for(framework)(AsyncHost(), framework)
    assert await adapter is adapter


def test_a_programs_calls_share_its_session_and_nothing_else() -> None:
    """Least of all an idempotency key: the first answer would come back for ever."""
    host = Host()
    program = DSPyAdapter(host).create_program("q -> a", session="s", timeout=1, idempotency_key="k")
    program.predict(q="x")
    assert [asked[-1] for asked in host.asked] == [
        {"session": "s", "timeout": 1, "idempotency_key": "k"}, {"session": "s"},
    ]  # fmt: skip


def test_settings_of_a_call_do_not_travel_as_arguments() -> None:
    """`timeout`, `session` and `idempotency_key` are about the call."""
    host = Host()
    dspy = DSPyAdapter(host, "dspy-eu")
    dspy.configure_lm("openai/x", temperature=0.2, session="s", timeout=1)
    dspy.predict("q -> a", {"q": "x"}, module="predict", idempotency_key="k")
    assert host.asked == [
        ("call", "dspy-eu", "dspy:configure_lm", {"model": "openai/x", "temperature": 0.2},
         {"session": "s", "timeout": 1}),
        ("call", "dspy-eu", "dspy:predict", {"signature": "q -> a", "inputs": {"q": "x"}, "module": "predict"},
         {"idempotency_key": "k"}),
    ]  # fmt: skip


def test_a_file_that_is_no_saved_program_is_refused(tmp_path: Path) -> None:
    """By its format, which it names."""
    (tmp_path / "other.json").write_text('{"format": "x"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"manybridge\.dspy\.program/1"):
        DSPyAdapter(Host()).load_program(tmp_path / "other.json")


def test_an_output_that_is_not_there_names_those_that_are() -> None:
    """As an attribute."""
    with pytest.raises(AttributeError, match="outputs: answer"):
        _ = Prediction.read(ANSWER).anser


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [
        (GenericAdapter, AsyncGenericAdapter),
        (DSPyAdapter, AsyncDSPyAdapter),
        (PythonAdapter, AsyncPythonAdapter),
        (RemoteObject, AsyncRemoteObject),
        (State, AsyncState),
    ],
)
def test_the_two_kinds_of_adapter_have_the_same_methods(blocking: type, asynchronous: type) -> None:
    """With the same parameters; so knowing one is knowing both."""

    def methods(kind: type) -> dict[str, list[str]]:
        found = inspect.getmembers(kind, inspect.isfunction)
        return {name: list(inspect.signature(method).parameters) for name, method in found if name[0] != "_"}

    assert methods(blocking) == methods(asynchronous)

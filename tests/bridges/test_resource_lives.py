"""Every resource type of `mock` and `python` is made, executed, streamed, listed and deleted: Python, wire, CLI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from manybridge import MLBridge
from manybridge.errors import ManybridgeError
from tests.bridges.raw_worker import RawWorker, raw_worker
from tests.cli.support import CommandLine


class Life(NamedTuple):
    """One resource type, and what its execution gives."""

    bridge: str
    type: str
    config: dict[str, Any]
    inputs: dict[str, Any]
    result: Any
    survives: bool = True
    """Whether another worker can have it."""


LIVES = [
    Life("mock", "echo", {"a": 1}, {"b": 2}, {"config": {"a": 1}, "inputs": {"b": 2}}),
    Life("mock", "counter", {"start": 4}, {"add": 2}, {"value": 6}),
    Life("mock", "pinned", {"value": [1]}, {}, {"value": [1]}, survives=False),
    Life("mock", "faulty", {"fails_in": "close"}, {}, {"ok": True}),
    Life("python", "object", {"target": "random:Random", "args": [1]}, {"method": "randint", "args": [7, 7]}, 7),
    Life("python", "state", {"initial": {"n": 1}}, {"op": "increment", "path": "n"}, {"value": 2, "version": 1}),
]
every_type = pytest.mark.parametrize("life", LIVES, ids=lambda life: f"{life.bridge}-{life.type}")


def test_no_type_is_missing_here() -> None:
    """One that is added needs a life."""
    with MLBridge.from_config({"bridges": {"mock": {}, "python": {}}}) as ml:
        declared = {(name, kind) for name in ("mock", "python") for kind in ml.capabilities(name)["resources"]}
    assert declared == {(life.bridge, life.type) for life in LIVES}


def is_as_said(found: Any, life: Life) -> bool:
    """Whether a result has what the life says; mock's types tell their process too."""
    return life.result.items() <= found.items() if isinstance(life.result, dict) else bool(found == life.result)


@pytest.fixture(scope="module")
def ml() -> Iterator[MLBridge]:
    """A host with both."""
    with MLBridge.from_config({"bridges": {"mock": {}, "python": {}}}) as host:
        for name in ("mock", "python"):
            host.wait_ready(name, timeout=10)
        yield host


@every_type
def test_from_python(ml: MLBridge, life: Life) -> None:
    """Through `MLBridge`."""
    made = ml.create_resource(life.bridge, life.type, life.config)
    assert is_as_said(ml.execute_resource(life.bridge, made.id, life.inputs), life)
    again = ml.create_resource(life.bridge, life.type, life.config)
    stream = ml.stream(life.bridge, "common:execute_resource", {"id": again.id, "inputs": life.inputs})
    assert [event for event in stream if event.event == "chunk"] == []
    assert is_as_said(stream.result, life)
    listed = [each.id for each in ml.list_resources(life.bridge, life.type)]
    assert listed[-2:] == [made.id, again.id]
    for each in (made, again):
        assert ml.delete_resource(life.bridge, each.id)["deleted"] is True
    with pytest.raises(ManybridgeError) as caught:
        ml.execute_resource(life.bridge, made.id, life.inputs)
    assert caught.value.code == "resource_not_found"


@pytest.fixture(scope="module")
def workers() -> Iterator[dict[str, RawWorker]]:
    """A bare worker of each."""
    with raw_worker("mock") as mock, raw_worker("python") as python:
        yield {"mock": mock, "python": python}


@every_type
def test_over_the_wire(workers: dict[str, RawWorker], life: Life) -> None:
    """Frame by frame."""
    worker = workers[life.bridge]
    made = worker.result("common:create_resource", {"type": life.type, "config": life.config})["id"]
    found = worker.result("common:execute_resource", {"id": made, "inputs": life.inputs}, stream=True)
    assert is_as_said(found, life)
    listed = worker.result("common:list_resources", {"type": life.type})
    assert [each["id"] for each in listed["resources"]] == [made]
    if life.type != "faulty":  # it fails in its close, which is what it is for
        assert worker.result("common:delete_resource", {"id": made}) == {"id": made, "deleted": True}
        assert worker.code("common:get_resource", {"id": made}) == "resource_not_found"


@every_type
def test_on_the_command_line(manybridge: CommandLine, tmp_path: Path, life: Life) -> None:
    """Each step a command of its own: the store keeps what the next one needs."""
    (tmp_path / "manybridge.toml").write_text('[bridges.mock]\n[bridges.python]\n[store]\nurl = "sqlite:///kept.db"\n')
    config, inputs = json.dumps(life.config), json.dumps(life.inputs)
    made = manybridge("resources", "create", life.bridge, life.type, "--args", config, "--json").json["id"]
    streamed = manybridge("resources", "execute", life.bridge, made, "--args", inputs, "--stream", "--json")
    if life.survives:
        assert is_as_said(json.loads(streamed.out.splitlines()[-1])["result"], life)
    else:
        assert streamed.error["code"] == "resource_lost"
    listed = manybridge("resources", "list", life.bridge, life.type, "--json").json
    assert [each["id"] for each in listed] == [made]
    assert manybridge("resources", "delete", life.bridge, made, "--json").json == {"id": made, "deleted": True}
    assert manybridge("resources", "list", life.bridge, "--json").json == []
    assert manybridge("resources", "get", life.bridge, made).code == 4


@every_type
def test_in_one_command(manybridge: CommandLine, life: Life) -> None:
    """Without a configuration file nothing is kept, and one command does it all."""
    config, inputs = json.dumps(life.config), json.dumps(life.inputs)
    ended = manybridge("resources", "create", life.bridge, life.type, "--args", config, "--execute", inputs, "--json")
    assert is_as_said(ended.json["results"][0], life)
    assert manybridge("resources", "list", life.bridge, "--json").json == []


def test_chunks_of_an_execution_are_printed_as_they_come(manybridge: CommandLine, tmp_path: Path) -> None:
    """As text, and with --json one line for each event."""
    (tmp_path / "talker.py").write_text(TALKER)
    create = ("resources", "create", "talker.py", "talk", "--execute", '{"words": ["a", "b"]}', "--stream")
    shown = manybridge(*create)
    assert shown.out.startswith("ab\n")
    assert "1/2 talking" in shown.err or "2/2 talking" in shown.err
    events = [json.loads(line) for line in manybridge(*create, "--json").out.splitlines()]
    assert [each["data"] for each in events if each.get("event") == "chunk"] == ["a", "b"]
    assert events[-1]["result"]["results"] == [{"count": 2}]


TALKER = """
from manybridge.bridge import Bridge, Context, resource


class TalkerBridge(Bridge):
    name = "talker"

    @resource("talk")
    class Talk:
        def create(self) -> None: ...

        def execute(self, words: list[str], *, ctx: Context) -> dict:
            for number, word in enumerate(words, 1):
                ctx.emit(word)
                ctx.progress(number, len(words), "talking")
            return {"count": len(words)}
"""

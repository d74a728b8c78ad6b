"""Every resource type of every bundled bridge is made, executed, streamed, listed, deleted: Python, wire, CLI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.bridge.loading import BUNDLED
from manybridge.cli.toml_writer import write_toml
from manybridge.errors import ManybridgeError
from tests.bridges.lives import LIVES, PATIENCE, QUICK, Home, Life, home_of
from tests.bridges.raw_worker import RawWorker
from tests.cli.support import CommandLine


def marks_of(bridge: str) -> list[pytest.MarkDecorator]:
    """A framework's environment is needed, and time to import it, unless there is no framework."""
    return [] if bridge in QUICK else [pytest.mark.framework, pytest.mark.timeout(180)]


every_bridge = pytest.mark.parametrize(
    "home", [pytest.param(name, marks=marks_of(name)) for name in BUNDLED], indirect=True
)
every_type = pytest.mark.parametrize(
    ("home", "life"),
    [pytest.param(life.bridge, life, marks=marks_of(life.bridge), id=f"{life.bridge}-{life.type}") for life in LIVES],
    indirect=["home"],
    scope="module",  # of a home that all of its tests share; without the word pytest makes one for each
)
quick_types = pytest.mark.parametrize(
    "life", [pytest.param(life, id=f"{life.bridge}-{life.type}") for life in LIVES if life.bridge in QUICK]
)


@pytest.fixture(scope="module")
def home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A bridge with what it needs, for all of its types."""
    with home_of(request.param, tmp_path_factory.mktemp(request.param)) as made:
        yield made


@pytest.fixture(scope="module")
def ml(home: Home) -> Iterator[MLBridge]:
    """A host that is ready."""
    with MLBridge.from_config(home.config()) as host:
        host.call(home.name, "common:warm_up", timeout=PATIENCE)
        yield host


@pytest.fixture(scope="module")
def worker(home: Home) -> Iterator[RawWorker]:
    """A worker without a host."""
    with home.worker() as made:
        yield made


@every_bridge
def test_no_type_is_missing_here(ml: MLBridge, home: Home) -> None:
    """One that is added needs a life."""
    declared = set(ml.capabilities(home.name)["resources"])
    assert declared == {life.type for life in LIVES if life.bridge == home.name}


@every_type
def test_from_python(ml: MLBridge, life: Life) -> None:
    """Through `MLBridge`."""
    made = ml.create_resource(life.bridge, life.type, life.config)
    assert life.is_right(ml.execute_resource(life.bridge, made.id, life.inputs))
    again = ml.create_resource(life.bridge, life.type, life.config)
    stream = ml.stream(life.bridge, "common:execute_resource", {"id": again.id, "inputs": life.inputs})
    chunks = [event.data for event in stream if event.event == "chunk"]
    assert life.is_right(stream.result)
    assert life.streams(chunks, stream.result), chunks
    listed = [each.id for each in ml.list_resources(life.bridge, life.type)]
    assert listed[-2:] == [made.id, again.id]
    for each in (made, again):
        assert ml.delete_resource(life.bridge, each.id)["deleted"] is True
    with pytest.raises(ManybridgeError) as caught:
        ml.execute_resource(life.bridge, made.id, life.inputs)
    assert caught.value.code == "resource_not_found"


@every_type
def test_over_the_wire(worker: RawWorker, life: Life) -> None:
    """Frame by frame."""
    made = worker.result("common:create_resource", {"type": life.type, "config": life.config})["id"]
    worker.events.clear()
    sent = worker.send("common:execute_resource", {"id": made, "inputs": life.inputs}, stream=True)
    reply = worker.receive(sent, PATIENCE)
    assert life.is_right(reply.get("result")), reply
    chunks = [event["data"] for event in worker.events if event["event"] == "chunk"]
    assert life.streams(chunks, reply["result"]), chunks
    listed = worker.result("common:list_resources", {"type": life.type})
    assert [each["id"] for each in listed["resources"]] == [made]
    if life.type != "faulty":  # it fails in its close, which is what it is for
        assert worker.result("common:delete_resource", {"id": made}) == {"id": made, "deleted": True}
        assert worker.code("common:get_resource", {"id": made}) == "resource_not_found"


def events_of(lines: str) -> tuple[list[Any], Any]:
    """The chunks and the result that the command line printed, one JSON object for each."""
    *events, last = (json.loads(line) for line in lines.splitlines())
    return [event["data"] for event in events if event["event"] == "chunk"], last["result"]


@every_type
def test_on_the_command_line(manybridge: CommandLine, tmp_path: Path, home: Home, life: Life) -> None:
    """Made, executed and streamed by one command; listed and deleted by others, each a host of its own."""
    config = {**home.config(eager=False), "store": {"url": "sqlite:///kept.db"}}
    (tmp_path / "manybridge.toml").write_text(write_toml(config))
    given = ("--args", json.dumps(life.config), "--execute", json.dumps(life.inputs))
    ended = manybridge("resources", "create", life.bridge, life.type, *given, "--stream", "--json")
    assert ended.code == 0, ended.err
    chunks, result = events_of(ended.out)
    assert life.is_right(result["results"][0])
    assert life.streams(chunks, result["results"][0]), chunks
    made = result["resource"]["id"]
    listed = manybridge("resources", "list", life.bridge, life.type, "--json").json
    assert [each["id"] for each in listed] == [made]
    assert manybridge("resources", "delete", life.bridge, made, "--json").json == {"id": made, "deleted": True}
    assert manybridge("resources", "list", life.bridge, "--json").json == []
    assert manybridge("resources", "get", life.bridge, made).code == 4


@quick_types
def test_each_step_a_command(manybridge: CommandLine, tmp_path: Path, life: Life) -> None:
    """The store keeps what the next one needs."""
    (tmp_path / "manybridge.toml").write_text('[bridges.mock]\n[bridges.python]\n[store]\nurl = "sqlite:///kept.db"\n')
    config, inputs = json.dumps(life.config), json.dumps(life.inputs)
    made = manybridge("resources", "create", life.bridge, life.type, "--args", config, "--json").json["id"]
    streamed = manybridge("resources", "execute", life.bridge, made, "--args", inputs, "--stream", "--json")
    if life.survives:
        assert life.is_right(events_of(streamed.out)[1])
    else:
        assert streamed.error["code"] == "resource_lost"


@quick_types
def test_in_one_command(manybridge: CommandLine, life: Life) -> None:
    """Without a configuration file nothing is kept, and one command does it all."""
    config, inputs = json.dumps(life.config), json.dumps(life.inputs)
    ended = manybridge("resources", "create", life.bridge, life.type, "--args", config, "--execute", inputs, "--json")
    assert life.is_right(ended.json["results"][0])
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

"""Commands of a bridge that change a resource: made where it is, and what they changed is kept."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import ManybridgeError
from manybridge.host.sync import MLBridge
from tests.support import MS, eventually

BRIDGE = """
import os

from manybridge.bridge import Bridge, command, resource


class Shelf(Bridge):
    name = "shelf"

    def setup(self, options):
        self.boxes = {}

    @command
    def pid(self) -> int:
        return os.getpid()

    @command(changes="box")
    def paint(self, colour: str, box: str | None = None, fail: bool = False) -> dict:
        if box is not None and box not in self.boxes:
            from manybridge.bridge import BridgeError
            raise BridgeError("resource_not_found", f"no box {box} here")
        if box is not None:
            self.boxes[box].colour = colour
        if fail:
            raise ValueError("the paint has run out")
        return {"pid": os.getpid()}

    @resource("box", policy="restore")
    class Box:
        def create(self):
            self.colour = "grey"
            self.bridge.boxes[self.id] = self

        def execute(self) -> dict:
            return {"colour": self.colour, "pid": os.getpid()}

        def snapshot(self):
            return self.colour

        def restore(self, state):
            self.colour = state
            self.bridge.boxes[self.id] = self

        def close(self):
            self.bridge.boxes.pop(self.id, None)
"""

HostStarter = Callable[..., MLBridge]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[HostStarter]:
    """Return a function that starts a host on one store and closes it with the test."""
    (tmp_path / "shelf.py").write_text(BRIDGE)
    with ExitStack() as stack:

        def starter(**config: Any) -> MLBridge:
            values = {"python_script": str(tmp_path / "shelf.py"), "cancel_grace": 0.2, "term_grace": 0.2, **config}
            store = {"url": f"sqlite:///{tmp_path}/store.db"}
            return stack.enter_context(MLBridge({"default": "shelf", "bridges": {"shelf": values}, "store": store}))

        yield starter


def kill_workers(ml: MLBridge) -> None:
    """Kill every worker, and wait until the host knows."""
    doomed = list(ml._bridge.pool("shelf").ready)
    for worker in doomed:
        worker.process.signal_group(signal.SIGKILL)
    eventually(lambda: not set(doomed) & set(ml._bridge.pool("shelf").workers))


@pytest.mark.parametrize("way", ["paint", "shelf:paint", "stream", "job", "session"])
def test_what_a_command_changed_survives_its_worker(way: str, start: HostStarter) -> None:
    """Whichever way it is called: its caller was told that it is done."""
    ml = start(pool_size=1)
    box = ml.create_resource("shelf", "box")
    args = {"box": box.id, "colour": "red"}
    if way == "stream":
        list(ml.stream("shelf", "paint", args))
    elif way == "job":
        ml.submit("shelf", "paint", args).result(5_000 * MS)
    elif way == "session":
        ml.call("shelf", "paint", args, session="s")
    else:
        ml.call("shelf", way, args)
    kill_workers(ml)

    assert ml.execute_resource("shelf", box.id)["colour"] == "red"
    assert ml.get_resource("shelf", box.id).executions == 1


def test_it_goes_to_the_worker_that_has_the_resource(start: HostStarter) -> None:
    """Also where another one is less busy."""
    ml = start(pool_size=2)
    ml.wait_ready("shelf", 10)
    box = ml.create_resource("shelf", "box")
    home = ml.execute_resource("shelf", box.id)["pid"]

    assert {ml.call("shelf", "paint", {"box": box.id, "colour": "red"})["pid"] for _ in range(6)} == {home}


@pytest.mark.parametrize("command", ["paint", "shelf:paint"])
def test_the_first_call_of_a_new_host_finds_what_another_has_left(command: str, start: HostStarter) -> None:
    """Made before any worker could say that it is no plain command; the resource is in the store alone."""
    with start() as before:
        box = before.create_resource("shelf", "box")
    ml = start(eager=False)
    ml.call("shelf", command, {"box": box.id, "colour": "red"})
    kill_workers(ml)

    assert ml.execute_resource("shelf", box.id)["colour"] == "red"


def test_one_that_fails_leaves_what_it_changed_before(start: HostStarter) -> None:
    """As an execution does: the living object and its kept state are the same."""
    ml = start(pool_size=1)
    box = ml.create_resource("shelf", "box")
    with pytest.raises(ManybridgeError, match="paint has run out"):
        ml.call("shelf", "paint", {"box": box.id, "colour": "red", "fail": True})
    there = ml.execute_resource("shelf", box.id)["colour"]
    kill_workers(ml)

    assert ml.execute_resource("shelf", box.id)["colour"] == there == "red"


def test_without_a_resource_it_is_a_plain_command(start: HostStarter) -> None:
    """And an id that is nobody's is for the worker to refuse."""
    ml = start()
    assert "pid" in ml.call("shelf", "paint", {"colour": "red"})
    for _ in range(2):
        with pytest.raises(ManybridgeError) as caught:
            ml.call("shelf", "paint", {"box": "nobody's", "colour": "red"})
        assert (caught.value.code, caught.value.message) == ("resource_not_found", "no box nobody's here")

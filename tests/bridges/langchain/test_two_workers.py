"""Two workers of one pool on one SQLite file: a turn that comes too late says so, and destroys nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.bridges.langchain.stage import QUESTION, WEATHER, Stage, stage

pytestmark = pytest.mark.framework

MEMORY = {"kind": "sqlite", "name": "shared"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Stage]]:
    """Start two workers with one memory folder."""
    folder = tmp_path_factory.mktemp("langchain")
    with stage(folder) as one, stage(folder) as two:
        yield one, two


class HeldTurn:
    """A turn of an agent that waits for its tool, so that anything may happen before it goes on."""

    def __init__(self, lc: Stage, thread: str) -> None:
        self.lc = lc
        agent = lc.make("agent", tools=[{**WEATHER, "errors": "caller"}], memory=MEMORY)
        args = {"id": agent, "inputs": {"messages": QUESTION, "thread_id": thread}}
        self.number = lc.worker.send("common:execute_resource", args, stream=True)
        while (message := lc.worker.read()).get("event") != "call":
            pass
        self.call_id = message["data"]["call_id"]

    def ends(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Answer the tool, and return the turn's reply."""
        self.lc.worker.send("common:call_result", {"call_id": self.call_id, **answer})
        return self.lc.worker.receive(self.number)

    def cancelled(self) -> dict[str, Any]:
        """Cancel the turn, and return its reply."""
        self.lc.worker.send("common:cancel", {"id": self.number})
        return self.lc.worker.receive(self.number)


def told(lc: Stage, thread: str) -> list[str]:
    """What a thread says."""
    keeper = lc.make("memory", **MEMORY)
    return [message["content"] for message in lc.run(keeper, action="history", thread_id=thread)["messages"]]


def another_turn(lc: Stage, thread: str) -> None:
    """A whole turn of another agent."""
    lc.run(lc.make("agent", memory=MEMORY), messages="1 + 1", thread_id=thread)


GOOD = {"result": "sunny in Paris"}
BAD = {"error": {"code": "handler_error", "message": "it broke", "type": "Broken"}}


@pytest.mark.parametrize("begun", [False, True], ids=["new", "begun"])
def test_the_turn_that_lost_is_told_conflict(pair: tuple[Stage, Stage], begun: bool) -> None:
    """What the other worker kept meanwhile is all there, and nothing of the loser's; asked again, it knows of it."""
    one, two = pair
    thread = f"late-{begun}"
    before = []
    if begun:
        another_turn(one, thread)
        before = ["1 + 1", "2"]
    held = HeldTurn(one, thread)
    another_turn(two, thread)
    info = held.ends(GOOD)["error_info"]
    assert (info["code"], info["retryable"]) == ("conflict", True)
    assert told(one, thread) == told(two, thread) == [*before, "1 + 1", "2"]
    assert HeldTurn(one, thread).ends(GOOD)["success"]
    assert told(two, thread) == [*before, "1 + 1", "2", QUESTION, "", "sunny in Paris", "sunny in Paris"]


@pytest.mark.parametrize("how", ["fails", "is cancelled"])
def test_a_turn_that_fails_takes_nothing_of_the_others_back(pair: tuple[Stage, Stage], how: str) -> None:
    """Though the thread was empty when it began."""
    one, two = pair
    held = HeldTurn(one, how)
    another_turn(two, how)
    reply = held.ends(BAD) if how == "fails" else held.cancelled()
    assert reply["error_info"]["code"] == ("handler_error" if how == "fails" else "cancelled")
    assert told(one, how) == told(two, how) == ["1 + 1", "2"]


def test_a_thread_that_was_deleted_is_not_brought_back(pair: tuple[Stage, Stage]) -> None:
    """By a turn that had begun before."""
    one, two = pair
    another_turn(one, "gone")
    held = HeldTurn(one, "gone")
    assert two.run(two.make("memory", **MEMORY), action="delete", thread_id="gone")["deleted"]
    assert held.ends(GOOD)["error_info"]["code"] == "conflict"
    assert told(two, "gone") == []


def test_a_worker_that_is_killed_leaves_the_thread_as_it_was(
    pair: tuple[Stage, Stage], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """In the middle of a turn: nothing is written before its end."""
    folder = tmp_path_factory.mktemp("killed")
    with stage(folder) as doomed:
        another_turn(doomed, "t")
        HeldTurn(doomed, "t")
        doomed.worker.process.kill()
    with stage(folder) as next_:
        assert told(next_, "t") == ["1 + 1", "2"]


def test_of_many_changes_at_the_same_moment_each_is_kept_or_told(pair: tuple[Stage, Stage]) -> None:
    """Both workers write to one thread as fast as they can; what was answered is there once and in order."""
    sent: list[dict[int, str]] = [{}, {}]
    keepers = [lc.make("memory", **MEMORY) for lc in pair]
    for number in range(20):
        for which, lc in enumerate(pair):
            args = {"action": "append", "thread_id": "busy", "messages": f"{which}-{number}", "limit": 1}
            id = lc.worker.send("common:execute_resource", {"id": keepers[which], "inputs": args})
            sent[which][id] = f"{which}-{number}"
    kept: list[str] = []
    for which, lc in enumerate(pair):
        for _ in range(20):
            reply = lc.worker.read()
            if reply["success"]:
                kept.append(sent[which][reply["id"]])
            else:
                assert reply["error_info"]["code"] == "conflict"
    found = told(pair[0], "busy")
    assert len(found) >= 20  # of each two that meet, one is kept
    assert sorted(found) == sorted(kept)


def test_turns_of_one_worker_wait_for_each_other(pair: tuple[Stage, Stage]) -> None:
    """Of whichever agents, so that none of them is lost."""
    one, _ = pair
    held = HeldTurn(one, "queue")
    args = {"id": one.make("agent", memory=MEMORY), "inputs": {"messages": "2 + 2", "thread_id": "queue"}}
    waiting = one.worker.send("common:execute_resource", args)
    assert held.ends(GOOD)["success"]
    assert one.worker.receive(waiting)["result"]["output"] == "4"
    assert told(one, "queue")[-2:] == ["2 + 2", "4"]

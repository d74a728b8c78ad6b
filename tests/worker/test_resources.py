"""Resources of one worker: made, used, restored, owned, closed; and batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.worker.raw import RawWorker, bridge, error_of


@pytest.fixture
def worker() -> Iterator[RawWorker]:
    """A worker that keeps resources."""
    with RawWorker(bridge("keeper"), "--name", "kept") as running:
        yield running


@pytest.fixture(scope="module")
def steady() -> Iterator[RawWorker]:
    """One worker for all that is refused."""
    with RawWorker(bridge("keeper")) as running:
        yield running


def create(worker: RawWorker, kind: str, config: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """Make a resource and return its description."""
    fields = {name: more.pop(name) for name in ("session_id",) if name in more}
    made: dict[str, Any] = worker.result(
        "common:create_resource", {"type": kind, "config": config or {}, **more}, **fields
    )
    return made


def test_a_resource_is_made_used_described_and_deleted(worker: RawWorker) -> None:
    """Its whole life, in version 2."""
    made = create(worker, "echo", {"size": 2})
    assert made["id"].startswith("echo-")
    assert (made["type"], made["bridge"], made["session"], made["executions"]) == ("echo", "kept", None, 0)
    number = worker.send("common:execute_resource", {"id": made["id"], "inputs": {"text": "ab"}}, stream=True)
    assert worker.receive(number)["result"] == {"text": "abab"}
    assert [event["data"] for event in worker.events] == ["ab"]
    described = worker.result("common:get_resource", {"id": made["id"]})
    assert described["executions"] == 1
    assert described["last_executed"] >= described["created_at"] == made["created_at"]
    assert worker.result("common:list_resources") == {"resources": [described], "total_count": 1}
    assert worker.result("common:list_resources", {"type": "pin"})["total_count"] == 0
    assert worker.result("common:delete_resource", {"id": made["id"]}) == {"id": made["id"], "deleted": True}
    assert worker.result("k:log")["closed"] == [made["id"]]
    for command in ("get", "execute", "delete", "snapshot"):
        info = worker.error(f"common:{command}_resource", {"id": made["id"]})
        assert (info["code"], info["details"]) == ("resource_not_found", {"id": made["id"]})
    assert worker.result("common:get_stats")["resources"] == 0


def test_the_caller_may_choose_the_id_but_not_twice(worker: RawWorker) -> None:
    """The host gives a resource the same id in every worker."""
    assert create(worker, "echo", id="mine")["id"] == "mine"
    info = worker.error("common:create_resource", {"type": "pin", "config": {}, "id": "mine"})
    assert info["code"] == "resource_exists"
    assert worker.result("common:get_resource", {"id": "mine"})["type"] == "echo"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({}, "invalid_argument"),
        ({"type": 5}, "invalid_argument"),
        ({"type": "nothing"}, "unknown_resource_type"),
        ({"type": "echo", "config": []}, "invalid_argument"),
        ({"type": "echo", "config": {"wrong": 1}}, "invalid_argument"),
        ({"type": "echo", "config": {"size": "1"}}, "invalid_argument"),
        ({"type": "echo", "config": {"size": -1}}, "invalid_argument"),
        ({"type": "echo", "id": ""}, "invalid_argument"),
        ({"type": "echo", "id": 5}, "invalid_argument"),
        ({"type": "echo", "state": {}}, "not_supported"),
    ],
)
def test_what_can_not_be_made_leaves_nothing_behind(steady: RawWorker, args: dict[str, Any], code: str) -> None:
    """The error says what was wrong."""
    assert steady.error("common:create_resource", args)["code"] == code
    assert steady.result("common:list_resources")["total_count"] == 0


def test_state_moves_from_one_worker_to_another(worker: RawWorker) -> None:
    """A snapshot of the one is what the other is made of."""
    made = create(worker, "counter", {"start": 5})
    for _ in range(3):
        worker.result("common:execute_resource", {"id": made["id"]})
    state = worker.result("common:snapshot_resource", {"id": made["id"]})["state"]
    with RawWorker(bridge("keeper")) as other:
        again = create(other, "counter", {"start": 5}, id=made["id"], state=state)
        assert other.result("common:execute_resource", {"id": again["id"]}) == {"count": 9}


def test_a_state_that_can_not_be_restored_makes_nothing(worker: RawWorker) -> None:
    """The id is still free."""
    info = worker.error("common:create_resource", {"type": "counter", "id": "c", "state": {"other": 1}})
    assert (info["code"], info["type"], info["message"]) == ("handler_error", "KeyError", "KeyError: 'count'")
    assert worker.result("common:list_resources")["total_count"] == 0
    assert create(worker, "counter", id="c", state={"count": 3})["id"] == "c"


@pytest.mark.parametrize("kind", ["echo", "pin"])
def test_only_types_with_state_have_a_snapshot(worker: RawWorker, kind: str) -> None:
    """The policy says which those are."""
    made = create(worker, kind)
    assert worker.error("common:snapshot_resource", {"id": made["id"]})["code"] == "not_supported"
    resources = worker.result("common:capabilities")["resources"]
    assert {name: facts["policy"] for name, facts in resources.items()} == {
        "echo": "recreate",
        "counter": "restore",
        "pin": "pinned",
        "slow": "recreate",
    }


def test_a_resource_of_a_session_is_not_there_for_others(worker: RawWorker) -> None:
    """The same answer as for one that does not exist."""
    mine = create(worker, "pin", session_id="a")
    shared = create(worker, "pin")
    assert mine["session"] == "a"
    for command in ("get", "execute", "delete"):
        args = {"id": mine["id"], **({"inputs": {}} if command == "execute" else {})}
        for fields in ({}, {"session_id": "b"}):
            info = worker.error(f"common:{command}_resource", args, **fields)
            assert info["message"] == f"Resource not found: {mine['id']}"
    assert worker.result("common:execute_resource", {"id": mine["id"], "inputs": {}}, session_id="a")
    assert worker.result("common:execute_resource", {"id": shared["id"], "inputs": {}}, session_id="a")
    seen = {
        session: [found["id"] for found in worker.result("common:list_resources", session_id=session)["resources"]]
        for session in ("a", "b")
    }
    assert seen == {"a": [mine["id"], shared["id"]], "b": [shared["id"]]}


def test_cleanup_deletes_a_session_and_asks_the_bridge(worker: RawWorker) -> None:
    """All of it without one; a caller in a session means its own."""
    for session in ("a", "a", "b"):
        create(worker, "echo", session_id=session)
    shared = create(worker, "echo")
    assert worker.result("common:cleanup", {"session_id": "a"}) == {
        "status": "cleaned",
        "resources_removed": 2,
        "bridge": "cleaned",
    }
    assert worker.result("common:cleanup", {}, session_id="b")["resources_removed"] == 1
    assert worker.result("common:get_resource", {"id": shared["id"]})
    assert worker.result("common:cleanup")["resources_removed"] == 1
    assert worker.result("k:log")["cleaned"] == ["a", "b", None]
    assert worker.error("common:cleanup", {"session_id": 5})["code"] == "invalid_argument"


def test_one_resource_that_can_not_be_closed_does_not_keep_the_others(worker: RawWorker) -> None:
    """The log says which it was."""
    for id, size in (("one", 1), ("bad", 13), ("two", 2)):
        create(worker, "echo", {"size": size}, id=id)
    assert worker.result("common:cleanup")["resources_removed"] == 3
    assert worker.result("k:log")["closed"] == ["one", "bad", "two"]
    assert "closing bad failed: RuntimeError" in worker.log


def test_resources_are_closed_when_the_worker_ends(worker: RawWorker) -> None:
    """In order, before the bridge."""
    create(worker, "echo", {"size": 13}, id="bad")
    worker.result("common:shutdown")
    assert worker.ended() == 0
    assert "closing bad failed" in worker.log


def test_types_come_and_go_while_running(worker: RawWorker) -> None:
    """What exists goes on."""
    worker.result("k:type_for_now", {"name": "passing"})
    made = create(worker, "passing")
    assert "passing" in worker.result("common:capabilities")["resources"]
    worker.result("k:forget_type", {"name": "passing"})
    assert worker.error("common:create_resource", {"type": "passing"})["code"] == "unknown_resource_type"
    assert worker.result("common:execute_resource", {"id": made["id"]}) == {"type": "passing"}
    assert worker.result("common:delete_resource", {"id": made["id"]})["deleted"]


def test_of_two_calls_that_make_the_same_id_at_once_one_wins() -> None:
    """The other one's instance is closed, and nothing is overwritten."""
    with RawWorker(bridge("keeper"), "--max-concurrency", "2", "--mode", "host") as worker:
        worker.result("common:warm_up")
        args = {"type": "slow", "id": "same"}
        numbers = [worker.send("common:create_resource", args, stream=True) for _ in range(2)]
        gates = [worker.next_event()["data"]["call_id"] for _ in numbers]
        for gate in gates:
            worker.send("common:call_result", {"call_id": gate, "result": 1})
        replies = {message["id"]: message for message in (worker.read() for _ in range(4))}
        outcomes = sorted((replies[number] for number in numbers), key=lambda reply: str(reply["success"]))
        assert error_of(outcomes[0])["code"] == "resource_exists"
        assert outcomes[1]["success"]
        assert worker.result("k:log")["closed"] == ["same"]
        assert worker.result("common:list_resources")["total_count"] == 1


# ------------------------------------------------------------------ batch


def test_a_batch_answers_every_item_in_order(worker: RawWorker) -> None:
    """One that fails does not keep the next from running; commands of every kind are allowed."""
    calls = [
        {"command": "common:create_resource", "args": {"type": "counter", "id": "c"}},
        {"command": "common:execute_resource", "args": {"id": "c"}},
        {"command": "common:execute_resource", "args": {"id": "nothing"}},
        {"command": "common:ping"},
        {"command": "k:nothing"},
        {"command": "common:execute_resource", "args": {"id": "c"}},
    ]
    results = worker.result("common:batch", {"calls": calls})["results"]
    assert [item["success"] for item in results] == [True, True, False, True, False, True]
    assert results[5]["result"] == {"count": 2}
    assert results[2]["error_info"]["code"] == "resource_not_found"
    assert results[4]["error"] == "Unknown command: k:nothing"


@pytest.mark.parametrize(
    "calls",
    [
        *(None, {}, [1], [{}], [{"command": 5}], [{"command": "k:log", "args": []}], [{"command": "common:batch"}]),
        [{"command": "k:log", "arg": {}}],
    ],
)
def test_a_batch_that_is_none_is_refused_whole(steady: RawWorker, calls: Any) -> None:
    """Before anything of it ran."""
    assert steady.error("common:batch", {"calls": calls})["code"] == "invalid_argument"


def test_a_batch_is_stopped_as_one_call() -> None:
    """Nothing of it runs after that; an item that exits is its own failure."""
    with RawWorker(bridge("stubborn"), "--mode", "host") as worker:
        calls: list[dict[str, Any]] = [{"command": f"s:{name}"} for name in ("quick", "check", "quick")]
        number = worker.send("common:batch", {"calls": calls}, stream=True)
        worker.next_event()
        worker.send("common:cancel", {"id": number})
        replies = {message["id"]: message for message in (worker.read() for _ in range(2))}
        assert replies[number]["error_info"]["code"] == "cancelled"
    with RawWorker(bridge("handlers")) as worker:
        calls = [{"command": "h:raise", "args": {"what": what}} for what in ("exit", "keyboard", "value")]
        results = worker.result("common:batch", {"calls": [*calls, {"command": "h:add", "args": {"a": 1}}]})["results"]
        assert [item.get("error_info", {}).get("type") for item in results] == [
            "SystemExit",
            "KeyboardInterrupt",
            "ValueError",
            None,
        ]

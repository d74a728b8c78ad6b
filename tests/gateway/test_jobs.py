"""Jobs of a client of the wire: submitted, listed, watched, cancelled, fetched, deleted."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import HostStarter, StdioHost


def submit(host: StdioHost, command: str, args: dict[str, Any] | None = None, **rest: Any) -> str:
    """Submit a job and return its id."""
    reply = host.call("common:submit", {"command": command, "args": args or {}, **rest})
    assert reply["success"], reply
    return str(reply["result"]["id"])


def test_a_client_submits_a_job_and_fetches_its_result(start: HostStarter) -> None:
    """The reply of submit comes at once and says what the job is."""
    host = start()
    job = host.call("common:submit", {"command": "mock:progress", "args": {"steps": 3}})["result"]
    result = host.call("common:job_result", {"id": job["id"]})["result"]
    described = host.call("common:job", {"id": job["id"]})["result"]

    assert (job["command"], job["bridge"], job["error"]) == ("mock:progress", "mock", None)
    assert result == {"steps": 3}
    assert (described["state"], described["progress"]["current"], described["events"]) == ("done", 3, 3)


def test_jobs_are_listed_and_filtered(start: HostStarter) -> None:
    """By bridge, by state, the newest first to be kept."""
    host = start()
    ids = [submit(host, "mock:echo"), submit(host, "echo", bridge="other"), submit(host, "mock:fail")]
    for id in ids:
        host.call("common:job_result", {"id": id})

    def listed(**filters: Any) -> list[str]:
        return [job["id"] for job in host.call("common:jobs", filters)["result"]["jobs"]]

    assert listed() == ids
    assert listed(bridge="other") == ids[1:2]
    assert listed(states=["failed"]) == ids[2:]
    assert listed(limit=2) == ids[1:]


def test_a_job_is_watched_from_a_number_on(start: HostStarter) -> None:
    """Each event is a chunk that carries the job's own number; the reply says where to go on."""
    host = start()
    id = submit(host, "mock:count", {"n": 4, "delay": 0.02})
    request = host.send("common:job_events", {"id": id, "from_seq": 2}, stream=True)
    messages = [host.read() for _ in range(3)]

    assert [message["data"] for message in messages[:2]] == [
        {"seq": 2, "event": "chunk", "data": 2},
        {"seq": 3, "event": "chunk", "data": 3},
    ]
    assert (messages[2]["id"], messages[2]["result"]) == (request, {"id": id, "state": "done", "next_seq": 4})


def test_without_a_stream_events_are_listed(start: HostStarter) -> None:
    """What is there now, and never a wait."""
    host = start()
    id = submit(host, "mock:count", {"n": 3})
    host.call("common:job_result", {"id": id})
    listed = host.call("common:job_events", {"id": id})["result"]

    assert [event["data"] for event in listed["events"]] == [0, 1, 2]
    assert listed["next_seq"] == 3
    assert host.call("common:job_events", {"id": id, "from_seq": 3})["result"]["events"] == []


def test_watching_can_be_cancelled_and_the_job_goes_on(start: HostStarter) -> None:
    """common:cancel stops the request, not what it watches."""
    host = start()
    id = submit(host, "mock:sleep", {"seconds": 0.5})
    watching = host.send("common:job_events", {"id": id}, stream=True)
    cancel = host.send("common:cancel", {"id": watching})
    replies = {message["id"]: message for message in (host.read(), host.read())}

    assert replies[cancel]["result"]["state"] == "cancelling"
    assert replies[watching]["error_info"]["code"] == "cancelled"
    assert host.call("common:job_result", {"id": id})["result"] == {"slept": 0.5}


def test_a_job_is_cancelled_and_its_result_is_that_error(start: HostStarter) -> None:
    """With the rung of the ladder; a second cancel finds nothing to stop."""
    host = start()
    id = submit(host, "mock:sleep", {"seconds": 60})
    first = host.call("common:cancel_job", {"id": id})["result"]
    second = host.call("common:cancel_job", {"id": id})["result"]
    info = host.call("common:job_result", {"id": id})["error_info"]

    assert first == {"id": id, "cancelled": True, "state": "cancelled"}
    assert second == {"id": id, "cancelled": False, "state": "cancelled"}
    assert info["code"] == "cancelled"
    assert info["details"]["stopped_by"] in {"queue", "cooperative"}


def test_waiting_for_a_result_ends_at_the_deadline_of_the_request(start: HostStarter) -> None:
    """The job goes on."""
    host = start()
    id = submit(host, "mock:sleep", {"seconds": 0.4})
    late = host.call("common:job_result", {"id": id}, deadline_ms=20)

    assert late["error_info"]["code"] == "timeout"
    assert host.call("common:job_result", {"id": id})["result"] == {"slept": 0.4}


def test_a_repeated_submit_with_a_key_is_the_same_job(start: HostStarter) -> None:
    """A client whose connection broke may send it again."""
    host = start()
    args = {"command": "mock:echo", "args": {"a": 1}}
    ids = {host.call("common:submit", args, idempotency_key="k1")["result"]["id"] for _ in range(3)}
    other = host.call("common:submit", {**args, "args": {"a": 2}}, idempotency_key="k1")

    assert len(ids) == 1
    assert other["error_info"]["code"] == "conflict"


def test_a_job_is_deleted_when_it_has_ended(start: HostStarter) -> None:
    """And not before."""
    host = start()
    id = submit(host, "mock:sleep", {"seconds": 60})
    refused = host.call("common:delete_job", {"id": id})
    host.call("common:cancel_job", {"id": id})

    assert refused["error_info"]["code"] == "not_supported"
    assert host.call("common:delete_job", {"id": id})["result"] == {"id": id, "deleted": True}
    assert host.call("common:job", {"id": id})["error_info"]["code"] == "job_not_found"


@pytest.mark.parametrize(
    ("command", "args", "code"),
    [
        ("common:submit", {}, "invalid_argument"),
        ("common:submit", {"command": 5}, "invalid_argument"),
        ("common:submit", {"command": "mock:echo", "arg": {}}, "invalid_argument"),
        ("common:submit", {"command": "mock:echo", "timeout_ms": -1}, "invalid_argument"),
        ("common:submit", {"command": "nobody:echo"}, "unknown_bridge"),
        ("common:job", {"id": "nothing"}, "job_not_found"),
        ("common:job_events", {"id": "nothing"}, "job_not_found"),
        ("common:jobs", {"states": ["asleep"]}, "invalid_argument"),
        ("common:jobs", {"limit": True}, "invalid_argument"),
        ("common:batch", {"calls": [{"command": "common:cancel_job"}]}, None),
    ],
)
def test_what_is_wrong_is_named(start: HostStarter, command: str, args: dict[str, Any], code: str | None) -> None:
    """One typed error each; in a batch it is that item's."""
    reply = start().call(command, args)
    info = reply["error_info"] if code is not None else reply["result"]["results"][0]["error_info"]

    assert info["code"] == (code or "not_supported")


def test_the_host_says_that_it_has_jobs(start: HostStarter) -> None:
    """A worker does not: what it runs ends with it."""
    host = start()

    assert "jobs" in host.call("common:hello", {"protocol": 2})["result"]["features"]

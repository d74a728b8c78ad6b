"""What a client of the wire may ask about the host's own workings, and have it do."""

from __future__ import annotations

from tests.gateway.conftest import HostStarter
from tests.support import eventually


def test_a_client_learns_why_its_request_waits(start: HostStarter) -> None:
    """By the id of the request; also what runs, and what a whole bridge waits for."""
    host = start()
    busy = host.send("mock:sleep", {"seconds": 30})
    waiting = host.send("mock:echo", {"a": 1})

    def explained() -> bool:
        found = host.call("common:explain", {"request": waiting})["result"]
        return bool(found["waits_for"] == "capacity" and "mock:sleep" in found["reason"])

    eventually(explained)
    assert host.call("common:explain", {"request": busy})["result"]["state"] == "running"
    assert host.call("common:explain", {"id": "mock"})["result"]["waiting_count"] == 1
    host.send("common:cancel", {"id": busy})
    replies = {reply["id"]: reply for reply in (host.read() for _ in range(3))}
    assert replies[waiting]["result"] == {"a": 1}


def test_a_request_that_is_not_open_is_refused(start: HostStarter) -> None:
    """As everything that nothing is called."""
    host = start()

    for args in ({"request": 4711}, {"id": "nothing"}, {"unknown": 1}):
        assert host.call("common:explain", args)["error_info"]["code"] == "invalid_argument"


def test_a_client_reloads_a_bridge(start: HostStarter) -> None:
    """The reply comes when all workers are new ones."""
    host = start()
    before = host.call("mock:pid", {})["result"]["pid"]

    assert host.call("common:reload_bridge", {"bridge": "mock"})["result"] == {"bridge": "mock", "replaced": 1}
    assert host.call("mock:pid", {})["result"]["pid"] != before
    assert host.call("common:reload_bridge", {"bridge": "nobody"})["error_info"]["code"] == "unknown_bridge"


def test_health_over_the_wire_says_live_and_ready(start: HostStarter) -> None:
    """What a probe of an orchestrator needs."""
    host = start()

    def is_well() -> bool:
        health = host.call("common:health", {})["result"]
        assert health["live"]
        assert health["bridges"]["mock"]["breaker"] == "closed"
        return bool(health["ready"] and health["status"] == "ok")

    eventually(is_well)

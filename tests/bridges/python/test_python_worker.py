"""The `python` bridge in a real worker: references, streams, sessions, and what an idle worker weighs."""

from __future__ import annotations

from pathlib import Path

from tests.bridges.raw_worker import raw_worker
from tests.support import MS, eventually

TEAM = Path(__file__).parent / "team"
MAX_IDLE_BYTES = 30_000_000
"""The limit of unshared memory that the project promises for an idle worker of this bridge."""


def test_a_newcomers_first_calls_work_over_the_wire() -> None:
    """Call, object, method, stream."""
    with raw_worker("python", {"paths": [str(TEAM)]}) as worker:
        assert worker.result("python:call", {"target": "math:sqrt", "args": [9]}) == 3.0
        account = worker.result("python:call", {"target": "billing:Account", "args": ["Ada", 1]}, session_id="s")
        assert account["type"] == "billing.Account"
        assert worker.code("python:method", {"object": account, "method": "pay", "args": [1]}, session_id="t") == (
            "resource_not_found"
        )
        assert worker.result("python:method", {"object": account, "method": "pay", "args": [1]}, session_id="s") == 2
        result = worker.result("python:iterate", {"target": "billing:pages", "args": [3]}, stream=True)
        assert result == {"count": 3}
        assert [event["data"] for event in worker.events] == [0, 1, 2]


def test_cleanup_of_a_session_releases_its_objects() -> None:
    """And says how many."""
    with raw_worker("python", {"paths": [str(TEAM)]}) as worker:
        worker.result("python:call", {"target": "billing:Account", "args": ["Ada"]}, session_id="s")
        assert worker.result("common:cleanup", {"session_id": "s"})["objects_released"] == 1


def test_a_hanging_coroutine_is_cancelled_and_the_worker_goes_on() -> None:
    """The loop is the same one afterwards."""
    with raw_worker("python", {"paths": [str(TEAM)]}) as worker:
        before = worker.result("python:call", {"target": "billing:which_loop"})
        number = worker.send("python:call", {"target": "billing:hang"})
        eventually(lambda: worker.result("common:ping")["state"] == "busy")
        worker.send("common:cancel", {"id": number})
        assert worker.receive(number, timeout=2000 * MS)["error_info"]["code"] == "cancelled"
        assert worker.result("python:call", {"target": "billing:which_loop"}) == before


def test_an_idle_worker_weighs_less_than_it_may() -> None:
    """Unshared memory, as the kernel counts it, after a first call."""
    with raw_worker("python") as worker:
        worker.result("python:call", {"target": "math:sqrt", "args": [9]})
        rollup = Path(f"/proc/{worker.process.pid}/smaps_rollup").read_text()
        fields = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
        unshared = sum(int(fields[name].split()[0]) * 1024 for name in ("Private_Clean", "Private_Dirty"))
        assert unshared < MAX_IDLE_BYTES, f"{unshared / 1e6:.1f} MB"

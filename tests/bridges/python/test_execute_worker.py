"""`python:execute` in real workers: who turns it on, how it streams, and how every kind of code is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.errors import ManybridgeError
from tests.bridges.raw_worker import RawWorker, raw_worker
from tests.support import MS, eventually

HANGING = {
    "a loop": "while True: pass",
    "a blocking call": "import time\ntime.sleep(1000)",
    "a coroutine": "import asyncio\nawait asyncio.sleep(1000)",
    "one that catches errors": "while True:\n    try:\n        while True: pass\n    except Exception: pass",
    "one that waits for its context": "import time\nwhile True:\n    ctx.check()\n    time.sleep(0.001)",
}


@pytest.fixture(scope="module")
def worker() -> Iterator[RawWorker]:
    """A worker that was started by hand and may run code."""
    with raw_worker("python", {}, "--sandbox", "none") as started:
        yield started


def test_a_worker_started_by_hand_refuses_unless_told_so() -> None:
    """And no request can turn it on: not its arguments, not hello, not options of its own."""
    with raw_worker("python") as started:
        refused = started.ask("python:execute", {"code": "1", "sandbox": "none"})
        assert refused["error_info"]["code"] == "invalid_argument"
        started.result("common:hello", {"protocol": 2, "features": ["sandbox"], "sandbox": "none"})
        assert started.code("python:execute", {"code": "1"}) == "permission_denied"
        assert started.result("python:call", {"target": "math:sqrt", "args": [9]}) == 3.0


def test_output_streams_while_the_code_runs(worker: RawWorker) -> None:
    """The first line is there before the code ends."""
    code = "import time\nprint('begun')\nwhile True:\n    ctx.check()\n    time.sleep(0.001)"
    number = worker.send("python:execute", {"code": code}, stream=True)
    event = worker.read()
    assert (event["event"], event["data"]) == ("chunk", {"stream": "stdout", "text": "begun\n"})
    worker.result("common:cancel", {"id": number})
    assert worker.receive(number)["error_info"]["code"] == "cancelled"


@pytest.mark.parametrize("code", HANGING.values(), ids=HANGING)
def test_code_that_does_not_end_is_stopped_and_the_worker_goes_on(worker: RawWorker, code: str) -> None:
    """By the ladder that stops everything."""
    number = worker.send("python:execute", {"code": code})
    eventually(lambda: worker.result("common:ping")["state"] == "busy")
    worker.send("common:cancel", {"id": number})
    assert worker.receive(number, timeout=2000 * MS)["error_info"]["code"] == "cancelled"
    assert worker.result("python:execute", {"code": "'still here'"})["result"] == "still here"


def test_an_error_carries_the_traceback_of_the_code(worker: RawWorker) -> None:
    """In the fields that every error has; secrets are hidden as everywhere."""
    info = worker.ask("python:execute", {"code": "def f():\n    return {}['k']\nf()"})["error_info"]
    assert (info["code"], info["type"], info["details"]) == ("handler_error", "KeyError", {"line": 2})
    assert info["traceback"].splitlines()[1].endswith("line 3, in <module>")
    assert "/manybridge/" not in info["traceback"]


def test_more_output_than_the_limit_does_not_stop_the_code() -> None:
    """Nor the worker."""
    with raw_worker("python", {"max_output_bytes": 10_000}, "--sandbox", "none") as started:
        ran = started.result("python:execute", {"code": "for _ in range(20_000): print('x' * 99)\n'end'"}, stream=True)
        assert (ran["result"], len(ran["stdout"]), ran["dropped_bytes"]) == ("end", 10_000, 1_990_000)
        assert sum(len(event["data"]["text"]) for event in started.events) == 10_000


def config(**settings: Any) -> dict[str, Any]:
    """A host with one python bridge."""
    return {"bridges": {"python": settings}}


@pytest.mark.parametrize("zygote", ["always", "never"])
def test_the_configuration_turns_it_on(zygote: str) -> None:
    """For workers that are spawned and for those that are forked."""
    with MLBridge.from_config(config(sandbox="none", zygote=zygote)) as ml:
        assert ml.call("python", "python:execute", {"code": "6 * 7"})["result"] == 42


def test_without_it_the_host_says_what_to_set() -> None:
    """Options of the bridge are no way around."""
    with MLBridge.from_config(config()) as ml:
        with pytest.raises(ManybridgeError) as caught:
            ml.call("python", "python:execute", {"code": "1"})
        assert caught.value.code == "permission_denied"
        assert 'sandbox = "none"' in str(caught.value)
        assert ml.call("python", "python:call", {"target": "math:sqrt", "args": [9]}) == 3.0
    with pytest.raises(ManybridgeError, match=r'found "off"'):
        MLBridge.from_config(config(sandbox="off"))


def test_code_that_ends_the_process_is_a_crash_with_its_cause() -> None:
    """And the next call gets a new worker."""
    with MLBridge.from_config(config(sandbox="none")) as ml:
        with pytest.raises(ManybridgeError) as caught:
            ml.call("python", "python:execute", {"code": "import os\nos._exit(7)"})
        assert caught.value.code == "worker_crashed"
        assert caught.value.details["exit_code"] == 7
        assert ml.call("python", "python:execute", {"code": "1"})["result"] == 1

"""Settings of sessions at a worker: kept at once, given to the bridge by the calls that need them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.worker.raw import RawWorker, bridge


@pytest.fixture
def worker() -> Iterator[RawWorker]:
    """One that runs two calls at a time."""
    with RawWorker(bridge("tuned")) as started:
        yield started


def configure(worker: RawWorker, session: str, settings: dict[str, Any]) -> None:
    """Give a session its settings."""
    answer = worker.result("common:configure_session", {"session_id": session, "settings": settings})
    assert answer == {"session_id": session, "status": "kept"}


def test_calls_of_a_session_have_its_settings_and_others_have_none(worker: RawWorker) -> None:
    """In plain functions, in coroutines, and in batches; the bridge was told once."""
    configure(worker, "s", {"level": 1})

    assert worker.result("tuned:tell", session_id="s")["settings"] == {"level": 1}
    assert worker.result("tuned:atell", session_id="s")["settings"] == {"level": 1}
    batch = worker.result("common:batch", {"calls": [{"command": "tuned:tell"}]}, session_id="s")
    assert batch["results"][0]["result"]["taken"] == [["s", {"level": 1}]]
    assert worker.result("tuned:tell", session_id="t")["settings"] == {}
    assert worker.result("tuned:tell")["settings"] == {}


def test_settings_hold_for_the_call_that_was_sent_right_behind_them(worker: RawWorker) -> None:
    """Whatever thread it runs on: nobody has to wait for the answer of the first."""
    worker.result("common:warm_up")
    for number in range(50):
        given = worker.send("common:configure_session", {"session_id": "s", "settings": {"level": number}})
        asked = worker.send("tuned:tell", session_id="s")
        assert worker.receive(given)["success"]
        assert worker.receive(asked)["result"]["settings"] == {"level": number}


def test_changed_settings_take_the_place_of_the_old_ones(worker: RawWorker) -> None:
    """Wholly; empty ones end them."""
    for settings in ({"level": 1, "more": True}, {"level": 2}, {}):
        configure(worker, "s", settings)
        assert worker.result("tuned:tell", session_id="s")["settings"] == settings
    assert [each for _, each in worker.result("tuned:tell")["taken"]] == [{"level": 1, "more": True}, {"level": 2}, {}]


def test_wrong_settings_are_the_error_of_each_call_until_they_are_put_right(worker: RawWorker) -> None:
    """And of no call of another session."""
    configure(worker, "s", {"wrong": 1})
    for _ in range(2):
        error = worker.error("tuned:tell", session_id="s")
        assert (error["code"], error["message"]) == (
            "config_error",
            "settings: wrong is no setting; known: every other",
        )
    assert worker.result("tuned:tell", session_id="t")["settings"] == {}
    configure(worker, "s", {"right": 1})
    assert worker.result("tuned:tell", session_id="s")["settings"] == {"right": 1}


def test_cleaning_a_session_up_forgets_its_settings(worker: RawWorker) -> None:
    """Of this one, or of all. Those that come while it waits for its turn are a new beginning."""
    for cleaned, left in (({"session_id": "s"}, {"level": 1}), ({}, {})):
        for session in ("s", "t"):
            configure(worker, session, {"level": 1})
            worker.result("tuned:tell", session_id=session)
        worker.result("common:cleanup", cleaned)
        assert worker.result("tuned:tell", session_id="s")["settings"] == {}
        assert worker.result("tuned:tell", session_id="t")["settings"] == left
    configure(worker, "s", {"level": 2})
    worker.result("common:cleanup", {"session_id": "s"})
    assert worker.result("tuned:tell", session_id="s")["settings"] == {"level": 2}


def test_a_bridge_without_the_hook_offers_them_all_the_same() -> None:
    """Every bridge answers the command; before it is loaded, too."""
    with RawWorker("mock", "--load", "lazy") as worker:
        configure(worker, "s", {"level": 1})
        assert worker.result("mock:echo", {"x": 1}, session_id="s") == {"x": 1}


def test_the_settings_are_of_the_requests_session_where_none_is_named(worker: RawWorker) -> None:
    """As in `common:cleanup`."""
    answer = worker.result("common:configure_session", {"settings": {"level": 3}}, session_id="s")
    assert answer["session_id"] == "s"
    assert worker.result("tuned:tell", session_id="s")["settings"] == {"level": 3}


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"settings": {}}, "session_id: expected a non-empty string, found null"),
        ({"session_id": "", "settings": {}}, "session_id: expected a non-empty string, found a string"),
        ({"session_id": "s"}, "settings: expected an object, found null"),
        ({"session_id": "s", "settings": []}, "settings: expected an object, found an array"),
    ],
)
def test_wrong_arguments_are_named(worker: RawWorker, args: dict[str, Any], text: str) -> None:
    """invalid_argument, and nothing is kept."""
    error = worker.error("common:configure_session", args)
    assert (error["code"], error["message"]) == ("invalid_argument", text)


def test_warm_up_names_the_operations_that_configure_a_session(worker: RawWorker) -> None:
    """So that the host knows whose results to keep."""
    assert worker.result("common:warm_up")["session_settings"] == ["configure"]

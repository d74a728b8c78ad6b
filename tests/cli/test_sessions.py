"""`manybridge sessions`, and what is deleted for being old: with real hosts, real workers and a store in a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manybridge.cli.retention import parse_age
from manybridge.errors import InvalidArgumentError
from manybridge.host.sync import MLBridge
from tests.cli.support import CommandLine
from tests.support import REPOSITORY, eventually

TUNED = REPOSITORY / "tests" / "workers" / "bridges" / "tuned.py"

CONFIG = f"""
[bridges.mock]
zygote = "never"

[bridges.tuned]
python_script = "{TUNED}"
zygote = "never"
eager = false

[store]
url = "sqlite:///records.db"
"""


@pytest.fixture
def kept(manybridge: CommandLine, tmp_path: Path) -> CommandLine:
    """Return the command line, run in a folder whose configuration has a store."""
    (tmp_path / "manybridge.toml").write_text(CONFIG)
    return manybridge


@pytest.fixture
def two(kept: CommandLine, tmp_path: Path) -> CommandLine:
    """The same, with two sessions in the store, and something made in one."""
    with MLBridge(tmp_path / "manybridge.toml") as ml:
        ml.create_session("alice", lease=600, settings={"tuned": {"level": 1}, "note": "x"})
        ml.create_session("bob", affinity="strict_queue", lease=float("inf"))
        ml.create_resource("mock", "echo", id="hers", session="alice")
    return kept


def test_sessions_are_listed_and_shown(two: CommandLine) -> None:
    """As JSON, and in lines for people; a lease without an end is null."""
    alice, bob = two("sessions", "list", "--json").json
    assert (alice["id"], alice["lease_seconds"], alice["settings"]) == (
        "alice",
        600.0,
        {"tuned": {"level": 1}, "note": "x"},
    )
    assert (bob["id"], bob["affinity"], bob["lease_seconds"], bob["expires_in"]) == ("bob", "strict_queue", None, None)
    first, second = two("sessions", "list").out.splitlines()
    assert first.startswith("alice  hint/enqueue  1 calls  in 10 min  tuned, note")
    assert second.startswith("bob  strict_queue/enqueue  0 calls  never")
    shown = two("sessions", "show", "alice", "--json").json
    assert shown["resources"] == [{"bridge": "mock", "type": "echo", "id": "hers"}]
    assert json.loads(two("sessions", "show", "bob").out)["resources"] == []


def test_a_call_in_a_session_of_the_store_has_its_settings(two: CommandLine) -> None:
    """Those that it configures itself are there for the next command."""
    assert two("call", "tuned", "tell", "--session", "alice", "--json").json["settings"] == {"level": 1}
    assert two("call", "tuned", "configure", "level:=2", "--session", "alice").code == 0
    assert two("call", "tuned", "tell", "--session", "alice", "--json").json["settings"] == {"level": 2}
    assert two("call", "tuned", "tell", "--json").json["settings"] == {}
    assert two("call", "tuned", "tell", "--session", "carol", "--json").json["settings"] == {}
    assert [each["id"] for each in two("sessions", "list", "--json").json] == ["alice", "bob"]


def test_a_lease_is_extended(two: CommandLine) -> None:
    """With its old length, or with another."""
    assert two("sessions", "extend", "alice", "--json").json["lease_seconds"] == 600.0
    longer = two("sessions", "extend", "alice", "--lease", "7d", "--json").json
    assert (longer["lease_seconds"], longer["expires_in"] > 604000) == (604800.0, True)
    assert longer["settings"] == {"tuned": {"level": 1}, "note": "x"}
    assert two("sessions", "extend", "alice", "--lease", "soon", "--json").error["code"] == "invalid_argument"
    assert two("sessions", "extend", "alice", "--lease", "0", "--json").error["code"] == "invalid_argument"
    shorter = two("sessions", "extend", "alice", "--lease", "30s", "--json").json
    assert (shorter["lease_seconds"], shorter["expires_in"] <= 30.0) == (30.0, True)


def test_a_closed_session_is_gone_with_what_was_made_in_it(two: CommandLine) -> None:
    """A second time it is not found."""
    assert two("sessions", "close", "alice", "--json").json == {"id": "alice", "closed": True}
    assert [each["id"] for each in two("sessions", "list", "--json").json] == ["bob"]
    for verb in ("close", "show", "extend"):
        ended = two("sessions", verb, "alice", "--json")
        assert (ended.code, ended.error["code"]) == (4, "session_not_found")


def test_a_running_host_notices_that_a_session_was_closed(two: CommandLine, tmp_path: Path) -> None:
    """It begins a new one of that name, without the settings, and does not write the old one back."""
    with MLBridge(tmp_path / "manybridge.toml") as ml:
        assert ml.call("tuned", "tell", session="alice")["settings"] == {"level": 1}
        two("sessions", "close", "alice")
        eventually(lambda: ml.call("tuned", "tell", session="alice")["settings"] == {})
    assert [each["id"] for each in two("sessions", "list", "--json").json] == ["bob"]


def test_expired_and_idle_sessions_are_cleaned_up(two: CommandLine, tmp_path: Path) -> None:
    """Idle ones on demand; one without an end is never idle."""
    assert two("sessions", "cleanup", "--json").json == {"deleted": [], "found": [], "dry_run": False}
    assert two("sessions", "cleanup", "--idle", "0s", "--dry-run", "--json").json["found"] == ["alice"]
    ended = two("sessions", "cleanup", "--idle", "0s")
    assert (ended.out, "1 session deleted" in ended.err) == ("alice\n", True)
    assert [each["id"] for each in two("sessions", "list", "--json").json] == ["bob"]


def test_old_resources_are_deleted(kept: CommandLine) -> None:
    """Of one bridge, or all; first to look, then for good."""
    for _ in range(2):
        kept("resources", "create", "mock", "counter", "--json")
    ids = [f"mock/{each['id']}" for each in kept("resources", "list", "mock", "--json").json]
    assert len(ids) == 2
    assert kept("resources", "cleanup", "--older-than", "1h", "--json").json["found"] == []
    assert kept("resources", "cleanup", "tuned", "--older-than", "0", "--json").json["found"] == []
    looked = kept("resources", "cleanup", "--older-than", "0s", "--dry-run", "--json").json
    assert (looked["found"], looked["deleted"], looked["dry_run"]) == (ids, [], True)
    ended = kept("resources", "cleanup", "mock", "--older-than", "0s")
    assert (ended.out.split(), "2 resources deleted" in ended.err) == (ids, True)
    assert kept("resources", "list", "mock", "--json").json == []


def test_old_jobs_are_deleted(kept: CommandLine) -> None:
    """Those that have ended."""
    kept("jobs", "run", "mock", "mock:echo", "--id", "done")
    assert kept("jobs", "cleanup", "--older-than", "1d", "--json").json["deleted"] == []
    assert kept("jobs", "cleanup", "--older-than", "0s", "--dry-run").out == "done\n"
    assert kept("jobs", "cleanup", "--older-than", "0s", "--json").json["deleted"] == ["done"]
    assert kept("jobs", "list", "--json").json == []


def test_without_a_store_there_is_nothing_to_find(manybridge: CommandLine) -> None:
    """A configuration error that says what to write."""
    for command in (
        ("sessions", "list"),
        ("resources", "cleanup", "--older-than", "1d"),
        ("jobs", "cleanup", "--older-than", "1d"),
    ):
        ended = manybridge(*command, "--json")
        assert (ended.code, ended.error["code"]) == (3, "config_error")
        assert "[store] url" in ended.error["message"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5min", 90), ("2h", 7200), ("1 d", 86400), ("4w", 4 * 604800), ("0", 0)],
)
def test_ages_are_numbers_with_units(text: str, seconds: float) -> None:
    """A number alone is seconds."""
    assert parse_age(text, "--x") == seconds


@pytest.mark.parametrize("text", ["", "d", "-1d", "1y", "1d2h", "inf", "1" * 400])
def test_what_is_no_age_is_refused(text: str) -> None:
    """The message names the option."""
    with pytest.raises(InvalidArgumentError, match="--x: expected an age such as"):
        parse_age(text, "--x")

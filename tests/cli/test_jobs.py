"""`manybridge jobs`, with real hosts, real workers and a store in a file."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from manybridge.cli.job_view import JobView, pace_text, print_jobs, seconds_text, steps_text
from manybridge.host.jobs import LiveJob
from manybridge.host.progress import JobProgress
from manybridge.host.streams import StreamEvent
from tests.cli.support import CommandLine
from tests.support import SOURCE, eventually, process_is_running

CONFIG = """
[bridges.mock]
zygote = "never"

[store]
url = "sqlite:///jobs.db"
"""


@pytest.fixture
def kept(manybridge: CommandLine, tmp_path: Path) -> CommandLine:
    """Return the command line, run in a folder whose configuration has a store."""
    (tmp_path / "manybridge.toml").write_text(CONFIG)
    return manybridge


@pytest.fixture
def detached(kept: CommandLine) -> Iterator[str]:
    """Return the id of a job that runs for minutes in a process of its own."""
    id = kept("jobs", "run", "mock", "mock:progress", "steps:=5000", "delay:=0.02", "--detach", "--json").json["id"]
    yield id
    kept("jobs", "cancel", id)
    eventually(lambda: not children_with(id))


def children_with(word: str) -> list[int]:
    """Return the processes that have a word on their command line."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if word.encode() in words and process_is_running(int(folder.name)):
            found.append(int(folder.name))
    return found


def test_a_job_runs_is_listed_and_found_again(kept: CommandLine) -> None:
    """Each command is another host; the store is the same."""
    ran = kept("jobs", "run", "mock", "mock:progress", "steps:=3", "--id", "night", "--json")
    failed = kept("jobs", "run", "mock", "mock:fail", "--id", "bad")
    listed = kept("jobs", "list", "--json").json

    assert (ran.code, ran.json, failed.code) == (0, {"steps": 3}, 1)
    assert [(job["id"], job["state"]) for job in listed] == [("night", "done"), ("bad", "failed")]
    assert [job["id"] for job in kept("jobs", "list", "--state", "failed", "--json").json] == ["bad"]
    assert kept("jobs", "list", "mock", "--limit", "1", "--json").json == listed[1:]
    assert "night  done  mock:progress  3/3 step 3" in kept("jobs", "list").out
    assert kept("jobs", "show", "night", "--json").json == listed[0]
    assert kept("jobs", "result", "night", "--json").json == {"steps": 3}
    assert (kept("jobs", "result", "bad").code, "handler_error" in kept("jobs", "result", "bad").err) == (1, True)


def test_events_of_a_job_can_be_watched_later_from_a_number_on(kept: CommandLine) -> None:
    """As lines of JSON, the job behind them."""
    kept("jobs", "run", "mock", "mock:count", "n:=4", "--id", "c")
    lines = [json.loads(line) for line in kept("jobs", "watch", "c", "--from", "2", "--json").out.splitlines()]

    assert lines[:2] == [{"event": "chunk", "seq": 2, "data": 2}, {"event": "chunk", "seq": 3, "data": 3}]
    assert lines[2]["job"]["state"] == "done"


def test_progress_has_rate_and_time_left(kept: CommandLine) -> None:
    """Plain lines where there is no terminal."""
    said = kept("jobs", "run", "mock", "mock:progress", "steps:=20", "delay:=0.1").err

    assert "/s, " in said
    assert " left) step " in said


def test_a_detached_job_is_watched_and_cancelled_by_other_commands(kept: CommandLine, detached: str) -> None:
    """Its process ends with it."""
    assert kept("jobs", "show", detached, "--json").json["state"] in {"queued", "starting", "running"}
    late = kept("jobs", "result", detached, "--timeout", "0.01")
    refused = kept("jobs", "delete", detached)
    cancelled = kept("jobs", "cancel", detached, "--json").json

    assert (late.code, refused.code) == (6, 5)
    assert cancelled == {"id": detached, "cancelled": True, "state": "cancelled"}
    assert kept("jobs", "result", detached).code == 7
    assert kept("jobs", "delete", detached, "--json").json["deleted"]
    assert kept("jobs", "show", detached).code == 4


def test_a_detached_job_whose_process_is_killed_was_interrupted(kept: CommandLine, detached: str) -> None:
    """Kill -9 of the host: the next command says so."""
    eventually(lambda: kept("jobs", "show", detached, "--json").json["state"] == "running")
    for pid in children_with(detached):
        os.kill(pid, signal.SIGKILL)
    shown = kept("jobs", "show", detached, "--json").json

    assert (shown["state"], shown["error"]["code"]) == ("failed", "host_closed")
    assert shown["error"]["details"]["interrupted"]
    assert kept("jobs", "result", detached).code == 9


def test_a_detached_job_that_can_not_begin_says_why(kept: CommandLine, tmp_path: Path) -> None:
    """With the code that it would have had here."""
    unknown = kept("jobs", "run", "nobody", "x:y", "--detach")
    (tmp_path / "manybridge.toml").write_text(CONFIG.replace("jobs.db", "missing/jobs.db"))
    no_folder = kept("jobs", "run", "mock", "mock:echo", "--detach")

    assert (unknown.code, no_folder.code) == (4, 12)
    assert "store_unavailable" in no_folder.err


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["show", "a"], ["watch", "a"], ["result", "a"], ["cancel", "a"], ["delete", "a"],
     ["run", "mock", "mock:echo", "--detach"], ["run", "mock", "mock:echo", "--on-interrupt", "detach"]],
)  # fmt: skip
def test_without_a_store_it_is_said_that_there_is_none(manybridge: CommandLine, arguments: list[str]) -> None:
    """And what to do."""
    ended = manybridge("jobs", *arguments)

    assert ended.code == 3
    assert "there is no store" in ended.err


def test_without_a_store_a_job_runs_all_the_same(manybridge: CommandLine) -> None:
    """It ends with its command."""
    ended = manybridge("jobs", "run", "mock", "mock:echo", "a=1", "--json")

    assert (ended.code, ended.json) == (0, {"a": "1"})


@pytest.mark.parametrize("verb", ["show", "watch", "result", "cancel", "delete"])
def test_a_job_that_is_not_there_ends_with_4(kept: CommandLine, verb: str) -> None:
    """job_not_found."""
    ended = kept("jobs", verb, "nothing", "--json")

    assert (ended.code, ended.error["code"]) == (4, "job_not_found")


def run_in_terminal(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command line as a process that can be interrupted."""
    return subprocess.Popen(
        [sys.executable, "-m", "manybridge.cli.entry", "jobs", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("flag", "code", "state"), [("cancel", 130, "cancelled"), ("detach", 0, "running")])
def test_ctrl_c_cancels_or_detaches(kept: CommandLine, tmp_path: Path, flag: str, code: int, state: str) -> None:
    """As the flag says."""
    command = ["run", "mock", "mock:progress", "steps:=5000", "delay:=0.02", "--id", "j", "--on-interrupt", flag]
    process = run_in_terminal(tmp_path, *command)
    with process:
        assert process.stderr is not None
        said = [process.stderr.readline(), process.stderr.readline()]
        process.send_signal(signal.SIGINT)
        said += process.communicate(timeout=15)[1].splitlines()

    assert said[0] == "job j\n"
    assert "step" in said[1]
    assert process.returncode == code
    assert ("job j goes on" in "".join(said)) == (flag == "detach")
    assert kept("jobs", "show", "j", "--json").json["state"] == state
    kept("jobs", "cancel", "j")
    eventually(lambda: not children_with("j"))


# ---------------------------------------------------------------- how it is shown


def shown(events: list[dict[str, Any]], *, terminal: bool) -> str:
    """Show progress events of a job and return what went to the console."""
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, highlight=False)
    job = LiveJob("j", "mock", "mock:progress", {}, lambda: False)
    with JobView(job, stream=False, as_json=False, console=console) as view:
        for seq, data in enumerate(events):
            view.show(StreamEvent("progress", seq, data))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]  # the StringIO from above


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines() -> None:
    """Both say how far it is."""
    events = [{"current": n, "total": 3, "message": "training"} for n in range(4)]

    assert "━" in shown(events, terminal=True)
    assert shown(events, terminal=False) == "0/3 training\n3/3 training\n"


def test_numbers_are_for_people() -> None:
    """Rates above and below one a second, times of any length."""
    assert pace_text(None) == ""
    assert pace_text(JobProgress(1, None, "", 12.345, None)) == "12.3/s"
    assert pace_text(JobProgress(1, 9, "", 0.25, 32.0)) == "4 s each, 32 s left"
    assert [seconds_text(each) for each in (0.4, 119, 120, 7300, 200_000)] == ["0 s", "119 s", "2 min", "2 h", "2 d"]
    assert (steps_text(3, None), steps_text(3, 10.0), steps_text(2.5, 10)) == ("3", "3/10", "2.5/10")


def test_jobs_are_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a heading."""
    console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr("manybridge.cli.job_view.stdout_console", lambda: console)
    print_jobs([{"id": "j", "state": "done", "command": "mock:echo", "progress": None, "created_at": 0.0}])

    assert "Command" in console.file.getvalue()  # type: ignore[attr-defined]  # the StringIO from above

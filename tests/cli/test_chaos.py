"""`manybridge chaos`: a plan, a run, a report, and an exit code that says whether the promises were kept."""

from __future__ import annotations

from pathlib import Path

from tests.cli.support import CommandLine

SCENARIO = """
name = "short"
duration = 0.6
rate = 50
bridge = "mock"

[bridges.mock]
restart = { initial_backoff = 0.0, max_crashes = 10_000 }

[[calls]]
command = "mock:echo"
args = { n = "$n" }
expect = "$args"

[[faults]]
fault = "kill"
at = [0.2]
"""


def write(text: str, name: str = "short.toml") -> Path:
    """A scenario in the working folder."""
    path = Path(name)
    path.write_text(text)
    return path


def test_a_run_prints_its_plan_and_its_report(manybridge: CommandLine) -> None:
    """Exit code 0 where every promise was kept; what happens goes to standard error."""
    ended = manybridge("chaos", write(SCENARIO), "--seed", "9")

    assert ended.code == 0, ended.out + ended.err
    assert "plan of short: 1 faults in 0.6 s, seed 9" in ended.out
    assert "answered 30 of 30" in ended.out or "worker_crashed" in ended.out
    assert "promises kept" in ended.out
    assert "kill struck mock-1" in ended.err


def test_a_broken_promise_is_exit_code_1(manybridge: CommandLine) -> None:
    """As JSON it is in the report too."""
    text = SCENARIO.replace("[[calls]]", "[promises]\nrecovery = 0.000001\n\n[[calls]]", 1)
    ended = manybridge("chaos", write(text), "--json")

    assert ended.code == 1
    assert ended.json["passed"] is False
    assert ended.json["calls"]["lost"] == 0
    assert any("not well again" in text for text in ended.json["broken"])


def test_a_plan_can_be_seen_without_a_run(manybridge: CommandLine) -> None:
    """The same seed, the same plan."""
    first = manybridge("chaos", "--builtin", "kills", "--seed", "3", "--plan")
    again = manybridge("chaos", "--builtin", "kills", "--seed", "3", "--plan")
    other = manybridge("chaos", "--builtin", "kills", "--seed", "4", "--plan", "--json")

    assert first.code == 0
    assert first.out == again.out
    assert other.json["seed"] == 4
    assert {planned["fault"] for planned in other.json["plan"]} == {"kill"}


def test_scenarios_and_faults_are_listed(manybridge: CommandLine) -> None:
    """With what each does."""
    ended = manybridge("chaos", "--list", "--json")

    assert set(ended.json["scenarios"]) == {"hangs", "kills", "store", "wire"}
    assert ended.json["faults"]["kill"] == "End a worker with a signal."


def test_wrong_use_says_what_to_do(manybridge: CommandLine) -> None:
    """No scenario, a wrong one, a bridge that nobody configured."""
    nothing = manybridge("chaos", "--json")
    assert "--builtin with one of hangs, kills" in nothing.error["message"]
    wrong = manybridge("chaos", write(SCENARIO.replace("rate", "rat")), "--json")
    assert "rat: is unknown; did you mean rate?" in wrong.error["message"]
    unknown = manybridge("chaos", write(SCENARIO.replace('bridge = "mock"', 'bridge = "mine"')), "--json")
    assert 'the scenario uses a bridge "mine", which is not configured' in unknown.error["message"]
    assert {nothing.code, wrong.code, unknown.code} == {5}


def test_the_real_store_is_the_one_of_the_configuration_wherever_the_command_is_typed(manybridge: CommandLine) -> None:
    """A relative file lies beside the configuration."""
    folder = Path("project")
    folder.mkdir()
    config = write('[bridges.mock]\n[store]\nurl = "sqlite:///own.db"\n', "project/manybridge.toml")
    making = '[[calls]]\nkind = "resource"\ntype = "counter"\n\n[[faults]]'
    ended = manybridge(
        "chaos", write(SCENARIO.replace("[[faults]]", making)), "--real-store", "--config", config, "--json"
    )

    assert ended.code == 0, ended.out + ended.err
    assert (folder / "own.db").exists()
    assert not Path("own.db").exists()

"""Scenarios are read with errors that teach, and a seed makes the same plan again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manybridge.testing.chaos import ChaosError, builtin_names, builtin_scenario, load_scenario, make_plan, print_plan

CALL = {"command": "mock:echo", "args": {"n": "$n"}, "expect": "$args"}


def scenario(**changes: Any) -> dict[str, Any]:
    """A scenario that is right, with some keys changed."""
    return {"bridge": "mock", "duration": 10, "calls": [CALL], "faults": [{"fault": "kill", "every": 2}], **changes}


def test_the_same_seed_makes_the_same_plan_and_another_seed_another_one() -> None:
    """Times and workers are drawn from the seed and from nothing else."""
    moving = scenario(faults=[{"fault": "kill", "every": 1, "jitter": 0.8}, {"fault": "stop", "every": 3}])

    first, again, other = (make_plan(load_scenario(moving).changed(seed=seed)) for seed in (7, 7, 8))

    assert first == again
    assert first != other
    assert [planned.at for planned in first] == sorted(planned.at for planned in first)


def test_one_rule_more_does_not_move_the_others() -> None:
    """Each rule has a generator of its own, so scenarios can be extended without becoming other scenarios."""
    kill = {"fault": "kill", "every": 1, "jitter": 0.8}
    alone = make_plan(load_scenario(scenario(faults=[kill])))
    together = make_plan(load_scenario(scenario(faults=[kill, {"fault": "flood", "every": 0.7}])))

    assert alone == [planned for planned in together if planned.fault == "kill"]


def test_times_are_those_that_the_rule_says() -> None:
    """`at`, `every`, `after`, `times`; nothing after the end."""
    faults = [
        {"fault": "kill", "at": [1, 9.5, 12]},
        {"fault": "stop", "every": 4},
        {"fault": "flood", "every": 1, "after": 0.5, "times": 2},
    ]
    plan = make_plan(load_scenario(scenario(faults=faults)))

    assert [(p.fault, p.at) for p in plan] == [
        ("flood", 0.5), ("kill", 1.0), ("flood", 1.5), ("stop", 4.0), ("stop", 8.0), ("kill", 9.5),
    ]  # fmt: skip


def test_a_printed_plan_names_its_seed() -> None:
    """Whoever reads a report can repeat it."""
    loaded = load_scenario(scenario()).changed(seed=42, duration=5)

    text = print_plan(loaded, make_plan(loaded))

    assert "2 faults in 5 s, seed 42" in text
    assert "2.000 s  kill" in text


def test_a_worker_that_the_scenario_names_is_not_drawn() -> None:
    """`worker = 0` is the oldest ready one, in every run."""
    plan = make_plan(load_scenario(scenario(faults=[{"fault": "kill", "at": [1], "worker": 0}])))

    assert plan[0].parameters == {"worker": 0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"duraton": 3}, "duraton: is unknown; did you mean duration?"),
        ({"duration": "long"}, "duration: Expected `float`, got `str`; found 'long'"),
        ({"rate": 0}, "rate: must be above 0"),
        ({"calls": []}, "calls: is missing"),
        ({"calls": [{"kind": "shout"}]}, "calls[0].kind: expected one of call, stream, job, resource"),
        ({"calls": [{"args": {}}]}, "calls[0].command: is missing"),
        ({"calls": [CALL | {"codes": ["worker_crash"]}]}, 'no error code "worker_crash"; did you mean worker_crashed?'),
        ({"calls": [CALL | {"argz": {}}]}, "calls[0].argz: is unknown; did you mean args?"),
        ({"faults": [{"fault": "kil", "at": [1]}]}, "there is no fault 'kil'; did you mean kill?"),
        ({"faults": [{"fault": "kill"}]}, "needs either at = [seconds, ...] or every = seconds"),
        ({"faults": [{"fault": "kill", "at": [1], "signal": "SIGFUN"}]}, "faults[0].signal: Invalid enum value"),
        ({"faults": [{"fault": "stop", "at": [1], "secs": 2}]}, "faults[0].secs: is unknown"),
        ({"faults": [{"fault": "kill", "every": 1, "jitter": 3}]}, "jitter: is a share from 0 to 1"),
        ({"promises": {"success": 99}}, "promises.success: is a share from 0 to 1"),
        ({"promises": {"recovery": float("nan")}}, "promises.recovery: must be a finite number"),
        ({"duration": float("inf")}, "duration: must be a finite number from 0 on, found inf"),
        ({"rate": float("nan")}, "rate: must be a finite number"),
        ({"calls": [CALL | {"weight": float("inf")}]}, "calls[0].weight: must be a finite number"),
        ({"faults": [{"fault": "kill", "at": [1, -1]}]}, "faults[0].at: must be a finite number from 0 on, found -1"),
        ({"faults": [{"fault": "kill", "every": 1, "after": -5}]}, "faults[0].after: must be a finite number"),
        ({"faults": [{"fault": "kill", "every": float("inf")}]}, "faults[0].every: must be a finite number"),
        ({"faults": [{"fault": "stop", "at": [1], "seconds": float("nan")}]}, "faults[0].seconds: must be a finite"),
    ],
)
def test_a_wrong_scenario_says_where_and_what(changes: dict[str, Any], said: str) -> None:
    """The key, what was found, and what is known or meant."""
    with pytest.raises(ChaosError) as caught:
        load_scenario(scenario(**changes))

    assert said in caught.value.message


def test_a_plan_that_would_be_drawn_for_ever_is_refused() -> None:
    """A slip in `every` is told, with its place, and does not fill the memory."""
    loaded = load_scenario(scenario(faults=[{"fault": "kill", "at": [1]}, {"fault": "stop", "every": 1e-9}]))

    with pytest.raises(ChaosError, match=r"faults\[1\]: strikes so often .* give it a longer `every`"):
        make_plan(loaded)


def test_a_fault_that_does_not_strike_is_told() -> None:
    """A run that kept its promises did so without it."""
    loaded = load_scenario(scenario(faults=[{"fault": "kill", "at": [12]}, {"fault": "stop", "every": 4}]))

    text = print_plan(loaded, make_plan(loaded))

    assert "never    kill               mock         its first time is not before the end" in text
    assert text.count("never") == 1


def test_all_problems_are_told_at_once() -> None:
    """Nobody wants to learn of them one by one."""
    with pytest.raises(ChaosError) as caught:
        load_scenario({"calls": [{}], "faults": [{}], "colour": 1})

    assert len(caught.value.details["problems"]) >= 4


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    """With the parser's own words about the place."""
    file = tmp_path / "broken.toml"
    file.write_text("calls = [")

    with pytest.raises(ChaosError, match=r"broken\.toml: not TOML"):
        load_scenario(file)
    with pytest.raises(ChaosError, match=r"gone\.toml: the scenario can't be read"):
        load_scenario(tmp_path / "gone.toml")


@pytest.mark.parametrize("name", builtin_names())
def test_built_in_scenarios_are_right(name: str) -> None:
    """Each can be read, says what it does, brings its bridges and has a plan."""
    loaded = builtin_scenario(name)

    assert loaded.description
    assert loaded.uses <= loaded.bridges.keys()
    assert make_plan(loaded)


def test_an_unknown_built_in_scenario_names_the_nearest() -> None:
    """And the others where none is near."""
    with pytest.raises(ChaosError, match="did you mean kills"):
        builtin_scenario("kill")

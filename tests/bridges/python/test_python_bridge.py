"""The commands and resource types of the `python` bridge, in process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manybridge.bridge import BridgeError, Cancelled
from manybridge.bridges.python import PythonBridge
from manybridge.testing import BridgeHarness, check_bridge

TEAM = Path(__file__).parent / "team"


@pytest.fixture(autouse=True)
def path_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Options may change sys.path and load modules; a test leaves neither."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith((str(TEAM), "/tmp")):
            del sys.modules[name]


@pytest.fixture
def python() -> Iterator[BridgeHarness]:
    """A bridge with the team's folder."""
    with BridgeHarness(PythonBridge, {"paths": [str(TEAM)], "allow": ["math", "itertools"]}) as harness:
        yield harness


def code_of(python: BridgeHarness, command: str, session: str | None = None, /, **arguments: Any) -> str:
    """The code with which a command fails."""
    with pytest.raises(BridgeError) as caught:
        python.run(command, arguments, session_id=session)
    return caught.value.code


def test_it_holds_to_the_contract() -> None:
    """Declarations, fork safety, samples of every command, snapshots."""
    check_bridge(
        PythonBridge,
        {"evaluate": True},
        samples={
            "call": {"target": "math:hypot", "args": [3, 4]},
            "attribute": {"name": "math:pi"},
            "iterate": {"target": "itertools:count", "limit": 2},
            "evaluate": {"expression": "1 + 1"},
            "objects": {},
        },
        resources={
            "object": ({"target": "random:Random", "args": [1]}, {"method": "random"}),
            "state": ({"initial": {"n": 1}}, {"op": "get"}),
        },
    )


def test_call_runs_a_function_of_an_allowed_module(python: BridgeHarness) -> None:
    """With positional and named arguments."""
    assert python.call("call", target="math:sqrt", args=[16]) == 4.0
    assert python.call("call", target="billing:gross", kwargs={"net": 100, "rate": 0.5}) == 150.0


def test_arguments_that_do_not_fit_are_told_with_the_signature(python: BridgeHarness) -> None:
    """Before the function runs."""
    with pytest.raises(BridgeError, match="missing a required argument: 'net'") as caught:
        python.call("call", target="billing:gross")
    assert caught.value.code == "invalid_argument"
    assert caught.value.details["signature"].startswith("(net")


def test_what_is_not_callable_is_told_apart(python: BridgeHarness) -> None:
    """The error says how to read it."""
    assert code_of(python, "call", target="billing:RATE") == "invalid_argument"


def test_an_exception_of_the_function_passes_through(python: BridgeHarness) -> None:
    """The runtime reports it as handler_error with its type."""
    with pytest.raises(ZeroDivisionError):
        python.call("call", target="billing:divide", args=[1, 0])


def test_an_object_lives_on_by_reference(python: BridgeHarness) -> None:
    """Made, used, read, passed on, listed and released."""
    ada = python.call("call", target="billing:Account", args=["Ada", 10])
    assert ada["type"] == "billing.Account"
    assert python.call("method", object=ada, method="pay", args=[5]) == 15
    assert python.call("attribute", object=ada["$object"], name="balance") == 15
    bob = python.call("call", target="billing:Account", args=["Bob", 1])
    both = python.call("call", target="billing:merge", args=[ada], kwargs={"second": bob})
    assert python.call("attribute", object=both, name="owner") == "Ada+Bob"
    assert python.call("objects")["total_count"] == 3
    assert python.call("release", object=both)["released"]
    assert code_of(python, "attribute", object=both, name="owner") == "resource_not_found"


def test_a_result_keeps_its_shape_around_a_reference(python: BridgeHarness) -> None:
    """Numbers by value, the account by reference."""
    ada = python.call("call", target="billing:Account", args=["Ada", 10])
    report = python.call("call", target="billing:report", args=[ada])
    assert report["balance"] == 10
    assert report["account"]["type"] == "billing.Account"


def test_store_keeps_a_plain_result_on_the_worker(python: BridgeHarness) -> None:
    """For large lists that only the next call needs."""
    kept = python.call("call", target="math:prod", args=[[2, 3]], store=True)
    assert python.call("call", target="math:sqrt", args=[kept]) == pytest.approx(6**0.5)


def test_an_object_of_another_session_is_not_found(python: BridgeHarness) -> None:
    """In arguments as well as as the object itself."""
    ada = python.run("call", {"target": "billing:Account", "args": ["Ada"]}, session_id="a").result
    assert code_of(python, "attribute", "b", object=ada, name="owner") == "resource_not_found"
    assert code_of(python, "call", "b", target="billing:report", args=[ada]) == "resource_not_found"


def test_cleanup_of_a_session_releases_its_objects(python: BridgeHarness) -> None:
    """The runtime calls it for common:cleanup."""
    ada = python.run("call", {"target": "billing:Account", "args": ["Ada"]}, session_id="a").result
    assert python.bridge.cleanup("a") == {"objects_released": 1, "namespaces_forgotten": 0}
    assert code_of(python, "attribute", "a", object=ada, name="owner") == "resource_not_found"


@pytest.mark.parametrize("method", ["_secret", "__init__", "pay.__globals__", "__class__"])
def test_private_methods_are_refused(python: BridgeHarness, method: str) -> None:
    """On objects as on modules."""
    ada = python.call("call", target="billing:Account", args=["Ada"])
    assert code_of(python, "method", object=ada, method=method) == "permission_denied"


def test_a_time_to_live_must_be_positive(python: BridgeHarness) -> None:
    """Nonsense is an error and not an object that is gone at once."""
    assert code_of(python, "call", target="math:pi", store=True, ttl_seconds=0) == "invalid_argument"
    assert code_of(python, "attribute", name="math:pi", store=True, ttl_seconds=-1) == "invalid_argument"


# ---------------------------------------------------------------- coroutines


def test_coroutines_are_awaited_on_one_loop(python: BridgeHarness) -> None:
    """Clients that cache their loop find the same one in the next call."""
    assert python.call("call", target="billing:fetch", args=[21]) == 42
    assert python.call("call", target="billing:which_loop") == python.call("call", target="billing:which_loop")


def test_a_timeout_error_of_the_awaited_code_is_its_own(python: BridgeHarness) -> None:
    """Waiting for the loop uses the same class inside."""
    with pytest.raises(TimeoutError, match="the service is late"):
        python.call("call", target="billing:late")


def test_a_cancelled_call_cancels_what_it_awaits(python: BridgeHarness) -> None:
    """The loop goes on."""
    with pytest.raises(Cancelled):
        python.run("call", {"target": "billing:hang"}, cancel_after=0)
    assert python.call("call", target="billing:fetch", args=[1]) == 2


# ---------------------------------------------------------------- iterate


def test_iterate_streams_what_a_function_yields(python: BridgeHarness) -> None:
    """Plain and asynchronous generators alike."""
    for target in ("billing:numbers", "billing:pages"):
        outcome = python.run("iterate", {"target": target, "args": [3]})
        assert (outcome.chunks, outcome.result) == ([0, 1, 2], {"count": 3})


def test_a_limit_reads_a_held_iterator_in_parts(python: BridgeHarness) -> None:
    """No item is lost between two reads."""
    numbers = python.call("call", target="billing:numbers", args=[5])
    parts = [python.run("iterate", {"object": numbers, "limit": 2}).chunks for _ in range(3)]
    assert parts == [[0, 1], [2, 3], [4]]


def test_collect_puts_the_items_into_the_result(python: BridgeHarness) -> None:
    """For callers without a stream."""
    assert python.call("iterate", target="billing:numbers", args=[2], collect=True) == {"count": 2, "items": [0, 1]}


def test_an_endless_iterator_stops_when_the_call_is_cancelled(python: BridgeHarness) -> None:
    """Between two items."""
    with pytest.raises(Cancelled):
        python.run("iterate", {"target": "itertools:count"}, cancel_after=3)


def test_iterate_wants_one_source_that_can_be_iterated(python: BridgeHarness) -> None:
    """Each mistake has its own words and the same code."""
    assert code_of(python, "iterate") == "invalid_argument"
    assert code_of(python, "iterate", target="math:sqrt", object="obj_1") == "invalid_argument"
    assert code_of(python, "iterate", target="math:sqrt", args=[4]) == "invalid_argument"


# ---------------------------------------------------------------- the team's own


def test_a_function_that_asks_for_the_context_gets_it(python: BridgeHarness) -> None:
    """Progress and cancel reach a team's own function."""
    outcome = python.run("call", {"target": "billing:slow_job", "args": [2]})
    assert outcome.result == "done"
    assert [event["current"] for event in outcome.progress] == [1, 2]
    with pytest.raises(Cancelled):
        python.run("call", {"target": "billing:slow_job", "args": [9]}, cancel_after=2)


def test_a_file_is_loaded_by_its_path_and_its_neighbours_stay_private(tmp_path: Path) -> None:
    """Naming a file allows that file."""
    (tmp_path / "helper_of_tools.py").write_text("def help(): return 1\n")
    (tmp_path / "tools_of_team.py").write_text("import helper_of_tools\ndef work(): return helper_of_tools.help()\n")
    with BridgeHarness(PythonBridge, {"paths": [str(tmp_path / "tools_of_team.py")]}) as python:
        assert python.call("call", target="tools_of_team:work") == 1
        assert code_of(python, "call", target="helper_of_tools:help") == "permission_denied"
        assert code_of(python, "call", target="tools_of_team:helper_of_tools.help") == "permission_denied"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alow": ["math"]}, "options.alow: is unknown"),
        ({"allow": "math"}, "options.allow: expected a list of strings"),
        ({"allow": ["team.py"]}, "options.allow: 'team.py' is a path, and modules stand here"),
        ({"allow": ["./team"]}, "files and folders go into options.paths"),
        ({"paths": ["/no/such/folder"]}, "neither a folder nor a Python file"),
        ({"evaluate": 1}, "options.evaluate"),
        ({"max_objects": 0}, "options.max_objects"),
        ({"max_objects": True}, "options.max_objects"),
        ({"ttl_seconds": -1}, "options.ttl_seconds"),
    ],
)
def test_a_wrong_option_is_a_config_error(options: dict[str, Any], words: str) -> None:
    """With the key, what was expected and what was found."""
    with pytest.raises(BridgeError, match=words) as caught:
        BridgeHarness(PythonBridge, options)
    assert caught.value.code == "config_error"


def test_a_file_that_would_hide_a_module_is_refused(tmp_path: Path) -> None:
    """A team's random.py must not replace Python's."""
    for name in ("colorsys.py", "json.py"):
        (tmp_path / name).write_text("")
        for path in (tmp_path, tmp_path / name):
            with pytest.raises(BridgeError, match="rename") as caught:
                BridgeHarness(PythonBridge, {"paths": [str(path)]})
            assert caught.value.code == "config_error"
        (tmp_path / name).unlink()


def test_a_broken_file_fails_the_start_with_its_reason(tmp_path: Path) -> None:
    """Not the first call."""
    (tmp_path / "broken_tools.py").write_text("1 / 0\n")
    with pytest.raises(BridgeError, match="ZeroDivisionError") as caught:
        BridgeHarness(PythonBridge, {"paths": [str(tmp_path / "broken_tools.py")]})
    assert caught.value.code == "setup_failed"
    assert "broken_tools" not in sys.modules


# ---------------------------------------------------------------- evaluate


@pytest.fixture
def evaluating() -> Iterator[BridgeHarness]:
    """A bridge whose operator turned evaluate on."""
    with BridgeHarness(PythonBridge, {"evaluate": True, "allow": ["math", "statistics", "json"]}) as harness:
        yield harness


def test_evaluate_is_off_until_the_operator_turns_it_on(python: BridgeHarness) -> None:
    """The error says how."""
    with pytest.raises(BridgeError, match="evaluate = true") as caught:
        python.call("evaluate", expression="1")
    assert caught.value.code == "permission_denied"


def test_evaluate_knows_names_modules_and_builtins(evaluating: BridgeHarness) -> None:
    """Also inside comprehensions."""
    assert evaluating.call("evaluate", expression="max(math.sqrt(x) for x in xs)", names={"xs": [4, 9]}) == 3.0
    assert evaluating.call("evaluate", expression=" statistics.mean(xs) ", names={"xs": [1, 3]}) == 2


@pytest.mark.parametrize(
    "expression",
    ["().__class__", "statistics.sys", "json.codecs.open", "__import__", "(x for x in ()).gi_frame", "len.__self__"],
)
def test_evaluate_obeys_the_attribute_rules(evaluating: BridgeHarness, expression: str) -> None:
    """An expression reaches no further than python:attribute."""
    assert code_of(evaluating, "evaluate", expression=expression) == "permission_denied"


@pytest.mark.parametrize("expression", ["1 +", "x = 1", "import os", "unknown_name", "open('x')", "os.getcwd()", "\0"])
def test_what_is_no_known_expression_is_an_invalid_argument(evaluating: BridgeHarness, expression: str) -> None:
    """Syntax errors and unknown names."""
    assert code_of(evaluating, "evaluate", expression=expression) == "invalid_argument"


# ---------------------------------------------------------------- resources


def test_an_object_resource_is_made_from_its_config_alone(python: BridgeHarness) -> None:
    """Methods, and the instance itself where no method is named."""
    account = python.create("object", {"target": "billing:Account", "kwargs": {"owner": "Ada", "balance": 4}})
    assert account.execute(method="pay", args=[1]) == 5
    assert account.execute(args=[2]) == 10


def test_an_object_resource_takes_no_references(python: BridgeHarness) -> None:
    """A recipe must work in another worker."""
    ada = python.call("call", target="billing:Account", args=["Ada"])
    with pytest.raises(BridgeError, match="another worker") as caught:
        python.create("object", {"target": "billing:report", "args": [[ada]]})
    assert caught.value.code == "invalid_argument"


def test_a_state_resource_survives_through_its_snapshot(python: BridgeHarness) -> None:
    """Document and version."""
    state = python.create("state", {"initial": {"n": 1}})
    assert state.execute(op="increment", path="n") == {"value": 2, "version": 1}
    restored = python.restore("state", {"initial": {"n": 1}}, state.snapshot())
    assert restored.execute(op="get") == {"value": {"n": 2}, "version": 1}


def test_a_state_resource_knows_its_operations(python: BridgeHarness) -> None:
    """An unknown one is found before anything runs."""
    with pytest.raises(BridgeError) as caught:
        python.create("state").execute(op="drop")
    assert caught.value.code == "invalid_argument"

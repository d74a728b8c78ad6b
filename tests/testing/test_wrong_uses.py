"""Slips of whoever meets the testing kit for the first time end in a sentence that says what to pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import ConfigError
from manybridge.testing import (
    BridgeHarness,
    Conversation,
    InMemoryMLBridge,
    KitError,
    Recorder,
    check_bridge,
    replay_against,
)
from manybridge.testing.hosts import configured
from tests.testing.bridges import WordBridge

NO_CLASS: list[Any] = ["words.py", dict, None]


@pytest.mark.parametrize("found", NO_CLASS)
@pytest.mark.parametrize("use", [BridgeHarness, check_bridge])
def test_who_passes_no_bridge_is_told_what_is_expected(use: Callable[[Any], Any], found: Any) -> None:
    """Its file, for example, which names a bridge everywhere else."""
    with pytest.raises(KitError) as caught:
        use(found)

    assert caught.value.message == (f"bridge: expected a class that extends manybridge.bridge.Bridge, found {found!r}")


@pytest.mark.parametrize(
    ("bridges", "said"),
    [
        ([WordBridge], "bridges: expected a bridge's class, or a mapping of names to classes or tables"),
        (None, "bridges: expected a bridge's class, or a mapping"),
        (dict, "bridges: expected a class that extends manybridge.bridge.Bridge, found <class 'dict'>"),
        ({"words": dict}, "bridges.words: expected a class that extends manybridge.bridge.Bridge"),
    ],
)
def test_a_host_in_memory_says_what_it_takes(bridges: Any, said: str) -> None:
    """Before anything is started."""
    with pytest.raises(KitError) as caught:
        InMemoryMLBridge(bridges)

    assert caught.value.message.startswith(said)


@pytest.mark.parametrize("expect", ["expect_create", "expect_execute"])
def test_a_resource_is_expected_by_bridge_type_and_arguments(expect: str) -> None:
    """Whoever leaves the type out is told so, where it was left out."""
    with pytest.raises(KitError, match=r"type: expected a name; .* bridge, type and arguments, found \{'q': 1\}"):
        getattr(Conversation(), expect)("llm", {"q": 1})


def test_keys_of_a_configuration_need_a_class_that_they_are_for() -> None:
    """Of several bridges each has a table of its own."""
    with pytest.raises(KitError, match="options, pool_size: keywords configure the bridge whose class is given"):
        configured({"words": WordBridge}, {"options": {}, "pool_size": 2})


def test_a_table_that_is_none_is_a_problem_of_the_configuration() -> None:
    """As it is with workers in processes."""
    with pytest.raises(ConfigError, match=r"bridges\.words"):
        InMemoryMLBridge({"words": "words.py"})


@pytest.mark.parametrize(
    ("samples", "resources", "said"),
    [
        ({"count": ["a"]}, {}, r"samples\['count'\]: expected a mapping of arguments, found \['a'\]"),
        ({}, {"tally": {}}, r"resources\['tally'\]: expected two mappings, config and inputs, found \{\}"),
    ],
)
def test_a_sample_of_another_form_is_no_problem_of_the_bridge(samples: Any, resources: Any, said: str) -> None:
    """It is the test's own."""
    with pytest.raises(KitError, match=said):
        check_bridge(WordBridge, samples=samples, resources=resources)


def test_what_was_not_recorded_is_not_said_to_be_right(tmp_path: Path) -> None:
    """No request of another bridge's name could fail; of several bridges none is chosen silently."""
    path = tmp_path / "session.jsonl"
    with InMemoryMLBridge({"one": WordBridge, "two": WordBridge}) as ml, Recorder(ml, path):
        ml.bridges()

    with pytest.raises(KitError, match=r"bridge: nothing of 'words' was recorded; .*session\.jsonl has: one, two"):
        replay_against(path, WordBridge, bridge="words")
    with pytest.raises(KitError, match=r"bridge: say whose requests are asked; .* has: one, two"):
        replay_against(path, WordBridge)
    with pytest.raises(KitError, match=r"worker: expected a class that extends"):
        replay_against(path, dict, bridge="one")  # type: ignore[arg-type]  # the slip that is tested


def test_a_recording_that_can_not_be_written_is_named_and_a_second_one_empties_nothing(tmp_path: Path) -> None:
    """The second recorder of a host is refused before it touches the file, which may be the first one's."""
    path = tmp_path / "session.jsonl"
    with InMemoryMLBridge(WordBridge) as ml:
        with pytest.raises(KitError, match=r"gone/session\.jsonl: the recording can't be written: .*No such file"):
            Recorder(ml, tmp_path / "gone" / "session.jsonl").__enter__()
        with Recorder(ml, path):
            before = path.stat().st_size
            with pytest.raises(KitError, match="one at a time"):
                Recorder(ml, path).__enter__()
            assert path.stat().st_size >= before

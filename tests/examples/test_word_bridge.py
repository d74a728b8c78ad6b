"""The newcomer's bridge: one file, used by its path, without a change to anything of ours."""

from __future__ import annotations

import pytest

from manybridge.testing import BridgeHarness, check_bridge
from tests.bridges.raw_worker import raw_worker
from tests.support import REPOSITORY

WORD_BRIDGE = REPOSITORY / "examples" / "newcomer" / "word_bridge.py"


def test_it_works_over_the_wire_with_capabilities_and_argument_errors() -> None:
    """Command, stream, resource, schemas, and an error that names the argument."""
    with raw_worker(WORD_BRIDGE) as worker:
        assert worker.result("words:count", {"text": "to be or not to be"})["to"] == 2
        worker.result("words:spell", {"text": "to be"}, stream=True)
        assert [event["data"] for event in worker.events] == ["to", "be"]
        held = worker.result("common:create_resource", {"type": "glossary", "config": {"meanings": {"be": "exist"}}})
        assert worker.result("common:execute_resource", {"id": held["id"], "inputs": {"word": "be"}}) == "exist"
        shown = worker.result("common:capabilities")
        assert shown["commands"]["words:count"]["args"]["required"] == ["text"]
        assert shown["resources"]["glossary"]["policy"] == "recreate"
        reply = worker.ask("words:count", {"txt": "to be"}, stream=False)
        assert reply["error_info"]["code"] == "invalid_argument"
        assert "did you mean 'text'" in reply["error"]


@pytest.mark.parametrize("lines", [40])
def test_it_is_as_short_as_a_first_bridge_should_be(lines: int) -> None:
    """A newcomer reads it in a minute."""
    assert len(WORD_BRIDGE.read_text().splitlines()) <= lines


def test_it_holds_to_the_contract() -> None:
    """Checked as its author would."""
    from examples.newcomer.word_bridge import WordBridge

    check_bridge(
        WordBridge,
        samples={"count": {"text": "a b a"}, "spell": {"text": "a b"}},
        resources={"glossary": ({"meanings": {"a": "one"}}, {"word": "b"})},
    )
    with BridgeHarness(WordBridge) as words:
        assert words.call("count", text="a b A") == {"a": 2, "b": 1}

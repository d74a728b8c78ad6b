"""`BridgeContract` as an author uses it, on a good bridge; what it finds in others is tested through `pytester`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from manybridge.testing import BridgeContract
from tests.testing.bridges import WordBridge

pytest_plugins = ["pytester"]


class TestWordBridge(BridgeContract):
    """Everything holds, in this process and in a worker."""

    bridge = WordBridge
    samples: ClassVar[Mapping[str, Any]] = {"count": {"text": "a b"}, "spell": {"word": "ab"}}
    resources: ClassVar[Mapping[str, Any]] = {"tally": ({"start": 1}, {"add": 2})}


BAD = """
from manybridge.bridge import Bridge, command
from manybridge.testing import BridgeContract

class Bad(Bridge):
    name = "bad"

    @command
    def silent(self, a: int):
        return {a}

class TestBad(BridgeContract):
    bridge = Bad
    samples = {"silent": {"a": 1}}
    in_worker = False
"""


def test_a_bad_bridge_fails_with_what_is_wrong(pytester: pytest.Pytester) -> None:
    """A command without a description, and a result that JSON can't carry."""
    pytester.makepyfile(test_bad=BAD)

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q")

    result.assert_outcomes(passed=4, failed=2, skipped=1)
    result.stdout.fnmatch_lines(["*command silent has no description*", "*a result of command silent is not JSON*"])


def test_a_file_in_the_place_of_the_class_is_told_at_once() -> None:
    """Everywhere else a bridge may be named by its file."""
    with pytest.raises(TypeError, match=r"bridge: expected a class that extends .*, found 'words\.py'"):
        type("TestWords", (BridgeContract,), {"bridge": "words.py"})

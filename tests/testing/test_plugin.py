"""The pytest plugin, as a project that installed manybridge finds it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

BRIDGE = """
from manybridge.bridge import Bridge, command

class Words(Bridge):
    name = "words"

    @command
    def count(self, text: str) -> int:
        "How many words."
        return len(text.split())
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with a bridge."""
    pytester.makepyfile(words=BRIDGE)
    pytester.makeini("[pytest]\npythonpath = .\nfilterwarnings = error\n")
    return pytester


def test_fixtures_give_hosts_bridges_scripts_and_faults(project: pytest.Pytester) -> None:
    """Each with no more than its name."""
    project.makepyfile(
        test_it="""
import pytest
from words import Words

def test_bridge(manybridge_bridge):
    assert manybridge_bridge(Words).call("count", text="a b") == 2

def test_memory(manybridge_host):
    ml = manybridge_host(Words)
    assert ml.call("words", "count", {"text": "a b"}) == 2
    assert ml.health()["bridges"]["words"]["workers"][0]["started_by"] == "memory"

def test_keys(manybridge_host):
    for real in (False, True):
        ml = manybridge_host(Words, real=real, default_timeout=7.0, pool_size=2)
        ml.wait_ready("words")
        assert ml.health()["bridges"]["words"]["pool_size"] == 2

@pytest.mark.manybridge(real=True)
def test_real(manybridge_host):
    ml = manybridge_host(Words)
    assert ml.call("words", "count", {"text": "a b"}) == 2
    assert ml.health()["bridges"]["words"]["workers"][0]["started_by"] != "memory"

def test_mock(manybridge_mock):
    manybridge_mock.expect("llm:complete").replies("hi")
    assert manybridge_mock.start().call("llm", "complete") == "hi"

def test_chaos(manybridge_host, manybridge_chaos):
    ml = manybridge_host({"words": {"bridge": Words, "restart": {"initial_backoff": 0}}}, real=True)
    chaos = manybridge_chaos(ml)
    killed = chaos.inject("kill", "words")
    assert chaos.recovered(killed) is not None
    assert ml.call("words", "count", {"text": "a b"}) == 2
"""
    )

    result = project.runpytest_subprocess("-q", "--manybridge-seed", "5", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=6)


def test_what_a_test_leaves_undone_fails_it(project: pytest.Pytester) -> None:
    """A script that was not played, and a process that still runs: told at the end of the test that did it."""
    project.makepyfile(
        test_it="""
import subprocess, sys
from manybridge.testing import plugin
plugin.LEAK_SECONDS = 0.05
left = []

def test_mock(manybridge_mock):
    manybridge_mock.expect("llm:complete")
    manybridge_mock.start()

def test_leak(manybridge_host):
    left.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

def test_afterwards():
    left[0].communicate()
"""
    )

    result = project.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-W", "ignore")

    result.assert_outcomes(passed=3, errors=2)
    result.stdout.fnmatch_lines(["*never came: llm:complete*"])
    result.stdout.fnmatch_lines(["*left behind: process *input()*"])


def test_the_plugin_imports_nothing_of_ours_before_it_is_asked(project: pytest.Pytester) -> None:
    """It is loaded by every run of pytest in an environment that has manybridge."""
    project.makepyfile(
        test_it="""
import sys

def test_it():
    assert "manybridge.testing.plugin" in sys.modules
    ours = ("manybridge.host", "manybridge.bridge", "manybridge.adapters", "manybridge.testing.", "sqlalchemy")
    loaded = [name for name in sys.modules if name.startswith((*ours, "http.server"))]
    assert loaded == ["manybridge.testing.plugin"]
"""
    )

    project.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=1)

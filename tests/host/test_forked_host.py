"""A program that forks while it has a host, and one that was started without standard streams."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import DEFAULT_TIMEOUT

HOST = """
import os, sys
from manybridge import ManybridgeError, MLBridge
CONFIG = {"bridges": {"mock": {}}}
ml = MLBridge.from_config(CONFIG)
for number in range(3):
    ml.call("mock", "mock:echo")

def fork(act):
    pid = os.fork()
    if pid == 0:
        act()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

CALLS = {
    "call": 'ml.call("mock", "mock:echo")',
    "other call": 'ml.call("mock", "mock:echo", session="s")',
    "stream": 'list(ml.stream("mock", "mock:count", {"n": 1}))',
    "health": "ml.health()",
}


def run(program: str, *, closed: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program, without the standard streams that a shell closes so."""
    command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, program]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEFAULT_TIMEOUT, check=False)


@pytest.mark.parametrize("what", CALLS)
def test_a_forked_process_hears_that_the_host_is_not_its_own(what: str) -> None:
    """The host's thread is not copied by a fork: nobody would ever answer."""
    act = f"""
def act():
    try:
        {CALLS[what]}
    except ManybridgeError as error:
        assert (error.code, "forked" in error.message) == ("host_closed", True), error
        sys.exit(7)
print(fork(act), ml.call("mock", "mock:echo", {{"still": "here"}}))
"""
    ended = run(HOST + act)

    assert (ended.stdout, ended.returncode) == ("7 {'still': 'here'}\n", 0), ended.stderr


def test_a_forked_process_ends_as_it_likes_and_may_have_a_host_of_its_own() -> None:
    """Its end closes neither the first host nor waits for it."""
    act = """
def act():
    with MLBridge.from_config(CONFIG) as own:
        assert own.call("mock", "mock:echo", {"a": 1}) == {"a": 1}
print(fork(lambda: None), fork(act), ml.call("mock", "mock:echo", {"still": "here"}))
"""
    ended = run(HOST + act)

    assert (ended.stdout, ended.returncode, ended.stderr) == ("0 0 {'still': 'here'}\n", 0, "")


def test_a_forked_process_may_end_inside_of_its_parents_with_block() -> None:
    """Leaving the block closes nothing there, and does not stand in for the exit that it is left for."""
    ended = run(HOST + 'with ml:\n    print(fork(lambda: sys.exit(5)), ml.call("mock", "mock:echo", {"a": 1}))')

    assert (ended.stdout, ended.returncode, ended.stderr) == ("5 {'a': 1}\n", 0, "")


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_a_program_without_standard_streams_can_have_a_host(closed: str) -> None:
    """Else their numbers go to the loop's sockets: libuv ends the process, and a print goes to a worker."""
    ended = run(HOST + 'print(ml.call("mock", "mock:echo", {"a": 1}))', closed=closed)

    assert (ended.stdout, ended.returncode) == ("{'a': 1}\n", 0), ended.stderr

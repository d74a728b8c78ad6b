"""The command line of a worker."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from manybridge.protocol.frames import DEFAULT_MAX_FRAME_BYTES
from manybridge.worker.options import MIN_FRAME_BYTES, bridge_options, parse
from tests.support import DEFAULT_TIMEOUT
from tests.worker.raw import BOOTSTRAP, RawWorker, bridge


def test_the_bridge_alone_is_enough() -> None:
    """Everything else has a default."""
    found = parse(["mock"])
    assert (found.bridge, found.mode, found.load, found.zygote) == ("mock", "standalone", "eager", False)
    assert (found.worker_id, found.name, found.generation, found.max_concurrency) == (None, None, 0, None)
    assert (found.max_frame_bytes, found.cancel_grace_ms, found.sandbox) == (DEFAULT_MAX_FRAME_BYTES, 500, "required")
    assert bridge_options(found) == {}


def test_values_may_follow_an_equals_sign() -> None:
    """As DSPex writes them."""
    found = parse(["dspy", "--mode=pool-worker", "--worker-id=worker_1_2"])
    assert (found.mode, found.worker_id) == ("pool-worker", "worker_1_2")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["mock", "stray"],
        ["mock", "--unknown"],
        ["mock", "--mode", "other"],
        ["mock", "--generation", "x"],
        ["mock", "--max-concurrency", "0"],
        ["mock", "--max-frame-bytes", str(MIN_FRAME_BYTES - 1)],
        ["mock", "--cancel-grace-ms", "-1"],
        ["mock", "--load", "later"],
        ["mock", "--sandbox", "off"],
    ],
)
def test_a_wrong_argument_ends_with_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """And with usage on the log, as argparse does it."""
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "usage: manybridge worker" in seen.err


@pytest.mark.parametrize("text", ["{", "[]", "5", "null", '"text"'])
def test_options_that_are_no_object_are_refused(text: str) -> None:
    """Before anything is started."""
    with pytest.raises(ValueError, match=r"."):
        bridge_options(parse(["mock", "--options", text]))


@pytest.mark.parametrize(
    "arguments",
    [["--options", "[]"], ["--options", "{"], ["--options-fd", "97"]],
    ids=["list", "half", "no descriptor"],
)
def test_a_worker_with_wrong_options_says_so_and_ends_with_status_2(arguments: list[str]) -> None:
    """One line, no traceback."""
    done = subprocess.run(
        [sys.executable, "-I", str(BOOTSTRAP), "mock", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=DEFAULT_TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("manybridge worker: error: --options: ")
    assert done.stderr.count("\n") == 1


def test_options_may_come_through_a_descriptor() -> None:
    """Where nobody who lists processes can read them; it is closed then."""
    file = os.memfd_create("options")
    os.write(file, b'{"a": [1]}')
    os.lseek(file, 0, os.SEEK_SET)
    assert bridge_options(parse(["mock", "--options-fd", str(file)])) == {"a": [1]}
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file)


def test_help_goes_to_stdout_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    """For a person at a terminal."""
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    assert "usage: manybridge worker" in capsys.readouterr().out


def test_the_effective_concurrency_is_what_warm_up_tells() -> None:
    """The command line wins over the bridge."""
    with RawWorker() as worker:
        assert worker.result("common:warm_up")["max_concurrency"] == 1
    with RawWorker("mock", "--max-concurrency", "3") as worker:
        assert worker.result("common:warm_up")["max_concurrency"] == 3


def test_a_bridge_by_path_needs_nothing_installed() -> None:
    """Not manybridge and no site-packages: the bootstrap file brings its own package."""
    with RawWorker(program=[sys.executable, "-I", "-S", str(BOOTSTRAP), bridge("handlers")]) as worker:
        assert worker.result("h:add", {"a": 1}) == 2

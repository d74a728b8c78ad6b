"""The tools that other tests stand on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support import (
    MS,
    REPOSITORY,
    FrameReader,
    aeventually,
    cuts,
    eventually,
    frame,
    frame_message,
    process_is_running,
    request,
    split_frames,
)


def test_eventually_returns_the_first_true_value() -> None:
    """The predicate is asked until it answers, and its answer comes back."""
    answers = iter([None, 0, "", "ready"])
    assert eventually(lambda: next(answers)) == "ready"


def test_eventually_counts_a_failed_assertion_as_not_yet() -> None:
    """A predicate may assert; its last failure is the cause of the error."""

    def never() -> bool:
        raise AssertionError("two workers, expected three")

    with pytest.raises(AssertionError, match=r"not true within 0\.\d+ s: the pool is full") as caught:
        eventually(never, timeout=5 * MS, message="the pool is full")
    assert "two workers" in str(caught.value.__cause__)


def test_eventually_lets_other_errors_through_at_once() -> None:
    """A broken predicate is not waited for."""
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        eventually(lambda: 1 / 0)
    assert time.monotonic() - started < 1


async def test_aeventually_awaits_coroutines_and_tells_the_state() -> None:
    """A coroutine function serves as predicate, and the message may be made at the moment of failure."""

    async def ready() -> int:
        return 5

    assert await aeventually(ready) == 5
    with pytest.raises(AssertionError, match="state is starting"):
        await aeventually(lambda: False, timeout=5 * MS, message=lambda: "state is starting")


def test_a_process_that_ended_is_not_running() -> None:
    """A zombie has a pid but runs nothing."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert process_is_running(child.pid)
    child.communicate(b"\n")
    assert not process_is_running(child.pid)
    zombie = os.fork()
    if zombie == 0:
        os._exit(0)
    eventually(lambda: not process_is_running(zombie))
    assert os.waitpid(zombie, 0) == (zombie, 0)


def test_frames_are_written_and_read_as_the_wire_has_them() -> None:
    """Four bytes of length, big-endian, then UTF-8 JSON; a frame cut off stays in the rest."""
    assert frame("é") == b"\x00\x00\x00\x02\xc3\xa9"
    text = '{"id":1,"command":"ping","args":{},"stream":true}'
    assert request(1, "ping", stream=True) == len(text).to_bytes(4, "big") + text.encode()
    data = frame_message({"id": 1}) + frame_message([2]) + b"\x00\x00\x00\x09{"
    assert split_frames(data) == ([{"id": 1}, [2]], b"\x00\x00\x00\x09{")
    assert cuts(b"abcdef", [4, -1, 2, 99]) == [b"", b"ab", b"cd", b"ef", b""]


def test_the_frame_reader_tells_silence_from_an_end() -> None:
    """Messages come one by one; then a time-out while the other end is open, and EOFError once it is closed."""
    read_end, write_end = os.pipe()
    reader = FrameReader(read_end)
    try:
        os.write(write_end, frame_message({"id": 1}) + frame_message({"id": 2}) + b"\x00\x00")
        assert [reader.read(), reader.read()] == [{"id": 1}, {"id": 2}]
        with pytest.raises(TimeoutError, match="2 bytes"):
            reader.read(timeout=5 * MS)
    finally:
        os.close(write_end)
    with pytest.raises(EOFError, match="2 bytes"):
        reader.read()
    os.close(read_end)


LEAKS = {
    "descriptor": "os.open(os.devnull, os.O_RDONLY)",
    "process": "subprocess.Popen(['sleep', '30']).returncode = 0",
    "thread": "threading.Thread(target=threading.Event().wait, name='left', daemon=True).start()",
    "nothing": "open(os.devnull).close(); subprocess.run(['true'], check=True)",
}


@pytest.mark.slow
def test_a_test_that_leaves_something_fails_by_name(tmp_path: Path) -> None:
    """A left descriptor, process, thread and orphan are each reported; a test that cleans up passes."""
    tests = "".join(f"def test_{name}():\n    {code}\n" for name, code in LEAKS.items())
    orphan = "def test_orphan():\n    subprocess.run('setsid sleep 31 & exit', shell=True, check=True)\n"
    (tmp_path / "test_leaks.py").write_text(f"import os, subprocess, threading\n{tests}{orphan}", encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        textwrap.dedent(
            f"""
            import sys
            sys.path.insert(0, {str(REPOSITORY)!r})
            import tests.conftest
            tests.conftest.LEAK_PATIENCE = 0.05
            from tests.conftest import *
            """
        ),
        encoding="utf-8",
    )
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "-q",
            "--rootdir",
            tmp_path,
            "-c",
            os.devnull,
            tmp_path,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout
    assert "left behind: descriptor" in result.stdout
    assert "left behind: process" in result.stdout
    assert "left behind: thread 'left'" in result.stdout
    assert "outlived the tests: sleep 31" in result.stdout
    assert "5 passed, 3 errors" in result.stdout


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "MANYBRIDGE_BRIDGES__DSPY__POOL_SIZE"])
def test_keys_and_settings_of_the_shell_do_not_reach_the_tests(name: str) -> None:
    """What a developer has set for real use is gone before any test module is imported."""
    probe = f"import os, tests.conftest as c; c.pytest_configure(); print({name!r} in os.environ)"
    result = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=REPOSITORY,
        env={**os.environ, name: "x"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "False\n"

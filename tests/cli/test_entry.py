"""What the entry point imports, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import CommandLine

LISTS_MODULES = """
import sys
import manybridge.worker.main
manybridge.worker.main.main = lambda argv: print(argv, *sorted(name.split(".")[0] for name in sys.modules)) or 7
from manybridge.cli.entry import main
code = main(["worker", "mock", "--load", "lazy"])
assert "manybridge.host" not in sys.modules
assert code == 7
"""


def in_shell(command: str, folder: Path, stdout: Any = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run `python COMMAND` with the redirections in it, from an empty folder."""
    environ = {key: value for key, value in os.environ.items() if key not in {"MANYBRIDGE_CONFIG", "PYTHONUNBUFFERED"}}
    return subprocess.run(
        ["bash", "-c", f"exec {sys.executable} {command}"],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**environ, "XDG_STATE_HOME": str(folder / "state"), "TERM": "dumb"},
        check=False,
    )


def test_a_worker_starts_without_the_host_and_its_libraries() -> None:
    """Whoever starts the drop-in waits for the first ping: Typer, Rich and msgspec are not imported before it."""
    ended = subprocess.run([sys.executable, "-c", LISTS_MODULES], capture_output=True, text=True, check=True)

    assert ended.stdout.startswith("['mock', '--load', 'lazy']")
    assert not {"typer", "click", "rich", "psutil", "uvloop"} & set(ended.stdout.split())


def test_an_unknown_command_ends_with_2(manybridge: CommandLine) -> None:
    """A wrong command line is the usage error of every shell."""
    assert manybridge("cal").code == 2


def test_serve_wants_to_know_the_gateway(manybridge: CommandLine) -> None:
    """A host that nobody can reach serves nobody."""
    ended = manybridge("serve")

    assert ended.code == 2
    assert "--stdio" in ended.err


@pytest.mark.parametrize("closed", ["0<&-", "1>&-"])
def test_serve_wants_its_streams_open(closed: str, tmp_path: Path) -> None:
    """Their numbers would go to the event loop, which then would be the client."""
    ended = in_shell(f"-m manybridge.cli.entry serve --stdio {closed}", tmp_path)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "standard input or output is closed" in ended.stderr


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-"])
def test_closed_streams_are_no_harm_to_a_call(closed: str, tmp_path: Path) -> None:
    """Started by something that closes what it does not use."""
    ended = in_shell(f"-m manybridge.cli.entry call mock mock:echo text=hi {closed}", tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert ("hi" in ended.stdout) == (closed != "1>&-")


@pytest.mark.parametrize("command", [["worker", "mock"], ["serve", "--stdio"]])
def test_a_person_who_starts_what_speaks_frames_is_told(command: list[str], tmp_path: Path) -> None:
    """On a terminal nothing would happen for ever. Whoever starts it with a pipe reads no such line."""
    keyboard, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "manybridge.cli.entry", *command],
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")},
    )
    os.close(terminal)
    assert process.stderr is not None
    said = process.stderr.readline().decode()
    os.close(keyboard)  # hangs up
    process.communicate()

    assert "frames are expected on this terminal; to type a call: manybridge call" in said


def test_an_output_that_can_not_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    """A full disk below a redirection, however late it shows: not two tracebacks, and no success."""
    ended = in_shell("-m manybridge.cli.entry config show >/dev/full", tmp_path)

    assert (ended.returncode, ended.stderr) == (
        1, "error: the output could not be written: No space left on device\n",
    )  # fmt: skip


def test_a_reader_that_has_gone_needs_no_word(tmp_path: Path) -> None:
    """`| head`: neither a traceback nor the interpreter's complaint at its end."""
    gone, writing = os.pipe()
    os.close(gone)
    with os.fdopen(writing, "wb") as output:
        ended = in_shell("-m manybridge.cli.entry config show", tmp_path, stdout=output)

    assert (ended.returncode, ended.stderr) == (1, "")


def test_an_interrupt_outside_a_command_is_told_in_a_word(
    manybridge: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while modules are imported, or a second one while everything is being closed: 130, no traceback."""

    def interrupted(_arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("manybridge.cli.app.run", interrupted)
    ended = manybridge("call", "mock", "mock:echo")

    assert (ended.code, ended.err) == (130, "interrupted\n")


def test_the_version_is_told(manybridge: CommandLine) -> None:
    """One line, for bug reports."""
    ended = manybridge("--version")

    assert (ended.code, ended.out.split()[0]) == (0, "manybridge")


def test_what_the_encoding_of_the_output_lacks_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is whole, and JSON stays JSON."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    (tmp_path / "args.json").write_text('{"a": "é 😀"}', encoding="utf-8")

    ended = in_shell("-m manybridge.cli.entry call mock mock:echo --args @args.json --json", tmp_path)

    assert (ended.stdout, ended.stderr, ended.returncode) == ('{"a": "\\u00e9 \\ud83d\\ude00"}\n', "", 0)

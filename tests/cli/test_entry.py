"""What the entry point imports, and how it ends."""

from __future__ import annotations

import subprocess
import sys

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


def test_the_version_is_told(manybridge: CommandLine) -> None:
    """One line, for bug reports."""
    ended = manybridge("--version")

    assert (ended.code, ended.out.split()[0]) == (0, "manybridge")

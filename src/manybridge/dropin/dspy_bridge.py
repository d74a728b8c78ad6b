#!/usr/bin/env python3
"""Drop-in for `priv/python/dspy_bridge.py` of an application that uses DSPex.

Copy this one file there, or link to it. Nothing else changes: the same command line, the same frames on standard
input and output, the same 16 commands. The work is done by the Python package manybridge, which is looked for

1. in the folder that the environment variable MANYBRIDGE_HOME names,
2. where this file really lies, if it is a link into manybridge,
3. among the packages of the interpreter that runs this file, and beside this file.

DSPex reads this file's text before it starts it, and wants the class, the method and the function below by name. They
are real: `DSPyBridge(...).handle_command(...)` serves the commands in this process, `main()` serves them on a port.
"""

# This file must be readable for any Python 3, so that an old one gets a sentence and not a syntax error.
from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import pathlib
import sys
from typing import Any

HOME_VARIABLE = "MANYBRIDGE_HOME"
OLDEST_PYTHON = (3, 11)
EXIT_NOT_FOUND = 1
"""Exit status where the package is missing or the Python too old. Wrong arguments exit with 2, as argparse does."""


class DSPyBridge:
    """The commands without a port: for a Python program that wants what DSPex gets, and for tests.

    Args:
        mode: `standalone` or `pool-worker`.
        worker_id: what `ping` reports in pool-worker mode.
    """

    def __init__(self, mode: str = "standalone", worker_id: str | None = None) -> None:
        find_manybridge()
        bridges = importlib.import_module("manybridge.bridges.dspy")
        author_api = importlib.import_module("manybridge.bridge")
        self._bridge = bridges.DSPyBridge()
        self._counters = author_api.V1Context(mode=mode, worker_id=worker_id)

    def handle_command(self, command: str, args: dict[str, Any]) -> dict[str, Any]:
        """Serve one command and return its result.

        Raises:
            ValueError: there is no such command.
            Exception: whatever the command failed with; its text is what DSPex would read.
        """
        self._counters.command_count += 1
        try:
            result: dict[str, Any] | None = self._bridge.handle_v1(command, args, self._counters)
            if result is None:
                raise ValueError(f"Unknown command: {command}")
        except BaseException:
            self._counters.error_count += 1
            raise
        return result


def find_manybridge() -> None:
    """Make `import manybridge` work, or end the process with a sentence on standard error."""
    if sys.version_info < OLDEST_PYTHON:
        _give_up(
            f"manybridge needs Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer; this is "
            f"{sys.version.split()[0]} ({sys.executable}). Set DSPEX_PYTHON_EXECUTABLE to a newer one."
        )
    if "manybridge" in sys.modules:
        return
    home = os.environ.get(HOME_VARIABLE)
    if home:
        folder = pathlib.Path(home)
        if not _load_package(folder, folder / "manybridge", folder / "src" / "manybridge"):
            _give_up(f"{HOME_VARIABLE} is {home!r}, but there is no package manybridge in it.")
        return
    package = pathlib.Path(__file__).resolve().parent.parent
    if _load_package(package) or importlib.util.find_spec("manybridge") is not None:
        return
    _give_up(
        f"the Python package manybridge was not found by {sys.executable}. Install it there (pip install manybridge), "
        f"or set {HOME_VARIABLE} to the folder that contains it."
    )


def _load_package(*folders: pathlib.Path) -> bool:
    """Load the package from the first of the folders that is it, and from nowhere else."""
    for package in folders:
        if not (package / "worker" / "bootstrap.py").is_file():
            continue
        # Not by sys.path: what else lies beside the package must not become importable in this environment.
        spec = importlib.util.spec_from_file_location(
            "manybridge", package / "__init__.py", submodule_search_locations=[str(package)]
        )
        if spec is None or spec.loader is None:
            continue
        module = importlib.util.module_from_spec(spec)
        sys.modules["manybridge"] = module
        spec.loader.exec_module(module)
        return True
    return False


def _give_up(reason: str) -> None:
    sys.stderr.write(f"dspy_bridge.py: {reason}\n")
    sys.exit(EXIT_NOT_FOUND)


def read_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line that DSPex uses; exits with status 2 on anything else."""
    parser = argparse.ArgumentParser(description="DSPy commands for DSPex, on standard input and output")
    parser.add_argument("--mode", choices=("standalone", "pool-worker"), default="standalone", help="who started this")
    parser.add_argument("--worker-id", default=None, help="an opaque id that ping reports")
    return parser.parse_args(argv)


def main() -> int:
    """Serve frames on standard input and output until the input ends."""
    arguments = read_arguments()
    find_manybridge()
    worker = importlib.import_module("manybridge.worker.main")
    argv = ["dspy", f"--mode={arguments.mode}"]
    if arguments.worker_id:
        argv.append(f"--worker-id={arguments.worker_id}")
    status: int = worker.main(argv)
    return status


if __name__ == "__main__":
    sys.exit(main())

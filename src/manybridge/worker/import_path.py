"""Where a worker looks for modules beyond what its interpreter knows.

A host starts workers with `python -I`, so that nothing of its own environment leaks into theirs. What the bridge's
configuration says on purpose is put back here: a PYTHONPATH among its variables, in front as Python has it, and the
folders in which the module of `package.module:Class` may lie, behind everything else, so that a file beside a
configuration can't stand in for a package of the interpreter.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping
from typing import Final

_FILE: Final = re.compile(r".+\.py(:[^:/\\]+)?")


def extend_import_path(arguments: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> None:
    """Extend `sys.path` by what the worker's arguments and variables say.

    Args:
        arguments: see `options.parse`. Without `search_path`, a worker that nobody's host started looks in the working
            folder.
        environ: the worker's variables.
    """
    hosted = arguments.zygote or arguments.mode == "host"
    if hosted and sys.flags.ignore_environment:
        _put(environ.get("PYTHONPATH", "").split(os.pathsep), first=True)
    if ":" in arguments.bridge and _FILE.fullmatch(arguments.bridge) is None:
        _put(arguments.search_path or ([] if hosted else ["."]), first=False)


def _put(folders: list[str], *, first: bool) -> None:
    try:
        absolute = dict.fromkeys(os.path.abspath(each) for each in folders if each)  # pathlib costs 3 ms
    except FileNotFoundError:  # the working folder was deleted, and nothing can be found in it
        return
    new = [each for each in absolute if each not in sys.path]
    sys.path[:] = [*new, *sys.path] if first else [*sys.path, *new]
    if new:
        from manybridge.bridge.fresh import load_fresh  # most workers have no such folder, and need not import it

        for folder in new:
            load_fresh(folder)

"""The command line of a worker. Used by `manybridge worker`, by the host and by the drop-in script."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from typing import Any, Final

from manybridge.protocol.frames import DEFAULT_MAX_FRAME_BYTES

MIN_FRAME_BYTES: Final = 1024
"""Below this not even the error that names the limit fits into a frame."""

MODES: Final = ("standalone", "pool-worker", "host")
SANDBOXES: Final = ("required", "none")
DEFAULT_CANCEL_GRACE_MS: Final = 500
"""Half of it for code that looks at the flag, half for the exception; then whoever started the worker kills it."""


def parse(argv: list[str], prog: str = "manybridge worker") -> argparse.Namespace:
    """Read the arguments; on a wrong one, print usage on stderr and exit with status 2 as argparse does."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Run one bridge as a worker that speaks the manybridge protocol on standard input and output.",
    )
    parser.add_argument("bridge", help="mock, python, dspy, ..., module:Class, or the path of a Python file")
    parser.add_argument("--name", help="the name that the bridge is registered under (default: the bridge's own)")
    parser.add_argument("--mode", choices=MODES, default="standalone", help="who started this worker")
    parser.add_argument("--worker-id", default=None, help="an opaque id that ping reports")
    parser.add_argument("--generation", type=int, default=0, help="how many workers held this slot before")
    parser.add_argument("--options", default=None, metavar="JSON", help="the bridge's options, a JSON object")
    parser.add_argument("--options-fd", type=int, default=None, metavar="FD", help="read the options from here")
    parser.add_argument("--max-concurrency", type=at_least(1), metavar="N", help="calls at the same time")
    parser.add_argument(
        "--max-frame-bytes", type=at_least(MIN_FRAME_BYTES), default=DEFAULT_MAX_FRAME_BYTES, metavar="N",
        help="longer frames are refused, in both directions",
    )  # fmt: skip
    parser.add_argument(
        "--cancel-grace-ms", type=at_least(0), default=DEFAULT_CANCEL_GRACE_MS, metavar="N",
        help="how long a call may go on after it was told to stop",
    )  # fmt: skip
    parser.add_argument("--load", choices=("eager", "lazy"), default="eager", help="load the framework after the "
                        "first answer, or with the first call that needs it")  # fmt: skip
    parser.add_argument(
        "--sandbox", choices=SANDBOXES, default="required",
        help='"none" lets commands that run a caller\'s own code (python:execute) do so with all the rights of this '
        "process (default: required, which refuses them, since there is no sandbox yet)",
    )  # fmt: skip
    parser.add_argument(
        "--search-path", action="append", metavar="FOLDER",
        help="look here too for the module of module:Class, after the interpreter's own folders; may be repeated "
        "(default: the working folder)",
    )  # fmt: skip
    parser.add_argument("--zygote", action="store_true", help="import once, then fork workers on demand")
    return parser.parse_args(argv)


def at_least(minimum: int) -> Callable[[str], int]:
    """Return a type for argparse: an integer that is not below `minimum`."""

    def integer(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, is {value}")
        return value

    return integer


def bridge_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The bridge's options from `--options` or `--options-fd`.

    Raises:
        ValueError: they are no JSON object.
        OSError: the descriptor can't be read.
    """
    text = arguments.options
    if arguments.options_fd is not None:
        with os.fdopen(arguments.options_fd, encoding="utf-8") as stream:
            text = stream.read()
    options = json.loads(text) if text else {}
    if not isinstance(options, dict):
        raise ValueError("the bridge's options must be a JSON object")  # noqa: TRY004  # one class for main to catch
    return options

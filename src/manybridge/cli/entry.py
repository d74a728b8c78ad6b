"""Where the `manybridge` command begins.

`manybridge worker` is the drop-in for a script path: whoever starts it waits for the first ping. It is dispatched
here, before anything of the host, Typer or Rich is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

INTERRUPTED: Final = 130
"""`ExitCode.INTERRUPTED`, which may be what could not be imported any more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments without the program's name; those of the process if left out.

    Returns:
        The exit code; docs/reference/exit-codes.md lists them.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["worker"]:
        from manybridge.worker.main import main as worker_main

        return worker_main(arguments[1:])
    _fill_missing_streams()
    try:
        from manybridge.cli.app import run

        return run(arguments)
    except KeyboardInterrupt:  # while we were still being imported, or a second one while everything was being closed
        sys.stderr.write("interrupted\n")
        return INTERRUPTED


def _fill_missing_streams() -> None:
    """Open the null device in place of standard streams that whoever started us has closed.

    Their numbers would go to what is opened next, the event loop for example, which then is somebody's output.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: PTH123, SIM115  # ours until the process ends
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


if __name__ == "__main__":
    sys.exit(main())

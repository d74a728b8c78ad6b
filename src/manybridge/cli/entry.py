"""Where the `manybridge` command begins.

`manybridge worker` is the drop-in for a script path: whoever starts it waits for the first ping. It is dispatched
here, before anything of the host, Typer or Rich is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


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
    from manybridge.cli.app import run

    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())

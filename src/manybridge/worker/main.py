"""Entry point of a worker process."""

from __future__ import annotations

import os
import sys

from manybridge.worker.options import bridge_options, parse
from manybridge.worker.stdio import take_stdio


def main(argv: list[str]) -> int:
    """Run a worker, or a zygote, until its client goes away.

    Args:
        argv: the arguments after the program's name, see `options.parse`.

    Returns:
        The exit status. In practice the process ends itself before that, because finalising an interpreter that
        holds a framework can take longer than starting it.
    """
    arguments = parse(argv)
    try:
        options = bridge_options(arguments)
    except ValueError as error:
        sys.stderr.write(f"manybridge worker: error: --options: {error}\n")
        return 2
    parent = os.getppid()
    if arguments.zygote:
        from manybridge.worker.zygote import serve_zygote

        return serve_zygote(arguments)
    descriptors = take_stdio()
    from manybridge.worker.runtime import Runtime

    Runtime(arguments, options, descriptors, parent=parent).run()
    return 0

"""Entry point of a worker process."""

from __future__ import annotations

import os
import sys

from manybridge.worker.import_path import extend_import_path
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
    except (ValueError, OSError) as error:
        return _refuse(f"--options: {error}")
    extend_import_path(arguments)
    parent = os.getppid()
    if arguments.zygote:
        from manybridge.worker.zygote import serve_zygote

        return serve_zygote(arguments, parent)
    if os.isatty(0):
        _say("frames are expected on this terminal; to type a call: manybridge call BRIDGE COMMAND. Ctrl-C ends this")
    try:
        descriptors = take_stdio()
    except OSError as error:
        return _refuse(f"the protocol needs descriptors 0 and 1: {error}")
    from manybridge.worker.runtime import Runtime

    Runtime(arguments, options, descriptors, parent=parent).run()
    return 0


def _refuse(reason: str) -> int:
    _say(f"error: {reason}")
    return 2


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"manybridge worker: {text}\n")

"""`manybridge serve`: a host behind a gateway."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from manybridge.cli.context import ConfigOption, JsonOption, reported, run_async
from manybridge.cli.exit_codes import ExitCode
from manybridge.cli.output import print_note
from manybridge.host.config import load_config


def serve(
    stdio: Annotated[bool, typer.Option("--stdio", help="Serve frames on standard input and output.")] = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Run a host with every configured bridge for another program.

    With --stdio that program started it, an Erlang port for example, and it ends when its input ends.
    """
    if not stdio:
        raise typer.BadParameter("say which gateway: --stdio", param_hint="serve")
    if sys.__stdin__ is None or sys.__stdout__ is None:
        raise typer.BadParameter("standard input or output is closed, and both are spoken on", param_hint="--stdio")
    if sys.__stdin__.isatty():
        print_note("serve: frames are expected on this terminal; to type a call: manybridge call. Ctrl-C ends this")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with reported(as_json=as_json):
        from manybridge.gateway.stdio import serve_stdio

        code = run_async(serve_stdio(load_config(config)))
    raise typer.Exit(code or ExitCode.OK)

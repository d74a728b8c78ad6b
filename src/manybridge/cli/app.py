"""The command line as a whole: every command, and how a run of it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from manybridge import __version__
from manybridge.cli.call import call
from manybridge.cli.chaos import chaos
from manybridge.cli.config_command import config_app
from manybridge.cli.context import ConfigOption
from manybridge.cli.doctor import doctor
from manybridge.cli.env import env_app
from manybridge.cli.exit_codes import ExitCode
from manybridge.cli.init_command import init
from manybridge.cli.jobs import jobs_app
from manybridge.cli.output import escape_what_output_lacks
from manybridge.cli.resources import resources_app
from manybridge.cli.serve import serve
from manybridge.cli.sessions import sessions_app
from manybridge.cli.stubs import stubs

app = typer.Typer(
    name="manybridge",
    no_args_is_help=True,
    # A bug shows Python's own traceback: one with local variables would show secrets.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help is text; brackets in it are brackets
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        print(f"manybridge {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    config: ConfigOption = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One bridge from any program to many ML frameworks, each in workers of its own.

    Exit codes: docs/reference/exit-codes.md.
    """
    if config is not None:
        # Each command has the option too; said before the command, it is that command's default.
        context.default_map = _with_config(str(config))


def _with_config(path: str) -> dict[str, object]:
    defaults: dict[str, object] = {name: {"config": path} for name in ("call", "chaos", "doctor", "serve", "stubs")}
    defaults["env"] = {name: {"config": path} for name in ("lock", "sync", "list", "scan", "gc", "export")}
    defaults["config"] = {"show": {"config": path}}
    defaults["jobs"] = {
        name: {"config": path} for name in ("run", "list", "show", "watch", "result", "cancel", "delete", "cleanup")
    }
    defaults["sessions"] = {name: {"config": path} for name in ("list", "show", "extend", "close", "cleanup")}
    defaults["resources"] = {
        name: {"config": path} for name in ("types", "create", "list", "get", "execute", "delete", "cleanup")
    }
    return defaults


def worker(context: typer.Context) -> int:
    """Run one worker on standard input and output: the drop-in for a script path.

    manybridge worker BRIDGE, where BRIDGE is a bundled name, the path of a Python file, or package.module:Class.
    """
    from manybridge.worker.main import main as worker_main

    return worker_main(context.args)


app.command()(init)
app.command()(doctor)
app.command()(call)
app.add_typer(resources_app, name="resources")
app.add_typer(sessions_app, name="sessions")
app.add_typer(jobs_app, name="jobs")
app.add_typer(env_app, name="env")
app.add_typer(config_app, name="config")
app.command()(serve)
app.command()(stubs)
app.command()(chaos)
app.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": ["-h", "--help"]}
)(worker)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    # The host logs what it also raises; one command says it once. `serve` lives longer and writes its log.
    logging.getLogger("manybridge").addHandler(logging.NullHandler())
    escape_what_output_lacks()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone: `manybridge call ... | head`. Nothing needs to be said.
        _drop_output()
        return ExitCode.FAILURE
    except OSError as error:
        if error.filename is not None:
            raise  # not about our output
        _drop_output()
        sys.stderr.write(f"error: the output could not be written: {error.strerror}\n")
        return ExitCode.FAILURE
    return code


def _run(arguments: Sequence[str]) -> int:
    try:
        app(list(arguments), prog_name="manybridge")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else ExitCode.FAILURE
    return ExitCode.OK


def _drop_output() -> None:
    """Let what is still buffered go nowhere: the interpreter would try to write it once more when it ends."""
    with contextlib.suppress(OSError, ValueError):  # it is no file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)

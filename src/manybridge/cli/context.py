"""What every command shares: its common options, how it runs asynchronous code, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from manybridge.cli.exit_codes import ExitCode, exit_code_for
from manybridge.cli.hints import hint_for
from manybridge.cli.output import print_error, print_note
from manybridge.errors import ManybridgeError

Result = TypeVar("Result")

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="PATH",
        help="The configuration file. Left out: the one that MANYBRIDGE_CONFIG names, else the nearest upward.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print machine-readable output, errors included.")]


@contextmanager
def reported(*, as_json: bool, typed: list[str] | None = None) -> Iterator[None]:
    """Turn errors into a message and an exit code.

    Args:
        as_json: print errors as JSON.
        typed: the call's arguments as they were typed, for hints.
    """
    try:
        yield
    except ManybridgeError as error:
        print_error(error, as_json=as_json, hint=hint_for(error, typed or ()))
        raise typer.Exit(exit_code_for(error.code)) from error
    except KeyboardInterrupt:
        print_note("interrupted; the call was cancelled")
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def run_async(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end. Ctrl-C cancels it, so that the host stops the call and closes; a second one insists.

    Raises:
        KeyboardInterrupt: after Ctrl-C, once everything is closed.
    """
    return asyncio.run(work)

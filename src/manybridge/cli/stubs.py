"""`manybridge stubs`: a typed Python client of one bridge, written from what the bridge says about itself."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from manybridge.cli.call import BridgeArgument
from manybridge.cli.context import ConfigOption, reported, run_async
from manybridge.cli.exit_codes import ExitCode
from manybridge.cli.output import print_note
from manybridge.cli.selecting import Selected, select_bridge


def stubs(
    bridge: BridgeArgument,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write it; standard output if left out."),
    ] = None,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="A client of AsyncMLBridge instead of MLBridge.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; end with 1 if FILE is not what would be written.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Write a typed Python client of a bridge: its commands, its resource types, its streams.

    The module has a class for the bridge, TypedDicts and Literals for what it takes and returns, and needs manybridge
    alone. It starts one worker to ask the bridge. The same bridge always gives the same text.

    For example:

        manybridge stubs dspy --output dspy_client.py

        manybridge stubs ./word_bridge.py --output words.py --async --check
    """
    if check and output is None:
        raise typer.BadParameter("it compares with a file: name it with --output FILE", param_hint="--check")
    with reported(as_json=False):
        command = _command(bridge, output, asynchronous=asynchronous, config=config)
        text = run_async(_client_of(select_bridge(bridge, config), command, asynchronous=asynchronous))
    if output is None:
        sys.stdout.write(text)
    elif not check:
        _write(output, text)
        print_note(f"wrote {output}")
    elif _text_of(output) != text:
        print_note(f"{output} is out of date; run: {command}")
        raise typer.Exit(ExitCode.FAILURE)


async def _client_of(selected: Selected, command: str, *, asynchronous: bool) -> str:
    from manybridge.host.bridge import AsyncMLBridge
    from manybridge.stubs import Origin, client_module

    async with AsyncMLBridge.from_config(selected.host_config(show_output=False)) as ml:
        capabilities: dict[str, Any] = await ml.capabilities(selected.name)
    return client_module(capabilities, Origin(selected.name, command), asynchronous=asynchronous)


def _command(bridge: str, output: Path | None, *, asynchronous: bool, config: Path | None) -> str:
    """What to type to make the same file again."""
    words = ["manybridge", "stubs", bridge]
    words += ["--output", str(output)] if output is not None else []
    words += ["--async"] if asynchronous else []
    words += ["--config", str(config)] if config is not None else []
    return shlex.join(words)


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    """Put the file there whole or not at all: whoever imports it meanwhile gets the old one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            file.write(text)
        made = Path(file.name)
        try:
            made.chmod(0o666 & ~_umask())  # as any other file; a temporary one is for its owner alone
            made.replace(path)
        finally:
            made.unlink(missing_ok=True)
    except OSError as error:
        print_note(f"error: can't write {path}: {error.strerror or error}")
        raise typer.Exit(ExitCode.FAILURE) from error


def _umask() -> int:
    current = os.umask(0o077)  # it can't be read without being set
    os.umask(current)
    return current

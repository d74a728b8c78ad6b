"""`manybridge doctor`: is everything there, and does every bridge start."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from manybridge.cli.checks import Check, Status, check_all
from manybridge.cli.context import ConfigOption, JsonOption, reported, run_async
from manybridge.cli.exit_codes import ExitCode
from manybridge.cli.output import print_json_line, stderr_console, stdout_console
from manybridge.cli.selecting import Selected, select_bridge

_STYLES: Final[dict[Status, str]] = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    bridge: Annotated[
        str | None,
        typer.Option("--bridge", metavar="BRIDGE", help="Check this bridge alone; a name, a path, or module:Class."),
    ] = None,
    as_json: JsonOption = False,
    config: ConfigOption = None,
) -> None:
    """Check Python, uv, the configuration and every bridge; start one worker of each and ping it.

    Ends with 1 if anything failed. Warnings are no failures.
    """
    with reported(as_json=as_json):
        only = select_bridge(bridge, config) if bridge else None
        checks = run_async(_collect(config, only, quiet=as_json))
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        print_json_line({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        _print_checks(checks, stdout_console())
    raise typer.Exit(ExitCode.FAILURE if failed else ExitCode.OK)


async def _collect(config: Path | None, only: Selected | None, *, quiet: bool) -> list[Check]:
    checks: list[Check] = []
    console = stderr_console()
    console.quiet = quiet or not console.is_terminal
    with console.status("checking") as status:
        async for check in check_all(config, only):
            checks.append(check)
            status.update(f"checked {check.name}")
    return checks


def _print_checks(checks: list[Check], console: Console) -> None:
    if not console.is_terminal:
        for check in checks:
            console.print(Text(_plain(check)), soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("fix", overflow="fold")
    for check in checks:
        table.add_row(
            Text(check.name), Text(check.status, style=_STYLES[check.status]), Text(check.found), Text(check.fix or "")
        )
    console.print(table)


def _plain(check: Check) -> str:
    line = f"{check.status:<4}  {check.name}: {check.found}"
    return f"{line}\n      fix: {check.fix}" if check.fix else line

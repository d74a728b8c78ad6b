"""What the commands share that delete what is old: how an age is typed, and what is said about what went."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isfinite
from typing import Annotated, Final

import typer

from manybridge.cli.output import print_json_line, print_note
from manybridge.errors import InvalidArgumentError

_UNITS: Final = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_AGE: Final = re.compile(r"(?P<number>\d+(\.\d+)?)\s*(?P<unit>s|min|h|d|w|)")

OlderThanOption = Annotated[
    str, typer.Option("--older-than", metavar="AGE", help="For example 90s, 30min, 12h, 30d, 4w; a number is seconds.")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")]
OnlyBridgeArgument = Annotated[str | None, typer.Argument(metavar="[BRIDGE]", help="Only of this bridge.")]


def parse_age(text: str, option: str) -> float:
    """Return an age in seconds.

    Args:
        text: as it was typed.
        option: what an error calls it.

    Raises:
        InvalidArgumentError: it is none.
    """
    found = _AGE.fullmatch(text.strip())
    seconds = float(found["number"]) * _UNITS[found["unit"]] if found is not None else -1.0
    if found is None or not isfinite(seconds):
        raise InvalidArgumentError(f"{option}: expected an age such as 90s, 30min, 12h, 30d or 4w, found {text!r}")
    return seconds


def print_removed(kind: str, ids: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    """Say what was deleted, or would be: a line for each, or one object."""
    if as_json:
        print_json_line({"deleted": [] if dry_run else list(ids), "found": list(ids), "dry_run": dry_run})
        return
    for id in ids:
        typer.echo(id)
    count = f"{len(ids)} {kind}{'' if len(ids) == 1 else 's'}"
    print_note(f"{count} would be deleted" if dry_run else f"{count} deleted")

"""Writes docs/reference/crash-matrix.md from the tables that the tests execute.

`python -m tests.crash_matrix.page --write` writes it, `--check` fails if it is not what the tables say.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Final

from tests.crash_matrix.requests import BAD_REQUESTS, BadRequest
from tests.crash_matrix.store_table import PLACES, STORE_MATRIX, STORE_REASONS, StoreRow
from tests.crash_matrix.table import COLUMNS, MATRIX, REASONS, Row
from tests.support import REPOSITORY

PAGE: Final = REPOSITORY / "docs" / "reference" / "crash-matrix.md"

_HEAD: Final = """\
<!-- Made by `python -m tests.crash_matrix.page --write` from the tables that the tests execute. Do not edit. -->

# Crash matrix

What a caller sees when something breaks: rows are faults, columns are the places where they strike. Every cell is
executed by `tests/crash_matrix` against real worker processes. After each one the next call is served correctly, no
process, thread or descriptor is left, and the caller had its answer in time: at once for what ends or raises, within
the timeout and both graces (`cancel_grace`, `term_grace`) for what does not come back.

## How to read a cell

| Cell | Meaning |
|---|---|
| `code` | The error code that the caller gets. |
| `code, SIGNAL` or `code, exit N` | How the worker's process ended, from `details.signal` or `details.exit_code`. |
| `code by rung` | The rung of the ladder that stopped the call, from `details.stopped_by`. |
| `answered` | The call succeeds. |
| `restarted` | No call notices: the next one is answered, by another process. |
| `closed` | The host closes in time and leaves nothing. |
| `gone` | Every process has ended within one second. |
| - | The fault can't strike here; the letter says why. |

Another worker serves the next call after `worker_crashed`, `protocol_violation`, `by sigterm` and `by sigkill`;
otherwise it is the same one.
"""

_STORE: Final = """\

## What is kept

Faults of the store, of the clock, and of what callers do with resources and keys, executed in the same way against
hosts with a SQLite file or a PostgreSQL server of their own. Calls, streams and jobs that need nothing kept are
answered whatever becomes of the store; what can't be kept is an error, and did not happen. When the fault has gone, the
same host works again, and everything that was acknowledged is there.

A cell is the error code, with `details.reason` behind it where the store itself failed; `answered` and `closed` are as
above, `-` with a letter as well.
"""

_BETWEEN: Final = """\

## What else holds

- What a stream sent is delivered before its error, apart from chunks that were emitted within the last 2 ms: they wait
  to share a write, and may end with the worker.
- A worker that could not start is tried again: by the next call at once after a crash, after half a second and then
  ever longer after a lasting reason (`setup_failed`, `missing_package`, ...), and at once when the bridge's
  configuration is changed.

## Bad requests

What a client can get wrong, and what it gets through every door: the same code on the raw wire, in Python and on the
command line. Version 1 clients get the error's text; the code stands beside it where the request was none. Whoever
answered goes on serving, and the worker is the same process as before.

| Request | Error code | Wire | Python | Exit code |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    columns = "\n".join(f"- **{name}**: {text}" for name, text in COLUMNS.items())
    head = ["| Fault | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    reasons = "\n".join(f"- **{letter}**: {text}." for letter, text in REASONS.items())
    parts = [
        _HEAD,
        f"## Where\n\n{columns}\n",
        "## The matrix\n",
        *head,
        *map(_row, MATRIX),
        f"\nCells that make no sense:\n\n{reasons}",
    ]
    requests = "\n".join(map(_request, BAD_REQUESTS))
    return "\n".join([*parts, *_store_part()]) + "\n" + _BETWEEN + requests + "\n"


def _store_part() -> list[str]:
    """The part about what is kept."""
    places = "\n".join(f"- **{name}**: {text}" for name, text in PLACES.items())
    reasons = "\n".join(f"- **{letter}**: {text}." for letter, text in STORE_REASONS.items())
    head = ["| Fault | " + " | ".join(PLACES) + " |", "|---" * (len(PLACES) + 1) + "|"]
    return [_STORE, f"{places}\n", *head, *map(_store_row, STORE_MATRIX), f"\n{reasons}"]


def _row(row: Row) -> str:
    return _line([f"**{row.fault}**: {row.text}", *(_cell(row.cell(column)) for column in COLUMNS)])


def _store_row(row: StoreRow) -> str:
    return _line([f"**{row.fault}**: {row.text}", *(_cell(row.cell(place)) for place in PLACES)])


def _cell(text: str) -> str:
    # Codes stand as code; what was added to them stands as it is.
    return text if text.startswith("-") else re.sub(r"^[a-z_]+", r"`\g<0>`", text)


def _request(bad: BadRequest) -> str:
    exit_code = "-" if bad.exit_code is None else str(bad.exit_code)
    doors = ["yes" if door else "-" for door in (bad.wire, bad.python)]
    return _line([bad.text, f"`{bad.code}`", *doors, exit_code])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    """Write the page, or compare it. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash_matrix.page", description=__doc__)
    todo = parser.add_mutually_exclusive_group(required=True)
    todo.add_argument("--write", action="store_true", help="write the page")
    todo.add_argument("--check", action="store_true", help="end with 1 if the page is out of date")
    options = parser.parse_args(argv)
    if options.write:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != page():
        sys.stderr.write(f"{PAGE} is out of date; run: python -m tests.crash_matrix.page --write\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the command line prints: results on standard output, everything else on standard error.

With `--json` both carry JSON. Otherwise a terminal gets colour and boxes, and a pipe or file gets plain lines.
"""

from __future__ import annotations

import codecs
import io
import json
import sys
from typing import Any

from rich.console import Console, Group
from rich.panel import Panel
from rich.text import Text

from manybridge.cli.exit_codes import exit_code_for
from manybridge.errors import ManybridgeError


def escape_what_output_lacks() -> None:
    """Have characters that the encoding of standard output lacks written as JSON escapes and not fail."""
    codecs.register_error("manybridge.escape", _as_json_escapes)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in {"strict", "surrogateescape"}:
        sys.stdout.reconfigure(errors="manybridge.escape")


def _as_json_escapes(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


def stdout_console() -> Console:
    """Return the console for results."""
    return Console(file=sys.stdout, highlight=False)


def stderr_console() -> Console:
    """Return the console for progress, notes and errors."""
    return Console(file=sys.stderr, highlight=False)


def print_json_line(value: Any) -> None:
    """Print one value as one line of JSON, at once: whoever reads a stream waits for it."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def print_value(value: Any, *, as_json: bool) -> None:
    """Print a result: one line with `--json`, a text as itself, everything else as indented JSON."""
    if as_json:
        print_json_line(value)
    elif isinstance(value, str):
        sys.stdout.write(value + "\n")
    else:
        text = json.dumps(value, ensure_ascii=False, indent=2, default=str)
        console = stdout_console()
        if console.is_terminal:
            console.print_json(text)
        else:
            sys.stdout.write(text + "\n")


def print_note(text: str) -> None:
    """Print something for the person at the terminal, beside the result."""
    stderr_console().print(Text(text), soft_wrap=True)


def print_error(error: ManybridgeError, *, as_json: bool, hint: str | None = None) -> None:
    """Print an error with its code, its text and what to do."""
    if as_json:
        info = {
            "code": error.code,
            "message": error.message,
            "retryable": error.retryable,
            "details": error.details,
            "framework": error.framework,
            "type": error.type,
            "hint": hint,
            "exit_code": int(exit_code_for(error.code)),
        }
        sys.stderr.write(json.dumps({"error": info}, ensure_ascii=False, default=str) + "\n")
        return
    console = stderr_console()
    if console.is_terminal:
        console.print(_error_panel(error, hint))
        return
    kind = f" ({error.type})" if error.type else ""
    if error.traceback:
        console.print(Text(error.traceback.rstrip()), soft_wrap=True)
    console.print(Text(f"error: {error.code}{kind}: {error.message}"), soft_wrap=True)
    if hint:
        console.print(Text(f"hint: {hint}"), soft_wrap=True)


def _error_panel(error: ManybridgeError, hint: str | None) -> Panel:
    parts: list[Text] = [Text(error.message)]
    if error.traceback:
        parts += [Text(), Text(error.traceback.rstrip(), style="dim")]
    if hint:
        parts += [Text(), Text.assemble(("hint: ", "bold"), hint)]
    title = Text(f" {error.code}{f' ({error.type})' if error.type else ''} ", style="bold red")
    return Panel(Group(*parts), title=title, title_align="left", border_style="red")

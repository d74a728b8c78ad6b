"""Writes the reference pages that are made from the code: configuration, command line, exit codes.

`python -m manybridge.cli.reference` writes them, `--check` fails if what is written is not what the code says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import typer
from msgspec import Struct

from manybridge.cli.app import app
from manybridge.cli.exit_codes import MEANINGS, error_codes_of
from manybridge.host.config_keys import Key, keys_of
from manybridge.host.config_model import (
    BridgeConfig,
    EnvironmentsConfig,
    HostConfig,
    LimitsConfig,
    RestartConfig,
    RetryConfig,
    StoreConfig,
)
from manybridge.protocol.errors import ERROR_CODES

FOLDER: Final = Path("docs") / "reference"
HELP_WIDTH: Final = 100
"""Columns of the help texts, so that they do not depend on who writes them."""

_MADE: Final = "<!-- Made by `python -m manybridge.cli.reference`; change the code instead. -->\n"

_CONFIGURATION: Final = """\
# Configuration

manybridge reads one TOML file. It is, in this order: what the caller passes (`MLBridge.from_config(path)`,
`--config PATH`), the file that `MANYBRIDGE_CONFIG` names, the nearest `manybridge.toml` or `[tool.manybridge]` of a
`pyproject.toml` from the working folder upward. A file that was only found by searching must belong to you or to root,
since it names code to run. Without a file the configuration is empty, and bridges can be registered while running.

```toml
default = "dspy"

[bridges.dspy]
pool_size = 4
required_env = ["GEMINI_API_KEY"]
required_packages = ["dspy>=3"]
options = { model = "gemini/gemini-2.5-flash" }

[bridges.mine]
python_script = "bridges/mine.py"   # relative to this file
restart = { max_crashes = 3 }
```

- **Durations** are seconds, whole or with a fraction.
- **No value**: TOML has no null. A key that may have no value takes the word `"none"`.
- **Paths** are relative to the configuration file; `~` is your home folder.
- **Variables**: `${NAME}` in `options` and `environment` is replaced by that environment variable, and `$${` is a plain
  `${`. A variable that is not set is an error (`missing_variable`).
- **Overrides**: an environment variable overrides any key. `MANYBRIDGE__BRIDGES__DSPY__POOL_SIZE=2` sets
  `bridges.dspy.pool_size`; two underscores step into a table, case does not matter, and a bridge `my-bridge` is
  `MY_BRIDGE`. A value is read as JSON, then as TOML, then as text; where the key takes a string, as text at once.
- **Errors** name the file and line (or the variable), the key, what was expected and what was found. All problems are
  reported at once.
- **What is in force**: `manybridge config show --source`, with secrets masked.
"""

TABLES: Final[tuple[tuple[str, type[Struct]], ...]] = (
    ("The top level", HostConfig),
    ("`[bridges.NAME]`", BridgeConfig),
    ("`[bridges.NAME.restart]`", RestartConfig),
    ("`[bridges.NAME.retry]`", RetryConfig),
    ("`[limits]`", LimitsConfig),
    ("`[store]`", StoreConfig),
    ("`[environments]`", EnvironmentsConfig),
)


def configuration_page() -> str:
    """Return docs/reference/configuration.md."""
    parts = [_MADE, _CONFIGURATION]
    for title, struct in TABLES:
        rows = [
            f"| `{key.name}` | {_cell(key.expected)} | {_default(key)} | {_cell(key.description)} |"
            for key in keys_of(struct).values()
        ]
        about = (struct.__doc__ or "").strip()
        parts += [f"\n## {title}\n\n{about}\n", "| Key | Value | Default | Meaning |", "|---|---|---|---|", *rows]
    return "\n".join(parts) + "\n"


def exit_codes_page() -> str:
    """Return docs/reference/exit-codes.md."""
    rows = [
        f"| {int(code)} | {meaning} | {', '.join(f'`{each}`' for each in error_codes_of(code)) or '-'} |"
        for code, meaning in MEANINGS.items()
    ]
    meanings = [
        f"| `{code}` | {'yes' if entry.retryable else 'no'} | {_cell(entry.meaning)} |"
        for code, entry in ERROR_CODES.items()
    ]
    head = (
        "# Exit codes\n\nWhat the `manybridge` command ends with. The numbers are stable. "
        "A code that a newer worker sends and this release does not know ends with 1.\n"
    )
    return "\n".join(
        [
            _MADE,
            head,
            "| Exit code | Meaning | Error codes |",
            "|---|---|---|",
            *rows,
            "\n## Error codes\n\n`--json` prints them as `error.code`; Python, HTTP and Elixir use the same.\n",
            "| Error code | A retry may help | Meaning |",
            "|---|---|---|",
            *meanings,
            "",
        ]
    )


def command_line_page() -> str:
    """Return docs/reference/cli.md."""
    parts = [_MADE, "# Command line\n\nResults go to standard output, everything else to standard error.\n"]
    for path, text in _helps(typer.main.get_command(app), "manybridge", None):
        parts.append(f"## `{path}`\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def pages() -> dict[str, str]:
    """Return every generated page by file name."""
    return {
        "configuration.md": configuration_page(),
        "cli.md": command_line_page(),
        "exit-codes.md": exit_codes_page(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Write the pages, or with `--check` compare them."""
    parser = argparse.ArgumentParser(prog="python -m manybridge.cli.reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 if a page is out of date")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the pages lie (default: %(default)s)")
    options = parser.parse_args(argv)
    stale = [name for name, text in pages().items() if _text_of(options.folder / name) != text]
    if options.check:
        for name in stale:
            print(f"{options.folder / name} is out of date; run: python -m manybridge.cli.reference", file=sys.stderr)
        return 1 if stale else 0
    options.folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (options.folder / name).write_text(pages()[name], encoding="utf-8")
        print(f"wrote {options.folder / name}")
    return 0


def _helps(command: Any, path: str, parent: Any) -> Iterator[tuple[str, str]]:
    """Yield the help of a command and of everything below it."""
    settings = {**command.context_settings, "terminal_width": HELP_WIDTH, "max_content_width": HELP_WIDTH}
    context = typer.Context(command, info_name=path.rpartition(" ")[2], parent=parent, **settings)
    yield path, "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _helps(command.get_command(context, name), f"{path} {name}", context)


def _default(key: Key) -> str:
    if key.table is not None:
        return "see below"
    if key.default is None:
        return "not set"
    return f"`{json.dumps(key.default)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())

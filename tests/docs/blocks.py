"""Code blocks of a Markdown page, and what they are for.

A page is one story: its blocks run in order, in one folder of their own. What a block is for, its language says:

    python     a script; it is run, and a text block right behind it is what it prints
    console    `$ command` lines with what they print; run by bash, with this repository's commands on the path
    toml       a configuration; it is checked
    others     only read

A comment in front of a block says otherwise: `<!-- file: words.py -->` writes the block to that file (a script is not
run then), `<!-- file: wrong.toml, as it is -->` does not check it either, `<!-- not run: why -->` leaves it out. In
what is printed, `...` stands for anything, within a line or for any number of lines, and a long line may be wrapped;
behind `<!-- numbers differ -->` a number stands for any number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^<!-- (?P<kind>file|not run|numbers differ)(?:: (?P<what>[^\n]*?))? -->\n+)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """One code block. `output` is what a script should print, None where the page does not say."""

    line: int
    language: str
    code: str
    file: str | None = None
    is_tried: bool = True
    output: str | None = None
    numbers_differ: bool = False


def read_blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that mean something to these tests."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    blocks = list(_BLOCK.finditer(text))
    for match, behind in zip(blocks, [*blocks[1:], None], strict=True):
        if match["kind"] == "not run":
            continue
        code = match["code"]
        line = text.count("\n", 0, match.start("code")) + 1
        name, _, as_it_is = (match["what"] or "").partition(", ")
        is_script = match["language"] == "python" and not name
        is_tried = not as_it_is and (is_script or match["language"] != "python")
        has_output = is_script and behind is not None and behind["language"] == "text" and behind["kind"] != "not run"
        output = behind["code"] if has_output and behind is not None else None
        numbers_differ = "numbers differ" in (match["kind"], behind["kind"] if behind is not None else None)
        found.append(Block(line, match["language"], code, name or None, is_tried, output, numbers_differ))
    return found


def read_commands(code: str) -> list[tuple[str, str]]:
    """Return the commands of a console block, each with what it should print."""
    commands: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        # A command goes on where its line ends with a backslash.
        end = next(number for number, line in enumerate(lines, 1) if not line.endswith("\\"))
        commands.append(("\n".join(lines[:end]), "\n".join(lines[end:])))
    return commands


def matches(expected: str, printed: str, *, numbers_differ: bool = False) -> bool:
    """Say whether `printed` is as expected; `...` stands for anything, and white space is white space."""
    pattern = r"\s+".join(re.escape(word).replace(r"\.\.\.", ".*") for word in expected.split())
    if numbers_differ:
        pattern = re.sub(r"\d+(?:\\\.\d+)?", r"\\d+(?:\\.\\d+)?", pattern)
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None

"""The reference pages: made from the code, complete, and never stale."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from manybridge.protocol import reference
from manybridge.protocol.commands import COMMON_COMMANDS
from manybridge.protocol.connection import CALL_TRANSITIONS, CONNECTION_TRANSITIONS, Step
from manybridge.protocol.errors import ERROR_CODES
from manybridge.protocol.messages import ErrorInfo, ErrorReply, Event, Reply, Request
from tests.support import REPOSITORY

PAGES = ("protocol.md", "errors.md")


def test_the_pages_of_the_repository_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    """`make docs` would change nothing."""
    assert reference.main(["--check", str(REPOSITORY / "docs" / "reference")]) == 0
    assert capsys.readouterr().err == ""


def test_a_stale_or_missing_page_fails_the_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check names each page with the command that helps, and writes nothing."""
    (tmp_path / "errors.md").write_text("old")
    assert reference.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "".join(f"stale: {tmp_path / name}; run: make docs\n" for name in PAGES)
    assert [path.name for path in tmp_path.iterdir()] == ["errors.md"]
    assert reference.main([str(tmp_path)]) == 0
    assert reference.main(["--check", str(tmp_path)]) == 0


@pytest.mark.parametrize("kind", [Request, Reply, ErrorReply, Event, ErrorInfo])
def test_every_field_of_every_message_is_explained(
    kind: type[Request | Reply | ErrorReply | Event | ErrorInfo],
) -> None:
    """In the section of its message, and in its example."""
    page = reference.protocol_page()
    title = "error_info" if kind is ErrorInfo else kind.__name__
    section = page.partition(f"### {title}\n")[2].partition("\n##")[0]
    names = ["error_info" if name == "info" else name for name in kind._fields]
    [example] = re.findall(r"```json\n(.*?)\n```", section, re.DOTALL)
    assert set(names) <= set(json.loads(example))
    for name in json.loads(example):
        assert re.search(rf"^\| `{name}` \|.*\w.*\|$", section, re.MULTILINE), name


def test_every_command_and_every_code_has_its_row() -> None:
    """Nothing that can be sent is missing."""
    for name in COMMON_COMMANDS:
        assert f"| `common:{name}` |" in reference.protocol_page()
    for code in ERROR_CODES:
        assert f"| `{code}` |" in reference.errors_page()


@pytest.mark.parametrize("table", [CONNECTION_TRANSITIONS, CALL_TRANSITIONS], ids=["connection", "call"])
def test_a_diagram_has_every_step_of_its_table(table: dict[str, dict[Step, str]]) -> None:
    """One arrow for each pair of states with all their steps, and no second colon, which would end the label."""
    drawn = set()
    for line in reference.diagram(table).splitlines():
        arrow = re.fullmatch(r"    (\w+) --> (\w+): ([^:]+)", line)
        if arrow:
            drawn |= {(arrow[1], label, arrow[2]) for label in arrow[3].split(", ")}
    expected = {
        (str(state), step.removeprefix("common:").replace(":", ""), str(target))
        for state, steps in table.items()
        for step, target in steps.items()
    }
    assert drawn == expected


def test_tables_of_the_pages_are_whole() -> None:
    """Each row has as many cells as its title: a bar inside a cell is escaped."""
    for text in reference.pages().values():
        width = 0
        for line in text.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not (width and cells) or cells == width, line
            width = cells

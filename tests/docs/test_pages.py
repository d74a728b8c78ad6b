"""Every code block of the README and of the documents does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.local_llm import LocalLLM
from manybridge.host.config import load_config
from tests.docs.blocks import Block, matches, read_blocks, read_commands
from tests.support import REPOSITORY, framework_python

PATIENCE = 50
"""Seconds that one block may take; a cold import of a framework takes up to 6."""

ALONE = [REPOSITORY / "docs" / "tutorial.md", *sorted((REPOSITORY / "docs" / "how-to").glob("*.md"))]
NEEDS_FRAMEWORKS = {
    "README.md",
    "migrate-from-dspex.md",
    "call-tools-in-your-process.md",
    "langchain.md",
    "fine-tuning.md",
    "testing-a-bridge.md",
    "transformers.md",
}

PAGES = [
    pytest.param(
        page,
        id=str(page.relative_to(REPOSITORY)),
        marks=pytest.mark.framework if page.name in NEEDS_FRAMEWORKS else pytest.mark.slow,
    )
    for page in [REPOSITORY / "README.md", *ALONE]
]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The commands of this repository on the path, and a local endpoint in the place of a language model."""
    with LocalLLM() as llm:
        yield {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "COLUMNS": "100",
            "LLM": llm.openai_base,
            "DSPY_CACHEDIR": str(tmp_path / "cache"),
        }


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_page_does_what_the_page_says(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    """In order, in one folder: scripts print what is under them, commands too, configurations are right.

    Which rung stopped a call depends on how fast the machine is, since pages have the default graces (quarters of a
    second). So a page that prints rungs may try again, in whole.
    """
    attempts = 3 if "stopped_by" in page.read_text(encoding="utf-8") else 1
    for attempt in range(attempts):
        folder = tmp_path / f"page-{attempt}"
        folder.mkdir()
        problem = problem_of(page, folder, environment)
        if problem is None:
            return
    pytest.fail(str(problem), pytrace=False)


def problem_of(page: Path, folder: Path, environment: dict[str, str]) -> str | None:
    """Do what a page says, in a folder of its own; tell what was not so first."""
    if page.name in NEEDS_FRAMEWORKS:
        for name in ("langchain",) if page.name == "langchain.md" else ("dspy", "sklearn"):
            framework_python(name)
        for name in (".envs", "examples"):
            (folder / name).symlink_to(REPOSITORY / name)
    for block in read_blocks(page):
        where = f"{page.relative_to(REPOSITORY)}:{block.line}"
        if block.file is not None:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.code, encoding="utf-8")
        for problem in problems_of(block, folder, environment):
            return f"{where}: {problem}"
    return None


def problems_of(block: Block, folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run one block and tell what was not as the page says."""
    if not block.is_tried:
        return
    if block.language == "python":
        script = folder / "_script.py"
        script.write_text(block.code, encoding="utf-8")
        done = run([sys.executable, str(script)], folder, environment, errors=subprocess.PIPE)
        if done.returncode:
            yield f"the script failed:\n{done.stdout}{done.stderr}"
        elif block.output is not None and not matches(block.output, done.stdout, numbers_differ=block.numbers_differ):
            yield f"expected\n{block.output}\nprinted\n{done.stdout}"
    elif block.language == "console":
        for command, output in read_commands(block.code):
            done = run(["bash", "-c", command], folder, environment)
            if not matches(output, done.stdout, numbers_differ=block.numbers_differ):
                yield f"$ {command}\nexpected\n{output}\nprinted\n{done.stdout}"
    elif block.language == "toml" and "[tool." not in block.code:
        load_config(folder / block.file if block.file else in_a_file(block.code, folder), environment)
    elif block.language == "toml":
        tomllib.loads(block.code)


def in_a_file(code: str, folder: Path) -> Path:
    """Write a configuration that the page shows without naming a file."""
    path = folder / "_shown.toml"
    path.write_text(code, encoding="utf-8")
    return path


def run(
    command: list[str], folder: Path, environment: dict[str, str], errors: int = subprocess.STDOUT
) -> subprocess.CompletedProcess[str]:
    """Run a command; its errors are mixed into its output, as on a terminal, unless said otherwise."""
    return subprocess.run(
        command, cwd=folder, env=environment, text=True, check=False, timeout=PATIENCE,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
    )  # fmt: skip


def test_every_page_is_linked_from_the_index() -> None:
    """A page that nobody can find is not there."""
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")]
    missing = [str(page) for page in pages if page.name != "index.md" and str(page) not in index]
    assert not missing


def test_every_relative_link_leads_somewhere() -> None:
    """In the README and in every page of docs."""
    broken = [
        f"{page.relative_to(REPOSITORY)}: {target}"
        for page in [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not broken


def test_anything_is_matched_by_three_dots() -> None:
    """Within a line and over several lines, and by nothing else."""
    assert matches("took ... ms\n...\ndone", "took 12.3 ms\none\ntwo\ndone\n")
    assert not matches("took ... ms", "took 12 s")


def test_a_number_stands_for_any_number_where_the_page_says_so() -> None:
    """And only for a number."""
    assert matches("accuracy 91.6%, [1, 0.5]", "accuracy 90%, [12, 3]", numbers_differ=True)
    assert not matches("accuracy 91.6%", "accuracy high%", numbers_differ=True)
    assert not matches("accuracy 91.6%", "accuracy 90%")


def test_a_command_may_go_on_in_the_next_line() -> None:
    """With a backslash, as in a shell."""
    assert read_commands("$ echo a \\\n  b\na b\n$ true\n") == [("echo a \\\n  b", "a b"), ("true", "")]

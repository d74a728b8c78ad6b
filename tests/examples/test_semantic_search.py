"""The semantic search, as a person runs it: it finds what a reader would have pointed at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY, TIME_FACTOR, framework_python

EXAMPLE = REPOSITORY / "examples" / "semantic_search" / "run.py"
LONGEST = 150 * TIME_FACTOR
"""Seconds on a machine with other work: two workers, and some hundred passages to read."""
QUESTIONS = ("How do I stop a call that takes too long?", "How can I check the quality of bananas?")

pytestmark = [pytest.mark.framework, pytest.mark.timeout(LONGEST + 30)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What it prints, run once from another folder, into a pipe."""
    framework_python("transformers")
    command = [sys.executable, str(EXAMPLE), *QUESTIONS, "--count", "2"]
    folder = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def answers(printed: str, question: str) -> list[tuple[float, str]]:
    """Return score and page of each passage under a question."""
    part = printed.split(question, 1)[1].split("?", 1)[0]
    return [(float(score), page) for score, page in re.findall(r"^  (-?\d\.\d\d)  ([\w./-]+\.md),", part, re.MULTILINE)]


def test_it_reads_every_page(printed: str) -> None:
    """And says how many."""
    pages = len(list((REPOSITORY / "docs").rglob("*.md"))) + 1
    found = re.search(r"^(\d+) passages of (\d+) pages in", printed, re.MULTILINE)
    assert found
    assert int(found[2]) == pages
    assert int(found[1]) > 5 * pages


def test_the_right_page_comes_first_though_it_shares_few_words(printed: str) -> None:
    """The page about timeouts and cancel."""
    (score, page), *_ = answers(printed, QUESTIONS[0])
    assert page == "docs/how-to/stop-work.md"
    assert score > 0.4


def test_what_is_not_in_the_documents_scores_low(printed: str) -> None:
    """The score tells a reader whether to look."""
    assert answers(printed, QUESTIONS[1])[0][0] < answers(printed, QUESTIONS[0])[0][0] - 0.1


def test_its_lines_fit(printed: str) -> None:
    """Into a hundred columns."""
    assert max(map(len, printed.splitlines())) <= 100


def test_it_names_what_is_missing(tmp_path: Path) -> None:
    """Here: the environment."""
    code = EXAMPLE.read_text().replace("parents[2]\n", "parents[0]\n")
    (tmp_path / "run.py").write_text(code)
    done = subprocess.run(
        [sys.executable, tmp_path / "run.py"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, "run: make setup" in done.stderr) == (2, True)

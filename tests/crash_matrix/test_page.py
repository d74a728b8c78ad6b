"""The tables themselves: the written page is made of them, and they leave nothing out."""

from __future__ import annotations

from manybridge.protocol.errors import ERROR_CODES
from tests.crash_matrix import page
from tests.crash_matrix.requests import BAD_REQUESTS
from tests.crash_matrix.store_table import PLACES, STORE_MATRIX, STORE_REASONS
from tests.crash_matrix.table import COLUMNS, MATRIX, REASONS

WORDS = {"answered", "restarted", "closed", "gone"}


def test_the_written_page_is_what_the_tests_execute() -> None:
    """`python -m tests.crash_matrix.page --write` was run after the last change."""
    assert page.main(["--check"]) == 0


def test_every_cell_is_a_code_a_word_or_a_reason() -> None:
    """A cell that is spelled wrong would be a test that nobody understands."""
    cells = [(f"{row.fault}, {column}", row.cell(column)) for row in MATRIX for column in COLUMNS]
    cells += [(f"{row.fault}, {place}", row.cell(place)) for row in STORE_MATRIX for place in PLACES]
    for where, cell in cells:
        first, _, rest = cell.partition(" ")
        known = rest in REASONS | STORE_REASONS if first == "-" else first.rstrip(",") in {*ERROR_CODES, *WORDS}
        assert known, f"{where}: {cell}"


def test_names_are_given_once() -> None:
    """Rows and requests are found by their names."""
    rows = [row.fault for row in MATRIX] + [row.fault for row in STORE_MATRIX]
    for names in (rows, [bad.text for bad in BAD_REQUESTS]):
        assert len(names) == len(set(names))

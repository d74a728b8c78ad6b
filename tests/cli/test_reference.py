"""The reference pages are made from the code and are up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybridge.cli import reference
from manybridge.host.config_keys import keys_of
from tests.support import REPOSITORY


def test_the_written_pages_are_what_the_code_says() -> None:
    """`python -m manybridge.cli.reference` was run after the last change."""
    assert reference.main(["--check", "--folder", str(REPOSITORY / "docs" / "reference")]) == 0


def test_a_page_that_is_out_of_date_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check writes nothing; without it the page is written again."""
    folder = ["--folder", str(tmp_path / "pages")]
    reference.main(folder)
    (tmp_path / "pages" / "cli.md").write_text("old")

    checked = reference.main(["--check", *folder])
    said = capsys.readouterr().err
    reference.main(folder)

    assert (checked, reference.main(["--check", *folder])) == (1, 0)
    assert "cli.md is out of date; run: python -m manybridge.cli.reference" in said


def test_every_key_is_documented_with_a_meaning() -> None:
    """A key without a sentence about it is not finished."""
    for _, struct in reference.TABLES:
        for key in keys_of(struct).values():
            assert key.description, f"{struct.__name__}.{key.name}"

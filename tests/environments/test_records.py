"""Installed files are compared with what was installed, and what can't be compared is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybridge.environments.folders import Environment
from manybridge.environments.records import Verification, verify
from tests.environments.conftest import World


@pytest.fixture
def packages(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the site-packages of an environment whose files are its own, so that a test may damage them."""
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    (folder,) = world.build("alpha").folder.glob("lib/python*/site-packages")
    return folder


def subjects(done: Verification, folder: Path) -> list[str]:
    """Return what was found, by the names of files."""
    return [str(Path(each.subject).relative_to(folder)) for each in done.findings]


def test_an_environment_as_it_was_built_is_right(packages: Path) -> None:
    """Its own bytecode is not taken for somebody's."""
    done = verify(packages, is_ours=True)

    assert (done.findings, done.unverified) == ([], [])
    assert done.files > 4


def test_changed_missing_and_added_files_are_found(packages: Path) -> None:
    """Each with what is wrong with it."""
    (packages / "alpha" / "__init__.py").write_text("changed")
    (packages / "beta" / "__init__.py").unlink()
    (packages / "beta" / "added.py").write_text("")
    (packages / "beta" / "__pycache__" / "added2.cpython-311.pyc").write_text("")

    done = verify(packages, is_ours=True)

    said = {Path(each.subject).name: each.text for each in done.findings}
    assert said["added.py"] == "no installed package lists this file"
    assert said["added2.cpython-311.pyc"] == "no installed package lists this file"
    assert "hash differs" in next(each.text for each in done.findings if "alpha/" in each.subject)
    assert "missing" in next(each.text for each in done.findings if each.subject.endswith("beta/__init__.py"))
    assert len(done.findings) == 4


def test_files_of_nobody_are_let_be_in_an_environment_of_the_user(packages: Path) -> None:
    """What lies there besides is the user's business; changed files are told all the same."""
    (packages / "notes.txt").write_text("mine")
    (packages / "alpha" / "__init__.py").write_text("changed")

    assert subjects(verify(packages, is_ours=False), packages) == ["alpha/__init__.py"]


@pytest.mark.parametrize("algorithm", ["rot13", "shake_128"])
def test_what_cannot_be_compared_is_said(packages: Path, algorithm: str) -> None:
    """A distribution without a RECORD, and files without a hash or with an unknown one."""
    record = next(packages.glob("alpha-*.dist-info/RECORD"))
    lines = record.read_text().splitlines()
    record.write_text(
        "\n".join(
            f"{line.split(',')[0]},,"
            if line.startswith("alpha/")
            else line.replace("sha256=", f"{algorithm}=", line.count("METADATA"))
            for line in lines
        )
    )
    next(packages.glob("beta-*.dist-info/RECORD")).unlink()

    done = verify(packages, is_ours=False)

    assert done.findings == []
    assert sorted(text.partition(": ")[2] for text in done.unverified) == [
        f"alpha-1.0.dist-info lists it with the unknown hash {algorithm}",
        "alpha-1.0.dist-info lists it without a hash",
        "it has no RECORD",
    ]


@pytest.mark.parametrize("content", [b"one column\n", b"\xff\xfe", b'a,"b\n'])
def test_a_record_that_cannot_be_read_is_a_finding(packages: Path, content: bytes) -> None:
    """It vouches for nothing."""
    record = next(packages.glob("beta-*.dist-info/RECORD"))
    record.write_bytes(content)

    assert str(record) in [each.subject for each in verify(packages, is_ours=False).findings]


def test_progress_is_told_for_each_package(world: World) -> None:
    """So that a bar can move."""
    environment: Environment = world.build("alpha")
    (folder,) = environment.folder.glob("lib/python*/site-packages")
    told: list[tuple[int, int]] = []

    verify(folder, is_ours=True, progress=lambda now, of: told.append((now, of)))

    assert told == [(1, 2), (2, 2)]

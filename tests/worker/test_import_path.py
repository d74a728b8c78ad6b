"""Where a worker looks for the module of `package.module:Class`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from manybridge.worker.import_path import extend_import_path
from manybridge.worker.options import parse
from tests.worker.raw import RawWorker, bridge

INTERPRETERS = ["/interpreter/lib", "/interpreter/site-packages"]


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """An import path that the test may change."""
    monkeypatch.setattr(sys, "path", list(INTERPRETERS))
    monkeypatch.setattr(sys, "path_hooks", list(sys.path_hooks))
    return sys.path


def test_the_named_folders_come_behind_those_of_the_interpreter(path: list[str]) -> None:
    """So a file in one of them can't stand in for a package of the interpreter."""
    extend_import_path(parse(["m:C", "--mode", "host", "--search-path=/a", "--search-path=/b", "--search-path=/a"]), {})

    assert path == [*INTERPRETERS, "/a", "/b"]


@pytest.mark.parametrize(
    ("arguments", "added"),
    [
        (["m:C"], True),
        (["m:C", "--mode", "pool-worker"], True),
        (["m:C", "--mode", "host"], False),
        (["m:C", "--zygote"], False),
        (["mock"], False),
        (["file.py"], False),
        (["file.py:C"], False),
    ],
)
def test_only_a_worker_that_was_started_by_hand_looks_in_the_working_folder(
    path: list[str], arguments: list[str], added: bool
) -> None:
    """A host says which folders it means; and only the module of a class is looked for."""
    extend_import_path(parse(arguments), {})

    assert path == [*INTERPRETERS, *([str(Path.cwd())] if added else [])]


def test_a_pythonpath_from_the_configuration_holds_in_an_isolated_worker(tmp_path: Path) -> None:
    """In front, as Python has it: with `-I` the interpreter itself would ignore it."""
    (tmp_path / "of_the_team.py").write_text(Path(bridge("stubborn")).read_text())
    environment = {"PYTHONPATH": f"{tmp_path}:"}
    with RawWorker("of_the_team:StubbornBridge", "--mode", "host", environment=environment) as worker:
        assert worker.result("s:quick", {"value": 1}) == {"value": 1}


def test_a_module_beside_a_worker_that_was_started_by_hand_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every program that takes `module:Class` does it."""
    (tmp_path / "of_the_team.py").write_text(Path(bridge("stubborn")).read_text())
    monkeypatch.chdir(tmp_path)
    with RawWorker("of_the_team:StubbornBridge") as worker:
        assert worker.result("s:quick", {"value": 1}) == {"value": 1}

"""A bridge by `package.module:Class`: where a host has its workers look for the module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manybridge import MLBridge
from manybridge.host.config import BridgeConfig, load_config, make_bridge_config, update_bridge_config

TEAM = """
from manybridge.bridge import Bridge, command

class TeamBridge(Bridge):
    name = "team"

    @command
    def hello(self) -> str:
        from bridges.words import WORD
        return WORD
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A configuration with a package of bridges beside it."""
    folder = tmp_path / "a project"
    package = folder / "bridges"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "team.py").write_text(TEAM)
    (package / "words.py").write_text('WORD = "hello"')
    (folder / "manybridge.toml").write_text(
        '[bridges.team]\nbridge = "bridges.team:TeamBridge"\n[store]\nurl = "memory:"\n'
    )
    return folder


def test_a_module_beside_the_configuration_is_found_from_everywhere(project: Path) -> None:
    """And so is what it imports later; the working folder has no part in it."""
    with MLBridge.from_config(project / "manybridge.toml") as ml:
        assert ml.call("team", "team:hello") == "hello"
        ml.register_bridge("again", {"bridge": "bridges.team:TeamBridge"})
        assert ml.call("again", "again:hello") == "hello"


def test_without_a_file_the_working_folder_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a relative path."""
    monkeypatch.chdir(project)
    with MLBridge.from_config({"bridges": {"team": {"bridge": "bridges.team:TeamBridge"}}}) as ml:
        assert ml.call("team", "team:hello") == "hello"


def test_what_the_hosts_own_program_can_import_its_workers_can(project: Path) -> None:
    """Where they run under the same interpreter, and nothing else has that module."""
    program = (
        "from manybridge import MLBridge\n"
        'with MLBridge({"bridges": {"team": {"bridge": "bridges.team:TeamBridge"}}}) as ml:\n'
        '    print(ml.call("team", "team:hello"))'
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(project)},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )

    assert (ended.stdout, ended.returncode) == ("hello\n", 0), ended.stderr


@pytest.mark.parametrize("values", [{"bridge": "mock"}, {"python_script": __file__}])
def test_only_a_module_is_looked_for(values: dict[str, str]) -> None:
    """What is no `package.module:Class` needs no folders."""
    assert make_bridge_config("b", values).search_path is None


def test_named_folders_take_the_place_of_the_others(tmp_path: Path) -> None:
    """Relative ones are relative to the configuration; `[]` means none."""
    values = {"bridge": "m:C", "python": "/bin/python3"}

    assert make_bridge_config("b", values, folder=tmp_path).search_path == [str(tmp_path)]
    for given, absolute in [(["x", "/y"], [str(tmp_path / "x"), "/y"]), ([], [])]:
        assert make_bridge_config("b", {**values, "search_path": given}, folder=tmp_path).search_path == absolute


def test_a_bridge_that_becomes_a_module_gets_its_folders(tmp_path: Path) -> None:
    """A change of a running bridge knows no less than its registration; reading it again changes nothing."""
    changed = update_bridge_config("b", BridgeConfig(bridge="mock"), {"bridge": "m:C"}, folder=tmp_path)

    assert changed.search_path is not None
    assert changed.search_path[0] == str(tmp_path)
    assert load_config({"bridges": {"b": changed}}, {}).bridges["b"] == changed

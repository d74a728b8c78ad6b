"""Where an interpreter looks for code is found without starting it; Python itself is asked whether that is right."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manybridge.environments.interpreters import locate
from manybridge.errors import BridgeEnvironmentError
from tests.support import framework_python

ASK = "import json, site, sys; print(json.dumps([sys.prefix, sys.path, site.getsitepackages()]))"
BASE = Path(getattr(sys, "_base_executable", sys.executable))


def asked(python: Path) -> tuple[str, set[Path], set[Path]]:
    """Return the prefix, path and site-packages that an interpreter tells of itself."""
    done = subprocess.run([python, "-I", "-c", ASK], check=True, capture_output=True, text=True)
    prefix, path, packages = json.loads(done.stdout)
    return prefix, {Path(each).resolve() for each in path if Path(each).exists()}, {Path(each) for each in packages}


@pytest.mark.parametrize(
    "python", [Path(sys.executable), BASE, Path("/usr/bin/python3")], ids=["venv", "base", "system"]
)
def test_every_folder_that_python_names_is_among_those_found(python: Path) -> None:
    """A virtual environment, what it was made from, and the system's interpreter where there is one."""
    if not python.exists():
        python = BASE
    layout = locate(python)
    prefix, path, packages = asked(python)
    found = {each.resolve() for each in (*layout.packages, *layout.library)}

    assert {each.resolve() for each in packages if each.exists()} <= {each.resolve() for each in layout.packages}
    assert {each for each in path if "-packages" in str(each) or each.is_relative_to(prefix)} <= found


@pytest.mark.framework
@pytest.mark.parametrize("name", ["dspy", "sklearn", "langchain", "transformers"])
def test_the_folder_of_a_frameworks_environment_is_found(name: str) -> None:
    """Made by uv."""
    python = framework_python(name)

    named = asked(python)[2]  # Debian's names some that no environment has

    assert {each.resolve() for each in locate(python).packages} == {each.resolve() for each in named if each.exists()}


def test_an_environment_that_sees_the_packages_of_its_base_has_those_too(tmp_path: Path) -> None:
    """Their start-up code runs in it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(BASE)
    packages = tmp_path / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text(f"home = {BASE.parent}\nInclude-System-Site-Packages = TRUE\n")

    layout = locate(tmp_path / "bin" / "python")

    assert layout.packages[0] == packages
    assert set(layout.packages[1:]) == set(locate(BASE).packages)


def test_a_copied_interpreter_belongs_to_its_home(tmp_path: Path) -> None:
    """An environment made with copies has no link to follow."""
    (tmp_path / "bin").mkdir()
    shutil.copy(BASE.resolve(), tmp_path / "bin" / BASE.resolve().name)
    (tmp_path / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    (tmp_path / "pyvenv.cfg").write_text(f"home = {BASE.parent}\n")

    layout = locate(tmp_path / "bin" / BASE.resolve().name)

    assert layout.packages == (tmp_path / "lib" / "python3.11" / "site-packages",)
    assert set(layout.library) == set(locate(BASE).library)


def test_a_script_cannot_be_looked_through(tmp_path: Path) -> None:
    """Nobody knows what it starts; the error says what to do."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')

    with pytest.raises(BridgeEnvironmentError, match="check_python = false") as caught:
        locate(script)

    assert caught.value.details["reason"] == "unlocatable"


@pytest.mark.parametrize("has_settings", [True, False])
def test_an_interpreter_without_its_folders_cannot_be_looked_through(tmp_path: Path, has_settings: bool) -> None:
    """Nothing found is not nothing there."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python"
    program.write_bytes(b"\x7fELF")
    if has_settings:
        program.unlink()
        program.symlink_to(BASE)
        (tmp_path / "pyvenv.cfg").write_text("home = /no/such/folder\n")

    with pytest.raises(BridgeEnvironmentError, match="can't check") as caught:
        locate(program)

    assert caught.value.details["reason"] == "unlocatable"

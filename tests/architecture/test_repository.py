"""What must hold for the files of the repository as a whole."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.support import REPOSITORY

# Written in pieces, so that this file does not hold what it looks for.
REGISTRY_HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("deb", "debian", "org"),
        ("hex", "pm"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("download", "pytorch", "org"),
    )
]

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==(\S+)", re.MULTILINE)


@cache
def repository_files() -> list[Path]:
    """Return every file that is committed or would be by `git add`."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    names = listed.stdout.decode().split("\0")
    return [path for name in names if name and (path := REPOSITORY / name).is_file()]


def pins(lock: str) -> dict[str, str]:
    """Return the packages of a lock file with their versions."""
    return dict(PIN.findall((REPOSITORY / "requirements" / lock).read_text(encoding="utf-8")))


def test_no_file_names_the_host_of_a_package_registry() -> None:
    """Packages come from whatever index a machine is configured for, so no file names one."""
    hosts = re.compile("|".join(rf"(?<![\w-]){re.escape(host)}(?![\w-])" for host in REGISTRY_HOSTS).encode())
    named = [str(path.relative_to(REPOSITORY)) for path in repository_files() if hosts.search(path.read_bytes())]
    assert named == []


@pytest.mark.parametrize("lock", sorted(path.name for path in (REPOSITORY / "requirements").glob("*.txt")))
def test_every_locked_package_has_hashes(lock: str) -> None:
    """A lock names exact versions, each with hashes, and no index."""
    text = (REPOSITORY / "requirements" / lock).read_text(encoding="utf-8")
    entries = re.split(r"\n(?=\S)", re.sub(r"^\s*#.*\n?", "", text, flags=re.MULTILINE).strip())
    assert entries
    loose = [entry for entry in entries if not PIN.match(entry) or "--hash=sha256:" not in entry]
    assert loose == []


@pytest.mark.parametrize("lock", ["host.txt", "bootstrap.txt"])
def test_the_small_locks_agree_with_the_development_lock(lock: str) -> None:
    """A package has one version in all the locks that .venv is made from."""
    everything = pins("dev.txt")
    assert {name: version for name, version in pins(lock).items() if everything.get(name) != version} == {}


def test_every_declared_dependency_has_its_reason_written_down() -> None:
    """docs/architecture/dependencies.md has a row for each direct dependency, and for nothing else."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    declared = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for path in (REPOSITORY / "requirements").glob("env-*.in"):
        declared += [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    page = (REPOSITORY / "docs/architecture/dependencies.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([A-Za-z0-9_-]+)` \|", page, re.MULTILINE)
    names = [match[0] for line in declared if (match := re.match(r"[A-Za-z0-9._-]+", line))]
    assert sorted(explained) == sorted(names)


def test_the_bundled_bridges_are_entry_points() -> None:
    """Bundled bridges are found in the same way as those of other packages."""
    found = {point.name: point.value for point in entry_points(group="manybridge.bridges")}
    assert found == {
        "mock": "manybridge.bridges.mock:MockBridge",
        "python": "manybridge.bridges.python:PythonBridge",
        "dspy": "manybridge.bridges.dspy:DSPyBridge",
        "langchain": "manybridge.bridges.langchain:LangChainBridge",
        "transformers": "manybridge.bridges.transformers:TransformersBridge",
    }


def test_the_changelog_keeps_its_form() -> None:
    """Keep-a-Changelog: Unreleased first, then versions with a date, and only the kinds of change that it knows."""
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert versions[0] == "[Unreleased]"
    assert [line for line in versions[1:] if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", line)] == []
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("script", sorted([*(REPOSITORY / "scripts").glob("*.sh"), REPOSITORY / ".ci" / "run"]))
def test_shell_scripts_stop_at_the_first_surprise(script: Path) -> None:
    """Each script is executable, parses, and treats unset variables as errors."""
    assert script.stat().st_mode & 0o100
    assert re.search(r"^set -[a-z]*u", script.read_text(encoding="utf-8"), re.MULTILINE)
    subprocess.run(["bash", "-n", script], check=True)

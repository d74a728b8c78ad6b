"""A host finds the environment of a bridge, looks through it, and starts nothing where something is wrong."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manybridge import AsyncMLBridge
from manybridge.environments.building import build
from manybridge.environments.claims import try_exclusive
from manybridge.environments.folders import Environment
from manybridge.environments.locks import read_lock
from manybridge.environments.resolving import make_lock
from manybridge.errors import BridgeEnvironmentError, EnvironmentRefusedError, WorkerCrashedError, WorkerStartError
from manybridge.host.config import read_config
from manybridge.host.interpreters import Interpreters
from tests.environments.conftest import Canary, canary, no_network, uv_cache
from tests.environments.wheels import make_wheel

__all__ = ["canary", "no_network", "uv_cache"]

CONFIG = """
[environments]
folder = "environments"
find_links = ["wheels"]

[bridges.mock]
required_packages = ["alpha"]
zygote = "never"
eager = false
"""


class Project:
    """A folder with a configuration, wheels, locks and environments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "manybridge.toml"
        self.config.write_text(CONFIG)
        make_wheel(folder / "wheels", "alpha")

    def lock(self) -> Path:
        """Lock what the bridge requires."""
        loaded = read_config(self.config).config
        finder = Interpreters(loaded.environments)
        path = finder.lock_path("mock")
        assert path is not None
        make_lock("mock", loaded.bridges["mock"].required_packages, path, finder.settings)
        return path

    def build(self) -> Environment:
        """Lock and build."""
        path = self.lock()
        settings = Interpreters(read_config(self.config).config.environments).settings
        return build(read_lock(path), settings)

    def replace(self, before: str, after: str) -> None:
        """Change the configuration."""
        text = self.config.read_text()
        assert before in text
        self.config.write_text(text.replace(before, after))

    async def call(self) -> Any:
        """Make the first call of a host."""
        async with AsyncMLBridge.from_config(self.config) as ml:
            return await ml.call("mock", "mock:echo", {"a": 1}, timeout=10)


def program_of(pid: int) -> str:
    """Return the first word of a process's command line."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


def start(python: Path) -> None:
    """Start an interpreter."""
    subprocess.run([python, "-c", ""], check=True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Return a project whose bridge needs the package alpha."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder)


async def test_workers_run_in_the_environment_of_the_lock(project: Project) -> None:
    """With nothing but the lock beside the configuration."""
    environment = project.build()

    async with AsyncMLBridge.from_config(project.config) as ml:
        assert await ml.call("mock", "mock:echo", {"a": 1}) == {"a": 1}
        (worker,) = ml.pool("mock").workers
        assert program_of(worker.process.pid) == str(environment.interpreter)


async def test_a_running_host_keeps_its_environments_from_being_removed(project: Project) -> None:
    """Its claim ends with it."""
    environment = project.build()
    root, name = environment.folder.parent, environment.name

    async with AsyncMLBridge.from_config(project.config) as ml:
        await ml.call("mock", "mock:echo", {})
        assert try_exclusive(root, name, "removes it") is None

    claim = try_exclusive(root, name, "removes it")
    assert claim is not None
    claim.close()


async def test_a_warm_environment_starts_without_uv_and_without_a_question(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has was written down when it was built: no resolver, no network, no other process."""
    project.build()
    project.replace('find_links = ["wheels"]', 'find_links = ["wheels"]\nuv = "/no/such/uv"')
    monkeypatch.setenv("PATH", "/no/such/folder")

    assert await project.call() == {"a": 1}


async def test_no_lock_and_no_package_says_what_to_run(project: Project) -> None:
    """The host's own interpreter does not have it."""
    with pytest.raises(WorkerStartError, match="manybridge env lock mock\n  manybridge env sync mock") as caught:
        await project.call()

    assert caught.value.code == "missing_package"


async def test_an_environment_that_is_not_built_is_told_at_once(project: Project) -> None:
    """The first call does not build, and does not hang."""
    project.lock()

    with pytest.raises(WorkerStartError, match=r"is not built; build it with:\n  manybridge env sync mock") as caught:
        await project.call()

    assert caught.value.code == "missing_package"
    assert caught.value.details["install"] == "manybridge env sync mock"
    assert not (project.folder / "environments").exists()


async def test_an_environment_that_is_being_built_is_told_with_who_builds_it(project: Project) -> None:
    """Neither does the first call wait for it."""
    path = project.lock()
    claim = try_exclusive(project.folder / "environments", read_lock(path).environment, "builds it")
    assert claim is not None

    with claim, pytest.raises(WorkerStartError, match=r"is not ready: process \d+ builds it since \d+ s"):
        await project.call()


async def test_requirements_that_changed_since_the_lock_are_told(project: Project) -> None:
    """With both lists, and the commands that follow."""
    project.build()
    project.replace('["alpha"]', '["alpha", "beta>=2"]')

    with pytest.raises(
        BridgeEnvironmentError, match=r"is alpha, beta>=2, and the lock .* was made from alpha;"
    ) as caught:
        await project.call()

    assert caught.value.details["reason"] == "lock_stale"
    assert "manybridge env lock mock\n  manybridge env sync mock" in caught.value.message


async def test_a_lock_of_another_platform_is_told(project: Project) -> None:
    """It was committed elsewhere."""
    path = project.lock()
    path.write_text(path.read_text().replace("# platform: ", "# platform: plan9-"))

    with pytest.raises(BridgeEnvironmentError, match="was made for plan9-") as caught:
        await project.call()

    assert caught.value.details["reason"] == "lock_platform"


async def test_a_lock_that_cannot_be_read_is_told(project: Project) -> None:
    """With the file and the line."""
    project.lock().write_text("<<<<<<< ours\n")

    with pytest.raises(BridgeEnvironmentError, match=r"mock\.txt:1 can't be read"):
        await project.call()


class TestNoPythonStarts:
    """A canary in a `.pth` file would sing at the first start of an interpreter, whoever starts it."""

    async def test_where_the_lock_names_a_known_bad_version(self, project: Project, canary: Canary) -> None:
        """Such as litellm 1.82.8; also where its environment was built before it was known."""
        environment = project.build()
        (packages,) = environment.folder.glob("lib/python*/site-packages")
        (packages / "canary.pth").write_text(canary.line)
        path = project.folder / "manybridge.locks" / "mock.txt"
        path.write_text(path.read_text() + f"litellm==1.82.8 --hash=sha256:{'0' * 64}\n")

        with pytest.raises(EnvironmentRefusedError, match=r"litellm==1\.82\.8: a known-bad version: carried malware"):
            await project.call()

        assert not canary.sang

    async def test_where_the_environment_was_changed_after_it_was_built(self, project: Project, canary: Canary) -> None:
        """It is looked through again at each start."""
        environment = project.build()
        (packages,) = environment.folder.glob("lib/python*/site-packages")
        (packages / "canary.pth").write_text(canary.line)

        with pytest.raises(EnvironmentRefusedError, match=r"canary\.pth: would run at every start") as caught:
            await project.call()

        assert not canary.sang
        assert caught.value.code == "environment_refused"

    async def test_where_an_interpreter_of_the_users_own_has_a_known_bad_version(
        self, project: Project, canary: Canary
    ) -> None:
        """As litellm 1.82.8 was: its metadata, and a .pth file."""
        python = self.own_environment(project.folder)
        (packages,) = python.parents[1].glob("lib/python*/site-packages")
        (packages / "litellm-1.82.8.dist-info").mkdir()
        (packages / "litellm_init.pth").write_text(canary.line)
        project.replace('required_packages = ["alpha"]', f'python = "{python}"\nrequired_packages = ["litellm"]')

        with pytest.raises(EnvironmentRefusedError) as caught:
            await project.call()

        assert not canary.sang
        assert [each["kind"] for each in caught.value.details["findings"]] == ["known_bad", "startup_code"]
        start(python)
        assert canary.sang  # so it would have

    async def test_where_the_packages_of_a_running_host_s_bridge_turn_bad(
        self, project: Project, canary: Canary
    ) -> None:
        """A worker that replaces another is looked at as the first was."""
        environment = project.build()
        (packages,) = environment.folder.glob("lib/python*/site-packages")

        async with AsyncMLBridge.from_config(project.config) as ml:
            await ml.call("mock", "mock:echo", {})
            (packages / "canary.pth").write_text(canary.line)
            with pytest.raises(WorkerCrashedError, match=r"SIGKILL"):
                await ml.call("mock", "mock:fail", {"kind": "kill"})
            with pytest.raises(EnvironmentRefusedError):
                await ml.call("mock", "mock:echo", {}, timeout=10)

        assert not canary.sang

    @staticmethod
    def own_environment(folder: Path) -> Path:
        """Make a virtual environment by hand, without starting anything."""
        base = Path(getattr(sys, "_base_executable", sys.executable))
        python = folder / "venv" / "bin" / "python"
        (folder / "venv" / "lib" / f"python3.{sys.version_info[1]}" / "site-packages").mkdir(parents=True)
        python.parent.mkdir()
        python.symlink_to(base)
        (folder / "venv" / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
        return python


async def test_an_interpreter_of_the_users_own_is_accepted_as_before(project: Project) -> None:
    """Nothing is locked or built for it."""
    python = TestNoPythonStarts.own_environment(project.folder)
    project.replace('required_packages = ["alpha"]', f'python = "{python}"')

    assert await project.call() == {"a": 1}


async def test_what_cannot_be_looked_through_is_started_only_where_the_configuration_says_so(project: Project) -> None:
    """A script hides its interpreter."""
    script = project.folder / "python"
    script.write_text(f'#!/bin/sh\nexec {shutil.which("env")} {sys.executable} "$@"\n')
    script.chmod(0o755)
    project.replace('required_packages = ["alpha"]', f'python = "{script}"')
    with pytest.raises(BridgeEnvironmentError, match="check_python = false"):
        await project.call()

    project.replace("eager = false", "eager = false\ncheck_python = false")

    assert await project.call() == {"a": 1}


def test_locks_lie_beside_their_configuration_under_its_name(tmp_path: Path) -> None:
    """Two configurations in one folder have bridges of the same name."""
    (tmp_path / "other.toml").write_text("[bridges.mock]\n")
    (tmp_path / "pyproject.toml").write_text("[tool.manybridge.bridges.mock]\n")
    (tmp_path / "said.toml").write_text('[environments]\nlocks = "locks"\nfolder = "~/envs"\nadvisories = "osv.zip"\n')

    assert read_config(tmp_path / "other.toml").config.environments.locks == str(tmp_path / "other.locks")
    assert read_config(tmp_path / "pyproject.toml").config.environments.locks == str(tmp_path / "manybridge.locks")
    said = read_config(tmp_path / "said.toml").config.environments
    assert (said.locks, said.advisories) == (str(tmp_path / "locks"), str(tmp_path / "osv.zip"))
    assert said.folder == str(Path.home() / "envs")
    assert read_config({}).config.environments.locks is None


def test_environments_lie_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the XDG specification says, which ignores a relative path."""
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert Interpreters().settings.root == Path("/data/manybridge/environments")

    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert Interpreters().settings.root == Path("/home/somebody/.local/share/manybridge/environments")

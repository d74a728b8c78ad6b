"""A world of a few packages in one folder, with no index and no network, and a place for environments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from manybridge.environments.building import build
from manybridge.environments.folders import Environment
from manybridge.environments.resolving import Locked, make_lock
from manybridge.environments.settings import Settings
from tests.environments.wheels import make_wheel


@pytest.fixture(scope="session")
def uv_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache of uv for these tests alone."""
    return tmp_path_factory.mktemp("uv-cache")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, uv_cache: Path) -> None:
    """Let uv reach nothing: offline, with an index that nobody answers at, and no folders of this machine."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(uv_cache))
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS", "UV_INDEX", "UV_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fresh_cache(no_network: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give uv a cache of its own for one test, which the test may throw away."""
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))


class World:
    """A folder of wheels, and what is locked and built from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        self.locks = folder / "manybridge.locks"
        self.settings = Settings(root=folder / "environments", find_links=(str(self.wheels),))
        self.wheels.mkdir()

    def lock(self, *requirements: str, bridge: str = "mine", upgrade: bool = False) -> Locked:
        """Lock requirements."""
        path = self.locks / f"{bridge}.txt"
        return make_lock(bridge, requirements, path, self.settings, upgrade=upgrade)

    def build(self, *requirements: str, bridge: str = "mine", **changes: object) -> Environment:
        """Lock requirements and build their environment."""
        return build(self.lock(*requirements, bridge=bridge).lock, replace(self.settings, **changes))  # type: ignore[arg-type]  # fields of Settings by name

    def folders(self) -> list[str]:
        """Return the names of the environments."""
        return [name for name in self._names() if not name.startswith(".")]

    def scratch(self) -> list[str]:
        """Return the folders of builds and removals that are under way, or were left."""
        return [name for name in self._names() if name.startswith(".") and name not in {".claims", ".known"}]

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.settings.root.glob("*"))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a world with the packages alpha (which needs beta, and has a script) and beta."""
    made = World(tmp_path)
    make_wheel(made.wheels, "alpha", requires=["beta>=1"], scripts={"alpha": "alpha:main"})
    make_wheel(made.wheels, "beta")
    return made


class Canary:
    """A file that appears as soon as any interpreter starts where the canary's line is in a `.pth` file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def line(self) -> str:
        """The line of the `.pth` file."""
        return f"import pathlib; pathlib.Path({str(self.path)!r}).write_text('a Python was started')\n"

    @property
    def sang(self) -> bool:
        """Whether an interpreter was started."""
        return self.path.exists()


@pytest.fixture
def canary(tmp_path: Path) -> Canary:
    """Return a canary that has not sung."""
    return Canary(tmp_path / "canary")

"""Which interpreter the workers of a bridge run under, found and checked by reading files alone.

A bridge's own `python` comes first; else the environment that its lock describes, if the bridge names packages and
there is a lock; else the interpreter of the host. Nothing here starts a process, resolves or installs: an environment
that is not built is an error that says how to build it, at once.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import Final, NamedTuple

from manybridge.environments.check import check_before_start, check_releases, check_versions
from manybridge.environments.claims import Claim, try_shared, who_builds
from manybridge.environments.failures import failed
from manybridge.environments.folders import Environment, find_environment
from manybridge.environments.locks import Lock, canonical_requirements, read_lock
from manybridge.environments.settings import Settings, default_root
from manybridge.environments.target import platform_tag
from manybridge.errors import ConfigError, WorkerStartError
from manybridge.host.config import BridgeConfig, EnvironmentsConfig
from manybridge.protocol.errors import ErrorCode

LOCK_SUFFIX: Final = ".txt"


class Found(NamedTuple):
    """The interpreter of a bridge."""

    path: str
    environment: Environment | None = None
    """The environment that manybridge built, None for any other interpreter."""


class Interpreters:
    """Finds and checks interpreters. Owner of the claims on the environments that workers of this host run in."""

    def __init__(self, config: EnvironmentsConfig | None = None) -> None:
        self.config = config or EnvironmentsConfig()
        self.settings = settings_of(self.config)
        self._claims: dict[str, Claim] = {}
        self._locks: dict[tuple[Path, int, int, int], Lock] = {}

    def find(self, name: str, config: BridgeConfig) -> Found:
        """Return the interpreter of a bridge, checked so that it may be started now.

        Raises:
            ConfigError: the configured interpreter is missing or can't be executed.
            EnvironmentRefusedError: something in its environment, or in the lock, must not be started.
            WorkerStartError: `missing_package`; the environment of the lock is not built.
            BridgeEnvironmentError: the lock can't be read, or is of another platform or of other requirements.
        """
        if config.python is not None:
            path = interpreter_path(config)
            if config.check_python:
                check_before_start(Path(path).absolute(), self.settings)
            return Found(path)
        lock = self._lock(name, config)
        if lock is None:
            # The host runs in it, so its start-up code has run long ago; versions are another matter.
            check_versions(sys.executable, _own_folders(), self.settings)
            return Found(sys.executable)
        environment = self._environment(name, lock)
        check_before_start(environment.interpreter, self.settings)
        return Found(str(environment.interpreter), environment)

    def lock_path(self, name: str) -> Path | None:
        """Return where the lock of a bridge lies, or None where no configuration file says a place."""
        return Path(self.config.locks) / f"{name}{LOCK_SUFFIX}" if self.config.locks is not None else None

    def close(self) -> None:
        """Give up the claims: no worker runs any more."""
        for claim in self._claims.values():
            claim.close()
        self._claims.clear()

    def _lock(self, name: str, config: BridgeConfig) -> Lock | None:
        path = self.lock_path(name)
        if path is None or not config.required_packages:
            return None
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        key = (path, status.st_mtime_ns, status.st_size, status.st_ino)
        if key not in self._locks:
            self._locks = {key: read_lock(path), **{old: lock for old, lock in self._locks.items() if old[0] != path}}
        lock = self._locks[key]
        require_current(name, lock, config)
        check_releases(f"the lock {path}", lock.releases, self.settings)
        return lock

    def _environment(self, name: str, lock: Lock) -> Environment:
        if lock.platform != platform_tag():
            text = f"the lock {lock.path} was made for {lock.platform}, and this is {platform_tag()}; lock again here:"
            raise failed("lock_platform", f"{text}\n  {lock_command(name)}", path=str(lock.path), locked=lock.platform)
        root, key = self.settings.root, lock.environment
        # The claim first: what is found under it can't be removed before it is used.
        if key not in self._claims and (root / key).exists():
            claim = try_shared(root, key)
            if claim is not None:
                self._claims[key] = claim
        environment = find_environment(root, key) if key in self._claims else None
        if environment is None:
            if key in self._claims:
                self._claims.pop(key).close()
            raise _not_built(name, lock, root)
        return environment


def settings_of(config: EnvironmentsConfig) -> Settings:
    """Return the configuration as the values that `manybridge.environments` takes."""
    return Settings(
        root=Path(config.folder) if config.folder is not None else default_root(),
        python=config.python,
        uv=config.uv,
        find_links=tuple(config.find_links),
        build_from_source=tuple(config.build_from_source),
        denylist=config.extra_denylist,
        allowed_startup=frozenset(config.allowed_startup),
        advisories=config.advisories,
    )


def interpreter_path(config: BridgeConfig) -> str:
    """Return the path of the interpreter that a bridge's configuration names; the host's own if it names none.

    Raises:
        ConfigError: there is no such file or command, or it can't be executed.
    """
    if config.python is None:
        return sys.executable
    found = shutil.which(config.python)
    if found is not None:
        return found
    if Path(config.python).is_dir():
        reason = "is a folder, not an interpreter"
    elif Path(config.python).exists():
        reason = "can't be executed"
    else:
        reason = "does not exist" if "/" in config.python else "is not a command on PATH"
    commands = [f"uv venv {_folder_of(config.python)}"] if "/" in config.python else []
    if commands and config.required_packages:
        commands.append(install_command(config.python, config.required_packages))
    help_text = "; make it with:" + "".join(f"\n  {command}" for command in commands) if commands else ""
    raise ConfigError(f"the interpreter {config.python} {reason}{help_text}", details={"python": config.python})


def require_current(name: str, lock: Lock, config: BridgeConfig) -> None:
    """Check that a lock was made from the requirements that the bridge has now.

    Raises:
        BridgeEnvironmentError: `lock_stale`, or `requirement` where one can't be read.
    """
    wanted = canonical_requirements(f"bridges.{name}.required_packages", config.required_packages)
    if wanted == lock.requires:
        return
    text = (
        f'required_packages of bridge "{name}" is {", ".join(wanted) or "empty"}, and the lock {lock.path} was made '
        f"from {', '.join(lock.requires) or 'nothing'}; lock again, then build:\n"
        f"  {lock_command(name)}\n  {sync_command(name)}"
    )
    raise failed(
        "lock_stale", text, bridge=name, path=str(lock.path), required=list(wanted), locked=list(lock.requires)
    )


def install_command(python: str, requirements: list[str]) -> str:
    """Return the command that installs requirements into an interpreter's environment."""
    return f"uv pip install --python {shlex.quote(python)} " + " ".join(shlex.quote(each) for each in requirements)


def lock_command(name: str) -> str:
    """Return the command that locks a bridge's requirements."""
    return f"manybridge env lock {name}"


def sync_command(name: str) -> str:
    """Return the command that builds a bridge's environment."""
    return f"manybridge env sync {name}"


def _not_built(name: str, lock: Lock, root: Path) -> WorkerStartError:
    builder = who_builds(root, lock.environment)
    if builder is not None:
        text = f'the environment of bridge "{name}" is not ready: {builder}; call again when it has finished'
    else:
        text = f'the environment of bridge "{name}" is not built; build it with:\n  {sync_command(name)}'
    return WorkerStartError(
        text,
        code=ErrorCode.MISSING_PACKAGE,
        details={
            "bridge": name,
            "lock": str(lock.path),
            "environment": str(root / lock.environment),
            "building": builder,
            "install": sync_command(name),
        },
    )


def _own_folders() -> list[Path]:
    """The folders of packages of the running host. No search is needed for them, so none can fail."""
    return [Path(each) for each in sys.path if each.endswith("-packages")]


def _folder_of(python: str) -> str:
    """The virtual environment that the path of an interpreter lies in, for the hint."""
    return shlex.quote(python.removesuffix("/bin/python").removesuffix("/bin/python3"))

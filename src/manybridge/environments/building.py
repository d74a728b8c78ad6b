"""Building an environment: once, under a claim, in a folder beside, checked, then renamed into place.

The order is the point. uv makes an empty virtual environment and installs wheels, whose code does not run by that.
Then the files are checked: versions, start-up code, hashes. Only after that is an interpreter started in it, to
compile bytecode. A wheel that carries a `.pth` file with code is found before anything could run it.
"""

from __future__ import annotations

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manybridge.environments.check import check_releases, findings_before_start
from manybridge.environments.claims import Claim, try_exclusive, wait_exclusive, who_builds
from manybridge.environments.failures import Finding, failed, refused
from manybridge.environments.folders import (
    BUILDING,
    FACTS,
    LOCK_COPY,
    REMOVED,
    Environment,
    find_environment,
    leftovers,
    read_environment,
    remove_tree,
    scratch_name,
    tree_size,
)
from manybridge.environments.interpreters import Layout, locate
from manybridge.environments.locks import Lock
from manybridge.environments.progress import Report, Step, quiet
from manybridge.environments.records import verify
from manybridge.environments.settings import Settings
from manybridge.environments.startup import releases_of
from manybridge.environments.target import BasePython, base_python, platform_tag
from manybridge.environments.uv import Done, find_links, is_full, only_wheels, run_uv
from manybridge.errors import EnvironmentRefusedError

_FROM_CACHE: Final[tuple[str, ...]] = ()
_FRESH: Final = ("--no-cache", "--link-mode", "copy")
"""Past uv's cache: for when what comes out of it is damaged."""

_ADVICE: Final = (
    "Nothing was kept. Exclude these versions in required_packages, or, if you have read a line or file and trust it, "
    "add its sha256 to allowed_startup in [environments]"
)


@dataclass(frozen=True, slots=True)
class Built:
    """The environment of a lock, and whether this call built it."""

    environment: Environment
    is_new: bool
    """False where it was there already, also if another process built it while this one waited."""


def build(lock: Lock, settings: Settings, *, rebuild: bool = False, report: Report = quiet) -> Environment:
    """Return the environment of a lock, built if it is not there: `build_or_find` for who need not know which."""
    return build_or_find(lock, settings, rebuild=rebuild, report=report).environment


def build_or_find(lock: Lock, settings: Settings, *, rebuild: bool = False, report: Report = quiet) -> Built:
    """Find the environment of a lock, or build it.

    An environment that is there is returned at once: no uv, no resolver, no network.

    Args:
        lock: what to install.
        settings: where to, and from where.
        rebuild: build again even if it is there; refused while a host uses it.
        report: told of the progress, and of what is waited for.

    Raises:
        EnvironmentRefusedError: the lock, or what was installed, must not be started. Nothing is kept.
        BridgeEnvironmentError: `lock_python`, `lock_platform`, `hash_mismatch`, `disk_full`, `in_use`,
            `verification`, `uv_missing` or `uv_failed`. Nothing is kept.
    """
    check_releases(f"the lock {lock.path or lock.bridge}", lock.releases, settings)
    python = base_python(settings)
    require_fit(lock, python.tag)
    found = find_environment(settings.root, lock.environment)
    if found is not None and not rebuild:
        return Built(found, is_new=False)
    with _space_watched(settings.root), _claimed(lock, settings, report, rebuild=rebuild) as claim:
        found = find_environment(settings.root, lock.environment)
        if found is not None and not rebuild:
            return Built(found, is_new=False)  # another process built it while we waited
        for folder in leftovers(settings.root, lock.environment):
            remove_tree(folder)
        return Built(_Build(lock, settings, python, claim, report).run(), is_new=True)


def require_fit(lock: Lock, python: str) -> None:
    """Check that a lock was made for this platform and Python.

    Raises:
        BridgeEnvironmentError: `lock_python` or `lock_platform`.
    """
    for reason, what, locked, here in (
        ("lock_python", "Python", lock.python, python),
        ("lock_platform", "platform", lock.platform, platform_tag()),
    ):
        if locked != here:
            text = (
                f"the lock {lock.path} was made for the {what} {locked}, and this is {here}; lock again here:\n"
                f"  manybridge env lock {lock.bridge}"
            )
            raise failed(
                "lock_python" if reason == "lock_python" else "lock_platform",
                text,
                path=str(lock.path),
                locked=locked,
                found=here,
            )


class _Build:
    """One build. Owner of the folder that it builds in, until that is renamed."""

    def __init__(self, lock: Lock, settings: Settings, python: BasePython, claim: Claim, report: Report) -> None:
        self._lock = lock
        self._settings = settings
        self._python = python
        self._claim = claim
        self._report = report
        self._folder = settings.root / scratch_name(BUILDING, lock.environment)

    def run(self) -> Environment:
        """Build, check, compile and rename."""
        try:
            try:
                self._install(_FROM_CACHE)
                layout = self._checked()
            except EnvironmentRefusedError as error:
                if error.details["reason"] != "corrupted":
                    raise
                # uv links files out of its cache and does not look at them again. Take them from the source.
                self._tell("what uv's cache holds is damaged; installing again past it")
                remove_tree(self._folder)
                self._install(_FRESH)
                layout = self._checked()
            self._compile()
            self._require_unchanged(layout)
            self._write_facts()
            return self._into_place()
        except BaseException as error:
            written = tree_size(self._folder)
            remove_tree(self._folder)
            if isinstance(error, OSError) and is_full(error):
                raise disk_full(self._settings.root, written, error.strerror or str(error)) from error
            raise

    def _install(self, cache: tuple[str, ...]) -> None:
        self._tell("making an empty environment")
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        prompt = f"manybridge-{self._lock.environment[:8]}"
        self._uv(
            [
                "venv",
                "--relocatable",
                "--no-project",
                "--prompt",
                prompt,
                "--python",
                self._python.executable,
                str(self._folder),
            ]
        )
        self._as_made = self._identity()
        copy = self._folder / LOCK_COPY
        copy.write_text(self._lock.text, encoding="utf-8")
        total = len(self._lock.pins)
        self._tell("downloading and installing", 0, total)
        self._uv(
            [
                "pip", "sync", str(copy), "--python", str(self._folder / "bin" / "python"), "--require-hashes",
                "--no-compile-bytecode", *only_wheels(self._settings), *find_links(self._settings), *cache,
            ],
            lambda: self._tell("downloading and installing", self._installed(), total),
        )  # fmt: skip
        self._tell("installed", total, total)

    def _checked(self) -> Layout:
        """Check what was installed, reading files alone."""
        layout = locate(self._folder / "bin" / "python")
        self._require_unchanged(layout)
        if findings := findings_before_start(layout, self._settings):
            raise refused(f'the environment of bridge "{self._lock.bridge}"', findings, _ADVICE)
        findings = []
        for folder in self._own_folders(layout):
            done = verify(
                folder,
                is_ours=True,
                progress=lambda now, of: self._tell("comparing hashes of installed files", now, of),
            )
            findings += done.findings
        if findings:
            raise refused(f'the environment of bridge "{self._lock.bridge}"', findings, "Nothing was kept")
        self._require_complete(layout)
        return layout

    def _require_unchanged(self, layout: Layout) -> None:
        """No package may have replaced the interpreter, or the file that says where it looks for code."""
        if self._identity() != self._as_made:
            text = "bin/python or pyvenv.cfg was replaced by a package"
            raise refused(str(layout.prefix), [Finding("changed", str(self._folder), text)], _ADVICE)

    def _require_complete(self, layout: Layout) -> None:
        found = {str(each) for each in releases_of(layout)}
        missing = [str(pin.release) for pin in self._lock.pins if pin.marker is None and str(pin.release) not in found]
        if missing:
            text = f"uv left out {', '.join(missing)}"
            raise failed("verification", f"the environment of {self._lock.path} is not whole: {text}", missing=missing)

    def _compile(self) -> None:
        """Compile bytecode, or every start of a worker would do it again where the folder can't be written to."""
        self._tell("compiling bytecode")
        self._uv(
            [
                "pip", "sync", str(self._folder / LOCK_COPY), "--python", str(self._folder / "bin" / "python"),
                "--require-hashes", "--compile-bytecode", "--offline", *only_wheels(self._settings),
                *find_links(self._settings),
            ],
            lambda: self._tell("compiling bytecode"),
        )  # fmt: skip

    def _write_facts(self) -> None:
        facts = {
            "bridge": self._lock.bridge,
            "packages": {each.name: each.version for each in self._lock.releases},
            "python": self._python.version,
            "python_tag": self._lock.python,
            "platform": self._lock.platform,
            "base": self._python.executable,
            "size": tree_size(self._folder),
            "created": time.time(),
        }
        (self._folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def _into_place(self) -> Environment:
        final = self._settings.root / self._lock.environment
        aside = self._settings.root / scratch_name(REMOVED, self._lock.environment)
        if final.exists():  # asked for again, or no longer usable
            final.rename(aside)
        self._folder.rename(final)
        remove_tree(aside)
        environment = read_environment(final)
        assert environment is not None
        return environment

    def _uv(self, arguments: list[str], tick: Callable[[], None] = lambda: None) -> None:
        here = self._lock.path.parent if self._lock.path else self._settings.root
        done = run_uv(self._settings, arguments, folder=here, tick=tick, pass_fds=(self._claim.fd,))
        if done.status == 0:
            return
        if done.ran_out_of_space:
            raise OSError(errno.ENOSPC, done.explanation)  # `run` makes the error, after it has cleaned up
        raise self._uv_failed(done)

    def _uv_failed(self, done: Done) -> Exception:
        head = f'can\'t build the environment of bridge "{self._lock.bridge}" from {self._lock.path}'
        if done.reason == "hash_mismatch":
            head += ": a file is not the one that was locked; nothing was kept"
        return failed(done.reason, f"{head}:\n{done.explanation}", bridge=self._lock.bridge, uv=done.explanation)

    def _identity(self) -> tuple[str, bytes]:
        return str((self._folder / "bin" / "python").readlink()), (self._folder / "pyvenv.cfg").read_bytes()

    def _own_folders(self, layout: Layout) -> Iterator[Path]:
        yield from (folder for folder in layout.packages if folder.is_relative_to(self._folder))

    def _installed(self) -> int:
        return sum(1 for _ in self._folder.glob("lib/python*/site-packages/*.dist-info"))

    def _tell(self, message: str, current: int = 0, total: int | None = None) -> None:
        self._report(Step(f"{self._lock.bridge}: {message}", current, total))


def disk_full(root: Path, written: int, said: str) -> Exception:
    """Return the error for a full disk."""
    free = _free(root)
    mib = 1 << 20
    text = (
        f"not enough space in {root}: {written / mib:.1f} MiB were written before it ran out, {free / mib:.1f} MiB are "
        f"free now that they are removed again; free some (manybridge env gc), or set folder in [environments]. "
        f"The system said: {said}"
    )
    return failed("disk_full", text, folder=str(root), needed_more_than=written, free=free)


@contextmanager
def _space_watched(root: Path) -> Iterator[None]:
    """Turn a write outside the build's own folder that fails for want of space into the same error."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise disk_full(root, 0, error.strerror or str(error)) from error
        text = f"can't write to {root}, where environments lie: {error.strerror or error}"
        raise failed("uv_failed", text, folder=str(root)) from error


@contextmanager
def _claimed(lock: Lock, settings: Settings, report: Report, *, rebuild: bool) -> Iterator[Claim]:
    root, name = settings.root, lock.environment
    claim = try_exclusive(root, name, "builds it") if rebuild else None
    if rebuild and claim is None:
        holder = who_builds(root, name) or "a running host uses it"
        raise failed("in_use", f"{root / name} can't be built again now: {holder}", environment=name)

    def waiting(builder: str | None) -> None:
        if builder is None and (root / name).exists():  # not to be used any more, yet somebody's workers run in it
            text = f"{root / name} has to be built again, and a running host uses it; end that first"
            raise failed("in_use", text, environment=name)
        report(Step(f"{lock.bridge}: waiting for the environment: {builder or 'another process has it'}"))

    with claim or wait_exclusive(root, name, "builds it", waiting) as held:
        yield held


def _free(folder: Path) -> int:
    try:
        return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    except OSError:
        return 0

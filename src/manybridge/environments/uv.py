"""Running uv: where it is, what it is told, and what its refusals mean."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manybridge.environments.failures import Reason, failed
from manybridge.environments.settings import Settings

TICK: Final = 0.1
"""Seconds between two looks at the progress of a running uv."""

# What would make uv act on another environment, start an interpreter before we have checked (compiling bytecode does),
# or install what the lock does not vouch for.
_NOT_INHERITED: Final = (
    "UV_COMPILE_BYTECODE", "UV_NO_VERIFY_HASHES", "UV_REQUIRE_HASHES", "UV_CUSTOM_COMPILE_COMMAND",
    "UV_NO_BINARY", "UV_NO_BINARY_PACKAGE", "UV_NO_BUILD", "UV_NO_BUILD_PACKAGE",
    "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_PYTHON", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT",
    "UV_WORKING_DIRECTORY", "VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH",
)  # fmt: skip

# uv runs in the folder of the configuration, so a relative path in one of these would lead somewhere else.
_PATHS: Final[Mapping[str, str | None]] = {
    "UV_FIND_LINKS": ",", "UV_CACHE_DIR": None, "UV_CONFIG_FILE": None, "SSL_CERT_FILE": None,
}  # fmt: skip
_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|file:")

_NO_SPACE: Final = re.compile(r"No space left on device|Disk quota exceeded|File too large|os error (?:27|28|122)\b")
_WRONG_HASH: Final = re.compile(r"[Hh]ash mismatch|does not match|don't match", re.MULTILINE)
_CONFLICT: Final = re.compile(r"No solution found|unsatisfiable|can't be satisfied|cannot be used", re.MULTILINE)
_REFUSAL: Final = ("error:", "\u00d7")
"""What the lines begin with in which uv says what is wrong; before them it says how far it got, and warns."""
_prctl: Final = ctypes.CDLL(None).prctl
"""Found now: between fork and exec nothing may be looked up."""
_PR_SET_PDEATHSIG: Final = 1
"""See prctl(2)."""
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@dataclass(frozen=True, slots=True)
class Done:
    """How a run of uv ended."""

    status: int
    """The exit code, or the negative number of the signal."""
    output: str
    errors: str

    @property
    def ran_out_of_space(self) -> bool:
        """Whether the disk was full, or a limit of file sizes was met."""
        return self.status == -signal.SIGXFSZ or (self.status != 0 and bool(_NO_SPACE.search(self.errors)))

    @property
    def reason(self) -> Reason:
        """What the refusal is about, as far as uv's words tell."""
        if self.ran_out_of_space:
            return "disk_full"
        if _WRONG_HASH.search(self.errors):
            return "hash_mismatch"
        return "conflict" if _CONFLICT.search(self.errors) else "uv_failed"

    @property
    def explanation(self) -> str:
        """The words of uv itself, from the line on in which it says what is wrong."""
        lines = [line.rstrip() for line in self.errors.splitlines()]
        first = next((number for number, line in enumerate(lines) if line.lstrip().startswith(_REFUSAL)), 0)
        return "\n".join(lines[first:]).strip() or f"uv ended with {self.status}"


def find_uv(settings: Settings) -> str:
    """Return the path of uv.

    Raises:
        BridgeEnvironmentError: `uv_missing`.
    """
    if settings.uv is not None:
        found = shutil.which(settings.uv)
        where = settings.uv
    else:
        found = _installed_uv() or shutil.which("uv")
        where = "neither beside manybridge nor on PATH"
    if found is None:
        text = f"uv was not found ({where}); it is needed to lock and build environments:\n  pip install uv"
        raise failed("uv_missing", text)
    return found


def run_uv(
    settings: Settings,
    arguments: Sequence[str],
    *,
    folder: Path,
    tick: Callable[[], None] = lambda: None,
    pass_fds: tuple[int, ...] = (),
) -> Done:
    """Run uv to its end.

    Args:
        settings: which uv.
        arguments: behind the name of the program.
        folder: its working folder, from which it finds a configuration of indexes.
        tick: called every now and then while it runs.
        pass_fds: descriptors that stay open for as long as it or something that it started runs, also when this
            process is killed. Uv itself is killed with the thread that called this.

    Raises:
        BridgeEnvironmentError: `uv_missing`.
    """
    command = [find_uv(settings), *arguments, "--no-progress", "--color", "never"]
    output, errors = os.memfd_create("manybridge-uv-output"), os.memfd_create("manybridge-uv-errors")
    try:
        with subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            pass_fds=pass_fds,
            preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509  # it calls one function of C, and takes no lock
        ) as process:
            status = _wait(process, tick)
        return Done(status, _content(output), _content(errors))
    except OSError as error:
        raise failed("uv_missing", f"can't start {command[0]}: {error.strerror or error}") from error
    finally:
        os.close(output)
        os.close(errors)


def find_links(settings: Settings, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the arguments that name folders of wheels: those configured, uv's and pip's.

    Uv's too: where an argument names any, uv does not look into UV_FIND_LINKS.
    """
    named = [*environ.get("UV_FIND_LINKS", "").split(","), *environ.get("PIP_FIND_LINKS", "").split()]
    folders = [*settings.find_links, *(_from_here(each) for each in named if each.strip())]
    return [part for folder in dict.fromkeys(folders) for part in ("--find-links", folder)]


def only_wheels(settings: Settings) -> list[str]:
    """Return the arguments that keep uv from running the build code of packages."""
    allowed = [part for package in settings.build_from_source for part in ("--no-binary", package)]
    return ["--only-binary", ":all:", *allowed]


def is_full(error: OSError) -> bool:
    """Whether a write failed for want of space."""
    return error.errno in _FULL


def _installed_uv() -> str | None:
    try:
        import uv

        return os.fspath(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return None


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if name not in _NOT_INHERITED}
    for name, separator in _PATHS.items():
        if value := kept.get(name):
            parts = value.split(separator) if separator else [value]
            kept[name] = (separator or "").join(_from_here(part) for part in parts)
    # An interpreter that is missing is an error that names it, never a download.
    return {**kept, "UV_PYTHON_DOWNLOADS": "never"}


def _from_here(place: str) -> str:
    """Return a path as the user means it, from this process's folder on; an address as it is."""
    place = place.strip()
    return place if not place or _ADDRESS.match(place) else os.path.abspath(place)  # noqa: PTH100  # links are kept


def _end_with(builder: int) -> Callable[[], None]:
    """Return what makes the new process end when the builder does, however that ends.

    A uv that hangs at a server would go on for hours otherwise, and hold the claim of the environment for as long.
    """

    def ask_the_kernel() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != builder:  # it ended before the kernel was asked
            os._exit(1)

    return ask_the_kernel


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None]) -> int:
    try:
        while True:
            try:
                return process.wait(TICK)
            except subprocess.TimeoutExpired:
                tick()
    except BaseException:
        process.kill()
        process.wait()
        raise


def _content(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")

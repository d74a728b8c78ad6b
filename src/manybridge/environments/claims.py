"""Who uses or builds an environment, across processes: one lock file for each, taken with flock.

A host holds a shared claim while its workers may run in the environment; a build or a removal holds an exclusive one.
The kernel drops a claim with the last process that has it open, so nothing has to be cleaned up after a kill. uv
inherits the claim of a build: should the builder be killed, the next build waits until that uv has ended too, and
does not delete the folder under its hands.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

FOLDER: Final = ".claims"
PAUSE: Final = 0.1
"""Seconds between two attempts of a process that waits for another's build."""

_CONTENTION: Final = frozenset({errno.EAGAIN, errno.EACCES})


class Claim:
    """One claim that is held. Owner of its descriptor."""

    def __init__(self, fd: int, *, exclusive: bool) -> None:
        self.fd = fd
        self._exclusive = exclusive

    def close(self) -> None:
        """Give it up."""
        if self.fd >= 0:
            if self._exclusive:
                os.ftruncate(self.fd, 0)
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def claim_path(root: Path, name: str) -> Path:
    """Return the lock file of an environment. It stays when the environment goes: deleting it would split claims."""
    return root / FOLDER / f"{name}.lock"


def try_shared(root: Path, name: str) -> Claim | None:
    """Claim an environment for use. None while it is built or removed.

    Where the lock file can't be made or opened because the folder is read-only, nobody can remove the environment
    either, and a claim that holds nothing is returned.
    """
    path = claim_path(root, name)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return Claim(-1, exclusive=False)
    return _locked(fd, fcntl.LOCK_SH, exclusive=False)


def try_exclusive(root: Path, name: str, what: str) -> Claim | None:
    """Claim an environment for building or removing it. None while anybody else has a claim.

    Args:
        root: the folder of the environments.
        name: of the environment.
        what: what for, as others read it: "builds it".

    Raises:
        OSError: the lock file can't be made.
    """
    path = claim_path(root, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    claim = _locked(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), fcntl.LOCK_EX, exclusive=True)
    if claim is not None:
        said = json.dumps({"pid": os.getpid(), "what": what, "since": time.time()})
        os.ftruncate(claim.fd, 0)
        os.pwrite(claim.fd, said.encode(), 0)
    return claim


def wait_exclusive(root: Path, name: str, what: str, waiting: Callable[[str | None], None]) -> Claim:
    """Claim an environment for building it, after whoever else has it.

    Args:
        root: the folder of the environments.
        name: of the environment.
        what: what for.
        waiting: told again and again who builds it, None if that can't be told; may raise to give up.
    """
    while True:
        claim = try_exclusive(root, name, what)
        if claim is not None:
            return claim
        waiting(who_builds(root, name))
        time.sleep(PAUSE)


def who_builds(root: Path, name: str) -> str | None:
    """Return in words which process builds or removes an environment, or None if none says so."""
    holder = _holder(root, name)
    if holder is None or not Path(f"/proc/{holder['pid']}").exists():  # one that was killed leaves its note
        return None
    return f"process {holder['pid']} {holder['what']} since {max(0.0, time.time() - holder['since']):.0f} s"


def users_of(root: Path, name: str) -> list[int] | None:
    """Return the processes that hold a claim, or None where the system does not tell.

    Asking takes no claim itself, so that nobody who wants one is turned away meanwhile.
    """
    try:
        status = claim_path(root, name).stat()
        lines = Path("/proc/locks").read_text(encoding="ascii", errors="replace").splitlines()
    except FileNotFoundError:
        return [] if Path("/proc/locks").exists() else None
    except OSError:
        return None
    wanted = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    words = (line.split() for line in lines)
    return sorted({int(each[4]) for each in words if len(each) > 5 and each[1] == "FLOCK" and each[5] == wanted})


def _holder(root: Path, name: str) -> dict[str, Any] | None:
    try:
        said = json.loads(claim_path(root, name).read_text(encoding="utf-8"))
        return {"pid": int(said["pid"]), "what": str(said["what"]), "since": float(said["since"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _locked(fd: int, kind: int, *, exclusive: bool) -> Claim | None:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in _CONTENTION:
            return None
        raise
    return Claim(fd, exclusive=exclusive)

"""The host's side of the guardian, a small process that outlives a killed host and takes its workers along."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Final

PROGRAM: Final = Path(__file__).with_name("guardian_main.py")

CLOSE_SECONDS: Final = 2.0
"""How long the guardian may take to end after its pipe was closed; it has nothing left to do by then."""

_guardians: weakref.WeakSet[Guardian] = weakref.WeakSet()


class Guardian:
    """Owner of the guardian process and of the list of process groups that it knows.

    It is started with the first group. Not thread-safe: the host's event loop is the only caller.
    """

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: int | None = None
        _guardians.add(self)

    @property
    def pid(self) -> int | None:
        """Of the guardian process; None before the first worker."""
        return self._process.pid if self._process is not None else None

    def watch(self, group: int) -> None:
        """Have `group` killed when this process dies."""
        self._groups.add(group)
        if self._pipe is None:
            self._start()
        else:
            self._tell(f"+{group}\n")

    def forget(self, group: int) -> None:
        """`group` has ended."""
        if group in self._groups:
            self._groups.discard(group)
            self._tell(f"-{group}\n")

    def close(self) -> None:
        """End the guardian; groups that it still knows are killed. May be used again afterwards."""
        self._groups.clear()
        process, self._process = self._process, None
        self.drop_pipe()
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(CLOSE_SECONDS)
                return
            process.kill()
            process.wait()

    def drop_pipe(self) -> None:
        """Close this process's end of the pipe."""
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)

    def _start(self) -> None:
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(PROGRAM)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        self._pipe = writing
        self._tell("".join(f"+{group}\n" for group in self._groups))

    def _tell(self, text: str) -> None:
        if self._pipe is None:
            return
        try:
            os.write(self._pipe, text.encode())
        except BrokenPipeError:  # somebody killed it: the next one learns of every group
            self.drop_pipe()
            if self._process is not None:
                self._process.wait()
            self._start()


def _forget_in_child() -> None:
    # A process that the host's program forks would hold the pipe open, and the guardian would never see its end.
    for guardian in _guardians:
        guardian.drop_pipe()


os.register_at_fork(after_in_child=_forget_in_child)

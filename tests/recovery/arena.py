"""Forks hosts, kills them and their workers at random moments, and looks at the database between two of them.

Run as `python -m tests.recovery.arena URL FOLDER KILLS SEED`. What the hosts said is in FOLDER/log, one line of JSON
each; see `ledger.py`. Imports are done once, before the first fork: a process of its own for each life would spend its
time with them and be killed in that.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped]  # noqa: F401  # imported before the first fork; it ships no types
import sqlalchemy.dialects.postgresql.asyncpg
import sqlalchemy.dialects.sqlite.pysqlite  # noqa: F401  # the same
import stamina  # noqa: F401  # the same

import manybridge.store.sql  # noqa: F401  # the same
from manybridge.store.liveness import started_at
from tests.conftest import descendants
from tests.recovery.invariants import violations
from tests.recovery.life import run

BOOTING: Final = 0.3
"""The share of lives that are killed while the host starts and looks at what it finds."""

BOOT_SECONDS: Final = 0.4
"""The time after its fork in which such a host is killed."""

WORK_SECONDS: Final = 0.3
"""The time in which any other host is killed, from when it had looked at everything."""

CLOSING: Final = 0.2
"""The share of the others that are told to close, and killed while they do."""

CLOSE_SECONDS: Final = 0.1
"""The time in which such a host is killed."""

CHECK_SECONDS: Final = 45.0
"""What a host may take until it has looked at everything; on a quiet machine a third of a second."""

WORKER_KILLS: Final = (0, 1, 2, 3)
"""How many workers are killed in a life."""

LAST_LIFE: Final = 60.0
"""Seconds that the last life may take, which nobody ends."""


class Arena:
    """Owner of the lives and of the file that they write."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self._url = url
        self._folder = folder
        self._path = folder / "log"
        self._path.touch()
        self._seed = seed
        self._chance = random.Random(seed)
        self._life = 0
        self._host: int | None = None
        """The one that lives."""
        self.kills = 0

    def one_life(self) -> None:
        """Begin one, and end it."""
        boots, chance = self._chance.random() < BOOTING, self._chance
        closes = not boots and chance.random() < CLOSING
        length = chance.uniform(0.0, BOOT_SECONDS if boots else WORK_SECONDS)
        strikes = sorted(chance.uniform(0.0, length) for _ in range(chance.choice(WORKER_KILLS)))
        pid, has_looked = self._fork(last=False)
        if not boots and not select.select([has_looked], [], [], CHECK_SECONDS)[0]:
            self._say(failed=f"the host has not looked at everything within {CHECK_SECONDS} s")
        os.close(has_looked)
        born = time.monotonic()
        for moment in strikes:
            _wait_until(born + moment)
            self._kill_a_worker(pid)
        _wait_until(born + length)
        if closes:
            os.kill(pid, signal.SIGUSR1)
            _wait_until(born + length + chance.uniform(0.0, CLOSE_SECONDS))
        left = {each: started_at(each) for each in descendants(pid)}
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._host = None
        if os.WIFSIGNALED(status):
            self.kills += 1
            self._say(killed="host", left=list(left.items()))
        elif not closes:
            self._say(failed=f"the host ended by itself with {status}")
        self._examine()
        self._life += 1

    def last_life(self) -> None:
        """Begin one that ends by itself."""
        pid, has_looked = self._fork(last=True)
        os.close(has_looked)
        until = time.monotonic() + LAST_LIFE
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > until:
                self._say(failed=f"the last life has not ended within {LAST_LIFE} s")
                return
            time.sleep(0.01)
        self._host = None
        self._examine()

    def close(self) -> None:
        """Leave no host behind, whatever happened here."""
        if self._host is not None:
            os.kill(self._host, signal.SIGKILL)
            os.waitpid(self._host, 0)

    def _fork(self, *, last: bool) -> tuple[int, int]:
        """Begin a life. Returns its process, and a descriptor that can be read when it has looked at everything."""
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the host listens
            run(self._url, self._path, self._life, self._seed, writing, last=last)
        os.close(writing)
        self._host = pid
        return pid, reading

    def _kill_a_worker(self, host: int) -> None:
        workers = [pid for pid, command in descendants(host).items() if "bootstrap" in command]
        if not workers:
            return
        victim = self._chance.choice(sorted(workers))
        what = "zygote" if "--zygote" in descendants(host).get(victim, "") and descendants(victim) else "worker"
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.kills += 1
        self._say(killed=what, pid=victim)

    def _examine(self) -> None:
        """Look at a copy of the database: to open the file itself would repair what the next host is to find."""
        if not self._url.startswith("sqlite:///"):
            return
        path, copy = Path(self._url.removeprefix("sqlite:///")), self._folder / "copy.db"
        for ending in ("", "-wal"):
            source, target = path.with_name(path.name + ending), copy.with_name(copy.name + ending)
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copyfile(source, target)
        if copy.exists():
            for text in violations(copy):
                self._say(failed=text)

    def _say(self, **line: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"life": self._life, **line}) + "\n")


def _wait_until(moment: float) -> None:
    while (left := moment - time.monotonic()) > 0:
        time.sleep(left)


def main(url: str, folder: str, kills: str, seed: str) -> None:
    """Kill so often."""
    arena = Arena(url, Path(folder), int(seed))
    try:
        while arena.kills < int(kills):
            arena.one_life()
        arena.last_life()
    finally:
        arena.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

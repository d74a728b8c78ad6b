"""A PostgreSQL server of our own: made, started, broken and removed by the tests, reachable over a Unix socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

# No fsync: what these tests prove about a crash of a client does not depend on the disk.
_SETTINGS = ("fsync=off", "listen_addresses=''", "max_connections=60", "shared_buffers=16MB", "autovacuum=off")


class Server:
    """Owner of one cluster and its folder."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not in pytest's folders: those are for their owner alone, and a server refuses to run as root.
        self.folder = Path(tempfile.mkdtemp(prefix="manybridge-pg-"))
        self._user = _unprivileged_user()
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._databases = 0

    def start(self) -> None:
        """Make the cluster and start it."""
        self._run("initdb", "--auth=trust", "--username=tests", "--no-sync", "--encoding=UTF8", "--locale=C")
        settings = [f"unix_socket_directories='{self.folder}'", *_SETTINGS]
        with (self.folder / "data" / "postgresql.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in settings)
        self.resume()

    def restart(self) -> None:
        """Restart it as a crash would: every connection is cut."""
        self._run("pg_ctl", "--wait", "--mode=immediate", f"--log={self.folder}/log", "restart")

    def halt(self) -> None:
        """Have it end as a crash would."""
        self._run("pg_ctl", "--wait", "--mode=immediate", "stop")

    def resume(self) -> None:
        """Start it again."""
        self._run("pg_ctl", "--wait", "--timeout=60", f"--log={self.folder}/log", "start")

    def stop(self) -> None:
        """Stop it and remove everything."""
        self.halt()
        shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._run("createdb", "--host", str(self.folder), "--username=tests", name, in_data=False)
        return f"postgresql://tests@/{name}?host={self.folder}"

    def _run(self, program: str, *arguments: str, in_data: bool = True) -> None:
        data = ["--pgdata", str(self.folder / "data")] if in_data else []
        identity: dict[str, Any] = {}
        if self._user is not None:
            identity = {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        with (self.folder / "out").open("ab") as output:  # a file: the server keeps it open, and a pipe would never end
            done = subprocess.run(
                [self._programs / program, *data, *arguments],
                cwd=self.folder,
                env={**os.environ, "HOME": str(self.folder), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
                **identity,
            )
        if done.returncode:
            pytest.fail(f"{program} failed: {(self.folder / 'out').read_text()[-2000:]}")


def find_programs() -> Path:
    """Return the folder of PostgreSQL's programs; without one, skip on a developer's machine and fail in CI."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if on_path := shutil.which("initdb"):
        return Path(on_path).parent
    reason = "PostgreSQL is not installed (Debian: apt-get install postgresql); run: make setup"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _unprivileged_user() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")

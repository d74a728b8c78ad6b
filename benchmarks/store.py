"""What it costs to keep things: resources made and executed over a durable store, beside the same in memory.

One worker of the mock bridge for each store, so that what differs is the store. Rounds are interleaved, so that a
neighbour on the machine, or on its disk, meets all of them. `over_memory_ms` is the difference of the medians.

    memory       nothing is kept
    sqlite       the default: WAL, synchronous=NORMAL
    sqlite full  synchronous=FULL: each commit waits for the disk
    postgresql   a server of this machine, if PostgreSQL is installed: fsync as it comes
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from benchmarks.measure import Spread
from manybridge import AsyncMLBridge

ROUNDS: Final = 300
WARM_UP: Final = 20

Action = Callable[[AsyncMLBridge], Awaitable[Any]]

FIRST_WRITE: Final = """
import asyncio, sys
from time import perf_counter
from manybridge import AsyncMLBridge
async def main():
    async with AsyncMLBridge({"bridges": {"mock": {"zygote": "never"}}, "store": {"url": sys.argv[1]}}) as ml:
        await ml.call("mock", "echo", {})
        begun = perf_counter()
        await ml.create_resource("mock", "echo")
        print(perf_counter() - begun)
asyncio.run(main())
"""


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    with tempfile.TemporaryDirectory() as folder, postgresql() as server:
        urls = {
            "memory": "memory:",
            "sqlite": f"sqlite:///{folder}/normal.db",
            "sqlite full": f"sqlite:///{folder}/full.db?synchronous=full",
        }
        if server is not None:
            urls["postgresql"] = server
        results = asyncio.run(_run(urls))
        results["first_write_s"] = {
            name: _first_write(url.replace("normal", "first"))
            for name, url in urls.items()
            if name in {"memory", "sqlite"}
        }
        results["first_write_s"]["sqlite, made before"] = _first_write(urls["sqlite"])
        return results


async def _run(urls: dict[str, str]) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        hosts: dict[str, AsyncMLBridge] = {}
        for name, url in urls.items():
            config = {"bridges": {"mock": {"zygote": "never"}}, "store": {"url": url}}
            hosts[name] = await stack.enter_async_context(AsyncMLBridge(config))
            await hosts[name].create_resource("mock", "counter", id="counted")
        return {
            "create": await _compare(hosts, lambda ml: ml.create_resource("mock", "echo", {"text": "x" * 200})),
            "create with state": await _compare(hosts, lambda ml: ml.create_resource("mock", "counter")),
            "execute with state": await _compare(hosts, lambda ml: ml.execute_resource("mock", "counted")),
            "stateless call": await _compare(hosts, lambda ml: ml.call("mock", "echo", {"text": "x" * 200})),
        }


async def _compare(hosts: dict[str, AsyncMLBridge], action: Action) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {name: [] for name in hosts}
    for number in range(WARM_UP + ROUNDS):
        for name, ml in hosts.items():
            begun = perf_counter()
            await action(ml)
            if number >= WARM_UP:
                seconds[name].append(perf_counter() - begun)
    memory = statistics.median(seconds["memory"])
    return {
        name: {**Spread.of(each).to_object(), "over_memory_ms": (statistics.median(each) - memory) * 1000}
        for name, each in seconds.items()
    }


def _first_write(url: str) -> float:
    """Seconds of the first create of a process: import of SQLAlchemy, opening, and where it is new the schema."""
    ended = subprocess.run([sys.executable, "-c", FIRST_WRITE, url], capture_output=True, text=True, check=True)
    return float(ended.stdout)


@contextmanager
def postgresql() -> Iterator[str | None]:
    """Start a server in a folder of its own and give its address; None where PostgreSQL is not installed."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not programs:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="manybridge-bench-"))
    identity: dict[str, Any] = {}
    if os.geteuid() == 0:  # a server refuses to run as root
        user = pwd.getpwnam("postgres")
        identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(folder, user.pw_uid, user.pw_gid)

    def do(program: str, *arguments: str) -> None:
        with (folder / "log").open("ab") as log:
            command = [programs[-1] / program, "--pgdata", folder / "data", *arguments]
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd=folder, **identity)

    do("initdb", "--auth=trust", "--username=bench", "--encoding=UTF8", "--locale=C")
    do("pg_ctl", "--wait", "--options", f"-c listen_addresses='' -c unix_socket_directories='{folder}'", "start")
    try:
        yield f"postgresql://bench@/postgres?host={folder}"
    finally:
        do("pg_ctl", "--wait", "--mode=immediate", "stop")
        shutil.rmtree(folder)


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))

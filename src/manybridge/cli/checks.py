"""What `manybridge doctor` checks, without printing anything."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from manybridge.cli.selecting import Selected
from manybridge.errors import ManybridgeError
from manybridge.host.config import BridgeConfig, EnvironmentsConfig, LoadedConfig, read_config
from manybridge.host.interpreters import Interpreters
from manybridge.host.requirements import OLDEST_PYTHON, check_requirements, forget_answers
from manybridge.host.store_access import default_file, locate_store
from manybridge.store.urls import parse_store_url

Status = Literal["ok", "warn", "fail"]

DESCRIPTORS_PER_WORKER: Final = 8
"""Protocol, log, options and exit descriptors of one worker at the host, with as many again for its replacement."""
DESCRIPTORS_OF_HOST: Final = 128
"""The store, listeners, log files and clients."""


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    status: Status
    found: str
    fix: str | None = None
    """What to do about it."""


def check_python() -> Check:
    """Check the interpreter that this runs under."""
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", "fail", found, f"use Python {'.'.join(map(str, OLDEST_PYTHON))} or newer")
    return Check("python", "ok", found)


def check_platform() -> Check:
    """Check the operating system: workers that die with their host need what Linux offers."""
    found = f"{platform.system()} {platform.release()}"
    if sys.platform != "linux":
        return Check("platform", "warn", found, "on Linux the kernel ends workers with their host, also after kill -9")
    return Check("platform", "ok", found)


def check_uv() -> Check:
    """Check that uv is there: it makes the environments of bridges."""
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.exists() else shutil.which("uv")
    if found is None:
        return Check("uv", "warn", "not found", "install uv; without it, environments are made by hand")
    return Check("uv", "ok", found)


def check_descriptors(bridges: dict[str, BridgeConfig]) -> Check:
    """Check that the limit of open files is enough for all pools at their largest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = sum(bridge.pool_size + bridge.max_overflow for bridge in bridges.values())
    needed = DESCRIPTORS_OF_HOST + workers * DESCRIPTORS_PER_WORKER
    found = f"limit {soft}, about {needed} needed for {workers} workers"
    if soft != resource.RLIM_INFINITY and soft < needed:
        return Check("file descriptors", "warn", found, f"ulimit -n {max(needed, 1024)} (the hard limit is {hard})")
    return Check("file descriptors", "ok", found)


def check_config(path: Path | None) -> tuple[Check, LoadedConfig | None]:
    """Read the configuration."""
    try:
        loaded = read_config(path)
    except ManybridgeError as error:
        return Check("configuration", "fail", error.message, "correct the keys that are named"), None
    if loaded.path is None and not loaded.config.bridges:
        return Check("configuration", "warn", "none found", "manybridge init writes one"), loaded
    where = loaded.path or "environment variables"
    return Check("configuration", "ok", f"{where}: {len(loaded.config.bridges)} bridge(s)"), loaded


async def check_store(loaded: LoadedConfig) -> Check:
    """Look at the store, without making or changing anything."""
    try:
        location = locate_store(loaded)
        url = parse_store_url(location.url or "memory:")
        if url.kind == "memory":
            return Check("store", "ok", "memory: resources, sessions and jobs end with their host")
        found = f'{url.shown}, scope "{location.scope}"'
        if url.kind == "sqlite" and not url.path.exists():
            if url.path.parent.is_dir() or url.path == default_file():
                return Check("store", "ok", f"{found}: made when the first record is to be kept")
            return Check("store", "fail", f"{found}: its folder does not exist", f"mkdir -p {url.path.parent}")
        from manybridge.store.schema import NEWEST
        from manybridge.store.sql import look_at

        schema = await look_at(url)
    except ManybridgeError as error:
        return Check("store", "fail", *_said(error))
    if schema != NEWEST:
        fix = "the first host that uses it brings it up to date; older releases can't open it then"
        return Check("store", "warn", f"{found}: schema {schema or 'none'}, this release has {NEWEST}", fix)
    return Check("store", "ok", f"{found}: schema {schema}")


async def check_bridge(selected: Selected) -> AsyncIterator[Check]:
    """Check what one bridge needs, then start a worker and ping it. What can't be started is not tried."""
    interpreters = Interpreters(selected.environments)
    try:
        interpreter = await check_requirements(selected.name, selected.bridge, os.environ, interpreters=interpreters)
    except ManybridgeError as error:
        yield Check(f"{selected.name}: needs", "fail", *_said(error))
        return
    finally:
        interpreters.close()
    packages = ", ".join(f"{name} {version}" for name, version in interpreter.packages.items())
    version = ".".join(map(str, interpreter.version))
    found = f"Python {version} at {interpreter.path}{', ' if packages else ''}{packages}"
    yield Check(f"{selected.name}: needs", "ok", found)
    yield await check_worker(selected)


async def check_worker(selected: Selected) -> Check:
    """Start one worker of the bridge, wait until it is ready, and ping it."""
    from manybridge.host.bridge import AsyncMLBridge

    name = f"{selected.name}: worker"
    began = time.perf_counter()
    waits = ""
    try:
        async with (
            asyncio.timeout(selected.bridge.start_timeout + 5),
            AsyncMLBridge.from_config(selected.host_config()) as ml,
        ):
            try:
                answer = await ml.call(selected.name, "common:ping", {})
            except asyncio.CancelledError:
                waits = f"; {(await ml.health(probe=False))['bridges'][selected.name]['reason']}"
                raise
            ready = time.perf_counter()
            await ml.call(selected.name, "common:ping", {})
            return _alive(name, answer, ready - began, time.perf_counter() - ready)
    except ManybridgeError as error:
        return Check(name, "fail", *_said(error))
    except TimeoutError:
        fix = f"raise bridges.{selected.name}.start_timeout, or see what its setup waits for"
        return Check(name, "fail", f"not ready within {selected.bridge.start_timeout:g} s{waits}", fix)


async def check_all(path: Path | None, only: Selected | None) -> AsyncIterator[Check]:
    """Make every check, cheap ones first."""
    forget_answers()
    yield check_python()
    yield check_platform()
    yield check_uv()
    finding, loaded = check_config(path)
    if only is None:
        yield finding
        if loaded is not None:
            yield await check_store(loaded)
    bridges = loaded.config.bridges if loaded else {}
    yield check_descriptors({only.name: only.bridge} if only else bridges)
    environments = loaded.config.environments if loaded else EnvironmentsConfig()
    configured = [Selected(name, bridge, environments) for name, bridge in bridges.items()]
    for selected in [only] if only else configured:
        async for check in check_bridge(selected):
            yield check


def _alive(name: str, answer: dict[str, Any], start: float, round_trip: float) -> Check:
    state = answer.get("state", answer.get("status", "ok"))
    found = f"{state} after {start:.2f} s, ping {round_trip * 1000:.1f} ms"
    return Check(name, "ok" if state != "failed" else "fail", found)


def _said(error: ManybridgeError) -> tuple[str, str | None]:
    """Split the message of an error into what was found and the commands that help, which stand on their own lines."""
    lines = error.message.splitlines()
    commands = [line.strip() for line in lines if line.startswith("  ")]
    tail = [str(line) for line in error.details.get("stderr_tail", [])][-3:] if error.details else []
    found = " ".join([*(line for line in lines if not line.startswith("  ")), *tail])
    return f"{error.code}: {found}", "; ".join(commands) or error.details.get("install")

"""What the demo asks about environments and workers."""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

_ASK = """
import importlib.metadata, json, platform
found = {each.name: each.version for each in importlib.metadata.distributions()}
print(json.dumps({"python": platform.python_version(), "packages": found}))
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """One Python environment: its interpreter's version, and every installed package with its version."""

    python: str
    packages: dict[str, str]


def environment_of(interpreter: Path) -> Environment:
    """Ask an interpreter what it has."""
    answer = subprocess.run([interpreter, "-I", "-c", _ASK], capture_output=True, text=True, check=True, timeout=30)
    return Environment(**json.loads(answer.stdout))


def refused_version(interpreter: Path, package: str, others: dict[str, str], dependency: str) -> str:
    """Say what a package of one environment demands of a dependency that another environment does not give.

    Returns:
        The requirement, for example `openai<3.0.0,>=2.20.0`; empty where the other environment's version would do.
    """
    ask = f"import importlib.metadata; print(*importlib.metadata.requires({package!r}), sep=chr(10))"
    answer = subprocess.run([interpreter, "-I", "-c", ask], capture_output=True, text=True, check=True, timeout=30)
    wanted = [Requirement(line) for line in answer.stdout.splitlines()]
    for each in wanted:
        if each.name == dependency and (each.marker is None or each.marker.evaluate({"extra": ""})):
            return "" if each.specifier.contains(others[dependency]) else f"{each.name}{each.specifier}"
    return ""


def workers(ml: Any, bridge: str) -> list[dict[str, Any]]:
    """Describe the workers of a bridge that can take calls: id, pid, state and so on."""
    found = ml.health(probe=False)["bridges"][bridge]["workers"]
    return [worker for worker in found if worker["state"] in {"ready", "busy"}]


def pid_of(ml: Any, bridge: str) -> int:
    """Return the process id of a bridge's only worker."""
    return int(workers(ml, bridge)[0]["pid"])


def is_alive(pid: int) -> bool:
    """Say whether a process still runs code."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def wait_for_replacement(ml: Any, bridge: str, old: int, patience: float = 20.0) -> tuple[int, float]:
    """Wait until another worker than `old` is ready.

    Returns:
        Its process id, and how many milliseconds that took.

    Raises:
        TimeoutError: there is none after `patience` seconds.
    """
    began = time.perf_counter()
    while time.perf_counter() - began < patience:
        for worker in workers(ml, bridge):
            if worker["pid"] != old:
                return int(worker["pid"]), (time.perf_counter() - began) * 1000
        time.sleep(0.001)
    raise TimeoutError(f"no replacement for {bridge} within {patience:g} s")


def is_rooted_here(path: str) -> str:
    """Shorten a path inside the repository for reading."""
    return os.path.relpath(path, Path(__file__).resolve().parents[2])

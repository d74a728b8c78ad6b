"""Each framework in its own environment: versions, size on disk, start of a worker, memory; and a warm `env sync`."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, Final

from benchmarks.pools import REPOSITORY, workers
from benchmarks.recovery import until_another_answers
from manybridge import AsyncMLBridge

SHOWN: Final = {
    "sklearn": ("scikit-learn",),
    "dspy": ("dspy", "litellm", "openai"),
    "langchain": ("langchain", "langchain-core", "langchain-openai", "langgraph", "openai"),
    "transformers": ("transformers", "torch", "datasets", "peft"),
}
"""Environment to the packages whose versions are told."""

ROUNDS: Final = 3
SYNCS: Final = 7


def run() -> dict[str, Any]:
    """Measure everything of this module."""
    return {
        "environments": {name: _environment(name) for name in SHOWN},
        "workers": {name: asyncio.run(_workers(name)) for name in SHOWN},
        "env_sync_unchanged_s": _unchanged_sync(),
    }


def _environment(name: str) -> dict[str, Any]:
    folder = REPOSITORY / ".envs" / name
    packages = {
        each.name: each.version
        for each in importlib.metadata.distributions(
            path=[str(path) for path in folder.glob("lib/python*/site-packages")]
        )
    }
    return {
        "packages": len(packages),
        "megabytes": round(sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6),
        "versions": {package: packages[package] for package in SHOWN[name]},
    }


async def _workers(name: str) -> dict[str, Any]:
    return {how: await _how(name, zygote) for how, zygote in (("spawn", "never"), ("zygote", "auto"))}


async def _how(name: str, zygote: str) -> dict[str, Any]:
    table: dict[str, Any] = {"python": str(REPOSITORY / ".envs" / name / "bin" / "python"), "zygote": zygote}
    if name == "sklearn":
        table["python_script"] = str(REPOSITORY / "examples" / "sklearn_bridge.py")
    starts, replaced, memory = [], [], 0.0
    for _ in range(ROUNDS):
        begun = perf_counter()
        async with AsyncMLBridge.from_config({"bridges": {name: table}}) as ml:
            await ml.wait_ready(name)
            starts.append(perf_counter() - begun)
            stats = await ml.call(name, "common:get_stats", {})
            memory = float(stats["memory"]["unshared_bytes"]) / 1e6
            replaced.append(await _replace(ml, name))
    return {
        "first_start_ms": statistics.median(starts) * 1000,
        "replaced_ms": statistics.median(replaced) * 1000,
        "unshared_mb": memory,
    }


async def _replace(ml: AsyncMLBridge, name: str) -> float:
    (old,) = await workers(ml, name)
    begun = perf_counter()
    os.kill(old["pid"], signal.SIGKILL)
    await until_another_answers(ml, name, old["pid"])
    return perf_counter() - begun


def _unchanged_sync() -> dict[str, float]:
    """Seconds of `manybridge env sync` where nothing is to be done, beside those of `manybridge --version`."""
    with TemporaryDirectory() as folder:
        config = Path(folder) / "manybridge.toml"
        config.write_text('[bridges.words]\nbridge = "mock"\nrequired_packages = ["six"]\n')
        environ = {**os.environ, "MANYBRIDGE__ENVIRONMENTS__FOLDER": str(Path(folder) / "environments")}
        command = [str(Path(sys.executable).parent / "manybridge")]
        for words in (["env", "lock"], ["env", "sync"]):
            subprocess.run([*command, *words, "--config", str(config)], check=True, capture_output=True, env=environ)
        sync = [_timed([*command, "env", "sync", "--config", str(config)], environ) for _ in range(SYNCS)]
        version = [_timed([*command, "--version"], environ) for _ in range(SYNCS)]
    return {"p50": statistics.median(sync), "worst": max(sync), "version_p50": statistics.median(version)}


def _timed(command: list[str], environ: dict[str, str]) -> float:
    begun = perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environ)
    return perf_counter() - begun


if __name__ == "__main__":
    import json

    print(json.dumps(run(), indent=1))

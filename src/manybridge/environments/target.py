"""What an environment is built for: a Python and a platform, each as one stable word."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from manybridge.environments.failures import failed
from manybridge.environments.settings import Settings

ANSWER_TIMEOUT: Final = 30.0
"""Seconds that the interpreter of `[environments] python` may take to say its version."""

# The base interpreter, without its site-packages: -S. Nothing of any environment is read.
_ASK: Final = "import sys; print(sys.implementation.name, *sys.version_info[:3], sys.abiflags, sep='\\n')"


@dataclass(frozen=True, slots=True)
class BasePython:
    """The interpreter that environments are built from."""

    executable: str
    tag: str
    """Implementation with major and minor version, `cpython-3.11`: what decides which wheels fit."""
    version: str
    """The whole version, 3.11.7."""


def base_python(settings: Settings) -> BasePython:
    """Return the interpreter that environments are built from.

    Raises:
        BridgeEnvironmentError: `interpreter`; the configured one can't be started or is no Python.
    """
    if settings.python is None:
        executable = getattr(sys, "_base_executable", None) or sys.executable
        abi = getattr(sys, "abiflags", "")
        return _described(executable, sys.implementation.name, list(map(str, sys.version_info[:3])), abi)
    command = [settings.python, "-I", "-S", "-c", _ASK]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_TIMEOUT, check=True)
        implementation, *version, abi = done.stdout.split("\n")[:5]
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        text = f"environments.python: {settings.python} does not work as a Python interpreter: {error}"
        raise failed("interpreter", text, python=settings.python) from error
    return _described(settings.python, implementation, version, abi)


def host_tag() -> str:
    """Return the tag of the Python that the host runs under."""
    return _tag(sys.implementation.name, list(map(str, sys.version_info[:2])), getattr(sys, "abiflags", ""))


def platform_tag() -> str:
    """Return system, machine and C library: what decides which wheels fit beside the Python."""
    parts = [sys.platform, platform.machine()]
    if sys.platform == "linux":
        parts.append("gnu" if _has_glibc() else "musl")
    return "-".join(parts)


def _has_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False


def _described(executable: str, implementation: str, version: list[str], abi: str) -> BasePython:
    return BasePython(str(Path(executable)), _tag(implementation, version, abi), ".".join(version))


def _tag(implementation: str, version: list[str], abi: str) -> str:
    free_threaded = "t" if "t" in abi else ""
    return f"{implementation}-{'.'.join(version[:2])}{free_threaded}"

"""What the resolver says to a set of requirements, without network: it reads what is installed.

Every installed distribution carries the metadata that a resolver decides by. From it, a wheel without code is made for
each distribution of the given environments, and uv is asked to choose among these wheels and nothing else.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path
from tempfile import TemporaryDirectory


def find_uv() -> Path:
    """Uv beside this interpreter."""
    return Path(sys.executable).parent / "uv"


def installed(environment: Path) -> dict[str, Distribution]:
    """The distributions of an environment by name. Reads files; starts no interpreter in it."""
    folders = [str(folder) for folder in environment.glob("lib/python*/site-packages")]
    return {_normal(each.name): each for each in distributions(path=folders)}


def ask(requirements: Iterable[str], environments: Iterable[Path]) -> tuple[bool, str]:
    """Whether the requirements can be met by one environment, and uv's words."""
    with TemporaryDirectory() as folder:
        for environment in environments:
            for distribution in installed(environment).values():
                _write_wheel(Path(folder), distribution)
        command = [str(find_uv()), "pip", "compile", "--offline", "--no-index", "--no-config", "--no-cache"]
        command += ["--find-links", folder, "--python", sys.executable, "--no-header", "--no-annotate", "-"]
        text = "\n".join(requirements)
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0, (done.stdout if done.returncode == 0 else done.stderr).strip()


def _write_wheel(folder: Path, distribution: Distribution) -> None:
    name, version = _normal(distribution.name).replace("-", "_"), distribution.version
    path = folder / f"{name}-{version}-py3-none-any.whl"
    metadata = distribution.read_text("METADATA")
    if path.exists() or metadata is None:
        return
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

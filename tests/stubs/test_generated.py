"""Generated clients: mypy passes what is right and refuses what is wrong, and real workers answer them."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from manybridge import AsyncMLBridge, MLBridge
from manybridge.stubs import Origin, client_module
from tests.bridges.dspy.endpoint import Endpoint
from tests.support import REPOSITORY, framework_python

pytestmark = [pytest.mark.framework, pytest.mark.timeout(180)]

HERE = Path(__file__).parent
KEY = "sk-very-secret-0123456789"


@pytest.fixture(scope="module")
def bridges() -> Iterator[dict[str, Any]]:
    """Five bridges: bundled ones, a framework's, an example, a team's own file."""
    with Endpoint(KEY) as llm:
        yield {
            "mock": {},
            "python": {"sandbox": "none"},
            "team-eu": {"python_script": str(HERE / "team_bridge.py")},
            "sklearn": {
                "python_script": str(REPOSITORY / "examples" / "sklearn_bridge.py"),
                "python": str(framework_python("sklearn")),
            },
            "dspy": {
                "python": str(framework_python("dspy")),
                "options": {"model": "openai/local-rules", "api_base": llm.openai_base, "api_key": KEY},
            },
        }


@pytest.fixture(scope="module")
def ml(bridges: dict[str, Any]) -> Iterator[MLBridge]:
    """A host with all of them."""
    with MLBridge.from_config({"bridges": bridges}) as host:
        for name in bridges:
            host.wait_ready(name, timeout=60)
        yield host


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory, ml: MLBridge) -> Path:
    """A folder with a client of each kind for each bridge, and the programs that use them."""
    folder = tmp_path_factory.mktemp("clients")
    for name in ("right", "wrong"):  # texts here, because what they import is not here
        text = (HERE / "programs" / f"{name}.txt").read_text(encoding="utf-8")
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    for name in ml.bridges():
        short = name.removesuffix("-eu")
        for kind in ("", "_async"):
            text = client_module(ml.capabilities(name), Origin(short, "a test"), asynchronous=bool(kind))
            (folder / f"{short}{kind}_client.py").write_text(text, encoding="utf-8")
    return folder


def mypy(folder: Path, *files: str) -> str:
    """What `mypy --strict` says about the files."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", *files]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_mypy_passes_what_is_right_and_refuses_what_is_wrong(clients: Path) -> None:
    """Every client by itself, a program that uses them, and each wrong use with the error that is its own."""
    modules = sorted(file.name for file in clients.glob("*_client.py"))
    assert len(modules) == 10
    said = mypy(clients, *modules, "right.py", "wrong.py")
    wrong = (clients / "wrong.py").read_text(encoding="utf-8").splitlines()
    expected = {(number, line.rpartition("# ")[2]) for number, line in enumerate(wrong, 1) if "  # " in line}
    found = re.findall(r"^(\w+\.py):(\d+): error: .*\[([\w-]+)\]$", said, re.MULTILINE)
    assert {(int(number), code) for name, number, code in found if name == "wrong.py"} == expected, said
    assert [each for each in found if each[0] != "wrong.py"] == [], said


@pytest.fixture(scope="module")
def programs(clients: Path) -> Iterator[ModuleType]:
    """The program that mypy passed."""
    sys.path.insert(0, str(clients))
    try:
        yield importlib.import_module("right")
    finally:
        sys.path.remove(str(clients))
        for name in [each for each in sys.modules if each == "right" or each.endswith("_client")]:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(clients)):
                del sys.modules[name]


@pytest.mark.parametrize("name", ["mock", "python", "team", "sklearn", "dspy"])
def test_a_blocking_client_works_on_real_workers(programs: ModuleType, ml: MLBridge, name: str) -> None:
    """As its program says."""
    getattr(programs, f"use_{name}")(ml)


@pytest.mark.parametrize("name", ["mock", "team", "dspy"])
async def test_an_asynchronous_client_works_on_real_workers(
    programs: ModuleType, bridges: dict[str, Any], name: str
) -> None:
    """As its program says."""
    bridge = "team-eu" if name == "team" else name
    async with AsyncMLBridge.from_config({"bridges": {bridge: bridges[bridge]}}) as host:
        await getattr(programs, f"ause_{name}")(host)

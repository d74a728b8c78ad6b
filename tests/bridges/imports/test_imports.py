"""A second bridge adds no import to the first one's workers: they are processes of their own, with what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manybridge import MLBridge
from tests.support import REPOSITORY, framework_python

HERE = Path(__file__).parent
TELL = {"code": "import sys\nsorted(sys.modules)"}


def python_and(others: dict[str, Any], zygote: str) -> set[str]:
    """What a worker of the python bridge has imported, in a host with these others."""
    config = {"bridges": {"python": {"sandbox": "none", "zygote": zygote}, **others}}
    with MLBridge.from_config(config) as ml:
        for name in config["bridges"]:
            ml.wait_ready(name, timeout=60)
        return set(ml.call("python", "python:execute", TELL)["result"])


@pytest.mark.parametrize("zygote", ["always", "never"])
def test_a_python_worker_imports_the_same_alone_and_beside_others(zygote: str) -> None:
    """Spawned and forked: other bundled bridges leave no trace in it."""
    beside = python_and({"mock": {}, "second": {"bridge": "mock", "pool_size": 2}}, zygote)
    assert python_and({}, zygote) == beside
    assert not [name for name in beside if name.startswith("manybridge.bridges.mock")]


def dspy_and(others: dict[str, Any]) -> set[str]:
    """What a worker of DSPy has imported after a call, in a host with these others."""
    dspy = {"python_script": str(HERE / "telling_dspy.py"), "python": str(framework_python("dspy"))}
    with MLBridge.from_config({"bridges": {"dspy": dspy, **others}}) as ml:
        for name in ("dspy", *others):
            ml.wait_ready(name, timeout=60)
        ml.call("dspy", "dspy:list_modules")
        return set(ml.call("dspy", "dspy:imported"))


@pytest.mark.framework
@pytest.mark.timeout(120)
def test_a_dspy_worker_imports_the_same_alone_and_beside_other_frameworks() -> None:
    """With scikit-learn, LangChain and plain Python in the same host, each loaded."""
    langchain = HERE / "langchain_beside.py"
    others = {
        "python": {"sandbox": "none"},
        "mock": {},
        "sklearn": {
            "python_script": str(REPOSITORY / "examples" / "sklearn_bridge.py"),
            "python": str(framework_python("sklearn")),
        },
        "beside": {"python_script": str(langchain), "python": str(framework_python("langchain"))},
    }
    alone, beside = dspy_and({}), dspy_and(others)
    assert "dspy" in alone
    assert beside - alone == set()
    assert alone - beside == set()
    assert not [name for name in beside if name.partition(".")[0] in {"sklearn", "langchain_core", "langgraph"}]

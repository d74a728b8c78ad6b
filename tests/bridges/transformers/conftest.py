"""Tiny models, made once for all tests of a run, and one worker that most of them share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridges.transformers.serving import Serving, Zygote
from tests.support import framework_python

MAKE_MODELS = Path(__file__).parent / "make_models.py"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with the models of `make_models.py`."""
    folder = tmp_path_factory.mktemp("tiny-models")
    command = [str(framework_python("transformers")), "-I", str(MAKE_MODELS), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Start the process that imports PyTorch, once."""
    made = Zygote(tmp_path_factory.mktemp("hub"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def one_worker(zygote: Zygote, tiny: Path) -> Iterator[Serving]:
    """Fork the worker that most tests share, so that each model is loaded once."""
    with zygote.serving(models_folder=str(tiny)) as worker:
        yield worker


@pytest.fixture
def served(one_worker: Serving) -> Serving:
    """Give the shared worker, without the events of an earlier test."""
    one_worker.raw.events.clear()
    return one_worker

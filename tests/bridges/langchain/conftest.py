"""One worker and its endpoint for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.bridges.langchain.stage import Stage, stage


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Start endpoint and worker once: an import of LangChain costs two seconds."""
    with stage(tmp_path_factory.mktemp("langchain")) as made:
        yield made


@pytest.fixture
def lc(shared: Stage) -> Iterator[Stage]:
    """Give the shared worker, without faults and events that an earlier test left."""
    shared.quiet()
    yield shared
    shared.quiet()

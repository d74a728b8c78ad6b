"""The pytest plugin: hosts, frameworks, models, scripted bridges and faults as fixtures; no worker is left behind.

Installed with manybridge; nothing of it is imported before a test asks for it. See docs/how-to/testing-a-bridge.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from manybridge import MLBridge
    from manybridge.adapters.dspy import DSPyAdapter
    from manybridge.adapters.langchain import LangChainAdapter
    from manybridge.adapters.transformers import TransformersAdapter
    from manybridge.bridge import Bridge
    from manybridge.testing import BridgeHarness, Conversation, ScriptedLLM
    from manybridge.testing.chaos import Chaos

BridgeMaker = Callable[..., "BridgeHarness"]
HostMaker = Callable[..., "MLBridge"]
DSPyMaker = Callable[..., "DSPyAdapter"]
LangChainMaker = Callable[..., "LangChainAdapter"]
TransformersMaker = Callable[..., "TransformersAdapter"]

LEAK_SECONDS = 5.0
"""How long a worker may take to end after its test: it gets 2.5 s to close its bridge."""

FRAMEWORKS = ("dspy", "langchain", "transformers")
WHERE_MISSING = ("fail", "skip")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("manybridge")
    group.addoption(
        "--manybridge-real",
        action="store_true",
        help="manybridge_host starts worker processes where the test did not say which it needs",
    )
    group.addoption("--manybridge-seed", type=int, default=None, metavar="N", help="seed of manybridge_chaos")
    parser.addini("manybridge_leak_check", "fail a test that leaves a worker process behind", type="bool", default=True)
    for name in FRAMEWORKS:
        parser.addini(
            f"manybridge_{name}_python",
            f"the interpreter, or the folder of the environment, in which manybridge_{name} finds the framework",
        )
    parser.addini(
        "manybridge_missing_framework",
        "what becomes of a test whose framework is not installed: fail or skip",
        default="fail",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark."""
    config.addinivalue_line(
        "markers", "manybridge(real=None, config=None): what manybridge_host of this test or module starts"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    """Say which seed repeats the faults of this run, where one was given."""
    seed = config.getoption("--manybridge-seed")
    return None if seed is None else f"manybridge: seed {seed}"


@pytest.fixture
def _manybridge_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test after which a process runs that was not there before.

    One fixture for all that start processes, so that it looks when every one of them has closed what it started.
    """
    from manybridge.testing.chaos.holdings import Holdings

    before = Holdings.children()
    yield
    if request.config.getini("manybridge_leak_check") and (left := Holdings.left(before, LEAK_SECONDS)):
        pytest.fail("left behind: " + "; ".join(left), pytrace=False)


@pytest.fixture
def manybridge_host(request: pytest.FixtureRequest, _manybridge_leaks: None) -> Iterator[HostMaker]:
    """A function that starts a host and returns it; closed with the test.

    `manybridge_host(bridges, real=None, **keys)`: `bridges` is a bridge's class, or name -> class or configuration. For
    a class, `keys` are of its configuration, `options={...}` for example. A host in memory unless `real` is true, the
    mark `@pytest.mark.manybridge(real=True)` or `--manybridge-real` says otherwise.
    """
    mark = request.node.get_closest_marker("manybridge")
    said: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}
    hosts: list[MLBridge] = []

    def start(bridges: Any = None, *, real: bool | None = None, **keys: Any) -> MLBridge:
        from manybridge.testing.hosts import configured, start_host

        wanted = next(
            (each for each in (real, said.get("real")) if each is not None),
            request.config.getoption("--manybridge-real"),
        )
        given = configured(said.get("config") if bridges is None else bridges, keys)
        hosts.append(start_host(given, real=bool(wanted)))
        return hosts[-1]

    try:
        yield start
    finally:
        for host in reversed(hosts):
            host.close(0.0)


@pytest.fixture
def manybridge_llm() -> Iterator[ScriptedLLM]:
    """A scripted endpoint in the place of a language model; at the end its whole script must have been asked for."""
    from manybridge.testing.llm import ScriptedLLM

    with ScriptedLLM() as llm:
        yield llm


@pytest.fixture
def manybridge_dspy(
    request: pytest.FixtureRequest, _manybridge_leaks: None, manybridge_llm: ScriptedLLM
) -> Iterator[DSPyMaker]:
    """A function that starts a host with DSPy, whose model is `manybridge_llm`, and returns its `DSPyAdapter`.

    `manybridge_dspy(python=None, bridge=None, options=None, ml=None, **keys_of_the_configuration)`; see
    `start_framework`. The host is `adapter.ml`. Closed with the test.
    """
    with _frameworks(request, "dspy", llm=manybridge_llm) as start:
        yield start


@pytest.fixture
def manybridge_langchain(
    request: pytest.FixtureRequest, _manybridge_leaks: None, manybridge_llm: ScriptedLLM
) -> Iterator[LangChainMaker]:
    """A function that starts a host with LangChain, whose model is `manybridge_llm`, and returns its adapter.

    The adapter is a `LangChainAdapter`; arguments as of `manybridge_dspy`.
    """
    with _frameworks(request, "langchain", llm=manybridge_llm) as start:
        yield start


@pytest.fixture
def manybridge_transformers(
    request: pytest.FixtureRequest, _manybridge_leaks: None, tmp_path: Path
) -> Iterator[TransformersMaker]:
    """A function that starts a host with Transformers and returns its `TransformersAdapter`.

    It finds the models `tiny-writer` and `tiny-classifier`, which are made on the spot. Arguments as of
    `manybridge_dspy`.
    """
    from manybridge.testing.tiny_models import write_tiny_models

    models = write_tiny_models(tmp_path / "manybridge-models")
    with _frameworks(request, "transformers", models=models) as start:
        yield start


@pytest.fixture
def manybridge_bridge() -> Iterator[BridgeMaker]:
    """A function that sets a bridge up alone, without a host: `manybridge_bridge(Class, options, **harness)`."""
    from manybridge.testing.harness import BridgeHarness

    made: list[BridgeHarness] = []

    def make(bridge: type[Bridge], options: dict[str, Any] | None = None, **keywords: Any) -> BridgeHarness:
        made.append(BridgeHarness(bridge, options, **keywords))
        return made[-1]

    try:
        yield make
    finally:
        for each in reversed(made):
            each.close()


@pytest.fixture
def manybridge_mock() -> Iterator[Conversation]:
    """A scripted conversation. Start it with `mock.start()`; at the test's end all of it must have been played."""
    from manybridge.testing.conversation import Conversation

    with Conversation() as conversation:
        yield conversation


@pytest.fixture
def manybridge_chaos(request: pytest.FixtureRequest) -> Iterator[Callable[[MLBridge], Chaos]]:
    """A function that makes the `Chaos` of a host. Its faults end with the test."""
    from manybridge.testing.chaos import Chaos

    made: list[Chaos] = []

    def make(ml: MLBridge, *, seed: int | None = None) -> Chaos:
        given = request.config.getoption("--manybridge-seed")
        made.append(Chaos(ml, seed=given if seed is None else seed))
        return made[-1]

    try:
        yield make
    finally:
        for each in reversed(made):
            each.close()


@contextmanager
def _frameworks(request: pytest.FixtureRequest, name: str, **models: Any) -> Iterator[Callable[..., Any]]:
    """Give the function that starts a framework, and close what it started."""
    hosts: list[MLBridge] = []

    def start(python: str | Path | None = None, **keywords: Any) -> Any:
        from manybridge.testing.frameworks import start_framework

        said = _said(request.config, f"manybridge_{name}_python")
        try:
            keywords = {"folder": request.path.parent, **models, **keywords}
            adapter = start_framework(name, python=python, said=said, **keywords)
        except Exception as error:
            if _is_missing(error) and _skips(request.config):
                pytest.skip(str(error))
            raise
        if adapter.ml is not keywords.get("ml"):
            hosts.append(adapter.ml)
        return adapter

    try:
        yield start
    finally:
        for host in reversed(hosts):
            host.close(0.0)


def _said(config: pytest.Config, option: str) -> Path | str | None:
    """What an option names: a command on the path, or a file, relative to pytest's configuration."""
    value = str(config.getini(option) or "")
    if "/" not in value:
        return value or None
    return (config.inipath.parent if config.inipath else config.rootpath) / Path(value).expanduser()


def _skips(config: pytest.Config) -> bool:
    wanted = config.getini("manybridge_missing_framework")
    if wanted not in WHERE_MISSING:
        raise pytest.UsageError(f"manybridge_missing_framework: expected fail or skip, found {wanted!r}")
    return bool(wanted == "skip")


def _is_missing(error: Exception) -> bool:
    """Whether a framework, or a package that its bridge requires, is not there; anything else is a failure."""
    from manybridge.testing.frameworks import FrameworkNotFoundError

    return isinstance(error, FrameworkNotFoundError) or getattr(error, "code", None) == "missing_package"

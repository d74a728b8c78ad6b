"""The pytest plugin: hosts, scripted bridges and faults as fixtures, and a check that no worker is left behind.

Installed with manybridge; nothing of it is imported before a test asks for it. See docs/how-to/testing-a-bridge.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from manybridge import MLBridge
    from manybridge.bridge import Bridge
    from manybridge.testing import BridgeHarness, Conversation
    from manybridge.testing.chaos import Chaos

BridgeMaker = Callable[..., "BridgeHarness"]
HostMaker = Callable[..., "MLBridge"]

LEAK_SECONDS = 5.0
"""How long a worker may take to end after its test: it gets 2.5 s to close its bridge."""


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
def manybridge_host(request: pytest.FixtureRequest) -> Iterator[HostMaker]:
    """A function that starts a host and returns it; closed with the test.

    `manybridge_host(bridges, real=None)`: `bridges` is a bridge's class, or name -> class or configuration. A host in
    memory unless `real` is true, the mark `@pytest.mark.manybridge(real=True)` or `--manybridge-real` says otherwise.
    """
    mark = request.node.get_closest_marker("manybridge")
    said: dict[str, Any] = dict(mark.kwargs) if mark is not None else {}
    hosts: list[MLBridge] = []

    def start(bridges: Any = None, *, real: bool | None = None) -> MLBridge:
        from manybridge.testing.hosts import start_host

        wanted = next(
            (each for each in (real, said.get("real")) if each is not None),
            request.config.getoption("--manybridge-real"),
        )
        hosts.append(start_host(said.get("config") if bridges is None else bridges, real=bool(wanted)))
        return hosts[-1]

    with _leak_check(request):
        try:
            yield start
        finally:
            for host in reversed(hosts):
                host.close(0.0)


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


class _leak_check:  # noqa: N801  # used as a function: `with _leak_check(request):`
    """Fails a test after which a process runs that was not there before."""

    def __init__(self, request: pytest.FixtureRequest) -> None:
        self._wanted = bool(request.config.getini("manybridge_leak_check"))

    def __enter__(self) -> None:
        from manybridge.testing.chaos.holdings import Holdings

        self._before = Holdings.children()

    def __exit__(self, kind: object, *_: object) -> None:
        from manybridge.testing.chaos.holdings import Holdings

        if self._wanted and kind is None and (left := Holdings.left(self._before, LEAK_SECONDS)):
            pytest.fail("left behind: " + "; ".join(left), pytrace=False)

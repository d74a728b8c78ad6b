"""Replacing workers while calls run: reload, changed configuration, age, requests, memory. No call may fail of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from manybridge import MLBridge
from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from tests.host.conftest import HostMaker, PoolMaker
from tests.support import aeventually

IN_FLIGHT = 240

BRIDGE = """\
from manybridge.bridge import Bridge, command

class Mine(Bridge):
    name = "mine"
    zygote_safe = True

    @command
    def edition(self):
        return {edition}
"""


class Load:
    """Callers that never pause. Owner of what they were answered."""

    def __init__(self, ml: AsyncMLBridge) -> None:
        self._ml = ml
        self._stop = False
        self.answered = 0
        self.failed: Counter[str] = Counter()
        self.wrong = 0

    async def caller(self, number: int, make: Callable[[int], Awaitable[bool]]) -> None:
        """Make one call after the other until the load stops."""
        while not self._stop:
            try:
                self.wrong += not await make(number)
                self.answered += 1
            except ManybridgeError as error:
                self.failed[f"{error}"] += 1

    async def call(self, number: int) -> bool:
        """A call that takes a moment."""
        result = await self._ml.call("mock", "mock:sleep", {"seconds": 0.002 * (number % 5)})
        return bool(result == {"slept": 0.002 * (number % 5)})

    async def stream(self, _number: int) -> bool:
        """A call that streams."""
        return [event.data async for event in self._ml.stream("mock", "mock:count", {"n": 5})] == [0, 1, 2, 3, 4]

    async def session(self, number: int) -> bool:
        """A call of a session that keeps to its worker."""
        result = await self._ml.call("mock", "mock:echo", {"n": number}, session=f"s{number}")
        return bool(result == {"n": number})

    def stop(self) -> None:
        """Let every caller have its last answer."""
        self._stop = True


@asynccontextmanager
async def load_on(ml: AsyncMLBridge, callers: int = IN_FLIGHT) -> AsyncIterator[Load]:
    """Keep that many calls in flight; some stream, some are in sessions of their own."""
    load = Load(ml)
    for number in range(0, callers, 20):
        await ml.create_session(f"s{number}", affinity="strict_queue")
    kinds = {0: load.session, 1: load.stream}
    tasks = [asyncio.ensure_future(load.caller(number, kinds.get(number % 20, load.call))) for number in range(callers)]
    await aeventually(lambda: load.answered > callers)
    try:
        yield load
    finally:
        load.stop()
        await asyncio.gather(*tasks)


async def test_a_reload_under_load_fails_no_call(mock_host: HostMaker) -> None:
    """240 calls in flight, four reloads of two workers each."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock")
    first = {worker.process.pid for worker in ml.pool("mock").ready}

    async with load_on(ml) as load:
        for _ in range(4):
            assert await ml.reload_bridge("mock") == {"bridge": "mock", "replaced": 2}
            answered = load.answered
            await aeventually(lambda before=answered: load.answered > before + IN_FLIGHT)  # type: ignore[misc]  # bound now

    assert (load.failed, load.wrong) == (Counter(), 0)
    assert not first & {worker.process.pid for worker in ml.pool("mock").ready}
    assert (await ml.stats())["bridges"]["mock"]["recycled"] == 8


async def test_changes_of_the_configuration_under_load_fail_no_call(mock_host: HostMaker) -> None:
    """Options, sizes and limits, one right after the other: the last one counts in the end."""
    ml = await mock_host(pool_size=2)
    await ml.wait_ready("mock")

    async with load_on(ml) as load:
        for number in range(4):
            await ml.update_bridge("mock", environment={"STAGE": str(number)}, pool_size=1 + number % 3)
        pool = ml.pool("mock")
        await aeventually(lambda: len(pool.ready) == 1 and not any(map(pool.supervisor.is_stale, pool.ready)))

    assert (load.failed, load.wrong) == (Counter(), 0)


@pytest.mark.parametrize("limit", [{"max_requests": 200}, {"max_age": 0.3}, {"max_memory_mb": 1}])
async def test_recycling_under_load_fails_no_call(limit: dict[str, Any], mock_host: HostMaker) -> None:
    """By requests, by age, by measured memory: first the replacement, then the end of the old one."""
    ml = await mock_host(pool_size=2, **limit)
    await ml.wait_ready("mock")
    pool = ml.pool("mock")
    fewest = [len(pool.ready)]

    def recycled() -> bool:
        fewest.append(len(pool.ready))
        return pool.stats.recycled >= 3

    async with load_on(ml, 60) as load:
        await aeventually(recycled, timeout=15)

    assert (load.failed, load.wrong, pool.stats.crashed) == (Counter(), 0, 0)
    assert min(fewest) == 2


async def test_workers_of_one_age_are_replaced_one_after_the_other(fake_pool: PoolMaker) -> None:
    """A pool of four does not need the memory of eight."""
    fake = fake_pool(pool_size=4, max_age=0.1)
    await fake.pool.wait_ready(10)
    most = 0

    def replaced() -> bool:
        nonlocal most
        most = max(most, len(fake.pool.workers))
        return fake.pool.stats.recycled >= 2

    await aeventually(replaced)
    assert most <= 6  # four, the replacement, and the one that is ending


@pytest.mark.parametrize("zygote", ["never", "auto"])
def test_a_reload_loads_the_code_as_it_is_now(zygote: str, tmp_path: Path) -> None:
    """Of a spawned worker, and of one whose zygote had imported the old code."""
    file = tmp_path / "mine.py"
    file.write_text(BRIDGE.format(edition=1))
    with MLBridge.from_config({"bridges": {"mine": {"python_script": str(file), "zygote": zygote}}}) as ml:
        assert ml.call("mine", "edition") == 1
        file.write_text(BRIDGE.format(edition=2))  # the same size within the same second
        ml.reload_bridge("mine")

        assert ml.call("mine", "edition") == 2


def test_a_reload_loads_a_teams_own_files_as_they_are_now(tmp_path: Path) -> None:
    """Those that the `python` bridge is given as `paths`."""
    file = tmp_path / "team.py"
    file.write_text("def edition():\n    return 1\n")
    with MLBridge.from_config({"bridges": {"python": {"options": {"paths": [str(file)]}}}}) as ml:
        assert ml.call("python", "call", {"target": "team:edition"}) == 1
        file.write_text("def edition():\n    return 2\n")
        ml.reload_bridge("python")

        assert ml.call("python", "call", {"target": "team:edition"}) == 2


def test_a_reload_of_a_class_in_a_module_loads_that_and_what_it_imports_as_they_are_now(tmp_path: Path) -> None:
    """As of a file: a whole package may lie beside the configuration."""
    (tmp_path / "manybridge.toml").write_text('[bridges.mine]\nbridge = "team.mine:Mine"\n[store]\nurl = "memory:"\n')
    module, beside = tmp_path / "team" / "mine.py", tmp_path / "team" / "beside.py"
    module.parent.mkdir()
    (module.parent / "__init__.py").touch()

    def write(number: int) -> None:
        beside.write_text(f"beside = {number}\n")
        module.write_text("from team.beside import beside\n" + BRIDGE.format(edition=f"[{number}, beside]"))

    write(1)
    with MLBridge.from_config(tmp_path / "manybridge.toml") as ml:
        assert ml.call("mine", "edition") == [1, 1]
        write(2)
        ml.reload_bridge("mine")

        assert ml.call("mine", "edition") == [2, 2]


async def test_code_that_does_not_load_leaves_the_old_workers_at_work(tmp_path: Path) -> None:
    """The reload says why; health too; when the code is right again the replacement comes by itself."""
    file = tmp_path / "mine.py"
    file.write_text(BRIDGE.format(edition=1))
    async with AsyncMLBridge.from_config({"bridges": {"mine": {"python_script": str(file), "zygote": "never"}}}) as ml:
        assert await ml.call("mine", "edition") == 1
        file.write_text("this is no Python")

        with pytest.raises(ManybridgeError) as caught:
            await ml.reload_bridge("mine")
        assert caught.value.code == "bridge_load_failed"
        assert await ml.call("mine", "edition") == 1
        health = (await ml.health())["bridges"]["mine"]
        assert (health["state"], health["stale"]) == ("degraded", 1)
        assert "replacements starts" in health["reason"]

        file.write_text(BRIDGE.format(edition=2))

        async def is_new() -> bool:
            return bool(await ml.call("mine", "edition") == 2)

        await aeventually(is_new)
        assert (await ml.health())["bridges"]["mine"]["state"] == "ready"


async def test_a_change_during_a_slow_start_is_followed(mock_host: HostMaker) -> None:
    """A worker that was on its way with the old options does not stay."""
    ml = await mock_host(options={"setup_delay_ms": 300}, eager=True)
    await aeventually(lambda: ml.pool("mock").workers)
    await ml.update_bridge("mock", environment={"STAGE": "new"})

    async def is_new() -> bool:
        found = await ml.call("mock", "environment", {"names": ["STAGE"]})
        return bool(found["set"] == ["STAGE"])

    await aeventually(is_new)


async def test_a_reload_begins_anew_with_a_bridge_that_had_failed(tmp_path: Path, mock_host: HostMaker) -> None:
    """Nobody has to wait for the breaker after the cause was removed; and whatever still fails is told."""
    flag = tmp_path / "flag"
    flaky = str(Path(__file__).parents[1] / "workers" / "bridges" / "flaky.py")
    ml = await mock_host()
    restart = {"max_crashes": 1, "window": 600.0, "max_backoff": 600.0, "initial_backoff": 600.0}
    await ml.register_bridge("f", {"python_script": flaky, "options": {"needs": str(flag)}, "restart": restart})
    with pytest.raises(ManybridgeError):
        await ml.wait_ready("f")
    with pytest.raises(ManybridgeError, match="is not there"):
        await ml.reload_bridge("f")
    flag.touch()

    await ml.reload_bridge("f")
    assert (await ml.health())["bridges"]["f"]["state"] == "ready"


async def test_a_bridge_that_is_removed_while_it_rolls_complains_of_nothing(
    mock_host: HostMaker, caplog: pytest.LogCaptureFixture
) -> None:
    """The replacement that was starting is ended by us; no worker goes on for want of it."""
    ml = await mock_host()
    await ml.wait_ready("mock")
    pool = ml.pool("mock")
    await ml.update_bridge("mock", options={"setup_delay_ms": 600_000})
    await aeventually(lambda: pool.supervisor.starting == 1)

    await ml.unregister_bridge("mock")
    await aeventually(lambda: pool.supervisor.starting == 0)
    await ml.close(0.0)

    assert caplog.text == ""

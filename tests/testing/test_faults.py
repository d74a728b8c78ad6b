"""Every fault, struck at real workers: it does what it says, and the bridge is whole again afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.testing.chaos import FAULTS, AsyncChaos, ChaosError, Faults, Injection
from manybridge.testing.memory import AsyncInMemoryMLBridge
from tests.support import MS, aeventually, process_is_running

UNBROKEN = {"initial_backoff": 0.0, "max_backoff": 0.2, "max_crashes": 10_000}
LONGEST = 10_000 * MS

CASES: list[tuple[str, dict[str, Any], bool]] = [
    ("kill", {}, True),
    ("kill", {"signal": "SIGSEGV"}, True),
    ("stop", {"seconds": 0.2}, False),
    ("hang", {"mode": "python", "seconds": 0.1}, False),
    ("hang", {"mode": "c", "seconds": 0.1}, True),
    ("slow_start", {"seconds": 0.3}, True),
    ("eat_memory", {"mb": 8, "seconds": 0.05}, False),
    ("flood", {"mb": 2}, False),
    ("cut", {}, True),
    ("cut", {"direction": "to_worker"}, True),
    ("corrupt", {}, True),
    ("corrupt", {"damage": "length"}, True),
    ("corrupt", {"direction": "to_worker"}, True),
    ("corrupt", {"direction": "to_worker", "damage": "length"}, True),
    ("delay", {"seconds": 0.1, "frames": 2}, False),
    ("reorder", {}, False),
    ("reorder", {"direction": "to_worker"}, False),
]


@asynccontextmanager
async def struck(**config: Any) -> AsyncIterator[tuple[AsyncMLBridge, Faults]]:
    """A host of the mock bridge that has faults."""
    values = {"zygote": "never", "cancel_grace": 0.1, "term_grace": 0.1, "restart": UNBROKEN, **config}
    async with AsyncMLBridge({"bridges": {"mock": values}}) as ml, Faults(ml, seed=1) as faults:
        await ml.wait_ready()
        yield ml, faults


async def serves(ml: AsyncMLBridge, number: int) -> bool:
    """Whether a call is answered with what was asked."""
    return bool(await ml.call("mock", "mock:echo", {"n": number}) == {"n": number})


async def test_every_fault_of_a_worker_is_struck_and_recovered_from() -> None:
    """One host bears all of them, one after the other; who must die has died, and the others have not."""
    async with struck() as (ml, faults):
        for number, (fault, parameters, dies) in enumerate(CASES):
            if FAULTS[fault].strikes == "wire":
                await faults.tap("mock")
            injection = await faults.inject(fault, "mock", **parameters)

            seconds = await faults.recovered(injection, LONGEST)

            assert seconds is not None, (fault, parameters)
            assert process_is_running(injection.facts["pid"]) is not dies, (fault, parameters, injection.facts)
            assert await serves(ml, number)
        assert set(faults.launched.values()) >= {"mock-1", "mock-2"}


def test_every_fault_of_a_worker_has_a_case() -> None:
    """A fault that is added gets one here, or in the tests of the store."""
    assert {fault for fault, _, _ in CASES} == {name for name, kind in FAULTS.items() if kind.strikes != "store"}
    assert all(kind.description for kind in FAULTS.values())


async def test_a_hang_is_stopped_by_the_rung_that_it_needs() -> None:
    """Python code by an exception; code in C by ending the worker. Both calls have the code `timeout`."""
    async with struck(cancel_grace=1_000 * MS) as (_, faults):
        in_python = await faults.hang("mock", mode="python", seconds=300 * MS)
        await faults.recovered(in_python, LONGEST)
        in_c = await faults.hang("mock", mode="c", seconds=300 * MS)
        await faults.recovered(in_c, LONGEST)

    assert (in_python.facts["code"], in_python.facts["stopped_by"]) == ("timeout", "exception")
    assert in_c.facts["code"] == "timeout"
    assert in_c.facts["stopped_by"] in {"sigterm", "sigkill"}


async def test_a_stopped_worker_is_replaced_when_its_call_is_over_time() -> None:
    """It can't be asked and can't be interrupted: only SIGKILL is left, as for a hang in C of any bridge."""
    async with struck() as (ml, faults):
        injection = await faults.stop("mock", seconds=None)
        with pytest.raises(ManybridgeError) as caught:
            await ml.call("mock", "mock:echo", {"n": 1}, timeout=0.2)

        assert caught.value.code == "timeout"
        assert await faults.recovered(injection, LONGEST) is not None
        assert await serves(ml, 2)


async def test_a_slow_start_is_over_start_timeout_where_that_is_shorter() -> None:
    """The worker is really slow: the host's own limit strikes."""
    async with struck(start_timeout=0.4, restart=UNBROKEN) as (ml, faults):
        await faults.slow_start("mock", seconds=5.0, starts=1)

        with pytest.raises(ManybridgeError) as caught:
            await ml.call("mock", "mock:echo")

        assert caught.value.code == "worker_start_failed"
        await aeventually(lambda: serves(ml, 1))


async def test_memory_can_be_made_scarce_for_a_bridge_that_knows_nothing_of_it(tmp_path: Path) -> None:
    """Its address space is limited from outside, and given back."""
    script = tmp_path / "greedy.py"
    script.write_text(
        "from manybridge.bridge import Bridge, command\n"
        "class Greedy(Bridge):\n"
        "    name = 'greedy'\n"
        "    @command\n"
        "    def take(self, mb: int) -> int:\n"
        "        return len(bytearray(mb * 2**20))\n"
    )
    async with AsyncMLBridge({"bridges": {"greedy": {"python_script": str(script)}}}) as ml, Faults(ml) as faults:
        await ml.wait_ready()
        injection = await faults.eat_memory("greedy", mb=64, seconds=1_500 * MS)
        assert injection.facts["how"] == "limited"

        async def refused() -> bool:
            try:
                await ml.call("greedy", "take", {"mb": 512})
            except ManybridgeError as error:
                return error.code == "out_of_memory"
            return False

        await aeventually(refused)
        await faults.recovered(injection, LONGEST)
        assert await ml.call("greedy", "take", {"mb": 512}) == 512 * 2**20


async def test_the_seed_chooses_the_worker() -> None:
    """The same seed strikes the same ones of several."""

    async def victims(seed: int) -> list[str]:
        values = {"pool_size": 3, "zygote": "never", "restart": UNBROKEN}
        async with AsyncMLBridge({"bridges": {"mock": values}}) as ml, Faults(ml, seed=seed) as faults:
            await ml.wait_ready()
            found: list[Injection] = [await faults.flood("mock", mb=0.001) for _ in range(6)]
            return [each.facts["worker"] for each in found]

    assert await victims(5) == await victims(5)


async def test_faults_that_can_not_be_had_say_what_they_need() -> None:
    """A name that is none, a store that is none, a bridge without a command that hangs, two chaoses at once."""
    async with struck() as (ml, faults):
        with pytest.raises(ChaosError, match="there is no fault"):
            await faults.inject("earthquake")
        with pytest.raises(ChaosError, match="only a SQLite file can be locked"):
            await faults.store_locked()
        with pytest.raises(ChaosError, match="one Faults or Chaos at a time"):
            AsyncChaos(ml)


@pytest.mark.parametrize(
    ("fault", "parameters", "said"),
    [
        ("kill", {"signal": "SIGFUN"}, "kill: signal: Invalid enum value 'SIGFUN'"),
        ("kill", {"sginal": "SIGKILL"}, "kill: sginal: is unknown; did you mean signal?"),
        ("kill", {"worker": "first"}, "kill: worker: Expected `int | null`, got `str`; found 'first'"),
        ("stop", {"seconds": float("nan")}, "stop: seconds: must be a finite number from 0 on, found nan"),
        ("flood", {"mb": -1}, "flood: mb: must be a finite number from 0 on, found -1"),
        ("cut", {"direction": "up"}, "cut: direction: Invalid enum value 'up'"),
    ],
)
async def test_a_wrong_parameter_is_told_and_nothing_is_struck(
    fault: str, parameters: dict[str, Any], said: str
) -> None:
    """Injected by hand a fault is checked as one of a scenario is."""
    async with AsyncInMemoryMLBridge({"mock": {}}) as ml, Faults(ml) as faults:
        with pytest.raises(ChaosError) as caught:
            await faults.inject(fault, "mock", **parameters)

    assert said in caught.value.message
    assert len(caught.value.details["problems"]) == 1


async def test_a_host_in_memory_is_never_struck_where_that_would_strike_the_test() -> None:
    """Its workers are threads of this process."""
    async with AsyncInMemoryMLBridge({"mock": {"restart": UNBROKEN}}) as ml, Faults(ml) as faults:
        await ml.wait_ready()
        for fault in ("stop", "flood"):
            with pytest.raises(ChaosError, match="inside this process"):
                await faults.inject(fault, "mock")
        killed = await faults.kill("mock")
        assert await faults.recovered(killed, LONGEST) is not None
        assert await serves(ml, 1)


async def test_closing_puts_everything_back() -> None:
    """A stopped worker goes on, a held frame arrives, and the host has no seam left."""
    async with struck() as (ml, faults):
        await faults.stop("mock", seconds=None)
        await faults.close()

        assert await serves(ml, 1)
        assert ml.pool("mock").supervisor.intercept is None

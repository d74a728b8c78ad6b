"""A long, mixed load over three bridges while workers are killed: what became of every call, and what is left behind.

    python -m benchmarks.soak --minutes 10

Calls come at a steady rate, however long answers take: plain ones, streams, jobs, a session, resources with and
without state, programs of a framework. Every two seconds one worker gets `kill -9`, of one bridge after the other.
Each call has a number, and its right answer follows from it, so an answer that belongs to another call is seen.
Resources with state count what was done to them: an execution that failed must not have counted, one that was
answered must have.

Results go to benchmarks/results/soak.json; the exit status is 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.facts import facts
from benchmarks.pools import DSPY_PYTHON, REPOSITORY
from manybridge import AsyncMLBridge
from manybridge.testing.chaos import (
    ChaosError,
    Faults,
    Load,
    Tally,
    Work,
    call_work,
    job_work,
    resource_work,
    stream_work,
)
from manybridge.testing.chaos.holdings import Holdings, leaks_since, still_running
from manybridge.testing.chaos.works import Expectation

RESULTS: Final = Path(__file__).parent / "results" / "soak.json"

KILL_SECONDS: Final = 2.0
"""Between two kills."""

COUNTERS: Final = 20
"""Resources with state of each of two types, which live through the whole run."""

SIGNATURE: Final = "question -> answer"
PROGRAM: Final = "soak"
"""The id of the program that is executed again and again."""

WARM_SHARE: Final = 0.2
"""The first part of a run does not count for the growth of memory: what is remembered (jobs, keys) fills up in it."""

CODES: Final = frozenset({"worker_crashed"})
"""What a caller may get. Only where its call is not one that may be repeated, or was struck again and again."""

MOST_GROWTH: Final = 5.0
"""Percent."""

LEAST_SUCCESS: Final = 0.99
"""Of calls that may be repeated."""


# ---------------------------------------------------------------- the load


@dataclass
class Counters:
    """Resources that count, and what they have told. Owner of that account."""

    bridge: str
    type: str
    inputs: dict[str, Any]
    told: dict[str, set[int]] = field(default_factory=dict)
    """What was answered, by resource."""

    async def make(self, ml: AsyncMLBridge) -> None:
        """Make them."""
        for _ in range(COUNTERS):
            made = await ml.create_resource(self.bridge, self.type)
            self.told[made.id] = set()

    async def count(self, ml: AsyncMLBridge, number: int) -> Expectation:
        """Execute one of them. Right is a count beyond all that were told before, and told to nobody else since."""
        id, told = list(self.told.items())[number % COUNTERS]
        least = max(told, default=0) + 1
        value: int = (await ml.execute_resource(self.bridge, id, self.inputs))["value"]
        is_right = value >= least and value not in told
        told.add(value)
        return Expectation(value, value if is_right else f"a number from {least} on that nobody has")

    async def verify(self, ml: AsyncMLBridge) -> list[str]:
        """Say which have not counted exactly what was answered."""
        wrong = []
        for id, told in self.told.items():
            value = (await ml.execute_resource(self.bridge, id, self.inputs))["value"]
            if value != len(told) + 1 or told != set(range(1, value)):
                wrong.append(f"{self.type} {id} has counted {value - 1}, and {len(told)} were answered")
        return wrong

    def work(self, weight: float) -> Work:
        """The kind of call that counts."""
        return Work(f"{self.bridge}: {self.type} with state", self.count, weight, CODES)


def ask_dspy(weight: float) -> Work:
    """A DSPy program that is made, run and forgotten; a rule answers, so that each call has an answer of its own."""

    async def perform(ml: AsyncMLBridge, number: int) -> Expectation:
        args = {"signature": SIGNATURE, "inputs": {"question": f"What is {number} times 3?"}}
        got = await ml.call("dspy", "dspy:predict", args, idempotency_key=f"predict {number}")
        return Expectation(got["outputs"], {"answer": str(3 * number)})

    return Work("dspy: predict, with a key", perform, weight, CODES, retriable=True)


def execute_dspy(weight: float) -> Work:
    """One program that lives through the whole run: made again in every worker that needs it."""

    async def perform(ml: AsyncMLBridge, number: int) -> Expectation:
        key, inputs = f"execute {number}", {"question": f"What is {number} plus 1?"}
        got = await ml.execute_resource("dspy", PROGRAM, inputs, idempotency_key=key)
        return Expectation(got["outputs"], {"answer": str(number + 1)})

    return Work("dspy: execute, with a key", perform, weight, CODES, retriable=True)


def works(counters: list[Counters], *, dspy: bool) -> tuple[Work, ...]:
    """The mix. Weights are percents."""
    rules: dict[str, Any] = {"codes": CODES}
    again: dict[str, Any] = {"codes": CODES, "retriable": True}
    mock, python = counters
    return (
        call_work("mock:echo", {"n": "$n", "text": "x" * 100}, expect="$args", bridge="mock", name="mock: call",
                  weight=40, **again),
        stream_work("mock:count", {"n": 5}, chunks=[0, 1, 2, 3, 4], expect={"count": 5}, bridge="mock",
                    name="mock: stream", weight=8, **rules),
        call_work("mock:echo", {"n": "$n"}, expect="$args", bridge="mock", session="busy", name="mock: session",
                  weight=4, **again),
        resource_work("echo", {"n": "$n"}, {"m": "$n"}, expect={"config": {"n": "$n"}, "inputs": {"m": "$n"}},
                      bridge="mock", name="mock: a resource's life", weight=3, **rules),
        job_work("mock:echo", {"n": "$n"}, expect="$args", bridge="mock", name="mock: job", weight=3, **again),
        mock.work(6),
        call_work("python:call", {"target": "math:pow", "args": ["$n", 1]}, expect="$n", bridge="python",
                  idempotency_key="pow $n", name="python: call, with a key", weight=18, **again),
        python.work(5),
        *((ask_dspy(9), execute_dspy(4)) if dspy else ()),
    )  # fmt: skip


# ---------------------------------------------------------------- the host


def configuration(folder: Path, endpoint: str | None) -> dict[str, Any]:
    """Three bridges with two workers each, over a durable store; two bridges where there is no endpoint."""
    # The breaker would do its duty here: the faults are ours, so it must not.
    common = {"pool_size": 2, "restart": {"initial_backoff": 0.0, "max_backoff": 0.5, "max_crashes": 100_000}}
    bridges: dict[str, Any] = {"mock": dict(common), "python": dict(common)}
    if endpoint is not None:
        options = {"model": "openai/local-rules", "api_base": endpoint, "api_key": "not-needed"}
        bridges["dspy"] = {**common, "python": str(DSPY_PYTHON), "options": options}
    # So few jobs that the host remembers as many at the end as in the middle.
    return {"bridges": bridges, "store": {"url": f"sqlite:///{folder}/soak.db"}, "limits": {"max_jobs": 100}}


@contextmanager
def local_llm() -> Iterator[str]:
    """A rule-based endpoint in a process of its own."""
    command = [sys.executable, str(REPOSITORY / "examples" / "local_llm"), "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["openai_base"]
        process.communicate()


class Gauge:
    """Samples how much memory this process has, once in a second. Owner of the samples."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []
        """Seconds since the beginning, and MiB."""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Sample meanwhile."""
        task = asyncio.create_task(self._sample())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _sample(self) -> None:
        began = monotonic()
        while True:
            self.samples.append((monotonic() - began, resident_mib()))
            await asyncio.sleep(1.0)

    def growth(self, duration: float) -> dict[str, Any]:
        """From the median of the tenth of the run after the warm-up to the median of its last tenth; and on the way."""
        tenth = duration / 10
        first = self._median(WARM_SHARE * duration, WARM_SHARE * duration + tenth)
        last = self._median(duration - tenth, duration)
        curve = [round(self._median(tenth * part / 2, tenth * (part + 1) / 2), 1) for part in range(20)]
        return {
            "start_mib": round(first, 1),
            "end_mib": round(last, 1),
            "percent": round(100 * (last / first - 1), 2),
            "curve_mib": curve,
        }

    def _median(self, begin: float, end: float) -> float:
        found = [mib for at, mib in self.samples if begin <= at <= end]
        return statistics.median(found or [self.samples[-1][1]])


def resident_mib() -> float:
    """How much of this process is in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


# ---------------------------------------------------------------- the run


async def soak(seconds: float, rate: float, seed: int, *, dspy: bool, told: Callable[[str], None]) -> dict[str, Any]:
    """Run it and return the account."""
    before = Holdings.now()
    with tempfile.TemporaryDirectory() as folder:
        if dspy:
            with local_llm() as endpoint:
                account = await _soak(configuration(Path(folder), endpoint), seconds, rate, seed, told)
        else:
            account = await _soak(configuration(Path(folder), None), seconds, rate, seed, told)
    # What the host started is gone with it; what it left is left for good.
    account["leaks"] += [f"after the host closed: {what}" for what in await leaks_since(before)]
    account["broken"] = broken(account)
    return account


async def _soak(
    config: dict[str, Any], seconds: float, rate: float, seed: int, told: Callable[[str], None]
) -> dict[str, Any]:
    counters = [Counters("mock", "counter", {}), Counters("python", "state", {"op": "increment", "path": "n"})]
    bridges, gauge = list(config["bridges"]), Gauge()
    async with AsyncMLBridge(config) as ml, Faults(ml, seed=seed) as faults:
        mix = works(counters, dspy="dspy" in bridges)
        await _prepare(ml, mix, counters, bridges)
        load = Load(ml, mix, rate=rate, seed=seed, first=len(mix))
        killer, before = Killer(faults, bridges, told), Holdings.now()
        async with gauge.running():
            killing = asyncio.create_task(killer.kill())
            await load.run(seconds)
            killer.stopped.set()
            await killing
        leaks = await leaks_since(before)
        miscounted = [text for each in counters for text in await each.verify(ml)]
        launched, stats = dict(faults.launched), await ml.stats()
    return {
        "seconds": seconds,
        "rate": rate,
        "seed": seed,
        **_calls(load),
        "kills": killer.describe(),
        "workers_started": len(launched),
        "retried": {name: facts.get("retried") for name, facts in stats["bridges"].items()},
        "miscounted": miscounted,
        "memory": gauge.growth(seconds),
        "leaks": leaks + still_running(launched),
    }


async def _prepare(ml: AsyncMLBridge, mix: tuple[Work, ...], counters: list[Counters], bridges: list[str]) -> None:
    """Have everything there before anything is counted: workers, resources, connections to the store."""
    for name in bridges:
        await ml.wait_ready(name)
    if "dspy" in bridges:
        await ml.create_resource("dspy", "program", {"signature": SIGNATURE}, id=PROGRAM)
    for each in counters:
        await each.make(ml)
    await ml.list_resources()
    for number, work in enumerate(mix):
        outcome = await work.perform(ml, number)
        assert outcome.is_right, f"{work.name} is answered with {outcome.got} before anything was killed"


class Killer:
    """Kills a worker every two seconds. Owner of the account of that; keeps nothing of the dead.

    Args:
        faults: of the host.
        bridges: struck in turn.
        told: gets a line for each.
    """

    def __init__(self, faults: Faults, bridges: list[str], told: Callable[[str], None]) -> None:
        self.stopped = asyncio.Event()
        self._faults = faults
        self._bridges = bridges
        self._told = told
        self._kills = 0
        self._skipped = 0
        self._whole: list[float] = []
        """Milliseconds until each bridge had all its workers again."""
        self._watching: set[asyncio.Task[None]] = set()

    async def kill(self) -> None:
        """Kill until `stopped`, and wait until all are whole again."""
        began = monotonic()
        for number in itertools.count():
            due = began + KILL_SECONDS * (number + 1)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due - monotonic()):
                    await self.stopped.wait()
            if self.stopped.is_set():
                break
            task = asyncio.create_task(self._kill_one(self._bridges[number % len(self._bridges)]))
            self._watching.add(task)
            task.add_done_callback(self._watching.discard)
        if self._watching:
            await asyncio.wait(self._watching)

    async def _kill_one(self, bridge: str) -> None:
        try:
            injection = await self._faults.kill(bridge)
        except ChaosError as error:
            self._skipped += 1
            self._told(f"no worker of {bridge} could be killed: {error}")
            return
        self._kills += 1
        seconds = await self._faults.recovered(injection)
        if seconds is not None:
            self._whole.append(seconds * 1000)
        self._told(f"{injection.facts['worker']} killed, whole again after {seconds} s")

    def describe(self) -> dict[str, Any]:
        """For the results."""
        whole = sorted(self._whole) or [0.0]
        return {
            "killed": self._kills,
            "skipped": self._skipped,
            "not_whole_again": self._kills - len(self._whole),
            "whole_again_ms": {"p50": round(statistics.median(whole), 1), "worst": round(whole[-1], 1)},
        }


def _calls(load: Load) -> dict[str, Any]:
    total, retriable = load.total(), load.retriable()
    return {
        "sent": total.sent,
        "answered": total.answered,
        "failed": dict(sorted(total.failed.items())),
        "unexpected": dict(sorted(total.unexpected.items())),
        "untyped": total.untyped,
        "lost": total.lost,
        "wrong": total.wrong,
        "retriable": {"sent": retriable.sent, "success": round(retriable.success, 6)},
        "late_ms": round(load.late * 1000, 1),
        "by_kind": {name: _short(tally) for name, tally in load.tallies.items()},
        "samples": [sample._asdict() for sample in total.samples],
    }


def _short(tally: Tally) -> dict[str, Any]:
    described = tally.describe()
    names = ("sent", "answered", "failed", "wrong", "lost", "success", "p50_ms", "p99_ms")
    return {name: described[name] for name in names}


def broken(account: dict[str, Any]) -> list[str]:
    """Which promises were not kept."""
    found = [f"{account[name]} calls {name}" for name in ("lost", "wrong", "untyped") if account[name]]
    found += [f"{count} calls failed with {code}" for code, count in account["unexpected"].items()]
    if (success := account["retriable"]["success"]) < LEAST_SUCCESS:
        found.append(f"{success:.3%} of the calls that may be repeated succeeded; promised: {LEAST_SUCCESS:.0%}")
    if (growth := account["memory"]["percent"]) > MOST_GROWTH:
        found.append(f"the host's memory grew by {growth} %; promised: at most {MOST_GROWTH:g} %")
    if left := account["kills"]["not_whole_again"]:
        found.append(f"after {left} kills the bridge was not whole again")
    return [*found, *account["miscounted"], *(f"leaked: {what}" for what in account["leaks"])]


# ---------------------------------------------------------------- telling


def show(account: dict[str, Any]) -> None:
    """Print the account for people."""
    console = Console()
    table = Table("calls", "sent", "answered", "failed", "wrong", "lost", "p50 ms", "p99 ms")
    for name, tally in account["by_kind"].items():
        failed = ", ".join(f"{code} {count}" for code, count in tally["failed"].items()) or "-"
        counts = (tally[key] for key in ("wrong", "lost", "p50_ms", "p99_ms"))
        table.add_row(name, *map(str, (tally["sent"], tally["answered"], failed, *counts)))
    console.print(table)
    kills, memory = account["kills"], account["memory"]
    again = kills["whole_again_ms"]
    repeated, leaks = account["retriable"], ", ".join(account["leaks"]) or "nothing"
    lines = [
        f"sent {account['sent']}, answered {account['answered']}, failed {account['failed'] or 'none'}",
        ", ".join(f"{name} {account[name]}" for name in ("lost", "wrong", "untyped")),
        f"miscounted {len(account['miscounted'])}",
        f"of {repeated['sent']} calls that may be repeated {repeated['success']:.4%} succeeded",
        f"{kills['killed']} workers killed; whole again in {again['p50']} ms, at worst {again['worst']} ms",
        f"memory of the host: {memory['start_mib']} to {memory['end_mib']} MiB, {memory['percent']:+} %",
        f"leaked: {leaks}; the latest call was {account['late_ms']} ms late",
        *(f"BROKEN: {text}" for text in account["broken"]),
        *(f"example: {each['work']} {each['number']}: {each['text']}" for each in account["samples"][:5]),
    ]
    for line in lines:
        console.print(line, highlight=False)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--rate", type=float, default=200.0, help="calls in a second (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the mix and of who is killed (default: 1)")
    parser.add_argument("--without-dspy", action="store_true", help="only bridges that need no environment")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the file to write (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="a line for each kill")
    options = parser.parse_args(argv)
    described = facts()

    def told(line: str) -> None:
        if options.verbose:
            print(line, file=sys.stderr)

    os.environ.setdefault("DSPY_CACHEDIR", tempfile.gettempdir())
    run = soak(options.minutes * 60, options.rate, options.seed, dspy=not options.without_dspy, told=told)
    account = asyncio.run(run)
    options.results.parent.mkdir(exist_ok=True)
    options.results.write_text(json.dumps({"soak": account, "facts": described}, indent=1) + "\n")
    show(account)
    return 1 if account["broken"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

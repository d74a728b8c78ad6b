"""A load: calls at a steady rate, each of which is counted once, whatever becomes of it.

The load is open: call n begins n/rate seconds after the first, however slow the answers are, as callers who do not know
of one another would. Which kind of call is the n-th is drawn from the seed, so two runs send the same calls.
"""

from __future__ import annotations

import asyncio
import random
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, NamedTuple

from manybridge.errors import ManybridgeError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.protocol.errors import ErrorCode
from manybridge.testing.chaos.works import Work

KEPT_SAMPLES: Final = 20
"""Of wrong, lost and unexpected calls each: enough to see a pattern, and no leak in a run of hours."""

PATIENCE: Final = 90.0
"""Seconds after the last call was sent in which all must be over: the default timeout of a bridge is 60, and stopping a
call that does not stop adds a few."""

_CODES: Final = frozenset(str(code) for code in ErrorCode)


class Sample(NamedTuple):
    """One call that should not have gone as it did."""

    work: str
    number: int
    text: str


@dataclass
class Tally:
    """What became of calls. Each that was sent is in exactly one of answered, wrong, failed, untyped and lost."""

    sent: int = 0
    answered: int = 0
    """With the right answer."""
    wrong: int = 0
    """Answered, with something else than what was due."""
    failed: Counter[str] = field(default_factory=Counter)
    """By error code."""
    unexpected: Counter[str] = field(default_factory=Counter)
    """Those of `failed` whose code their kind of call need not bear."""
    untyped: int = 0
    """Ended with an exception that is no `ManybridgeError`, or has a code that is in no taxonomy."""
    lost: int = 0
    """Neither an answer nor an error came in time."""
    seconds: array[float] = field(default_factory=lambda: array("d"))
    """How long each right answer took."""
    samples: list[Sample] = field(default_factory=list)

    @property
    def ended(self) -> int:
        """How many calls are over."""
        return self.answered + self.wrong + self.failed.total() + self.untyped

    @property
    def open(self) -> int:
        """How many calls still run."""
        return self.sent - self.ended - self.lost

    @property
    def success(self) -> float:
        """The share of calls with the right answer; 1 if none was sent."""
        return self.answered / self.sent if self.sent else 1.0

    def percentile(self, share: float) -> float | None:
        """Seconds within which that share (0 to 1) of right answers came; None if there were none."""
        if not self.seconds:
            return None
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def remember(self, work: str, number: int, text: str) -> None:
        """Keep an example of what went wrong."""
        if len(self.samples) < KEPT_SAMPLES:
            self.samples.append(Sample(work, number, text))

    def add(self, other: Tally) -> None:
        """Count another tally's calls here too."""
        for name in ("sent", "answered", "wrong", "untyped", "lost"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failed += other.failed
        self.unexpected += other.unexpected
        self.seconds.extend(other.seconds)
        self.samples = (self.samples + other.samples)[:KEPT_SAMPLES]

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        p50, p99 = self.percentile(0.5), self.percentile(0.99)
        return {
            "sent": self.sent,
            "answered": self.answered,
            "wrong": self.wrong,
            "failed": dict(sorted(self.failed.items())),
            "unexpected": dict(sorted(self.unexpected.items())),
            "untyped": self.untyped,
            "lost": self.lost,
            "success": round(self.success, 5),
            "p50_ms": None if p50 is None else round(p50 * 1000, 2),
            "p99_ms": None if p99 is None else round(p99 * 1000, 2),
            "samples": [sample._asdict() for sample in self.samples],
        }


class Load:
    """Owner of a load and of its accounting.

    Use it on the host's event loop::

        load = Load(ml, [call_work("mock:echo", {"n": "$n"}, expect="$args")], rate=200, seed=7)
        tally = await load.run(10.0)
        assert tally.lost == tally.wrong == 0

    Args:
        ml: a host that was started.
        works: the mix.
        rate: calls in a second, of all kinds together.
        seed: of the mix.
        patience: seconds after the last call was sent in which every call must be over; beyond that it is lost.
        first: the number of the first call.
    """

    def __init__(
        self,
        ml: AsyncMLBridge,
        works: Sequence[Work],
        *,
        rate: float,
        seed: int = 0,
        patience: float = PATIENCE,
        first: int = 0,
    ) -> None:
        if not works:
            raise ValueError("a load needs at least one kind of call")
        if rate <= 0:
            raise ValueError(f"a load's rate is calls in a second, above 0; found {rate}")
        self.works = tuple(works)
        self.rate = rate
        self.tallies: dict[str, Tally] = {work.name: Tally() for work in works}
        """By kind of call."""
        self.late = 0.0
        """Seconds by which the latest call was sent after its time; grows where this machine can't keep the rate."""
        self._ml = ml
        self._patience = patience
        self._numbers = self._count(first)
        self._choices = random.Random(f"{seed}/load")  # noqa: S311  # repeatable, not secret
        self._open: dict[asyncio.Task[None], tuple[Work, int]] = {}
        self._stopping: asyncio.Event | None = None

    # ------------------------------------------------------------------ running

    async def run(self, duration: float) -> Tally:
        """Send calls for `duration` seconds, wait until all are over, and return what became of them."""
        await self.send(duration)
        await self.finish()
        return self.total()

    async def send(self, duration: float) -> None:
        """Send calls for `duration` seconds, or until `stop`. Does not wait for their answers."""
        began, sent = monotonic(), 0
        self._stopping = asyncio.Event()
        while (due := sent / self.rate) < duration and not self._stopping.is_set():
            wait = began + due - monotonic()
            if wait > 0:
                await self._pause(wait)
                continue
            self.late = max(self.late, -wait)
            self._send_one()
            sent += 1
            if sent % 16 == 0:
                await asyncio.sleep(0)  # one that is behind must still let answers in

    def stop(self) -> None:
        """Send no more."""
        if self._stopping is not None:
            self._stopping.set()

    async def finish(self) -> None:
        """Wait until every call is over; those that are not in time are lost."""
        if self._open:
            await asyncio.wait(self._open, timeout=self._patience)
        for task, (work, number) in list(self._open.items()):
            tally = self.tallies[work.name]
            tally.lost += 1
            tally.remember(work.name, number, f"no answer and no error within {self._patience:g} s after the last call")
            del self._open[task]
            task.cancel()
            await asyncio.wait({task}, timeout=1.0)

    def total(self) -> Tally:
        """What became of all calls together, by now."""
        total = Tally()
        for tally in self.tallies.values():
            total.add(tally)
        return total

    def retriable(self) -> Tally:
        """What became of those that the host may repeat."""
        total = Tally()
        for work in self.works:
            if work.retriable:
                total.add(self.tallies[work.name])
        return total

    # ------------------------------------------------------------------ inside

    @staticmethod
    def _count(first: int) -> Iterator[int]:
        while True:
            yield first
            first += 1

    async def _pause(self, seconds: float) -> None:
        assert self._stopping is not None
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _send_one(self) -> None:
        work = self._choices.choices(self.works, [each.weight for each in self.works])[0]
        number = next(self._numbers)
        self.tallies[work.name].sent += 1
        task = asyncio.get_running_loop().create_task(self._account(work, number), name=f"load {work.name} {number}")
        self._open[task] = (work, number)

    async def _account(self, work: Work, number: int) -> None:
        """Make one call and put it where it belongs, exactly once."""
        tally, began = self.tallies[work.name], monotonic()
        task = asyncio.current_task()
        try:
            outcome = await work.perform(self._ml, number)
        except ManybridgeError as error:
            self._failed(tally, work, number, error)
        except asyncio.CancelledError:
            if task in self._open:  # not by us: somebody's cancellation leaked into a caller
                tally.untyped += 1
                tally.remember(work.name, number, "CancelledError, which nobody asked for")
            raise
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
            tally.untyped += 1
            tally.remember(work.name, number, f"{type(error).__name__}: {error}")
        else:
            if outcome.is_right:
                tally.answered += 1
                tally.seconds.append(monotonic() - began)
            else:
                tally.wrong += 1
                tally.remember(work.name, number, f"expected {outcome.expected!r:.300}, got {outcome.got!r:.300}")
        finally:
            if task is not None:
                self._open.pop(task, None)

    @staticmethod
    def _failed(tally: Tally, work: Work, number: int, error: ManybridgeError) -> None:
        if error.code not in _CODES or error.code == ErrorCode.INTERNAL_ERROR:
            tally.untyped += 1
            tally.remember(work.name, number, f"{type(error).__name__}: {error}")
            return
        tally.failed[error.code] += 1
        if work.codes is not None and error.code not in work.codes:
            tally.unexpected[error.code] += 1
            tally.remember(work.name, number, f"{error}")

"""How far a job is and how fast it goes, from whatever it reports."""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from math import isfinite
from time import monotonic
from typing import Any, Final

WINDOW: Final = 10.0
"""Seconds that the rate looks back: long enough to be calm, short enough to follow a job that gets slower."""

KEPT_SAMPLES: Final = 64
"""Reports that the rate is made from; thinner ones are left out, so that a flood of reports costs nothing."""

FEWEST_SAMPLES: Final = 5
"""Slow jobs report less often than the window is long: so many reports count, however old they are."""

SHORTEST_SPAN: Final = 0.02
"""Reports of one read of the pipe come at the same moment; a rate over less than this would be noise."""

LONGEST_TIME_LEFT: Final = 10 * 365 * 24 * 3600.0
"""Ten years. More is no estimate."""


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a job is."""

    current: float
    total: float | None
    """None where it is not known, or was passed."""
    message: str
    rate: float | None
    """Steps in a second, lately; None before there is one."""
    time_left: float | None
    """Seconds, at that rate; None where total or rate is not known."""

    def to_object(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_object(cls, data: dict[str, Any]) -> JobProgress:
        """What `to_object` gave, by this release or another one."""
        message = data.get("message")
        return cls(
            _number(data.get("current")) or 0,
            _number(data.get("total")),
            message if isinstance(message, str) else "",
            _number(data.get("rate")),
            _number(data.get("time_left")),
        )


class ProgressMeter:
    """Turns reports into a `JobProgress`. Owner of the last report and of the samples of the rate.

    Nothing depends on the wall clock. A step back, as at the beginning of the next epoch, begins a new rate; another
    total keeps it.
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()
        self._last: tuple[float, float, float | None, str] | None = None

    def report(self, data: Any, now: float | None = None) -> None:
        """Take a report as it came over the wire; one without a usable number is ignored."""
        current = _number(data.get("current")) if isinstance(data, dict) else None
        if current is None:
            return
        now = monotonic() if now is None else now
        total, message = _number(data.get("total")), data.get("message")
        if self._last is not None and current < self._last[1]:
            self._samples = deque([(now, current)])  # never empty: other threads read it
        samples = self._samples
        if not samples or now - samples[-1][0] >= WINDOW / KEPT_SAMPLES:
            samples.append((now, current))
            while len(samples) > FEWEST_SAMPLES and (len(samples) > KEPT_SAMPLES or now - samples[0][0] > WINDOW):
                samples.popleft()
        self._last = (now, current, total, message if isinstance(message, str) else "")

    def measure(self, now: float | None = None) -> JobProgress | None:
        """Return the last report with the rate and the time left as they are now; None before the first one."""
        if self._last is None:
            return None
        reported, current, total, message = self._last
        if total is not None and (total < current or total < 0):
            total = None  # an estimate that was too low must not show 120%
        now = monotonic() if now is None else now
        rate = self._rate(reported, current, now)
        return JobProgress(current, total, message, rate, _time_left(current, total, rate, now - reported))

    def _rate(self, reported: float, current: float, now: float) -> float | None:
        began, first = self._samples[0]
        steps, span = current - first, reported - began
        if steps <= 0 or span < SHORTEST_SPAN:
            return None
        # A job that has said nothing for longer than usual has become slower; how much, nobody knows before it speaks.
        usual = span / max(1, len(self._samples) - 1)
        return steps / (span + max(0.0, now - reported - usual))


def _time_left(current: float, total: float | None, rate: float | None, since: float) -> float | None:
    if total is None:
        return None
    if current >= total:
        return 0.0
    if rate is None or rate <= 0:
        return None
    left = (total - current) / rate
    return max(0.0, left - since) if left < LONGEST_TIME_LEFT else None


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    return value if type(value) in (int, float) and isfinite(value) else None

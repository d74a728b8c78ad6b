"""Requests that kill workers: after the second one, the same request is not tried again for a while.

A worker that ran one call is a witness. One that ran several is not: each of them may have been the one, so each gets
half the blame. A request that is answered is cleared, however often it was there when a worker died.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any, Final, NamedTuple

from manybridge.errors import CallError
from manybridge.host.calls import Call, Outcome
from manybridge.protocol import codec
from manybridge.protocol.commands import COMMON, COMMON_COMMANDS
from manybridge.protocol.errors import ErrorCode

DEADLY: Final = 2
"""One death may be anybody's fault; two deaths of two workers by the same request are the request's."""

SHARED_BLAME: Final = 0.5
"""What one death counts for a request that was not alone in the worker."""

MAX_SUSPECTS: Final = 256
"""Fingerprints that are remembered; the oldest is forgotten first."""


class Suspect(NamedTuple):
    """A request that was there when workers died."""

    command: str
    blame: float
    deaths: int
    until: float
    """When it is forgotten, monotonic."""
    cause: str
    """What the last worker died of."""


class Quarantine:
    """Remembers which requests workers died of. Owner of that blame.

    Args:
        seconds: how long a death is remembered.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.suspects: dict[int, Suspect] = {}
        """By fingerprint. Calls cost nothing while there are none."""

    def blame(self, calls: Iterable[Call], cause: str, now: float) -> None:
        """A worker died by itself while it ran `calls`."""
        marks = {fingerprint(call): call.command for call in calls if not runs_no_bridge_code(call.command)}
        weight = 1.0 if len(marks) == 1 else SHARED_BLAME
        for mark, command in marks.items():
            old = self.suspects.pop(mark, None)
            blame, deaths = (old.blame, old.deaths) if old is not None and now < old.until else (0.0, 0)
            self.suspects[mark] = Suspect(command, blame + weight, deaths + 1, now + self._seconds, cause)
        while len(self.suspects) > MAX_SUSPECTS:
            del self.suspects[next(iter(self.suspects))]

    def examine(self, call: Call) -> CallError | None:
        """Return the error for a request that killed workers lately; None for any other.

        One that is suspected, but not by enough, is let through; its success clears it.
        """
        mark = fingerprint(call)
        found = self.suspects.get(mark)
        if found is None:
            return None
        if call.created_at >= found.until:
            del self.suspects[mark]
            return None
        if found.blame < DEADLY:
            call.future = _Trial(call.future, self, mark)
            return None
        text = f"{call.command} with these arguments killed {found.deaths} workers and is refused for a while"
        details = {
            "command": call.command,
            "deaths": found.deaths,
            "cause": found.cause,
            "retry_after": round(found.until - call.created_at, 3),
        }
        return CallError(text, code=ErrorCode.QUARANTINED, details=details)

    def acquit(self, mark: int) -> None:
        """A suspected request was answered."""
        self.suspects.pop(mark, None)

    def describe(self) -> list[dict[str, Any]]:
        """Return the requests that are refused now: command, deaths, seconds left."""
        now = monotonic()
        return [
            {"command": each.command, "deaths": each.deaths, "retry_after": round(each.until - now, 3)}
            for each in self.suspects.values()
            if each.blame >= DEADLY and now < each.until
        ]


class _Trial:
    """Stands in for the future of a suspected call, and clears it when it succeeds."""

    def __init__(self, future: Outcome, quarantine: Quarantine, mark: int) -> None:
        self._future = future
        self._quarantine = quarantine
        self._mark = mark

    def done(self) -> bool:
        """Whether nobody waits any more."""
        return self._future.done()

    def set_result(self, result: Any, /) -> None:
        """It did no harm."""
        self._quarantine.acquit(self._mark)
        self._future.set_result(result)

    def set_exception(self, exception: Any, /) -> None:
        """It failed; whether that was its fault is decided elsewhere."""
        self._future.set_exception(exception)


def runs_no_bridge_code(command: str) -> bool:
    """Whether the worker's control lane answers it. A ping that met a dying worker did not kill it."""
    operation = command.removeprefix(f"{COMMON}:")
    return operation != command and operation in COMMON_COMMANDS and COMMON_COMMANDS[operation].at_once


def fingerprint(call: Call) -> int:
    """A number that is the same for the same command, arguments and session."""
    return hash((call.command, call.session_id, codec.encode(call.args)))

"""Requests that kill workers: after the second one, the same request is not tried again for a while."""

from __future__ import annotations

from typing import Final

from manybridge.errors import CallError
from manybridge.host.calls import Call
from manybridge.protocol import codec
from manybridge.protocol.commands import COMMON, COMMON_COMMANDS
from manybridge.protocol.errors import ErrorCode

DEADLY: Final = 2
"""One death may be anybody's fault; two deaths of two workers by the same request are the request's."""

MAX_SUSPECTS: Final = 256
"""Fingerprints that are remembered; the oldest is forgotten first."""


class Quarantine:
    """Remembers which requests workers died of. Owner of those counts.

    Args:
        seconds: how long a death is remembered.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.suspects: dict[int, tuple[int, float]] = {}
        """Fingerprint to deaths and when they are forgotten. Calls cost nothing while there are none."""

    def __bool__(self) -> bool:
        """Whether any request is suspected at all."""
        return bool(self.suspects)

    def blame(self, call: Call, now: float) -> None:
        """A worker died by itself while it ran `call`."""
        if runs_no_bridge_code(call.command):
            return
        mark = fingerprint(call)
        deaths, _ = self.suspects.pop(mark, (0, 0.0))
        self.suspects[mark] = (deaths + 1, now + self._seconds)
        if len(self.suspects) > MAX_SUSPECTS:
            del self.suspects[next(iter(self.suspects))]

    def refusal(self, call: Call) -> CallError | None:
        """The error for a request that killed `DEADLY` workers lately; None for any other."""
        mark = fingerprint(call)
        found = self.suspects.get(mark)
        if found is None:
            return None
        deaths, until = found
        if call.created_at >= until:
            del self.suspects[mark]
            return None
        if deaths < DEADLY:
            return None
        text = f"{call.command} with these arguments killed {deaths} workers and is refused for a while"
        details = {"command": call.command, "deaths": deaths, "retry_after": round(until - call.created_at, 3)}
        return CallError(text, code=ErrorCode.QUARANTINED, details=details)


def runs_no_bridge_code(command: str) -> bool:
    """Whether the worker's control lane answers it. A ping that met a dying worker did not kill it."""
    operation = command.removeprefix(f"{COMMON}:")
    return operation != command and operation in COMMON_COMMANDS and COMMON_COMMANDS[operation].at_once


def fingerprint(call: Call) -> int:
    """A number that is the same for the same command, arguments and session."""
    return hash((call.command, call.session_id, codec.encode(call.args)))

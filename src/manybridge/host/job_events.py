"""The events of a job, numbered without gaps, of which the newest are kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from manybridge.host.streams import StreamEvent
from manybridge.store.records import JobEvent

KEPT_EVENTS: Final = 10_000
"""Events that a job keeps in memory for late readers; the oldest go first."""

MOST_EVENTS: Final = 5 * KEPT_EVENTS
"""A job that is faster than its store keeps events until they are stored; no more of them than this."""

READ_AT_ONCE: Final = 1_000
"""Events that a reader gets in one piece, so that one far behind does not hold up the loop."""

EVENT_GAP: Final = "gap"
"""What a reader gets in the place of events that are not kept any more: `data` is `{from_seq, to_seq}`, both of them
missing. `seq` is `to_seq`, so that reading on from the number after the last one works here too."""


class EventLog:
    """Owner of the newest events of one job.

    Args:
        first: the number of the first event that will come.
    """

    def __init__(self, first: int = 0) -> None:
        self._kept: list[StreamEvent] = []
        self.first = first
        """The number of the oldest event that is kept, or of the next one where none is."""
        self.needed_from: int | None = None
        """The number of the first event that must still be stored; None where nothing is to be."""

    @property
    def next(self) -> int:
        """The number of the next event."""
        return self.first + len(self._kept)

    def append(self, event: str, data: Any) -> None:
        """Number an event and keep it."""
        kept = self._kept
        kept.append(StreamEvent(event, self.next, data))
        if len(kept) > KEPT_EVENTS + KEPT_EVENTS // 4:  # a quarter at a time: what one event costs stays small
            surplus = len(kept) - KEPT_EVENTS
            if self.needed_from is not None and len(kept) <= MOST_EVENTS:
                surplus = max(0, min(surplus, self.needed_from - self.first))
            del kept[:surplus]
            self.first += surplus

    def read(self, from_seq: int, limit: int = READ_AT_ONCE) -> list[StreamEvent]:
        """Return kept events from a number on."""
        start = max(0, from_seq - self.first)
        return self._kept[start : start + limit]


def with_gaps(from_seq: int, events: Sequence[StreamEvent | JobEvent]) -> list[StreamEvent]:
    """Return events that were asked for from a number on, with a `gap` wherever numbers are missing."""
    found: list[StreamEvent] = []
    for event in events:
        if event.seq > from_seq:
            found.append(gap(from_seq, event.seq - 1))
        found.append(StreamEvent(event.event, event.seq, event.data))
        from_seq = event.seq + 1
    return found


def gap(from_seq: int, to_seq: int) -> StreamEvent:
    """Say that events are missing, from one number to another one."""
    return StreamEvent(EVENT_GAP, to_seq, {"from_seq": from_seq, "to_seq": to_seq})

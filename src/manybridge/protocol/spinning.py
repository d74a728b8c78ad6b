"""Adaptive spinning: whether to look for bytes again and again for a moment before going to sleep.

To be woken on another core takes longer than a short call does, so two processes that take turns are best off when
neither sleeps between its turns. That only holds while the other one really runs at the same time and answers at
once. So spinning is tried, goes on while it pays, and pauses for ever longer where it does not: on one core, on a
busy machine, with calls that take their time.
"""

from __future__ import annotations

import os
from typing import Final

SPIN_SECONDS: Final = 0.0001
"""The longest look. About what falling asleep and being woken costs on a virtual machine, so the worst that a spin in
vain can do is to double one wait."""

MOST_CREDIT: Final = 8
PRICE: Final = 4
"""A spin that paid is worth 1, at most so many are remembered, and one in vain costs so many. So a client who pauses
once in a while does not end it: with less than four fifths of success it does."""

FIRST_PAUSE: Final = 8
LONGEST_PAUSE: Final = 128
"""Waits that sleep at once when the credit is used up; doubled each time in a row. At 512, looking whether times have
changed costs 0.1 µs a call."""


class AdaptiveSpin:
    """The memory of one place that waits. Not for several threads at once.

    Args:
        cores: how many cores this process may use; with one there is nobody to wait awake for.
    """

    __slots__ = ("_credit", "_longer", "pause")

    def __init__(self, cores: int | None = None) -> None:
        cores = len(os.sched_getaffinity(0)) if cores is None else cores
        self.pause = 0 if cores > 1 else -1
        """How many waits will not spin; below zero: none ever will."""
        self._credit = 0
        self._longer = FIRST_PAUSE

    def is_worth_it(self) -> bool:
        """Whether to spin now. To be asked once for each wait."""
        if self.pause:
            if self.pause > 0:
                self.pause -= 1
            return False
        return True

    def paid(self) -> None:
        """What was waited for came while spinning."""
        self._longer = FIRST_PAUSE
        if self._credit < MOST_CREDIT:
            self._credit += 1

    def was_in_vain(self) -> None:
        """It did not come."""
        self._credit -= PRICE
        if self._credit < 0:
            self._credit = 0
            self.pause = self._longer
            self._longer = min(LONGEST_PAUSE, self._longer * 2)

"""The DSPy bridge with one command more, which says what is imported."""

from __future__ import annotations

import sys

from manybridge.bridge import command
from manybridge.bridges.dspy import DSPyBridge


class TellingBridge(DSPyBridge):
    """Tells."""

    @command
    def imported(self) -> list[str]:
        """Name every module of this process."""
        return sorted(sys.modules)

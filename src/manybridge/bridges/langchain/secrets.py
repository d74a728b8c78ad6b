"""Keys that went through this worker, so that no text which leaves it repeats one."""

from __future__ import annotations

import os
import re
from typing import Final

MIN_SECRET_LENGTH: Final = 6
"""A shorter "key" is a stand-in such as "x" or "none"; replacing it would maim ordinary words."""

MASK: Final = "***"

KEY_VARIABLE: Final = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$", re.IGNORECASE)
"""LangChain's plug-ins read keys from variables by themselves; these names are where keys are."""


class Secrets:
    """Remembers keys and takes them out of texts. Owned by the bridge, one per worker."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def add(self, secret: str | None) -> None:
        """Remember a key."""
        if secret and len(secret) >= MIN_SECRET_LENGTH:
            self._known.add(secret)

    def add_environment(self) -> None:
        """Remember what this worker's environment has under the name of a key."""
        for name, value in os.environ.items():
            if KEY_VARIABLE.search(name):
                self.add(value)

    def clean(self, text: str) -> str:
        """Return `text` with every known key replaced by `***`."""
        for secret in sorted(self._known, key=len, reverse=True):  # a key may begin like another one
            text = text.replace(secret, MASK)
        return text

"""Keys that went through this worker, so that no text which leaves it repeats one."""

from __future__ import annotations

from typing import Final

MIN_SECRET_LENGTH: Final = 6
"""A shorter "key" is a stand-in such as "x" or "none"; replacing it would maim ordinary words."""

MASK: Final = "***"


class Secrets:
    """Remembers keys and takes them out of texts. Owned by the bridge, one per worker."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def add(self, secret: str | None) -> None:
        """Remember a key."""
        if secret and len(secret) >= MIN_SECRET_LENGTH:
            self._known.add(secret)

    def clean(self, text: str) -> str:
        """Return `text` with every known key replaced by `***`."""
        for secret in self._known:
            text = text.replace(secret, MASK)
        return text

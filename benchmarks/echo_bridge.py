"""The smallest bridge: what a call costs when its handler costs nothing."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

from manybridge.bridge import Bridge, command


class EchoBridge(Bridge):
    """Gives back what it gets."""

    name = "echo"
    zygote_safe = True

    @command
    def echo(self, text: str) -> dict[str, Any]:
        """Return the text."""
        return {"text": text}

    @command
    def tokens(self, count: int) -> Iterator[dict[str, Any]]:
        """Yield so many chunks as fast as they can be taken, each with the moment when it was made."""
        for _ in range(count):
            yield {"text": "token", "at": monotonic()}

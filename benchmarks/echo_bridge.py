"""The smallest bridge: what a call costs when its handler costs nothing."""

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

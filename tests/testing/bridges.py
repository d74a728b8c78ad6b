"""A bridge with a bit of everything, at the top of a file, so that worker processes can load it too."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from manybridge.bridge import Bridge, BridgeError, Context, Result, command, resource


class WordBridge(Bridge):
    """Counts words."""

    name = "words"

    def setup(self, options: dict[str, Any]) -> None:
        """Keeps the options."""
        self.prefix = options.get("prefix", "")

    @command
    def count(self, text: str) -> dict[str, int]:
        """How often each word occurs."""
        words = text.split()
        return {self.prefix + word: words.count(word) for word in words}

    @command
    async def spell(self, word: str) -> AsyncIterator[Any]:
        """Streams the letters."""
        for letter in word:
            yield letter
        yield Result(len(word))

    @command
    def refuse(self, code: str = "rate_limited") -> None:
        """Fails."""
        raise BridgeError(code, "refused", details={"retry_after": 1})

    @command
    def wait(self, cooperative: bool = True, *, ctx: Context) -> None:
        """Never comes back by itself."""
        while True:
            if cooperative:
                ctx.check()
            time.sleep(0.001)

    @command
    def ask(self, question: str, *, ctx: Context) -> Any:
        """Asks a tool of the caller."""
        return ctx.call_host("answer", {"question": question})

    @resource("tally")
    class Tally:
        """Adds up."""

        def create(self, start: int = 0) -> None:
            """Begin."""
            self.value = start

        def execute(self, add: int = 1) -> int:
            """Add."""
            self.value += add
            return self.value

        def snapshot(self) -> Any:
            """The value."""
            return self.value

        def restore(self, state: Any) -> None:
            """Go on."""
            self.value = state

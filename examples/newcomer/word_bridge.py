"""A whole bridge: one command, one stream, one resource."""

from collections import Counter
from collections.abc import Iterator

from manybridge.bridge import Bridge, command, resource


class WordBridge(Bridge):
    """Counts, spells and explains words."""

    name = "words"

    @command
    def count(self, text: str, top: int = 3) -> dict[str, int]:
        """Count the most frequent words of a text."""
        return dict(Counter(text.lower().split()).most_common(top))

    @command
    def spell(self, text: str) -> Iterator[str]:
        """Stream the words of a text, one chunk for each."""
        yield from text.split()

    @resource("glossary")
    class Glossary:
        """Words and what they mean."""

        def create(self, meanings: dict[str, str]) -> None:
            """Keep the meanings."""
            self.meanings = meanings

        def execute(self, word: str) -> str:
            """Say what a word means."""
            return self.meanings.get(word, f"{word!r} is not in this glossary")

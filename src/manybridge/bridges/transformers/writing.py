"""From the tokens that a model writes to text: piece by piece, and no further than a stop string.

Knows neither PyTorch nor Transformers: it is given a function that decodes token ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

UNFINISHED: Final = "\N{REPLACEMENT CHARACTER}"
"""What a decoder gives for the first bytes of a character whose other bytes are in the next token."""


class TextWriter:
    """The text of one answer, growing. Each token costs the decoding of a few, however long the answer is.

    Args:
        decode: token ids to text.
        stop: strings that end the answer; neither they nor what follows becomes part of it.
    """

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str] = ()) -> None:
        self.token_ids: list[int] = []
        self.text = ""
        """What is certain: characters that are whole and do not begin a stop string."""
        self.stopped_by: str | None = None
        self._decode = decode
        self._stop = stop
        self._held = ""  # certain to be characters, but perhaps the beginning of a stop string
        # Tokens before `_from` are done with; those up to `_upto` are decoded again with the next one, because what a
        # token stands for may depend on the one before it (a space in front, the first bytes of a character).
        self._from = 0
        self._upto = 0

    def add(self, token_id: int) -> str:
        """Take the next token; return the text that has become certain, perhaps none."""
        self.token_ids.append(token_id)
        known = self._decode(self.token_ids[self._from : self._upto])
        text = self._decode(self.token_ids[self._from :])
        if len(text) <= len(known) or text.endswith(UNFINISHED):
            return ""
        self._from, self._upto = self._upto, len(self.token_ids)
        return self._let_go(text[len(known) :])

    def finish(self) -> str:
        """The answer is over; return the text that was held back."""
        if self.stopped_by is not None:
            return ""
        known = self._decode(self.token_ids[self._from : self._upto])
        rest = self._decode(self.token_ids[self._from :])[len(known) :]
        self._upto = len(self.token_ids)
        piece = self._let_go(rest)
        if self.stopped_by is None:
            piece += self._held
            self.text += self._held
        self._held = ""
        return piece

    def _let_go(self, new: str) -> str:
        text = self._held + new
        found = [(place, stop) for stop in self._stop if (place := text.find(stop)) >= 0]
        if found:
            place, self.stopped_by = min(found)
            certain, self._held = text[:place], ""
        else:
            held = max((_overlap(text, stop) for stop in self._stop), default=0)
            certain, self._held = text[: len(text) - held], text[len(text) - held :]
        self.text += certain
        return certain


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)

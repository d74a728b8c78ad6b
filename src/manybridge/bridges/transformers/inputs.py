"""Texts of callers on their way into a model: how many there are, how long they are, how they become a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.framework import import_torch
from manybridge.protocol.errors import ErrorCode

MAX_ITEMS: Final = 10_000
"""Texts of one call. More belong into several calls, so that one failure or cancel does not take all of them."""


def as_list(text: str | list[str] | None, name: str = "text") -> tuple[list[str], bool]:
    """The texts of a call, and whether it gave only one.

    Raises:
        BridgeError: `invalid_argument`, there is none, or too many.
    """
    if isinstance(text, str):
        return [text], True
    if not text or len(text) > MAX_ITEMS:
        found = "nothing" if text is None else f"{len(text)}"
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{name}: expected a text, or a list of 1 to {MAX_ITEMS} texts, found {found}",
            details={"argument": name},
        )
    return text, False


def by_length(texts: Sequence[str]) -> list[int]:
    """The places of the texts, longest first: texts of like length share a run, and little of it is padding.

    The longest come first, so that what does not fit into memory fails at once.
    """
    return sorted(range(len(texts)), key=lambda place: -len(texts[place]))


def too_long(found: int, limit: int, wanted: int = 0, *, advice: str = "set truncate = true") -> BridgeError:
    """The error for an input that is longer than its model takes, with both figures, and what else could be done."""
    and_more = f" and {wanted} tokens are to follow" if wanted else ""
    return BridgeError(
        ErrorCode.CONTEXT_LENGTH_EXCEEDED,
        f"The input has {found} tokens{and_more}; this model takes {limit} together. Shorten it, or split it."
        if wanted
        else f"The input has {found} tokens; this model takes {limit}. Shorten it, or {advice}.",
        details={"input_tokens": found, "max_tokens": limit, "new_tokens": wanted},
    )


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, device: str) -> tuple[Any, Any]:
    """Token ids and mask, both `(rows, longest) int64`; short rows are filled up behind."""
    longest = max(map(len, rows))
    return _tensors([([*row, *[pad_id] * (longest - len(row))], longest - len(row), 0) for row in rows], device)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: str) -> tuple[Any, Any]:
    """As `pad_right`, filled up in front: a model writes on at the end."""
    longest = max(map(len, rows))
    return _tensors([([*[pad_id] * (longest - len(row)), *row], 0, longest - len(row)) for row in rows], device)


def _tensors(rows: Sequence[tuple[list[int], int, int]], device: str) -> tuple[Any, Any]:
    torch = import_torch()
    masks = [[0] * front + [1] * (len(ids) - front - behind) + [0] * behind for ids, behind, front in rows]
    ids = torch.tensor([ids for ids, _, _ in rows], device=device)
    return ids, torch.tensor(masks, device=device)

"""The resource type `dataset`: rows made from a recipe, in this worker's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manybridge.bridge import Context

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge


class Dataset:
    """Rows with named columns, made again from their recipe wherever they are needed."""

    bridge: TransformersBridge
    id: str
    type: str
    session_id: str | None
    config: dict[str, Any]

    def create(self, rows: list[dict[str, Any]] | None = None, *, ctx: Context) -> None:  # noqa: ARG002
        """Make a dataset from rows."""
        self.rows = rows or []

    def execute(self, offset: int = 0, limit: int = 100, *, ctx: Context) -> dict[str, Any]:  # noqa: ARG002
        """Page through the rows."""
        return {"rows": self.rows[offset : offset + limit], "total": len(self.rows)}

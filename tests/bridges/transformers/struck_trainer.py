"""The Transformers bridge, in which a training is struck at the one moment that chance seldom finds."""

from typing import Any

from manybridge.bridge import Cancelled
from manybridge.bridges.transformers import TransformersBridge
from manybridge.bridges.transformers.trainer import StateKeeper


class StruckBridge(TransformersBridge):
    """Between a step and the entry of its loss, once, at the sixth step."""

    def setup(self, options: dict[str, Any]) -> None:
        """As the bridge itself; and lay the trap."""
        super().setup(options)
        kept = StateKeeper.measured

        def struck(keeper: StateKeeper, row: dict[str, Any]) -> None:
            if row["step"] == 6:
                StateKeeper.measured = kept  # type: ignore[method-assign]
                raise Cancelled
            kept(keeper, row)

        StateKeeper.measured = struck  # type: ignore[method-assign, assignment]

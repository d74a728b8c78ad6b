"""Fine-tuning: the resource type `training`, and the function behind `transformers:train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import Context

if TYPE_CHECKING:
    from manybridge.bridges.transformers.bridge import TransformersBridge


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How to train."""

    epochs: float = 3.0


DEFAULTS: Final = TrainingSettings()


def train(
    bridge: TransformersBridge,
    ctx: Context,
    *,
    run: str | None,
    model: str | None,
    dataset: str | dict[str, Any] | None,
    settings: TrainingSettings,
    resume: bool,
) -> dict[str, Any]:
    """Train or resume a run; the function behind `transformers:train`."""
    ctx.check()
    return {
        "run": run,
        "model": model,
        "dataset": dataset,
        "epochs": settings.epochs,
        "resume": resume,
        "bridge": bridge.name,
    }


class Training:
    """A training run: what to train, on what, and how."""

    bridge: TransformersBridge
    id: str
    type: str
    session_id: str | None
    config: dict[str, Any]

    def create(self, model: str, dataset: str | dict[str, Any], settings: TrainingSettings = DEFAULTS) -> None:
        """Describe a run; nothing is trained yet."""
        self.model, self.dataset, self.settings = model, dataset, settings

    def execute(self, *, ctx: Context) -> dict[str, Any]:
        """Train, or resume from the last checkpoint."""
        return train(
            self.bridge, ctx, run=self.id, model=self.model, dataset=self.dataset, settings=self.settings, resume=True
        )

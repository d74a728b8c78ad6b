"""What the DSPy adapters take and return: plain values, the same for both of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeAlias, TypedDict

RESOURCE_TYPE: Final = "program"
FILE_FORMAT: Final = "manybridge.dspy.program/1"

ModuleName: TypeAlias = Literal["predict", "chain_of_thought", "react", "program_of_thought"] | str  # noqa: PYI051  # names what is bundled
OptimizerName: TypeAlias = Literal["LabeledFewShot", "BootstrapFewShot", "BootstrapFewShotWithRandomSearch", "MIPROv2"]


class ProgramConfig(TypedDict, total=False):
    """The recipe of a program; see the resource type `program` of the bridge for each key."""

    signature: str | dict[str, Any]
    module: str
    instructions: str
    tools: list[str | dict[str, Any]]
    demos: list[dict[str, Any]]
    max_iters: int
    lm: dict[str, Any]
    adapter: str
    module_args: dict[str, Any]
    state: dict[str, Any]


Progress: TypeAlias = Callable[[float, float | None, str], object]
"""Called with (current, total or None, message)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a program answered. Outputs are also attributes: `prediction.answer`.

    Attributes:
        outputs: value of each output field.
        usage: `{calls, prompt_tokens, completion_tokens, total_tokens, by_model}`.
        trace: an agent's steps; empty for other programs.
    """

    outputs: dict[str, Any]
    usage: dict[str, Any] = field(default_factory=dict)
    trace: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> Self:
        """Make one of what the bridge returned."""
        return cls(result["outputs"], result.get("usage", {}), result.get("trace", []))

    def __getattr__(self, name: str) -> Any:
        """Return an output by its name."""
        try:
            return self.outputs[name]
        except KeyError:
            raise AttributeError(f"no output {name!r}; outputs: {', '.join(self.outputs)}") from None


@dataclass(frozen=True, slots=True)
class Optimized:
    """What an optimiser reports.

    Attributes:
        state: what the program learned, JSON.
        score_before: percent on `valset`, or None if none was given.
        score_after: the same, afterwards.
    """

    optimizer: str
    metric_calls: int
    demos: int
    usage: dict[str, Any]
    state: dict[str, Any]
    score_before: float | None = None
    score_after: float | None = None

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> Self:
        """Make one of what the bridge returned."""
        return cls(**{name: value for name, value in result.items() if name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What an evaluation found; `score` in percent, `results` one row per example."""

    score: float
    count: int
    results: list[dict[str, Any]]
    usage: dict[str, Any]


def program_config(signature: str | dict[str, Any], **settings: Any) -> ProgramConfig:
    """Make a recipe of what was given, leaving out what was not."""
    given = {"signature": signature or None, **settings}
    config: ProgramConfig = {name: value for name, value in given.items() if value is not None}  # type: ignore[assignment]  # checked by the bridge
    return config


def optimize_args(config: ProgramConfig, trainset: list[dict[str, Any]], **settings: Any) -> dict[str, Any]:
    """The arguments of `dspy:optimize` for a program by its recipe, which every worker of a pool can take."""
    given = {name: value for name, value in settings.items() if value is not None}
    return {"program": dict(config), "trainset": trainset, **given}


def write_program(path: str | Path, config: ProgramConfig) -> None:
    """Save a program, recipe and learned state, as a JSON file."""
    saved = {"format": FILE_FORMAT, "config": dict(config)}
    Path(path).write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_program(path: str | Path) -> ProgramConfig:
    """Read the recipe of a saved program.

    Raises:
        ValueError: the file holds none.
    """
    saved = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(saved, dict) or saved.get("format") != FILE_FORMAT or not isinstance(saved.get("config"), dict):
        raise ValueError(f"{path} is not a program that DSPyAdapter saved: its format is not {FILE_FORMAT}")
    config: ProgramConfig = saved["config"]
    return config


def report_progress(event: Any, on_progress: Progress) -> None:
    """Hand a progress event on; all others are passed over."""
    if event.event == "progress":
        on_progress(event.data["current"], event.data["total"], event.data["message"])

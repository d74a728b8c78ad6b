"""What the Transformers adapters take and return: plain values, the same for both of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Self, TypeAlias, TypedDict, TypeVar

from manybridge.adapters.handles import given
from manybridge.errors import InvalidArgumentError

T = TypeVar("T")

Task: TypeAlias = Literal[
    "causal-lm", "seq2seq-lm", "sequence-classification", "token-classification", "masked-lm", "embedding"
]
Dtype: TypeAlias = Literal["auto", "float32", "float16", "bfloat16"]
Pooling: TypeAlias = Literal["mean", "cls", "max", "last"]
Messages: TypeAlias = Sequence[Mapping[str, str]]
"""A conversation: objects with `role` and `content`."""


class Writing(TypedDict, total=False):
    """How a model writes; see the inputs of the resource type `model` for each key."""

    max_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop: list[str]
    generate_args: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote.

    Attributes:
        finish_reason: "stop" (its own end, or a stop string) or "length".
        usage: prompt_tokens, completion_tokens, total_tokens.
        seed: of the draw; None where the likeliest token was always taken.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    usage: dict[str, int]
    seed: int | None = None
    stopped_by: str | None = None

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> Self:
        """Make one of what the bridge returned."""
        return cls(**{name: value for name, value in result.items() if name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Label:
    """One label of a text or a token; or one word for a gap."""

    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a text, the likeliest first."""

    label: str
    score: float
    scores: list[Label] = field(default_factory=list)

    @classmethod
    def read(cls, result: Mapping[str, Any]) -> Self:
        """Make one of what the bridge returned."""
        return cls(result["label"], result["score"], [Label(**each) for each in result["scores"]])


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why one item of a list failed; `code` is of the shared taxonomy."""

    index: int
    code: str
    message: str
    retryable: bool
    type: str
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Results of a list, in its order: None where an item failed, and its error in `errors`."""

    results: list[T | None]
    errors: list[ItemError]
    usage: dict[str, int] = field(default_factory=dict)

    def __iter__(self) -> Iterator[T | None]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    @property
    def good(self) -> list[T]:
        """The results that there are."""
        return [result for result in self.results if result is not None]


@contextmanager
def answer_of(doing: str) -> Iterator[None]:
    """Read the answer of a model that should be `doing` something, such as "embedding".

    Raises:
        InvalidArgumentError: the answer is another one: the model is for something else.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        text = (
            f"this model is not for {doing}: it answered something else. `model_info` tells what a model is for; "
            "load another one, or the same one with the `task` that you mean"
        )
        raise InvalidArgumentError(text, details={"asked_for": doing}) from error


def read_batch(result: Mapping[str, Any], key: str, read: Callable[[Any], T]) -> Batch[T]:
    """Make a batch of what the bridge returned under `key`."""
    results = [None if each is None else read(each) for each in result[key]]
    return Batch(results, [ItemError(**each) for each in result["errors"]], dict(result.get("usage", {})))


def read_words(gap: Sequence[Mapping[str, Any]]) -> list[Label]:
    """The words offered for one gap."""
    return [Label(each["word"], each["score"]) for each in gap]


def read_gaps(result: Mapping[str, Any]) -> list[list[Label]]:
    """The words offered for each gap of a text."""
    return [read_words(gap) for gap in result["gaps"]]


def read_tags(result: Mapping[str, Any]) -> list[tuple[str, Label]]:
    """Each token of a text with its label."""
    return [(each["token"], Label(each["label"], each["score"])) for each in result["tokens"]]


def vector(values: Sequence[float]) -> list[float]:
    """One embedding, `(dimensions,) float32` in the worker."""
    return list(values)


def prompt_inputs(prompt: str | Sequence[str] | None, messages: Messages | None, writing: Mapping[str, Any]) -> Any:
    """The inputs of a model that writes."""
    text = prompt if isinstance(prompt, str) or prompt is None else list(prompt)
    return given(text=text, messages=None if messages is None else [dict(each) for each in messages], **writing)

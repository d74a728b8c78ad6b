"""Metrics by name: how well a prediction matches an example's labels, from 0 to 1."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from manybridge.bridge import BridgeError
from manybridge.bridges.common.references import References
from manybridge.protocol.errors import ErrorCode

Metric: TypeAlias = Callable[..., float]


def make_metric(name: str, field: str | None, references: References) -> Metric:
    """Find a metric.

    Args:
        name: a key of `METRICS`, or `package.module:function` (example, prediction, trace=None) of an allowed module.
        field: the output field to compare; by default every label that the example has.

    Raises:
        BridgeError: `invalid_argument` or `permission_denied`.
    """
    if name in METRICS:
        compare = METRICS[name]
        return lambda example, prediction, _trace=None: _compare_all(compare, field, example, prediction)
    if ":" in name:
        found: Metric = references.load(name, "metric")
        return found
    raise BridgeError(
        ErrorCode.INVALID_ARGUMENT,
        f"metric: expected one of {', '.join(METRICS)}, or 'package.module:function', found {name!r}",
    )


def demand_labels(
    name: str, field: str | None, rows: Sequence[Mapping[str, Any]], inputs: Sequence[str], argument: str
) -> None:
    """Refuse examples with nothing to compare: each would be wrong, or with an unknown field right.

    Args:
        name: of the metric; a team's own knows itself what it compares.
        field: the output field to compare; by default every label.
        rows: the examples.
        inputs: those of their fields that are inputs.
        argument: where the examples are.

    Raises:
        BridgeError: `invalid_argument`, with the position of the first.
    """
    if name not in METRICS:
        return
    for position, row in enumerate(rows):
        if not set(row) - set(inputs) or (field is not None and field not in row):
            wanted = repr(field) if field is not None else "a label beside its inputs"
            text = f"{argument}[{position}]: lacks {wanted}, which the metric {name} compares with the answer"
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, text, details={"argument": argument})


def _compare_all(compare: Callable[[Any, Any], float], field: str | None, example: Any, prediction: Any) -> float:
    """The worst field decides: an answer that is half right is not right."""
    labels = example.labels().toDict()
    names = [field] if field else list(labels)
    if not names:
        return 0.0
    return min(compare(labels.get(name), getattr(prediction, name, None)) for name in names)


def _normalize(value: Any) -> str:
    return re.sub(r"[\W_]+", " ", str(value).casefold()).strip()


def _exact_match(wanted: Any, found: Any) -> float:
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return float(wanted == found)
    return float(_normalize(wanted) == _normalize(found))


def _contains(wanted: Any, found: Any) -> float:
    return float(_normalize(wanted) in _normalize(found))


def _word_overlap(wanted: Any, found: Any) -> float:
    """F1 of the words, as question-answering benchmarks compute it."""
    gold, said = _normalize(wanted).split(), _normalize(found).split()
    shared = sum(min(gold.count(word), said.count(word)) for word in set(gold))
    return 2 * shared / (len(gold) + len(said)) if shared else 0.0


METRICS: Final[dict[str, Callable[[Any, Any], float]]] = {
    "exact_match": _exact_match,
    "contains": _contains,
    "word_overlap": _word_overlap,
}

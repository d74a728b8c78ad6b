"""scikit-learn: train with live progress, read digits, cancel half-way."""

from __future__ import annotations

import time
from typing import Any

from facts import pid_of
from stage import Stage

from manybridge.errors import CallCancelledError

EPOCHS = 120
SHOWN = 5
"""Digits that are drawn beside each other: as many as fit into 92 columns."""

TEST_DIGITS = 450


def train(stage: Stage, ml: Any) -> None:
    """Train a network; every epoch reports."""
    stage.say("A small neural network learns the 1,797 handwritten digits that scikit-learn carries.")
    stage.gap()
    with stage.progress("training") as show:
        events = ml.stream("sklearn", "sklearn:train", {"epochs": EPOCHS, "hidden": 64}, timeout=60)
        seen = 0
        for event in events:
            if event.event == "progress":
                seen += 1
                show(event.data["current"], event.data["total"], event.data["message"])
    accuracy = events.result["accuracy"]
    stage.gap()
    stage.holds(seen == EPOCHS, f"{seen} progress events came while it trained")
    stage.holds(accuracy > 0.9, f"accuracy on {TEST_DIGITS} digits that it has never seen: {accuracy:.1%}")


def read(stage: Stage, ml: Any) -> None:
    """Read some digits, and draw them."""
    rows = _interesting_rows(ml)
    read = ml.call("sklearn", "sklearn:predict", {"rows": rows})
    blocks = []
    for row, digit, sure, label in zip(rows, read["digits"], read["sure"], read["labels"], strict=True):
        picture = ml.call("sklearn", "sklearn:picture", {"row": row})["lines"]
        is_right = "✓" if digit == label else f"✗ it is {label}"
        blocks.append([*picture, "", f"{digit}  {sure:.0%}  {is_right}".ljust(16)])
    stage.gap()
    stage.beside(blocks)
    right = sum(digit == label for digit, label in zip(read["digits"], read["labels"], strict=True))
    stage.gap()
    stage.holds(
        right >= SHOWN - 1, f"{right} of these {SHOWN} read right; the last one is the hardest of all {TEST_DIGITS}"
    )


def _interesting_rows(ml: Any) -> list[int]:
    """Return four that it reads right, no digit twice, and the one that it is least sure of."""
    read = ml.call("sklearn", "sklearn:predict", {"rows": list(range(TEST_DIGITS))})
    hardest = min(range(TEST_DIGITS), key=read["sure"].__getitem__)
    first: dict[int, int] = {}
    for row, (digit, label) in enumerate(zip(read["digits"], read["labels"], strict=True)):
        if digit == label and row != hardest:
            first.setdefault(digit, row)
    return [*sorted(first.values())[: SHOWN - 1], hardest]


def cancel(stage: Stage, ml: Any) -> None:
    """Cancel a second training half-way; the worker stays."""
    before = pid_of(ml, "sklearn")
    stage.say("A second training, as a job. Half-way through somebody changes their mind.")
    stage.gap()
    job = ml.submit("sklearn", "sklearn:train", {"epochs": EPOCHS, "hidden": 64, "seed": 1})
    with stage.progress("training", lines=4) as show:
        for event in job.events():
            if event.event != "progress":
                continue
            show(event.data["current"], event.data["total"], event.data["message"])
            if event.data["current"] >= EPOCHS // 2:
                break
    began = time.perf_counter()
    job.cancel()
    took = (time.perf_counter() - began) * 1000
    rung = _rung(job)
    stage.gap()
    stage.holds(rung == "cooperative", f"cancelled in {took:.0f} ms; the rung that stopped it: {rung}")
    began = time.perf_counter()
    answer = ml.call("sklearn", "sklearn:predict", {"rows": [0]})
    took = (time.perf_counter() - began) * 1000
    stage.holds(
        pid_of(ml, "sklearn") == before and answer["digits"],
        f"the same worker (pid {before}) is clean and answers the next call in {took:.0f} ms",
    )


def _rung(job: Any) -> str:
    """Return which rung of the ladder stopped a job."""
    try:
        job.result(timeout=5)
    except CallCancelledError as error:
        return str(error.details.get("stopped_by"))
    return "nothing: it ended by itself"

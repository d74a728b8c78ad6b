"""Between JSON and what DSPy takes and gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import date, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from manybridge.bridge import BridgeError
from manybridge.protocol.codec import marker_for
from manybridge.protocol.errors import ErrorCode

_STEP: Final = re.compile(r"(thought|tool_name|tool_args|observation)_\d+")
"""A key of what an agent of DSPy did, which is no output field."""

UNTYPED: Final = "IS_TYPE_UNDEFINED"
"""DSPy's mark on a field of a string signature that names no type: it takes any value."""


def check_inputs(signature: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Check a call's inputs against a signature and turn them into what its types say.

    DSPy itself only logs a warning for a missing input, calls the model, and bills it.

    Raises:
        BridgeError: `invalid_argument`, with every problem in `details["problems"]`.
    """
    declared = signature.input_fields
    problems = [f"inputs.{name}: unknown input" for name in inputs if name not in declared]
    checked: dict[str, Any] = {}
    for name, info in declared.items():
        if name in inputs:
            checked[name] = _check_one(name, info, inputs[name], problems)
        elif info.is_required() and not _takes_none(info.annotation):
            problems.append(f"inputs.{name}: missing")
    if problems:
        takes = ", ".join(declared)
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{'; '.join(problems)}. This program takes: {takes}.",
            details={"problems": problems, "known": list(declared)},
        )
    return checked


def _check_one(name: str, info: Any, value: Any, problems: list[str]) -> Any:
    if (info.json_schema_extra or {}).get(UNTYPED):
        return promptable(value)
    import pydantic

    try:
        return pydantic.TypeAdapter(info.annotation).validate_python(value)
    except pydantic.ValidationError as error:
        # Only the first complaint, and not pydantic's own text, which repeats the value.
        first = error.errors(include_input=False, include_url=False)[0]
        path = "".join(f"[{step!r}]" for step in first["loc"])
        problems.append(f"inputs.{name}{path}: {first['msg']}")
        return None


def promptable(value: Any) -> Any:
    """What DSPy can write into a prompt where no type is known: of a list, it takes every member for a text.

    A tuple becomes JSON.
    """
    if isinstance(value, list) and not all(isinstance(each, str) for each in value):
        return tuple(value)
    return value


def _takes_none(annotation: Any) -> bool:
    return type(None) in getattr(annotation, "__args__", ())


def to_json(value: Any) -> Any:
    """Turn what a program returned into JSON values; what has no JSON form becomes the codec's marker."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: to_json(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "model_dump"):
        return to_json(value.model_dump(mode="json"))
    if hasattr(value, "toDict"):
        return to_json(value.toDict())
    return marker_for(value)


def read_prediction(prediction: Any) -> dict[str, Any]:
    """What a program answered: `outputs`, and for an agent `trace`, its steps in order."""
    if hasattr(prediction, "items") and callable(prediction.items):
        outputs = {str(name): to_json(value) for name, value in prediction.items()}
    else:
        outputs = {"result": to_json(prediction)}
    trajectory = outputs.get("trajectory")
    if not isinstance(trajectory, dict) or not all(map(_STEP.fullmatch, trajectory)):
        return {"outputs": outputs}
    del outputs["trajectory"]
    return {"outputs": outputs, "trace": _steps(trajectory)}


def _steps(trajectory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """From DSPy's numbered keys (`thought_0`, `tool_name_0`, ...) to one object per step."""
    steps: dict[int, dict[str, Any]] = {}
    for key, value in trajectory.items():
        name, _, number = key.rpartition("_")
        if name and number.isdecimal():
            steps.setdefault(int(number), {})[name] = value
    return [steps[number] for number in sorted(steps)]


def make_examples(dspy: Any, rows: list[dict[str, Any]], inputs: list[str], argument: str) -> list[Any]:
    """Make DSPy examples of JSON objects, with the given fields as inputs and all others as labels.

    Raises:
        BridgeError: `invalid_argument` for an empty list, or a row that lacks an input.
    """
    if not rows:
        raise BridgeError(ErrorCode.INVALID_ARGUMENT, f"{argument}: expected at least one example, found none")
    for position, row in enumerate(rows):
        missing = [name for name in inputs if name not in row]
        if missing:
            raise BridgeError(
                ErrorCode.INVALID_ARGUMENT,
                f"{argument}[{position}]: lacks {', '.join(missing)}; each example needs {', '.join(inputs)}",
            )
    return [dspy.Example(**row).with_inputs(*inputs) for row in rows]

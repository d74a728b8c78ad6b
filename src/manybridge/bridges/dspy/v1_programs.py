"""Version 1 programs: signatures made at run time from what Elixir sends, and how they run."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, Final

ANONYMOUS: Final = "anonymous"
"""The session id that DSPex's adapters send when there is no session."""

FALLBACK: Final = "question -> answer"

_signature_classes: dict[str, tuple[Any, dict[str, str]]] = {}
"""Signatures with the same JSON share one class, because making one takes milliseconds and DSPex makes many."""


@dataclass(slots=True)
class StoredProgram:
    """One program and its counts.

    Attributes:
        signature: as it was sent.
        names: original field name -> field of the DSPy signature; empty for the fallback program.
        is_dynamic: whether the declared fields are honoured, or everything is one question and one answer.
    """

    signature: Any
    program: Any
    names: dict[str, str] = field(default_factory=dict)
    is_dynamic: bool = False
    is_gemini: bool = False
    created_at: float = field(default_factory=time.time)
    execution_count: int = 0
    last_executed: float | None = None

    def count_execution(self) -> None:
        """Note that it ran."""
        self.execution_count += 1
        self.last_executed = time.time()

    def describe(self) -> dict[str, Any]:
        """The fields that `list_programs` and `get_program_info` share."""
        return {
            "created_at": self.created_at,
            "execution_count": self.execution_count,
            "last_executed": self.last_executed,
            "signature": self.signature,
        }


def make_program(dspy: Any, signature: Any, wants_dynamic: Any) -> StoredProgram:
    """Make the program of `create_program`.

    A signature that can't be built falls back in silence, as it always did.

    Raises:
        AttributeError: the signature is neither empty nor an object; the text says which type it is.
    """
    if wants_dynamic and signature and signature.get("inputs") and signature.get("outputs"):
        try:
            made, names = signature_class(dspy, signature)
            return StoredProgram(signature, dspy.Predict(made), names, is_dynamic=True)
        except Exception:  # noqa: BLE001, S110  # whatever the caller sent, it gets a program
            pass
    return StoredProgram(signature, dspy.Predict(FALLBACK))


def recreate_program(dspy: Any, data: Any) -> StoredProgram:
    """Make a program of what Elixir stored for a named session.

    Elixir never stores `signature_class`, and without it the program is the fallback. That is how named sessions
    have always answered.
    """
    signature = data.get("signature_def", {})
    wants_dynamic = data.get("signature_class") and not data.get("fallback_used", False) and signature
    stored = StoredProgram(signature, dspy.Predict(FALLBACK))
    if wants_dynamic:
        try:
            made, names = signature_class(dspy, signature)
            stored = StoredProgram(signature, dspy.Predict(made), names, is_dynamic=True)
        except Exception:  # noqa: BLE001, S110  # as in make_program
            pass
    stored.created_at = data.get("created_at", stored.created_at)
    stored.execution_count = data.get("execution_count", 0)
    stored.last_executed = data.get("last_executed")
    return stored


def signature_class(dspy: Any, signature: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    """Make, or find, the DSPy signature of a definition, with the mapping of its field names.

    Raises:
        ValueError: a field is not an object or has no name.
    """
    key = json.dumps(signature, sort_keys=True)
    if key not in _signature_classes:
        _signature_classes[key] = _make_class(dspy, signature)
    return _signature_classes[key]


def _make_class(dspy: Any, signature: dict[str, Any]) -> tuple[Any, dict[str, str]]:
    attributes: dict[str, Any] = {"__doc__": signature.get("description", "A dynamically generated DSPy signature.")}
    names: dict[str, str] = {}
    for kind, make_field in (("Input", dspy.InputField), ("Output", dspy.OutputField)):
        for described in signature[f"{kind.lower()}s"]:
            name = described.get("name") if isinstance(described, dict) else None
            if not name:
                raise ValueError("every field is an object with a name")
            names[name] = field_name(name, len(names))
            text = described.get("description", f"{kind} field: {name}")
            attributes[names[name]] = make_field(desc=text)
    return type(dspy.Signature)(class_name(signature), (dspy.Signature,), attributes), names


def field_name(name: str, position: int) -> str:
    """Turn any name into one that a DSPy field may have; `position` counts the fields before it."""
    cleaned = re.sub(r"\W|^(?=\d)", "_", name)
    return f"field_{position}" if not cleaned or cleaned.startswith("_") else cleaned


def class_name(signature: dict[str, Any]) -> str:
    """The signature's class name: the last part of an Elixir module's name."""
    last = signature.get("name", "DynamicSignature").split(".")[-1]
    cleaned: str = re.sub(r"\W|^(?=\d)", "_", last)
    return cleaned if cleaned and not cleaned.startswith("_") else f"Dynamic_{int(time.time())}"


def run_program(dspy: Any, lm: Any, stored: StoredProgram, inputs: Any) -> dict[str, Any]:
    """Run a program and return its outputs under the names that Elixir knows."""
    with dspy.context(lm=lm, disable_history=True, trace=[]):
        if not stored.is_dynamic:
            question = inputs.get("question", next(iter(inputs.values())) if inputs else "")
            prediction = stored.program(question=question)
            stored.count_execution()
            return {"answer": getattr(prediction, "answer", str(prediction))}
        prediction = stored.program(**{stored.names.get(name, name): value for name, value in inputs.items()})
    stored.count_execution()
    declared = [described["name"] for described in stored.signature["outputs"]]
    return {name: _output(prediction, stored.names[name]) for name in declared}


def _output(prediction: Any, name: str) -> Any:
    return getattr(prediction, name, f"Field '{name}' not found in prediction.")

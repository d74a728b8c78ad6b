"""The parameters of faults: read from the signatures of their methods, and checked before anything is struck."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from math import isfinite
from typing import Any, get_type_hints

import msgspec


def parameters_of(method: Callable[..., Any]) -> dict[str, Any]:
    """Return the parameters of a fault's method and their types."""
    hints = get_type_hints(method)
    return {
        name: hints[name]
        for name, parameter in inspect.signature(method).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def parameter_problems(method: Callable[..., Any], given: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the parameters that a caller gave for a fault."""
    known = parameters_of(method)
    for name, value in given.items():
        if name not in known:
            yield f"{name}: is unknown{near(name, known)}"
            continue
        try:
            msgspec.convert(value, known[name])
        except msgspec.ValidationError as error:
            yield f"{name}: {error}; found {value!r}"
        else:
            if problem := number_problem(value):
                yield f"{name}: {problem}"


def number_problem(value: Any) -> str | None:
    """Return what is wrong with a number that counts or measures something; None if nothing is, or it is no number.

    TOML can say `nan` and `inf`: nothing happens at such a time, or for so long.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return None if isfinite(value) and value >= 0 else f"must be a finite number from 0 on, found {value}"


def near(name: str, known: Any) -> str:
    """Return the end of a message about an unknown name: the one that is meant, or all there are."""
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(sorted(known))}"

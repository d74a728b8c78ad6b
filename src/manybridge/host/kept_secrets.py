"""What is not written down: which values of settings and arguments are keys, and what stands in their place.

Narrower than what a configuration hides when it is shown: a value that is taken for a key here is refused or lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

MASK: Final = "***"
"""Stands where a secret was."""

MIN_SECRET_LENGTH: Final = 6
"""A shorter "key" is a stand-in, such as "none" for an endpoint that takes any; it is no secret."""

MAX_DEPTH: Final = 100
"""What lies deeper in a copy is left out: no arguments that people write are, and Python's own limit is near."""

_SECRET: Final = re.compile(
    r"(api_?key|access_?key|private_?key|secret(_?key)?|token|passw(or)?d|credentials?|authorization)$", re.IGNORECASE
)
"""Only names that are a secret's for certain, `api_key_env` and `max_tokens` not among them."""

_URL_WITH_PASSWORD: Final = re.compile(r"[a-z][\w+.-]*://[^/\s:@]*:[^/\s@]+@", re.IGNORECASE)


def is_secret(name: object, value: object) -> bool:
    """Whether a value is a key: by its name, or as an address with a password in it."""
    if not isinstance(value, str):
        return False
    return (len(value) >= MIN_SECRET_LENGTH and _SECRET.search(str(name)) is not None) or (
        _URL_WITH_PASSWORD.match(value) is not None
    )


def secret_paths(value: Any, path: str) -> Iterator[str]:
    """Yield where keys are in a JSON value."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if is_secret(name, each):
                yield f"{path}.{name}"
            yield from secret_paths(each, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from secret_paths(each, f"{path}[{index}]")


def without_keys(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a copy of a JSON value with `***` in the place of each key, and of what is nested too deeply."""
    if isinstance(value, (Mapping, list, tuple)):
        if not depth:
            return MASK
        if isinstance(value, Mapping):
            return {
                name: MASK if is_secret(name, each) else without_keys(each, depth - 1) for name, each in value.items()
            }
        return [without_keys(each, depth - 1) for each in value]
    return value

"""What the bridge's options and a program's model settings must be: told at the start, not by the first call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from manybridge.bridge import BridgeError
from manybridge.bridges.dspy.execution import ADAPTERS
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import json_type


class _Kind(NamedTuple):
    fits: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.lower().startswith(("http://", "https://"))


_TEXT: Final = _Kind(lambda value: isinstance(value, str), "a text")
_TEXTS: Final = _Kind(_is_texts, "a list of strings")

_SETTINGS: Final[Mapping[str, _Kind]] = {
    "model": _Kind(lambda value: isinstance(value, str) and value != "", "a name such as 'openai/gpt-4o-mini'"),
    "api_key": _TEXT,
    "api_key_env": _Kind(_TEXT.fits, "the name of an environment variable"),
    "api_base": _Kind(_is_address, "an address such as 'http://localhost:8000/v1'"),
    "temperature": _Kind(_is_number, "a number"),
    "max_tokens": _Kind(lambda value: _is_whole(value) and value > 0, "a whole number above 0"),
    "timeout": _Kind(lambda value: _is_number(value) and value > 0, "a number of seconds above 0"),
    "cache": _Kind(lambda value: isinstance(value, bool), "true or false"),
    "num_retries": _Kind(lambda value: _is_whole(value) and value >= 0, "a whole number from 0 on"),
}
"""Those of a model, as in `lm.LMSettings`."""

_OPTIONS: Final[Mapping[str, _Kind]] = {
    **_SETTINGS,
    "adapter": _Kind(lambda value: isinstance(value, str) and value in ADAPTERS, f"one of {', '.join(ADAPTERS)}"),
    "allow_modules": _TEXTS,
    "search_path": _TEXTS,
}


def check_options(options: Mapping[str, Any]) -> None:
    """Check what the configuration says to the bridge; null means that nothing is said.

    Raises:
        BridgeError: `config_error`, an option is unknown or of the wrong type. No value is shown: it may be a key.
    """
    for name, value in options.items():
        kind = _OPTIONS.get(name)
        if kind is None:
            text = f"unknown option {name!r}; known: {', '.join(_OPTIONS)}"
            raise BridgeError(ErrorCode.CONFIG_ERROR, f"options of the DSPy bridge: {text}")
        if (problem := _problem(kind, value)) is not None:
            raise BridgeError(ErrorCode.CONFIG_ERROR, f"options.{name}: {problem}")


def check_model(settings: Mapping[str, Any], where: str) -> None:
    """Check the model settings that a caller sent.

    Args:
        settings: null means that nothing is said.
        where: goes before the name of a setting that is wrong.

    Raises:
        BridgeError: `invalid_argument`, a setting is unknown or of the wrong type.
    """
    for name, value in settings.items():
        kind = _SETTINGS.get(name)
        problem = f"unknown setting; known: {', '.join(_SETTINGS)}" if kind is None else _problem(kind, value)
        if problem is not None:
            argument = f"{where}{name}"
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, f"{argument}: {problem}", details={"argument": argument})


def _problem(kind: _Kind, value: Any) -> str | None:
    return None if value is None or kind.fits(value) else f"expected {kind.words}, found {json_type(value)}"

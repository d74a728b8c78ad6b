"""The options of the LangChain bridge, checked."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Final, NamedTuple

from manybridge.bridge import BridgeError
from manybridge.bridges.common.keys import required_variable
from manybridge.bridges.langchain.agents import RECURSION_LIMIT
from manybridge.bridges.langchain.models import SETTING_NAMES, ModelSettings, check_settings, overlay
from manybridge.bridges.langchain.tools import ToolDefaults, read_errors
from manybridge.protocol.errors import ErrorCode

OTHERS: Final = (
    "allow_modules", "embedding_model", "memory_folder", "recursion_limit", "search_path", "tool_errors",
    "tool_timeout",
)  # fmt: skip
KNOWN: Final = (*SETTING_NAMES, *OTHERS)


class Options(NamedTuple):
    """What `[bridges.langchain] options = {...}` says."""

    model: ModelSettings | None
    embedding_model: str | None
    memory_folder: str | None
    recursion_limit: int
    tools: ToolDefaults
    allow_modules: tuple[str, ...]
    search_path: tuple[str, ...]


def read_options(given: Mapping[str, Any]) -> Options:
    """Read the options; no model is contacted.

    Raises:
        BridgeError: `config_error` for an unknown or mistyped option, `missing_variable` for a key that is not there.
    """
    for name in given:
        if name not in KNOWN:
            raise _wrong(name, f"unknown; known: {', '.join(KNOWN)}")
    try:
        model = _read_model(given)
        errors = read_errors(given.get("tool_errors", "model"), "tool_errors")
    except BridgeError as error:
        if error.code is not ErrorCode.INVALID_ARGUMENT:
            raise
        raise BridgeError(ErrorCode.CONFIG_ERROR, f"options: {error.message}", details=error.details) from error
    limit = given.get("recursion_limit", RECURSION_LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise _wrong("recursion_limit", "expected a whole number from 1 on")
    timeout = given.get("tool_timeout")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < inf
    ):
        raise _wrong("tool_timeout", "expected seconds above 0")
    return Options(
        model, _text(given, "embedding_model"), _text(given, "memory_folder"), limit, ToolDefaults(timeout, errors),
        _texts(given, "allow_modules"), _texts(given, "search_path"),
    )  # fmt: skip


def _read_model(given: Mapping[str, Any]) -> ModelSettings | None:
    settings = {name: given[name] for name in SETTING_NAMES if name in given}
    if "model" not in settings:
        if settings:
            check_settings(settings, "options", trusted=True)
            raise _wrong(min(settings), "belongs to a model, and the option model is missing")
        return None
    model = overlay(None, settings, trusted=True, where="options")
    if model.api_key_env:
        required_variable(model.api_key_env)
    return model


def _text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise _wrong(name, "expected a text")
    return value


def _texts(given: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = given.get(name, [])
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise _wrong(name, "expected an array of texts")
    return tuple(value)


def _wrong(name: str, problem: str) -> BridgeError:
    return BridgeError(
        ErrorCode.CONFIG_ERROR, f"options of the LangChain bridge: {name}: {problem}", details={"key": name}
    )

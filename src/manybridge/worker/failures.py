"""From an exception in the bridge's code to the `error_info` that the caller gets."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode, is_retryable
from manybridge.protocol.messages import ErrorInfo

if TYPE_CHECKING:
    from manybridge.bridge import Bridge

MAX_TRACEBACK_CHARACTERS: Final = 8_000
"""The end of a traceback says where it broke; a recursion error's beginning repeats itself."""

MAX_MESSAGE_CHARACTERS: Final = 4_000

_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHORTEST_SECRET: Final = 8
"""Shorter values are words such as `test`; hiding those would only garble messages."""


def describe(error: BaseException, bridge: Bridge | None, framework: str | None) -> ErrorInfo:
    """Say what went wrong. Asks the bridge to translate; never raises."""
    try:
        return _describe(error, bridge, framework)
    except Exception as failure:  # noqa: BLE001  # a border: describing an error must not lose it
        text = f"{type(error).__qualname__} (and describing it failed with {type(failure).__qualname__})"
        return ErrorInfo(ErrorCode.HANDLER_ERROR, text, framework=framework, type=type(error).__qualname__)


def _describe(error: BaseException, bridge: Bridge | None, framework: str | None) -> ErrorInfo:
    known = error if isinstance(error, BridgeError) else _translated(error, bridge)
    if known is not None:
        details = known.details
        kind = known.type or (None if known is error else type(error).__qualname__)
        return ErrorInfo(
            known.code.value, redact(known.message), known.retryable, framework, kind, redact_value(details)
        )
    code = ErrorCode.OUT_OF_MEMORY if isinstance(error, MemoryError) else ErrorCode.HANDLER_ERROR
    return ErrorInfo(
        code.value,
        redact(_message(error))[:MAX_MESSAGE_CHARACTERS],
        is_retryable(code),
        framework,
        type(error).__qualname__,
        {},
        redact(_traceback(error)),
    )


def _translated(error: BaseException, bridge: Bridge | None) -> BridgeError | None:
    return None if bridge is None else bridge.translate_error(error)


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"The handler called sys.exit({error.code!r}); the worker goes on."
    return str(error) or type(error).__qualname__


def _traceback(error: BaseException) -> str:
    from traceback import format_exception

    frame = error.__traceback__
    while frame is not None and os.path.dirname(frame.tb_frame.f_code.co_filename) == _OWN_FOLDER:
        frame = frame.tb_next  # our own frames tell the author of a bridge nothing
    text = "".join(format_exception(type(error), error, frame))
    return text if len(text) <= MAX_TRACEBACK_CHARACTERS else f"...{text[-MAX_TRACEBACK_CHARACTERS:]}"


_OWN_FOLDER: Final = os.path.dirname(os.path.abspath(__file__))


def redact(text: str) -> str:
    """Replace the values of environment variables that are named like secrets."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and value in text and _SECRET_NAME.search(name):
            text = text.replace(value, f"<{name}>")
    return text


def redact_value(value: Any) -> Any:
    """`redact` for every string inside a JSON value."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(item) for item in value]
    return value

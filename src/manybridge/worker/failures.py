"""From an exception in the bridge's code to the `error_info` that the caller gets."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridge.loading import missing_modules
from manybridge.protocol.errors import ErrorCode, is_retryable
from manybridge.protocol.messages import ErrorInfo

if TYPE_CHECKING:
    from manybridge.bridge import Bridge

MAX_TRACEBACK_CHARACTERS: Final = 8_000
"""The end of a traceback says where it broke; a recursion error's beginning repeats itself."""

MAX_MESSAGE_CHARACTERS: Final = 4_000

_SECRET_NAME: Final = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SECRET_OPTION: Final = re.compile(
    r"((api|access|secret|private|auth)_?key|token|secret|password|passwd|credentials?)$", re.IGNORECASE
)
"""Narrower than for variables: options are also called `tokenizer` and `primary_key`."""

_SHORTEST_SECRET: Final = 8
"""Shorter values are words such as `test`; hiding those would only garble messages."""


def describe(error: BaseException, bridge: Bridge | None, framework: str | None) -> ErrorInfo:
    """Say what went wrong. Asks the bridge to translate; never raises."""
    try:
        known = error if isinstance(error, BridgeError) else _translated(error, bridge)
        if known is not None:
            return _of_bridge_error(known, error, framework)
    except Exception:  # noqa: BLE001, S110  # an error class of the user's that can't be read is described as any other
        pass
    code = ErrorCode.OUT_OF_MEMORY if isinstance(error, MemoryError) else ErrorCode.HANDLER_ERROR
    kind = type(error).__qualname__
    return ErrorInfo(code.value, error_text(error), is_retryable(code), framework, kind, {}, _traceback(error))


def error_text(error: BaseException) -> str:
    """One line or more for people; never raises, never empty."""
    try:
        return redact(_message(error))[:MAX_MESSAGE_CHARACTERS]
    except Exception as failure:  # noqa: BLE001  # a border: __str__ is user code
        return f"{type(error).__qualname__} (its text can't be had: {type(failure).__qualname__})"


def _of_bridge_error(known: BridgeError, error: BaseException, framework: str | None) -> ErrorInfo:
    kind = known.type or (None if known is error else type(error).__qualname__)
    message = redact(str(known.message))[:MAX_MESSAGE_CHARACTERS]
    traceback = None if known.traceback is None else _shortened(redact(str(known.traceback)))
    details = redact_value(known.details)
    return ErrorInfo(known.code.value, message, bool(known.retryable), framework, kind, details, traceback)


def _translated(error: BaseException, bridge: Bridge | None) -> BridgeError | None:
    try:
        translated = None if bridge is None else bridge.translate_error(error)
    except Exception as failure:  # noqa: BLE001  # user code; the first error is the one that the caller must see
        sys.stderr.write(f"translate_error failed with {type(failure).__qualname__}: {error_text(failure)}\n")
        return None
    if isinstance(translated, BridgeError):
        return translated
    if isinstance(error, ModuleNotFoundError) and error.name and bridge is not None:
        return missing_modules(bridge.name, [error.name])
    return None


def _message(error: BaseException) -> str:
    if isinstance(error, BridgeError):
        return str(error.message)
    if isinstance(error, SystemExit):
        return f"The handler called sys.exit({error.code!r}); the worker goes on."
    if isinstance(error, KeyError):  # whose text is the key alone, which says nothing by itself
        return f"{type(error).__qualname__}: {error}"
    return str(error) or type(error).__qualname__


def _traceback(error: BaseException) -> str | None:
    from traceback import format_exception

    frame = error.__traceback__
    while frame is not None and os.path.dirname(frame.tb_frame.f_code.co_filename) == _OWN_FOLDER:
        frame = frame.tb_next  # our own frames tell the author of a bridge nothing
    try:
        text = redact("".join(format_exception(type(error), error, frame)))
    except Exception:  # noqa: BLE001  # a border: __str__ and __repr__ are user code
        return None
    return _shortened(text)


def _shortened(text: str) -> str:
    """The end of a traceback. Cut after redacting: half a key would not be recognised."""
    return text if len(text) <= MAX_TRACEBACK_CHARACTERS else f"...{text[-MAX_TRACEBACK_CHARACTERS:]}"


_OWN_FOLDER: Final = os.path.dirname(os.path.abspath(__file__))


_option_secrets: dict[str, str] = {}
"""Value -> name, of the bridge's options that are named like secrets."""


def hide_options(options: Any, name: str = "options") -> None:
    """Remember the values of options that are named like secrets, so that `redact` hides them too."""
    if isinstance(options, dict):
        for key, value in options.items():
            hide_options(value, f"{name}.{key}")
    elif isinstance(options, list):
        for value in options:
            hide_options(value, name)
    elif isinstance(options, str) and len(options) >= _SHORTEST_SECRET and _SECRET_OPTION.search(name):
        _option_secrets[options] = name


def redact(text: str) -> str:
    """Replace the values of environment variables and options that are named like secrets, the longest first."""
    variables = {
        value: name
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name)
    }
    secrets = variables | _option_secrets
    for value in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        if value in text:
            text = text.replace(value, f"<{secrets[value]}>")
    return text


def redact_value(value: Any) -> Any:
    """`redact` for every string inside a JSON value, keys included."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key) if isinstance(key, str) else key: redact_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_value(item) for item in value]
    return value

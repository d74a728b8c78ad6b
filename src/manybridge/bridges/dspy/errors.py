"""From DSPy's exceptions to the codes of the shared taxonomy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.keys import Secrets
from manybridge.bridges.common.problems import only_member
from manybridge.bridges.dspy.answers import UnreadableAnswerError
from manybridge.protocol.errors import ErrorCode

# In order, because subclasses come before their parents. Names and not classes: DSPy is not imported here, and a
# class that some version lacks is simply never seen.
CODES: Final[tuple[tuple[str, ErrorCode], ...]] = (
    ("ContextWindowExceededError", ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    ("LMUnsupportedModelError", ErrorCode.PROVIDER_NOT_FOUND),
    ("LMInvalidRequestError", ErrorCode.PROVIDER_BAD_REQUEST),
    ("LMAuthError", ErrorCode.PROVIDER_AUTH),
    ("LMBillingError", ErrorCode.PROVIDER_AUTH),
    ("LMRateLimitError", ErrorCode.RATE_LIMITED),
    ("LMTimeoutError", ErrorCode.PROVIDER_TIMEOUT),
    ("LMServerError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("LMTransportError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("LMLockTimeoutError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("LMStreamAssemblyError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("LMNotConfiguredError", ErrorCode.PROVIDER_AUTH),
    ("LMUnsupportedFeatureError", ErrorCode.NOT_SUPPORTED),
    ("LMConfigurationError", ErrorCode.CONFIG_ERROR),
    ("LMProviderError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("LMError", ErrorCode.HANDLER_ERROR),
)
_NOT_FOUND: Final = 404
_REFUSALS: Final = range(400, 500)

FACTS: Final = ("status", "provider", "provider_code", "model", "request_id", "retry_after")
"""Attributes of DSPy's errors that say something to a program and carry no text of the caller."""


def translate(error: BaseException, secrets: Secrets) -> BridgeError | None:
    """Translate an exception that came out of DSPy; None for one that is not DSPy's."""
    error = only_member(error)
    if isinstance(error, BridgeError):
        return error
    if isinstance(error, UnreadableAnswerError):
        text, details = secrets.clean(str(error)), {"model": error.model}
        return BridgeError(ErrorCode.PROVIDER_UNAVAILABLE, text, details=details, type=error.kind)
    names = [cls.__name__ for cls in type(error).__mro__ if cls.__module__.split(".")[0] == "dspy"]
    if "AdapterParseError" in names:
        return _not_parsed(error)
    if "CodeInterpreterError" in names and "Deno" in str(error):
        return _no_deno(error)
    code = next((code for name, code in CODES if name in names), None)
    if code is None:
        return _not_configured(error)
    code = _more_exactly(code, error)
    details = {name: value for name in FACTS if (value := getattr(error, name, None)) is not None}
    # What follows the first paragraph is advice on how to call DSPy, which the caller does not.
    message = secrets.clean(str(error).split("\n\n", 1)[0]).rstrip()
    if message.endswith("]") and "status" in details:  # the model's name is all that there is
        message = f"{message} HTTP {details['status']}"
    return BridgeError(code, message, details=details, type=type(error).__name__)


def _more_exactly(code: ErrorCode, error: BaseException) -> ErrorCode:
    """Say what DSPy's class leaves open."""
    status = getattr(error, "status", None)
    if code is ErrorCode.PROVIDER_BAD_REQUEST and status == _NOT_FOUND:
        return ErrorCode.PROVIDER_NOT_FOUND  # an address that nobody serves; of a model DSPy knows it itself
    if code is not ErrorCode.PROVIDER_UNAVAILABLE:
        return code
    if status in _REFUSALS and type(error).__name__ == "LMProviderError":
        return ErrorCode.PROVIDER_BAD_REQUEST
    return ErrorCode.PROVIDER_TIMEOUT if _timed_out(error) else code


def _not_parsed(error: Any) -> BridgeError:
    """The text of the answer stays out: it may be the caller's data, and it is long."""
    expected = list(error.signature.output_fields)
    found = list(error.parsed_result) if isinstance(error.parsed_result, dict) else []
    answer = error.lm_response if isinstance(error.lm_response, str) else ""
    return BridgeError(
        ErrorCode.OUTPUT_NOT_PARSED,
        f"The model answered, but not with the fields {', '.join(expected)} in the form that {error.adapter_name} "
        f"reads (the answer has {len(answer)} characters).",
        details={"adapter": error.adapter_name, "expected": expected, "found": found},
        type=type(error).__name__,
    )


def _no_deno(error: BaseException) -> BridgeError:
    install = 'pip install "dspy[deno]"'
    return BridgeError(
        ErrorCode.MISSING_PACKAGE,
        f"Programs that write code run it with Deno, which the environment of this bridge does not have: {install}",
        details={"package": "deno", "install": install},
        type=type(error).__name__,
    )


def _not_configured(error: BaseException) -> BridgeError | None:
    if isinstance(error, ValueError) and str(error).startswith("No LM is loaded"):
        return BridgeError(ErrorCode.CONFIG_ERROR, "No language model is configured.", type="ValueError")
    return None


def _timed_out(error: BaseException) -> bool:
    """DSPy reports a provider that did not answer as a transport error; its cause, or its words, tell."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError) or "timeout" in type(cause).__name__.lower():
            return True
        cause = cause.__cause__ or cause.__context__
    return "timed out" in str(error).lower()


class Translation:
    """Context manager: DSPy's exceptions leave it as `BridgeError`.

    Args:
        rename: makes another exception of a BridgeError, where a caller needs a different one.
    """

    def __init__(self, secrets: Secrets, rename: Callable[[BridgeError], BaseException] | None = None) -> None:
        self._secrets = secrets
        self._rename = rename

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise the translation, if there is one."""
        translated = translate(error, self._secrets) if isinstance(error, Exception) else None
        if translated is None or translated is error:
            return
        raise (self._rename(translated) if self._rename else translated) from error

"""From the exceptions of LangChain, LangGraph and the providers' clients to the codes of the shared taxonomy."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from json import JSONDecodeError
from math import inf
from traceback import walk_tb
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.keys import Secrets
from manybridge.bridges.common.problems import only_member
from manybridge.protocol.errors import ErrorCode

# In order, because subclasses come before their parents, and LangChain's own classes before those of a provider's
# client, from which they derive too. Names and not classes: nothing is imported here, and a class that some version
# lacks is simply never seen.
CODES: Final[tuple[tuple[str, ErrorCode], ...]] = (
    ("OutputParserException", ErrorCode.OUTPUT_NOT_PARSED),
    ("StructuredOutputError", ErrorCode.OUTPUT_NOT_PARSED),
    ("LengthFinishReasonError", ErrorCode.OUTPUT_NOT_PARSED),
    ("ContextOverflowError", ErrorCode.CONTEXT_LENGTH_EXCEEDED),
    ("ModelAuthenticationError", ErrorCode.PROVIDER_AUTH),
    ("ModelPermissionDeniedError", ErrorCode.PROVIDER_AUTH),
    ("ModelRateLimitError", ErrorCode.RATE_LIMITED),
    ("ModelNotFoundError", ErrorCode.PROVIDER_NOT_FOUND),
    ("ModelInvalidRequestError", ErrorCode.PROVIDER_BAD_REQUEST),
    ("ModelTimeoutError", ErrorCode.PROVIDER_TIMEOUT),
    ("ModelConnectionError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("ModelAPIError", ErrorCode.PROVIDER_UNAVAILABLE),
    # The same conditions as providers' clients name them, for plug-ins without LangChain's classes.
    ("AuthenticationError", ErrorCode.PROVIDER_AUTH),
    ("PermissionDeniedError", ErrorCode.PROVIDER_AUTH),
    ("RateLimitError", ErrorCode.RATE_LIMITED),
    ("NotFoundError", ErrorCode.PROVIDER_NOT_FOUND),
    ("BadRequestError", ErrorCode.PROVIDER_BAD_REQUEST),
    ("UnprocessableEntityError", ErrorCode.PROVIDER_BAD_REQUEST),
    ("APITimeoutError", ErrorCode.PROVIDER_TIMEOUT),
    ("APIConnectionError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("InternalServerError", ErrorCode.PROVIDER_UNAVAILABLE),
)
"""For exceptions of a module that is not the user's own."""

TRANSPORT: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "aiohttp", "requests", "urllib3")
"""Modules whose errors say that the way to the provider broke, for example in the middle of a stream."""

FOREIGN: Final = frozenset({"builtins", "asyncio", "json", "sqlite3", "manybridge"})
"""Modules whose exceptions are nobody's provider's."""

REFUSED: Final = 400
"""HTTP statuses from here on are no answers."""

SERVER_ERROR: Final = 500
"""HTTP statuses from here on are the server's fault."""

TERSE: Final = 25
"""Characters; a shorter text, such as "Connection error.", says less than what it was made of."""

TOO_LONG: Final = ("context_length_exceeded", "string_above_max_length")
NO_MONEY: Final = ("insufficient_quota", "billing_hard_limit_reached")
TOO_FAST: Final = ("rate_limit_exceeded", "rate_limit_error")
NO_KEY: Final = ("invalid_api_key", "authentication_error")

_READS_AN_ANSWER: Final = re.compile(r"result|chunk|delta|response")
"""In the names of the functions with which plug-ins take an answer apart. Those that make a request have others."""


class UnreadableAnswerError(Exception):
    """What came from a provider is no answer; `__cause__` is what the plug-in made of it."""


def is_unreadable(error: BaseException) -> bool:
    """Whether a model's request failed because of what came back, and not because of what was to be sent.

    Plug-ins look for their fields in whatever JSON they get, so garbage is a `TypeError` or an `IndexError` of theirs.
    """
    if isinstance(error, JSONDecodeError) or str(error).startswith("No generation chunks"):
        return True
    if not isinstance(error, ValueError | TypeError | LookupError | AttributeError):
        return False
    return any(_READS_AN_ANSWER.search(frame.f_code.co_name) for frame, _ in walk_tb(error.__traceback__))


def translate(error: BaseException, secrets: Secrets) -> BridgeError | None:
    """Translate what a handler of this bridge raised; None for what is not the framework's or a provider's."""
    error = only_member(error)
    if isinstance(error, BridgeError):
        return error
    if isinstance(error, UnreadableAnswerError):
        return _not_an_answer(error.__cause__ or error, secrets)
    names = [cls.__name__ for cls in type(error).__mro__]
    if "GraphRecursionError" in names:
        return _too_many_steps(error)
    code = _code_of(error, names)
    if code is None:
        return None
    details = _details_of(error)
    if code is ErrorCode.OUTPUT_NOT_PARSED:
        return _not_parsed(error)
    return BridgeError(code, secrets.clean(_message_of(error)), details=details, type=type(error).__name__)


def _code_of(error: BaseException, names: list[str]) -> ErrorCode | None:
    homes = {cls.__module__.partition(".")[0] for cls in type(error).__mro__} - FOREIGN
    if not homes:
        return None
    code = next((code for name, code in CODES if name in names), None)
    if code is None and homes & set(TRANSPORT):
        return ErrorCode.PROVIDER_TIMEOUT if _timed_out(names) else ErrorCode.PROVIDER_UNAVAILABLE
    if code is None:
        code = _by_status(getattr(error, "status_code", None))
    if code is None and "APIError" in names:
        return _by_words(error)  # in the middle of a stream, where there is no status any more
    provider_code = getattr(error, "code", None)
    if code is ErrorCode.PROVIDER_BAD_REQUEST and _is_too_long(error, provider_code):
        return ErrorCode.CONTEXT_LENGTH_EXCEEDED
    if code is ErrorCode.RATE_LIMITED and provider_code in NO_MONEY:
        return ErrorCode.PROVIDER_AUTH  # waiting does not help
    return code


def _timed_out(names: list[str]) -> bool:
    return any("timeout" in name.lower() for name in names)


def _is_too_long(error: BaseException, code: Any) -> bool:
    """LangChain's OpenAI plug-in looks for the code in `str(error)`, where openai 3 no longer puts it."""
    return code in TOO_LONG or "maximum context length" in str(getattr(error, "message", error))


def _by_status(status: Any) -> ErrorCode | None:
    if not isinstance(status, int) or status < REFUSED:
        return None
    special = {
        401: ErrorCode.PROVIDER_AUTH, 403: ErrorCode.PROVIDER_AUTH, 404: ErrorCode.PROVIDER_NOT_FOUND,
        408: ErrorCode.PROVIDER_TIMEOUT, 429: ErrorCode.RATE_LIMITED,
    }  # fmt: skip
    if status in special:
        return special[status]
    return ErrorCode.PROVIDER_UNAVAILABLE if status >= SERVER_ERROR else ErrorCode.PROVIDER_BAD_REQUEST


def _by_words(error: BaseException) -> ErrorCode:
    said = {getattr(error, "code", None), getattr(error, "type", None)}
    known = (
        (TOO_LONG, ErrorCode.CONTEXT_LENGTH_EXCEEDED), (NO_MONEY, ErrorCode.PROVIDER_AUTH),
        (NO_KEY, ErrorCode.PROVIDER_AUTH), (TOO_FAST, ErrorCode.RATE_LIMITED),
    )  # fmt: skip
    return next((code for words, code in known if said & set(words)), ErrorCode.PROVIDER_UNAVAILABLE)


def _message_of(error: BaseException) -> str:
    said = getattr(error, "message", None)
    text = said if isinstance(said, str) and said else str(error)
    text = text.split("\nFor troubleshooting", 1)[0].strip() or type(error).__name__
    cause = error.__cause__
    while cause is not None and str(cause) in (text, ""):
        cause = cause.__cause__
    return f"{text} ({type(cause).__name__}: {cause})" if cause is not None and len(text) < TERSE else text


def _details_of(error: BaseException) -> dict[str, Any]:
    facts = {
        "status": getattr(error, "status_code", None),
        "provider_code": getattr(error, "code", None),
        "request_id": getattr(error, "request_id", None),
        "retry_after": _retry_after(getattr(error, "response", None)),
    }
    return {name: value for name, value in facts.items() if isinstance(value, str | int | float)}


def _retry_after(response: Any) -> float | None:
    """Seconds that the provider asks for, as a number or as a date; what nobody can wait is left out."""
    headers = getattr(response, "headers", None) or {}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError, TypeError):
            continue
        if 0 <= seconds < inf:  # neither negative nor "nan"
            return seconds
    try:
        return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - time.time())
    except (KeyError, ValueError, TypeError):
        return None


def _not_parsed(error: Any) -> BridgeError:
    """The text of the answer stays out: it may be the caller's data, and it is long."""
    answer = getattr(error, "llm_output", None)
    length = len(answer) if isinstance(answer, str) else None
    told = f" (it has {length} characters)" if length is not None else ""
    return BridgeError(
        ErrorCode.OUTPUT_NOT_PARSED,
        f"The model answered, but not in the form that was asked for{told}.",
        details={} if length is None else {"answer_length": length},
        type=type(error).__name__,
    )


def _not_an_answer(error: BaseException, secrets: Secrets) -> BridgeError:
    return BridgeError(
        ErrorCode.PROVIDER_UNAVAILABLE,
        f"What the provider sent is no answer: {secrets.clean(_message_of(error))}",
        type=type(error).__name__,
    )


def _too_many_steps(error: BaseException) -> BridgeError:
    return BridgeError(
        ErrorCode.HANDLER_ERROR,
        "The agent did not come to an answer within its recursion_limit; raise the limit, or look at what its tools "
        "tell it.",
        details={"limit": "recursion_limit"},
        type=type(error).__name__,
    )

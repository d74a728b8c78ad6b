"""From what PyTorch, Transformers, safetensors and the hub raise to the codes of the shared taxonomy.

Two kinds of rules. Those in `translate` hold wherever the exception comes from: its class or its words say what it is.
A plain `ValueError` says nothing by itself; whoever calls the framework knows whose value it was, and wraps the call in
`blaming`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.transformers.memory import available_bytes, shown
from manybridge.protocol.errors import ErrorCode, is_retryable

MAX_TEXT: Final = 600
"""Characters kept of a framework's message: some list every model class that there is."""

HUB_CODES: Final[tuple[tuple[str, ErrorCode], ...]] = (
    ("GatedRepoError", ErrorCode.PROVIDER_AUTH),
    ("LocalTokenNotFoundError", ErrorCode.PROVIDER_AUTH),
    ("RepositoryNotFoundError", ErrorCode.PROVIDER_NOT_FOUND),
    ("RevisionNotFoundError", ErrorCode.PROVIDER_NOT_FOUND),
    ("EntryNotFoundError", ErrorCode.PROVIDER_NOT_FOUND),
    ("RevisionResolutionError", ErrorCode.PROVIDER_NOT_FOUND),
    ("HFValidationError", ErrorCode.INVALID_ARGUMENT),
    ("BadRequestError", ErrorCode.PROVIDER_BAD_REQUEST),
    ("OfflineModeIsEnabled", ErrorCode.PROVIDER_UNAVAILABLE),
    ("HfHubHTTPError", ErrorCode.PROVIDER_UNAVAILABLE),
    ("HTTPError", ErrorCode.PROVIDER_UNAVAILABLE),
)
"""Names of classes, in order: subclasses come before their parents."""

_ASKED: Final = (
    (re.compile(r"you tried to allocate (\d+) bytes"), 1),
    (re.compile(r"Tried to allocate ([\d.]+) KiB"), 1 << 10),
    (re.compile(r"Tried to allocate ([\d.]+) MiB"), 1 << 20),
    (re.compile(r"Tried to allocate ([\d.]+) GiB"), 1 << 30),
)
_NO_MEMORY: Final = re.compile(r"can't allocate memory|Cannot allocate memory|out of memory|os error 12", re.IGNORECASE)
_REMOTE_CODE: Final = re.compile(r"trust_remote_code|contains custom code")


def translate(error: BaseException) -> BridgeError | None:
    """Translate an exception by what it is; None where that takes somebody who knows the place."""
    if isinstance(error, BridgeError):
        return error
    if is_out_of_memory(error):
        return out_of_memory(error)
    names = [cls.__name__ for cls in type(error).__mro__]
    text = str(error)
    if "PipelineException" in names:  # an input that the pipeline can't use
        return _of(ErrorCode.INVALID_ARGUMENT, "", error)
    if isinstance(error, RuntimeError) and "ignore_mismatched_sizes" in text:
        return _of(ErrorCode.INVALID_ARGUMENT, "The weights have other shapes than config.json says: ", error)
    if "SafetensorError" in names:
        return _of(ErrorCode.INVALID_ARGUMENT, "The weight file is damaged: ", error)
    if _is_hub(error):
        return _of(next((code for name, code in HUB_CODES if name in names), ErrorCode.PROVIDER_UNAVAILABLE), "", error)
    if isinstance(error, ValueError) and _REMOTE_CODE.search(text):
        return remote_code(error)
    if isinstance(error, IndexError) and "index out of range in self" in text:
        return _of(ErrorCode.CONTEXT_LENGTH_EXCEEDED, "A token or its position is beyond the model's tables: ", error)
    if isinstance(error, OSError) and "couldn't connect to" in text.lower():
        return _of(ErrorCode.PROVIDER_UNAVAILABLE, "", error)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the CPU or on a device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | OSError) and bool(_NO_MEMORY.search(str(error)))


def out_of_memory(error: BaseException, needed: int | None = None) -> BridgeError:
    """Say how much was asked for and how much there was.

    Args:
        error: what the framework raised.
        needed: bytes, where its text does not say.
    """
    text = str(error)
    asked = next((int(float(m[1]) * unit) for pattern, unit in _ASKED if (m := pattern.search(text))), needed)
    device = "cuda" if "CUDA" in text or "GPU" in text else "cpu"
    details: dict[str, Any] = {"device": device, "asked_bytes": asked}
    if device == "cpu":
        details["available_bytes"] = available_bytes()
        left = f", {shown(details['available_bytes'])} are available"
    else:
        left = ""
    wanted = "" if asked is None else f" {shown(asked)} were asked for{left}."
    return BridgeError(
        ErrorCode.OUT_OF_MEMORY,
        f"Out of memory on {device}.{wanted} Send fewer or shorter inputs at once, or use a smaller dtype. "
        f"({type(error).__name__}: {first_lines(text)})",
        details=details,
        type=type(error).__name__,
    )


def remote_code(error: BaseException | None = None, name: str = "The model") -> BridgeError:
    """The refusal to run code that comes with a model."""
    return BridgeError(
        ErrorCode.PERMISSION_DENIED,
        f"{name} needs code of its own to be run, which this bridge does not do. If you trust it, set the option "
        "trust_remote_code = true of the bridge.",
        details={"option": "trust_remote_code"},
        type=None if error is None else type(error).__name__,
    )


@contextmanager
def blaming(what: str, code: ErrorCode = ErrorCode.INVALID_ARGUMENT) -> Iterator[None]:
    """Around a call of the framework with values of the caller's: what it can't use is the caller's to change.

    Args:
        what: whose values, first words of the message.
        code: for errors that say nothing by themselves.
    """
    try:
        yield
    except BridgeError:
        raise
    except (ValueError, TypeError, KeyError, LookupError, OSError, AttributeError, RuntimeError) as error:
        known = translate(error)
        # A RuntimeError is the framework's own trouble unless it is one that is known.
        if known is None and isinstance(error, RuntimeError):
            raise
        raise known or _of(code, f"{what}: ", error) from error


def describe_item(error: Any, index: int) -> dict[str, Any]:
    """What went wrong with one item of an explicit batch, in the words of `error_info`."""
    known = error if isinstance(error, BridgeError) else translate(error)
    code = known.code if known is not None else ErrorCode.HANDLER_ERROR
    return {
        "index": index,
        "code": code.value,
        "message": known.message if known is not None else first_lines(str(error)) or type(error).__name__,
        "retryable": known.retryable if known is not None else is_retryable(code),
        "type": (known.type if known is not None else None) or type(error).__name__,
        "details": known.details if known is not None else {},
    }


def first_lines(text: str) -> str:
    """The beginning of a framework's message, which says what was wrong."""
    text = text.strip()
    if text[:1] == text[-1:] and text[:1] in ("'", '"'):  # a KeyError's text is the representation of its key
        text = text[1:-1]
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT].rstrip()} ..."


def _is_hub(error: BaseException) -> bool:
    modules = {cls.__module__.partition(".")[0] for cls in type(error).__mro__}
    return bool(modules & {"huggingface_hub", "httpx2", "httpx", "requests"})


def _of(code: ErrorCode, before: str, error: BaseException) -> BridgeError:
    kind = type(error).__name__
    return BridgeError(code, f"{before}{first_lines(str(error)) or kind}", type=kind)

"""The errors that are the caller's to mend, in one form: where, what was expected, what was found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import json_type


def invalid(where: str, message: str, **details: Any) -> BridgeError:
    """An `invalid_argument` that names the place."""
    return BridgeError(ErrorCode.INVALID_ARGUMENT, f"{where}: {message}", details={"argument": where, **details})


def expected(where: str, what: str, found: Any) -> BridgeError:
    """An `invalid_argument` about the kind of a value; the value itself stays out."""
    return invalid(where, f"expected {what}, found {json_type(found)}")


def only_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse a key that nothing reads.

    Raises:
        BridgeError: `invalid_argument`, with the keys that there are.
    """
    names = list(known)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise invalid(f"{where}.{unknown[0]}" if where else unknown[0], f"unknown key; known: {', '.join(names)}")


def nothing_odd(given: Any, kind: type, what: str, where: str) -> Any:
    """Return `given` if it is a `kind`; booleans are no numbers.

    Raises:
        BridgeError: `invalid_argument`.
    """
    if not isinstance(given, kind) or (isinstance(given, bool) and kind is not bool):
        raise expected(where, what, given)
    return given


def missing_package(package: str, why: str, **details: Any) -> BridgeError:
    """A `missing_package` that says why, ends with the command that mends it, and has both in its details."""
    install = f"{sys.executable} -m pip install {package}"
    return BridgeError(
        ErrorCode.MISSING_PACKAGE, f"{why}: {install}", details={"package": package, "install": install, **details}
    )


def only_member(error: BaseException) -> BaseException:
    """Unwrap groups of one: streaming runs in a task group, which wraps what it raises."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error

"""What a bridge raises, and what is raised into it.

Tree::

    TypeError
    └── BridgeDeclarationError   the bridge's own code can't be exposed; found before any call
    Exception
    └── BridgeError              a call (or setup) failed; becomes `error_info` on the wire
    BaseException
    └── Cancelled                the call must stop now
"""

from __future__ import annotations

from typing import Any

from manybridge.protocol.errors import ErrorCode, is_retryable


class BridgeError(Exception):
    """A failure with a code of the shared taxonomy. Raise it from a handler, `setup` or a resource's methods.

    The message and the details travel to the caller: never put a key or a customer's text into them.

    Attributes:
        code: one of `ErrorCode`. A string outside the taxonomy becomes `handler_error`, with the string kept in
            `details["unknown_code"]`, because an error about an error would hide the first one.
        message: what was wrong, what was expected, what to do.
        retryable: whether the same call may succeed unchanged; the taxonomy's answer unless you say otherwise.
        details: JSON facts for programs.
        type: name of the exception class to report; by default that of the cause (`raise ... from exc`), else none.
        traceback: Python's text, for bridges that run a caller's own code; others are not asked where they broke.
    """

    def __init__(
        self,
        code: ErrorCode | str,
        message: str,
        *,
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
        type: str | None = None,  # the wire's own name for this field
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Any] = dict(details or {})
        try:
            self.code = ErrorCode(code)
        except ValueError:
            self.code = ErrorCode.HANDLER_ERROR
            self.details["unknown_code"] = str(code)
        self.retryable = is_retryable(self.code) if retryable is None else retryable
        self._type = type
        self.traceback = traceback

    @property
    def type(self) -> str | None:
        """The exception class to report, or None if there is nothing more specific than this one."""
        if self._type is None and self.__cause__ is not None:
            return self.__cause__.__class__.__qualname__
        return self._type


class Cancelled(BaseException):  # a state of the call, not an error; the public name is fixed
    """The call was cancelled, or its time ran out. Raised by `Context.check` and into running code.

    A `BaseException`, so that `except Exception` in a framework does not swallow it. Clean up and let it pass.

    Attributes:
        reason: why, for the log; for example "cancelled" or "timeout".
    """

    def __init__(self, reason: str = "cancelled") -> None:
        super().__init__(reason)
        self.reason = reason


class BridgeDeclarationError(TypeError):
    """A bridge declares something that can't be exposed. The message names the place and what to write instead."""

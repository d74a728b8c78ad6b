"""The error of this package: something was asked of it that can't be had."""

from __future__ import annotations

from typing import ClassVar

from manybridge.errors import ManybridgeError
from manybridge.protocol.errors import ErrorCode


class KitError(ManybridgeError):
    """The testing kit can't do what a test asked; the message says what it needs. Never a bridge's fault."""

    default_code: ClassVar[ErrorCode] = ErrorCode.INVALID_ARGUMENT

"""The error of this package: something was asked of it that can't be had."""

from __future__ import annotations

from typing import ClassVar

from manybridge.bridge import Bridge
from manybridge.errors import ManybridgeError
from manybridge.protocol.errors import ErrorCode


class KitError(ManybridgeError):
    """The testing kit can't do what a test asked; the message says what it needs. Never a bridge's fault."""

    default_code: ClassVar[ErrorCode] = ErrorCode.INVALID_ARGUMENT


def demand_bridge_class(given: object, where: str) -> None:
    """Say what is expected to whoever passes something else than a bridge's class, such as its file.

    Raises:
        KitError: naming `where`, and what was found.
    """
    if not (isinstance(given, type) and issubclass(given, Bridge)):
        wanted = "a class that extends manybridge.bridge.Bridge"
        raise KitError(f"{where}: expected {wanted}, found {given!r:.200}", details={"argument": where})

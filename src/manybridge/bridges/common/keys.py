"""Keys of providers: kept out of every text that leaves the worker, and never sent where a caller wants them."""

from __future__ import annotations

import os
import re
from typing import Final

from manybridge.bridge import BridgeError
from manybridge.protocol.errors import ErrorCode

MIN_SECRET_LENGTH: Final = 6
"""A shorter "key" is a stand-in such as "x" or "none"; replacing it would maim ordinary words."""

MASK: Final = "***"

KEY_VARIABLE: Final = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS)$", re.IGNORECASE)
"""Clients of providers read keys from variables by themselves; these names are where keys are."""


class Secrets:
    """Remembers keys and takes them out of texts. Owned by the bridge, one per worker."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def add(self, secret: str | None) -> None:
        """Remember a key."""
        if secret and len(secret) >= MIN_SECRET_LENGTH:
            self._known.add(secret)

    def add_environment(self) -> None:
        """Remember what this worker's environment has under the name of a key."""
        for name, value in os.environ.items():
            if KEY_VARIABLE.search(name):
                self.add(value)

    def clean(self, text: str) -> str:
        """Return `text` with every known key replaced by `***`."""
        for secret in sorted(self._known, key=len, reverse=True):  # a key may begin like another one
            text = text.replace(secret, MASK)
        return text


def required_variable(name: str) -> str:
    """Read a variable that must be set.

    Raises:
        BridgeError: `missing_variable`, naming it.
    """
    value = os.environ.get(name)
    if not value:
        raise BridgeError(
            ErrorCode.MISSING_VARIABLE,
            f"The environment variable {name} has the key of the model, and is not set in this worker. Set it where "
            f"the host runs and list it in required_env of this bridge.",
            details={"variable": name},
        )
    return value


def demand_own_key(address: str | None, configured: str | None, api_key: str | None, where: str) -> None:
    """Refuse an address that a caller chose without a key that the caller brought.

    Args:
        address: what the caller gave.
        configured: what is configured.
        api_key: the caller's own.
        where: the argument with the address.

    Raises:
        BridgeError: `permission_denied`.
    """
    if address not in (None, configured) and not api_key:
        raise BridgeError(
            ErrorCode.PERMISSION_DENIED,
            f"{where}: a call that names its own address must bring its own api_key too ('none' where the endpoint "
            f"takes any), because a configured key is never sent to an address that a caller chose.",
            details={"argument": where},
        )

"""What a person can do about an error, where the command line knows more than the error does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from manybridge.errors import ManybridgeError
from manybridge.protocol.errors import ErrorCode

_HINTS: Final[dict[str, str]] = {
    ErrorCode.UNKNOWN_BRIDGE: (
        "a bridge is a name from the configuration, a bundled name, the path of a Python file, or package.module:Class"
    ),
    ErrorCode.UNKNOWN_COMMAND: "list what the bridge can do: manybridge call BRIDGE common:capabilities",
    ErrorCode.UNKNOWN_RESOURCE_TYPE: "list the types that the bridge has: manybridge resources types BRIDGE",
    ErrorCode.TIMEOUT: "allow more time with --timeout SECONDS",
    ErrorCode.CONFIG_ERROR: "every key is described in docs/reference/configuration.md",
    ErrorCode.RESOURCE_NOT_FOUND: (
        "what there is: manybridge resources list BRIDGE. Without a configuration file, a resource made by one "
        "manybridge command ends with that command; "
        "make and use it in one: manybridge resources create BRIDGE TYPE ... --execute INPUTS"
    ),
    ErrorCode.WORKER_START_FAILED: "manybridge doctor checks each bridge by itself",
    ErrorCode.SETUP_FAILED: "manybridge doctor checks each bridge by itself",
}


def hint_for(error: ManybridgeError, pairs: Sequence[str] = ()) -> str | None:
    """Return what to try next, or None.

    Args:
        error: what happened.
        pairs: the arguments of the call as they were typed.
    """
    if error.code == ErrorCode.INVALID_ARGUMENT:
        text = next((pair for pair in pairs if _looks_like_json(pair)), None)
        if text is not None:
            name, _, value = text.partition("=")
            return (
                f"{name}={value} passes a string; write {name}:={value} for a number, true, false, null, list or object"
            )
    return _HINTS.get(error.code)


def _looks_like_json(pair: str) -> bool:
    name, sign, value = pair.partition("=")
    if not sign or name.endswith(":"):
        return False
    return (
        value in {"true", "false", "null"} or value[:1] in {"[", "{"} or value.lstrip("-").replace(".", "", 1).isdigit()
    )

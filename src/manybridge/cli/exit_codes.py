"""Exit codes of the command line: documented, stable, one per kind of failure that a script may want to tell apart."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from manybridge.protocol.errors import ErrorCode


class ExitCode(IntEnum):
    """What the process ends with. Numbers are never given a second meaning."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    CONFIG = 3
    NOT_FOUND = 4
    INVALID_ARGUMENT = 5
    TIMEOUT = 6
    CANCELLED = 7
    WORKER = 8
    UNAVAILABLE = 9
    PROVIDER = 10
    PERMISSION = 11
    STORE = 12
    ENVIRONMENT = 13
    NOT_AUDITED = 14
    INTERRUPTED = 130


MEANINGS: Final[dict[ExitCode, str]] = {
    ExitCode.OK: "It worked.",
    ExitCode.FAILURE: (
        "The bridge's code raised an error, a check of `doctor` failed, the output could not be written, or manybridge "
        "has a bug."
    ),
    ExitCode.USAGE: "The command line itself is wrong: unknown command or option, missing argument.",
    ExitCode.CONFIG: "The configuration, a needed package or a needed environment variable.",
    ExitCode.NOT_FOUND: "No such bridge, command, resource, resource type, session, job or tool.",
    ExitCode.INVALID_ARGUMENT: "The call's arguments do not fit, or the bridge does not support what was asked.",
    ExitCode.TIMEOUT: "The call's deadline passed; its work was stopped.",
    ExitCode.CANCELLED: "The call was cancelled by somebody else.",
    ExitCode.WORKER: "A worker did not start, died, or broke the protocol.",
    ExitCode.UNAVAILABLE: "Overloaded, breaker open, busy or shutting down: try again later.",
    ExitCode.PROVIDER: "The model provider behind the framework refused or failed.",
    ExitCode.PERMISSION: "The caller may not do this.",
    ExitCode.STORE: "The durable store can't be opened, read or written.",
    ExitCode.ENVIRONMENT: (
        "An environment or its lock can't be built or used, was refused, or `env scan` found something in it."
    ),
    ExitCode.NOT_AUDITED: "`env scan` found nothing wrong, but could not look at everything: not a pass.",
    ExitCode.INTERRUPTED: "Interrupted with Ctrl-C; running calls were cancelled.",
}

_E = ErrorCode
_CODES: Final[dict[ExitCode, tuple[ErrorCode, ...]]] = {
    ExitCode.FAILURE: (_E.HANDLER_ERROR, _E.INTERNAL_ERROR),
    ExitCode.CONFIG: (_E.CONFIG_ERROR, _E.MISSING_PACKAGE, _E.MISSING_VARIABLE),
    ExitCode.NOT_FOUND: (
        _E.UNKNOWN_BRIDGE,
        _E.UNKNOWN_COMMAND,
        _E.UNKNOWN_RESOURCE_TYPE,
        _E.UNKNOWN_TOOL,
        _E.RESOURCE_NOT_FOUND,
        _E.RESOURCE_LOST,
        _E.SESSION_NOT_FOUND,
        _E.JOB_NOT_FOUND,
    ),
    ExitCode.INVALID_ARGUMENT: (_E.INVALID_ARGUMENT, _E.NOT_SUPPORTED, _E.RESOURCE_EXISTS),
    ExitCode.TIMEOUT: (_E.TIMEOUT,),
    ExitCode.CANCELLED: (_E.CANCELLED,),
    ExitCode.WORKER: (
        _E.WORKER_CRASHED,
        _E.WORKER_START_FAILED,
        _E.BRIDGE_LOAD_FAILED,
        _E.SETUP_FAILED,
        _E.OUT_OF_MEMORY,
        _E.QUARANTINED,
        _E.INVALID_FRAME,
        _E.FRAME_TOO_LARGE,
        _E.INVALID_JSON,
        _E.INVALID_REQUEST,
        _E.PROTOCOL_VIOLATION,
        _E.UNSUPPORTED_VERSION,
    ),
    ExitCode.UNAVAILABLE: (
        _E.OVERLOADED,
        _E.CIRCUIT_OPEN,
        _E.SHUTTING_DOWN,
        _E.HOST_CLOSED,
        _E.SESSION_BUSY,
        _E.CONFLICT,
    ),
    ExitCode.PROVIDER: (
        _E.PROVIDER_AUTH,
        _E.RATE_LIMITED,
        _E.PROVIDER_TIMEOUT,
        _E.CONTEXT_LENGTH_EXCEEDED,
        _E.PROVIDER_BAD_REQUEST,
        _E.PROVIDER_NOT_FOUND,
        _E.PROVIDER_UNAVAILABLE,
        _E.OUTPUT_NOT_PARSED,
    ),
    ExitCode.PERMISSION: (_E.PERMISSION_DENIED,),
    ExitCode.ENVIRONMENT: (_E.ENVIRONMENT_FAILED, _E.ENVIRONMENT_REFUSED),
    ExitCode.STORE: (_E.STORE_UNAVAILABLE, _E.STORE_CORRUPTED, _E.STORE_INCOMPATIBLE),
}

_EXIT_OF: Final[dict[str, ExitCode]] = {str(code): exit_code for exit_code, codes in _CODES.items() for code in codes}


def exit_code_for(code: str) -> ExitCode:
    """Return the exit code for an error code. One that this release does not know is a plain failure."""
    return _EXIT_OF.get(code, ExitCode.FAILURE)


def error_codes_of(exit_code: ExitCode) -> tuple[ErrorCode, ...]:
    """Return the error codes that end with this exit code."""
    return _CODES.get(exit_code, ())

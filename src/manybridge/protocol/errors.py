"""The one taxonomy of errors, shared by Python, the wire, HTTP and Elixir.

A code is a stable string: clients branch on it, people read the message. The table `ERROR_CODES` is the single place
that says what a code means and whether the same call may succeed when it is sent again unchanged.

Tree of the exceptions of this module::

    ProtocolError            the two ends disagree about the wire
    ├── LocalProtocolError   this end broke the rules (a bug here)
    └── RemoteProtocolError  the other end broke the rules
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple


class ErrorCode(StrEnum):
    """Every code that an `error_info` may carry. See `ERROR_CODES` for the meanings."""

    # The wire
    INVALID_FRAME = "invalid_frame"
    FRAME_TOO_LARGE = "frame_too_large"
    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    PROTOCOL_VIOLATION = "protocol_violation"
    UNSUPPORTED_VERSION = "unsupported_version"
    # Names that do not resolve
    UNKNOWN_BRIDGE = "unknown_bridge"
    UNKNOWN_COMMAND = "unknown_command"
    UNKNOWN_RESOURCE_TYPE = "unknown_resource_type"
    UNKNOWN_TOOL = "unknown_tool"
    RESOURCE_NOT_FOUND = "resource_not_found"
    RESOURCE_EXISTS = "resource_exists"
    RESOURCE_LOST = "resource_lost"
    SESSION_NOT_FOUND = "session_not_found"
    SESSION_BUSY = "session_busy"
    JOB_NOT_FOUND = "job_not_found"
    # What the caller sent
    INVALID_ARGUMENT = "invalid_argument"
    PERMISSION_DENIED = "permission_denied"
    NOT_SUPPORTED = "not_supported"
    CONFLICT = "conflict"
    # Set-up
    CONFIG_ERROR = "config_error"
    MISSING_PACKAGE = "missing_package"
    MISSING_VARIABLE = "missing_variable"
    BRIDGE_LOAD_FAILED = "bridge_load_failed"
    SETUP_FAILED = "setup_failed"
    ENVIRONMENT_FAILED = "environment_failed"
    ENVIRONMENT_REFUSED = "environment_refused"
    # The call itself
    HANDLER_ERROR = "handler_error"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    # Pool and host
    OVERLOADED = "overloaded"
    WORKER_CRASHED = "worker_crashed"
    WORKER_START_FAILED = "worker_start_failed"
    CIRCUIT_OPEN = "circuit_open"
    QUARANTINED = "quarantined"
    SHUTTING_DOWN = "shutting_down"
    HOST_CLOSED = "host_closed"
    # The durable store
    STORE_UNAVAILABLE = "store_unavailable"
    STORE_CORRUPTED = "store_corrupted"
    STORE_INCOMPATIBLE = "store_incompatible"
    # The framework or the provider behind it
    PROVIDER_AUTH = "provider_auth"
    RATE_LIMITED = "rate_limited"
    PROVIDER_TIMEOUT = "provider_timeout"
    CONTEXT_LENGTH_EXCEEDED = "context_length_exceeded"
    PROVIDER_BAD_REQUEST = "provider_bad_request"
    PROVIDER_NOT_FOUND = "provider_not_found"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    OUT_OF_MEMORY = "out_of_memory"
    OUTPUT_NOT_PARSED = "output_not_parsed"
    # Ours
    INTERNAL_ERROR = "internal_error"


class ErrorMeaning(NamedTuple):
    """What a code stands for."""

    retryable: bool
    """Whether the same call, sent again unchanged, may succeed."""
    meaning: str


def _final(meaning: str) -> ErrorMeaning:
    return ErrorMeaning(retryable=False, meaning=meaning)


def _retry(meaning: str) -> ErrorMeaning:
    return ErrorMeaning(retryable=True, meaning=meaning)


ERROR_CODES: Final[dict[ErrorCode, ErrorMeaning]] = {
    ErrorCode.INVALID_FRAME: _final("The frame is empty; a frame carries at least a JSON object."),
    ErrorCode.FRAME_TOO_LARGE: _final("The frame is longer than the receiver's limit; its body was skipped."),
    ErrorCode.INVALID_JSON: _final("The frame's body is not a UTF-8 JSON object."),
    ErrorCode.INVALID_REQUEST: _final("The object is not a request: id or command is missing, or a field is mistyped."),
    ErrorCode.PROTOCOL_VIOLATION: _final("The message is well formed but not legal at this point of the conversation."),
    ErrorCode.UNSUPPORTED_VERSION: _final("The two ends share no protocol version or no codec."),
    ErrorCode.UNKNOWN_BRIDGE: _final("No bridge of that name is registered."),
    ErrorCode.UNKNOWN_COMMAND: _final("The bridge has no such command."),
    ErrorCode.UNKNOWN_RESOURCE_TYPE: _final("The bridge has no such resource type."),
    ErrorCode.UNKNOWN_TOOL: _final("The client registered no tool of that name, or takes no host calls."),
    ErrorCode.RESOURCE_NOT_FOUND: _final("There is no such resource, or it belongs to somebody else."),
    ErrorCode.RESOURCE_EXISTS: _final("A resource with that id exists already."),
    ErrorCode.RESOURCE_LOST: _final("The resource died with its worker and its type can't be made again."),
    ErrorCode.SESSION_NOT_FOUND: _final("There is no such session, or its lease ran out."),
    ErrorCode.SESSION_BUSY: _retry("The session already has a call and its policy rejects a second one."),
    ErrorCode.JOB_NOT_FOUND: _final("There is no such job."),
    ErrorCode.INVALID_ARGUMENT: _final("An argument is missing, unknown or of the wrong type or value."),
    ErrorCode.PERMISSION_DENIED: _final("The caller or the configuration does not allow this."),
    ErrorCode.NOT_SUPPORTED: _final("This bridge, type or connection can't do that."),
    ErrorCode.CONFLICT: _retry("The state changed meanwhile: a compare-and-set lost."),
    ErrorCode.CONFIG_ERROR: _final("The configuration has an unknown key, a wrong type or a missing value."),
    ErrorCode.MISSING_PACKAGE: _final("A package that the bridge needs is not installed in its environment."),
    ErrorCode.MISSING_VARIABLE: _final("An environment variable that the bridge needs is not set."),
    ErrorCode.BRIDGE_LOAD_FAILED: _final("The bridge's code could not be found or imported."),
    ErrorCode.SETUP_FAILED: _final("The bridge's setup raised an error."),
    ErrorCode.ENVIRONMENT_FAILED: _final("An environment can't be locked, built or used; details.reason says why."),
    ErrorCode.ENVIRONMENT_REFUSED: _final("An environment or its lock failed a check made before Python starts in it."),
    ErrorCode.HANDLER_ERROR: _final("The bridge's code raised an error that no rule translates."),
    ErrorCode.CANCELLED: _final("The call was cancelled."),
    ErrorCode.TIMEOUT: _retry("The call's deadline passed; the work was stopped."),
    ErrorCode.OVERLOADED: _retry("The queue is full, or the call waited longer than it may."),
    ErrorCode.WORKER_CRASHED: _retry("The worker that ran the call died."),
    ErrorCode.WORKER_START_FAILED: _retry("A worker could not be started."),
    ErrorCode.CIRCUIT_OPEN: _retry("The bridge's workers crash again and again; calls are refused for a while."),
    ErrorCode.QUARANTINED: _final("This request killed several workers and is not tried again."),
    ErrorCode.SHUTTING_DOWN: _retry("The worker or pool is being stopped or replaced."),
    ErrorCode.HOST_CLOSED: _final("The host is closed."),
    ErrorCode.STORE_UNAVAILABLE: _retry("The store can't be opened, reached or written; nothing was kept."),
    ErrorCode.STORE_CORRUPTED: _final("The store's file is damaged, or is no database."),
    ErrorCode.STORE_INCOMPATIBLE: _final("The store's schema is newer than this release, or is none of ours."),
    ErrorCode.PROVIDER_AUTH: _final("The model provider refused the credentials, or none are configured."),
    ErrorCode.RATE_LIMITED: _retry("The model provider limits the rate; details may carry retry_after in seconds."),
    ErrorCode.PROVIDER_TIMEOUT: _retry("The model provider did not answer in time."),
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: _final("The input is longer than the model takes."),
    ErrorCode.PROVIDER_BAD_REQUEST: _final("The model provider refused the request as malformed."),
    ErrorCode.PROVIDER_NOT_FOUND: _final("The model provider knows no such model or endpoint."),
    ErrorCode.PROVIDER_UNAVAILABLE: _retry("The model provider can't be reached or failed."),
    ErrorCode.OUT_OF_MEMORY: _retry("The framework ran out of memory."),
    ErrorCode.OUTPUT_NOT_PARSED: _retry("The model answered, but not in the demanded form."),
    ErrorCode.INTERNAL_ERROR: _final("A bug in manybridge itself."),
}


def is_retryable(code: str) -> bool:
    """Whether a call that failed with `code` may succeed unchanged. Unknown codes (a newer peer) are not."""
    meaning = ERROR_CODES.get(code)  # type: ignore[call-overload]  # a StrEnum key equals its plain string
    return meaning is not None and bool(meaning.retryable)


class ProtocolError(Exception):
    """The bytes or messages on a connection break the protocol.

    Attributes:
        code: one of `ErrorCode`.
        message: what was wrong and what was expected.
        details: machine-readable facts (never payload text, which may carry secrets).
    """

    def __init__(self, code: ErrorCode, message: str, /, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class LocalProtocolError(ProtocolError):
    """This end tried to send something that is not legal now. A bug on this side; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The other end sent something that is not legal. `code` says what to answer.

    Attributes:
        received: the messages that came before it in the same read, still to be handled.
    """

    received: Sequence[Any] = ()

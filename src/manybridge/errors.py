"""The errors that a caller of manybridge sees.

Every error carries a stable `code` from the taxonomy that the wire, HTTP and Elixir share
(`manybridge.protocol.errors.ErrorCode`), says whether a retry can help, and holds facts in `details`.

Tree::

    ManybridgeError
    ├── ConfigError                 the configuration, its file and key
    ├── RegistryError               a bridge that is not, or can't be, registered
    ├── BridgeEnvironmentError      the environment of a bridge: locking, building, finding it
    │   └── EnvironmentRefusedError ... or what was found in it before Python started there
    ├── WorkerError                 a worker
    │   ├── WorkerStartError        ... that could not be started
    │   └── WorkerCrashedError      ... that died, with pid, exit code or signal, uptime and last stderr lines
    ├── PoolError                   a pool
    │   ├── OverloadedError         queue full, or waited too long
    │   └── ClosedError             the host is closed or closing
    ├── StoreError                  the durable store
    └── CallError                   the answer to one call is an error
        ├── InvalidArgumentError
        ├── UnknownCommandError
        ├── ResourceError           not found, exists already, lost
        ├── SessionError
        ├── CallTimeoutError
        ├── CallCancelledError
        └── ProviderError           the framework or the model provider behind it

A remote error arrives as data (type name, message, traceback text); no class of the worker is revived here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

from manybridge.protocol.errors import ErrorCode, is_retryable
from manybridge.protocol.messages import ErrorInfo


class ManybridgeError(Exception):
    """Root of all errors that manybridge raises.

    Attributes:
        code: a stable string of the taxonomy.
        message: what was wrong, what was expected, what to do.
        retryable: whether the same call, sent again unchanged, may succeed.
        details: machine-readable facts; which ones depends on the code.
        framework: the framework whose bridge reported it, or None.
        type: the name of the framework's own exception type, or None.
        traceback: the worker's traceback as text, or None.
    """

    default_code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
        framework: str | None = None,
        type: str | None = None,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = str(code or self.default_code)
        self.message = message
        self.retryable = is_retryable(self.code) if retryable is None else retryable
        self.details = details or {}
        self.framework = framework
        self.type = type
        self.traceback = traceback

    def __str__(self) -> str:
        return f"[{self.code}] {self.message}"

    def copy(self, **details: Any) -> Self:
        """An equal error for another caller, since a raised one carries its raiser's traceback; `details` are added."""
        return type(self)(
            self.message,
            code=self.code,
            retryable=self.retryable,
            details={**self.details, **details},
            framework=self.framework,
            type=self.type,
            traceback=self.traceback,
        )

    def to_info(self) -> ErrorInfo:
        """The same error as it goes over the wire."""
        return ErrorInfo(
            self.code, self.message, self.retryable, self.framework, self.type, self.details, self.traceback
        )


class ConfigError(ManybridgeError):
    """The configuration is wrong; the message names file, key, what was expected and what was found."""

    default_code = ErrorCode.CONFIG_ERROR


class RegistryError(ManybridgeError):
    """A bridge is not registered, or can't be."""

    default_code = ErrorCode.UNKNOWN_BRIDGE


class BridgeEnvironmentError(ManybridgeError):
    """The environment of a bridge can't be locked, built or used; `details["reason"]` is a stable word for why."""

    default_code = ErrorCode.ENVIRONMENT_FAILED


class EnvironmentRefusedError(BridgeEnvironmentError):
    """Something in an environment, or in its lock, must not be started; `details["findings"]` lists each."""

    default_code = ErrorCode.ENVIRONMENT_REFUSED


class WorkerError(ManybridgeError):
    """Something is wrong with a worker process."""

    default_code = ErrorCode.WORKER_CRASHED


class WorkerStartError(WorkerError):
    """A worker could not be started, or its bridge could not be set up."""

    default_code = ErrorCode.WORKER_START_FAILED


class WorkerCrashedError(WorkerError):
    """The worker that held the call died.

    `details` has `pid`, `worker_id`, `exit_code` or `signal` (a name such as SIGKILL), `uptime` in seconds and
    `stderr_tail`, the last lines that it wrote.
    """


class PoolError(ManybridgeError):
    """A pool can't take the call."""

    default_code = ErrorCode.OVERLOADED


class OverloadedError(PoolError):
    """The queue is full, or the call waited longer than it may; `details["retry_after"]` is a hint in seconds."""


class ClosedError(PoolError):
    """The host, or the pool, is closed or closing."""

    default_code = ErrorCode.HOST_CLOSED


class StoreError(ManybridgeError):
    """The durable store can't do what it was asked; `details["reason"]` is one word for why, `details["store"]` where.

    What needs no store goes on. `retryable` is true where waiting can help: locked, full, unreachable.
    """

    default_code = ErrorCode.STORE_UNAVAILABLE


class CallError(ManybridgeError):
    """A call was answered with an error."""

    default_code = ErrorCode.HANDLER_ERROR


class InvalidArgumentError(CallError):
    """An argument is missing, unknown or of the wrong type; `details["problems"]` lists each."""

    default_code = ErrorCode.INVALID_ARGUMENT


class UnknownCommandError(CallError):
    """The bridge has no such command."""

    default_code = ErrorCode.UNKNOWN_COMMAND


class ResourceError(CallError):
    """A resource is not there, is there already, or is lost."""

    default_code = ErrorCode.RESOURCE_NOT_FOUND


class SessionError(CallError):
    """A session is not there, or takes no second call."""

    default_code = ErrorCode.SESSION_NOT_FOUND


class CallTimeoutError(CallError, TimeoutError):
    """The call's deadline passed and its work was stopped; `details["stopped_by"]` names the rung of the ladder."""

    default_code = ErrorCode.TIMEOUT


class CallCancelledError(CallError):
    """The call was cancelled and its work was stopped; `details["stopped_by"]` names the rung of the ladder."""

    default_code = ErrorCode.CANCELLED


class ProviderError(CallError):
    """The framework, or the model provider behind it, refused or failed."""

    default_code = ErrorCode.PROVIDER_UNAVAILABLE


_CLASS_OF_CODE: Final[dict[str, type[ManybridgeError]]] = {
    ErrorCode.CONFIG_ERROR: ConfigError,
    ErrorCode.UNKNOWN_BRIDGE: RegistryError,
    ErrorCode.MISSING_PACKAGE: WorkerStartError,
    ErrorCode.MISSING_VARIABLE: WorkerStartError,
    ErrorCode.BRIDGE_LOAD_FAILED: WorkerStartError,
    ErrorCode.SETUP_FAILED: WorkerStartError,
    ErrorCode.ENVIRONMENT_FAILED: BridgeEnvironmentError,
    ErrorCode.ENVIRONMENT_REFUSED: EnvironmentRefusedError,
    ErrorCode.WORKER_START_FAILED: WorkerStartError,
    ErrorCode.WORKER_CRASHED: WorkerCrashedError,
    ErrorCode.PROTOCOL_VIOLATION: WorkerError,
    ErrorCode.OVERLOADED: OverloadedError,
    ErrorCode.CIRCUIT_OPEN: OverloadedError,
    ErrorCode.SHUTTING_DOWN: ClosedError,
    ErrorCode.HOST_CLOSED: ClosedError,
    ErrorCode.STORE_UNAVAILABLE: StoreError,
    ErrorCode.STORE_CORRUPTED: StoreError,
    ErrorCode.STORE_INCOMPATIBLE: StoreError,
    ErrorCode.INVALID_ARGUMENT: InvalidArgumentError,
    ErrorCode.UNKNOWN_COMMAND: UnknownCommandError,
    ErrorCode.UNKNOWN_RESOURCE_TYPE: ResourceError,
    ErrorCode.RESOURCE_NOT_FOUND: ResourceError,
    ErrorCode.RESOURCE_EXISTS: ResourceError,
    ErrorCode.RESOURCE_LOST: ResourceError,
    ErrorCode.SESSION_NOT_FOUND: SessionError,
    ErrorCode.SESSION_BUSY: SessionError,
    ErrorCode.TIMEOUT: CallTimeoutError,
    ErrorCode.CANCELLED: CallCancelledError,
    ErrorCode.PROVIDER_AUTH: ProviderError,
    ErrorCode.RATE_LIMITED: ProviderError,
    ErrorCode.PROVIDER_TIMEOUT: ProviderError,
    ErrorCode.CONTEXT_LENGTH_EXCEEDED: ProviderError,
    ErrorCode.PROVIDER_BAD_REQUEST: ProviderError,
    ErrorCode.PROVIDER_NOT_FOUND: ProviderError,
    ErrorCode.PROVIDER_UNAVAILABLE: ProviderError,
    ErrorCode.OUT_OF_MEMORY: ProviderError,
    ErrorCode.OUTPUT_NOT_PARSED: ProviderError,
}


def error_for(info: ErrorInfo) -> ManybridgeError:
    """The exception for an `error_info`. A code that this release does not know gives a plain `CallError`."""
    return _CLASS_OF_CODE.get(info.code, CallError)(
        info.message,
        code=info.code,
        retryable=info.retryable,
        details=info.details,
        framework=info.framework,
        type=info.type,
        traceback=info.traceback,
    )

"""The errors that a caller of manybridge sees: one class for each thing that callers tell apart."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from manybridge import errors
from manybridge.errors import CallError, ManybridgeError, error_for
from manybridge.protocol.errors import ERROR_CODES, ErrorCode, is_retryable
from manybridge.protocol.messages import ErrorInfo, error_info_from_object

CLASSES = {
    name: value for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, ManybridgeError)
}

# What callers write in `except`: every class with its direct parents and the code that it has by itself.
TREE = {
    "ManybridgeError": ("Exception", "internal_error"),
    "ConfigError": ("ManybridgeError", "config_error"),
    "RegistryError": ("ManybridgeError", "unknown_bridge"),
    "BridgeEnvironmentError": ("ManybridgeError", "environment_failed"),
    "EnvironmentRefusedError": ("BridgeEnvironmentError", "environment_refused"),
    "WorkerError": ("ManybridgeError", "worker_crashed"),
    "WorkerStartError": ("WorkerError", "worker_start_failed"),
    "WorkerCrashedError": ("WorkerError", "worker_crashed"),
    "PoolError": ("ManybridgeError", "overloaded"),
    "OverloadedError": ("PoolError", "overloaded"),
    "ClosedError": ("PoolError", "host_closed"),
    "StoreError": ("ManybridgeError", "store_unavailable"),
    "CallError": ("ManybridgeError", "handler_error"),
    "InvalidArgumentError": ("CallError", "invalid_argument"),
    "UnknownCommandError": ("CallError", "unknown_command"),
    "ResourceError": ("CallError", "resource_not_found"),
    "SessionError": ("CallError", "session_not_found"),
    "CallTimeoutError": ("CallError, TimeoutError", "timeout"),
    "CallCancelledError": ("CallError", "cancelled"),
    "ProviderError": ("CallError", "provider_unavailable"),
}

# The class for each code; CallError where nothing is said.
CLASS_OF_CODE = {
    "config_error": "ConfigError",
    "unknown_bridge": "RegistryError",
    "missing_package": "WorkerStartError",
    "missing_variable": "WorkerStartError",
    "bridge_load_failed": "WorkerStartError",
    "setup_failed": "WorkerStartError",
    "environment_failed": "BridgeEnvironmentError",
    "environment_refused": "EnvironmentRefusedError",
    "worker_start_failed": "WorkerStartError",
    "worker_crashed": "WorkerCrashedError",
    "protocol_violation": "WorkerError",
    "overloaded": "OverloadedError",
    "circuit_open": "OverloadedError",
    "shutting_down": "ClosedError",
    "host_closed": "ClosedError",
    "store_unavailable": "StoreError",
    "store_corrupted": "StoreError",
    "store_incompatible": "StoreError",
    "invalid_argument": "InvalidArgumentError",
    "unknown_command": "UnknownCommandError",
    "unknown_resource_type": "ResourceError",
    "resource_not_found": "ResourceError",
    "resource_exists": "ResourceError",
    "resource_lost": "ResourceError",
    "session_not_found": "SessionError",
    "session_busy": "SessionError",
    "timeout": "CallTimeoutError",
    "cancelled": "CallCancelledError",
    "provider_auth": "ProviderError",
    "rate_limited": "ProviderError",
    "provider_timeout": "ProviderError",
    "context_length_exceeded": "ProviderError",
    "provider_bad_request": "ProviderError",
    "provider_not_found": "ProviderError",
    "provider_unavailable": "ProviderError",
    "out_of_memory": "ProviderError",
    "output_not_parsed": "ProviderError",
}

EVERYTHING: dict[str, Any] = {
    "code": "rate_limited",
    "retryable": False,
    "details": {"retry_after": 1.5},
    "framework": "dspy",
    "type": "RateLimitError",
    "traceback": "Traceback ...",
}


def test_the_tree_is_stable() -> None:
    """Callers catch these classes; none is renamed, moved or removed unnoticed."""
    found = {
        name: (", ".join(base.__name__ for base in value.__bases__), str(value.default_code))
        for name, value in CLASSES.items()
    }
    assert found == TREE


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Every class is in the picture at the head of the module."""
    assert errors.__doc__
    assert [name for name in CLASSES if name not in errors.__doc__] == []


@pytest.mark.parametrize("name", TREE)
def test_each_class_has_its_code_and_the_taxonomys_answer_to_retryable(name: str) -> None:
    """Raised with a text alone, an error is complete."""
    error = CLASSES[name]("It went wrong.")
    assert error.code == TREE[name][1]
    assert type(error.code) is str
    assert error.retryable is is_retryable(error.code)
    assert error.message == "It went wrong."
    assert str(error) == f"[{error.code}] It went wrong."
    assert (error.details, error.framework, error.type, error.traceback) == ({}, None, None, None)


@pytest.mark.parametrize("name", TREE)
def test_each_class_keeps_what_it_was_given(name: str) -> None:
    """Code and retryable too: a worker knows better than the table."""
    error = CLASSES[name]("Wait.", **EVERYTHING)
    assert {key: getattr(error, key) for key in EVERYTHING} == EVERYTHING


def test_a_call_that_timed_out_is_a_timeout_error() -> None:
    """So that `except TimeoutError` of plain Python code works."""
    with pytest.raises(TimeoutError):
        raise errors.CallTimeoutError("Too late.")


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_its_class(code: ErrorCode) -> None:
    """What a worker sends arrives as the class that callers catch for it, with all that was sent."""
    info = ErrorInfo(code.value, "m", not ERROR_CODES[code].retryable, "dspy", "KeyError", {"a": 1}, "Traceback ...")
    error = error_for(info)
    assert type(error).__name__ == CLASS_OF_CODE.get(code.value, "CallError")
    assert error.to_info() == info


def test_a_code_of_a_newer_worker_is_a_call_error() -> None:
    """Unknown codes are kept as they are."""
    error = error_for(ErrorInfo("quota_exceeded", "m"))
    assert type(error) is CallError
    assert (error.code, error.retryable) == ("quota_exceeded", False)


def test_an_error_goes_over_the_wire_and_back() -> None:
    """To the object that a reply carries, and to an error of the same class again."""
    error = errors.ProviderError("Wait.", **EVERYTHING)
    again = error_for(error_info_from_object(error.to_info().to_object()))
    assert type(again) is type(error)
    assert vars(again) == vars(error)


def test_details_of_one_error_are_not_those_of_another() -> None:
    """An error that was given none has an empty dictionary of its own."""
    first, second = error_for(ErrorInfo("timeout", "m")), error_for(ErrorInfo("timeout", "m"))
    first.details["stopped_by"] = "flag"
    assert second.details == {}


@pytest.mark.parametrize("name", TREE)
def test_errors_survive_pickling(name: str) -> None:
    """A process pool or a test runner may carry them between processes."""
    error = CLASSES[name]("Wait.", **EVERYTHING)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert vars(again) == vars(error)
    assert str(again) == str(error)

"""The taxonomy of error codes: complete, stable, and the same everywhere."""

from __future__ import annotations

import re

import pytest

from manybridge.protocol.errors import (
    ERROR_CODES,
    ErrorCode,
    LocalProtocolError,
    ProtocolError,
    RemoteProtocolError,
    is_retryable,
)

# What clients in any language branch on. A line may be added; one that changes or goes breaks them.
STABLE = {
    "bridge_load_failed": False,
    "cancelled": False,
    "circuit_open": True,
    "config_error": False,
    "conflict": True,
    "context_length_exceeded": False,
    "frame_too_large": False,
    "handler_error": False,
    "host_closed": False,
    "internal_error": False,
    "invalid_argument": False,
    "invalid_frame": False,
    "invalid_json": False,
    "invalid_request": False,
    "job_not_found": False,
    "missing_package": False,
    "missing_variable": False,
    "not_supported": False,
    "out_of_memory": True,
    "output_not_parsed": True,
    "overloaded": True,
    "permission_denied": False,
    "protocol_violation": False,
    "provider_auth": False,
    "provider_bad_request": False,
    "provider_not_found": False,
    "provider_timeout": True,
    "provider_unavailable": True,
    "quarantined": False,
    "rate_limited": True,
    "resource_exists": False,
    "resource_lost": False,
    "resource_not_found": False,
    "session_busy": True,
    "session_not_found": False,
    "setup_failed": False,
    "environment_failed": False,
    "environment_refused": False,
    "shutting_down": True,
    "store_corrupted": False,
    "store_incompatible": False,
    "store_unavailable": True,
    "timeout": True,
    "unknown_bridge": False,
    "unknown_command": False,
    "unknown_resource_type": False,
    "unknown_tool": False,
    "unsupported_version": False,
    "worker_crashed": True,
    "worker_start_failed": True,
}


def test_the_codes_and_their_retryability_are_stable() -> None:
    """Nothing is renamed, removed or turned around unnoticed."""
    assert {str(code): meaning.retryable for code, meaning in ERROR_CODES.items()} == STABLE


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_its_row_with_a_sentence(code: ErrorCode) -> None:
    """The table is complete, and its meanings are sentences for people."""
    meaning = ERROR_CODES[code].meaning
    assert re.fullmatch(r"[A-Z][^\n|]*\.", meaning)
    assert code.value == code.name.lower()
    assert is_retryable(code.value) is ERROR_CODES[code].retryable


def test_a_code_of_a_newer_peer_is_not_retryable() -> None:
    """Nobody repeats what nobody understands."""
    assert not is_retryable("quota_exceeded")


@pytest.mark.parametrize("kind", [LocalProtocolError, RemoteProtocolError])
def test_a_protocol_error_holds_code_message_and_details(kind: type[ProtocolError]) -> None:
    """Details may have any name, also those of the parameters."""
    error = kind(ErrorCode.INVALID_FRAME, "the frame is empty", length=0, code="own", message="own")
    assert isinstance(error, ProtocolError)
    assert (error.code, error.message, str(error)) == (ErrorCode.INVALID_FRAME, "the frame is empty", error.message)
    assert error.details == {"length": 0, "code": "own", "message": "own"}

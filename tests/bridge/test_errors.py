"""Errors that bridges raise."""

from __future__ import annotations

from manybridge.bridge import BridgeDeclarationError, BridgeError, Cancelled
from manybridge.protocol.errors import ErrorCode


def test_the_taxonomy_says_what_is_retryable_unless_the_author_does() -> None:
    """`retryable` has a default for every code."""
    assert BridgeError("rate_limited", "slow down").retryable is True
    assert BridgeError(ErrorCode.INVALID_ARGUMENT, "no").retryable is False
    assert BridgeError("rate_limited", "never", retryable=False).retryable is False


def test_a_code_outside_the_taxonomy_is_kept_but_not_reported_as_one() -> None:
    """A mistake in an error must not hide the error."""
    error = BridgeError("my_code", "text", details={"a": 1})

    assert error.code is ErrorCode.HANDLER_ERROR
    assert error.details == {"a": 1, "unknown_code": "my_code"}
    assert str(error) == error.message == "text"


def test_the_type_is_that_of_the_cause() -> None:
    """Translating a framework's exception keeps its name."""
    translated = BridgeError("rate_limited", "slow down")
    translated.__cause__ = KeyError("x")

    assert translated.type == "KeyError"
    assert BridgeError("rate_limited", "slow down", type="lib.RateLimit").type == "lib.RateLimit"
    assert BridgeError("rate_limited", "slow down").type is None


def test_details_are_a_copy() -> None:
    """What an author does with the dictionary afterwards does not change the error."""
    details = {"a": 1}
    error = BridgeError("conflict", "text", details=details)
    details["a"] = 2

    assert error.details == {"a": 1}


def test_a_framework_that_swallows_exceptions_does_not_swallow_a_cancel() -> None:
    """Cancelled is no Exception; a declaration error is a TypeError."""
    assert not issubclass(Cancelled, Exception)
    assert Cancelled("timeout").reason == "timeout"
    assert issubclass(BridgeDeclarationError, TypeError)

"""Exit codes are complete and never change."""

from __future__ import annotations

from manybridge.cli.exit_codes import MEANINGS, ExitCode, error_codes_of, exit_code_for
from manybridge.protocol.errors import ErrorCode


def test_every_error_code_has_exactly_one_exit_code() -> None:
    """A new error code must be given its exit code, or scripts get a 1 that nobody chose."""
    listed = [code for exit_code in ExitCode for code in error_codes_of(exit_code)]

    assert sorted(listed) == sorted(ErrorCode)
    assert all(exit_code_for(code) in ExitCode for code in listed)


def test_the_numbers_are_stable() -> None:
    """Scripts depend on them."""
    numbers = {code.name: int(code) for code in ExitCode}

    assert numbers == {
        "OK": 0,
        "FAILURE": 1,
        "USAGE": 2,
        "CONFIG": 3,
        "NOT_FOUND": 4,
        "INVALID_ARGUMENT": 5,
        "TIMEOUT": 6,
        "CANCELLED": 7,
        "WORKER": 8,
        "UNAVAILABLE": 9,
        "PROVIDER": 10,
        "PERMISSION": 11,
        "STORE": 12,
        "ENVIRONMENT": 13,
        "NOT_AUDITED": 14,
        "INTERRUPTED": 130,
    }
    assert set(MEANINGS) == set(ExitCode)


def test_a_code_of_a_newer_worker_is_a_plain_failure() -> None:
    """An unknown code is no crash of the command line."""
    assert exit_code_for("invented_later") == ExitCode.FAILURE

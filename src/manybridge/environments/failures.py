"""The errors of this package, made in one place so that each carries its stable `details["reason"]`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from manybridge.errors import BridgeEnvironmentError, EnvironmentRefusedError

Reason = Literal[
    "conflict", "disk_full", "hash_mismatch", "in_use", "interpreter", "lock_incomplete", "lock_missing",
    "lock_platform", "lock_python", "lock_stale", "lock_unreadable", "not_built", "requirement", "unlocatable",
    "uv_failed", "uv_missing", "verification",
]  # fmt: skip
"""Why an environment can't be locked, built or used."""

FindingKind = Literal["known_bad", "startup_code", "corrupted", "changed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in an environment, or in a lock, that must not be started."""

    kind: FindingKind
    subject: str
    """The package with its version, or the path of the file."""
    text: str
    """What is wrong, in one sentence without a full stop."""
    sha256: str | None = None
    """Of the line or file, for `allowed_startup`."""


def failed(reason: Reason, text: str, **details: Any) -> BridgeEnvironmentError:
    """Return the error for `reason`."""
    return BridgeEnvironmentError(text, details={"reason": reason, **details})


def refused(where: str, findings: Sequence[Finding], advice: str) -> EnvironmentRefusedError:
    """Return the error that lists `findings`.

    Args:
        where: what was looked at, as the sentence's subject.
        findings: at least one.
        advice: what to do.
    """
    lines = "".join(f"\n- {each.subject}: {each.text}" for each in findings)
    text = f"{where} is refused, and no Python was started in it:{lines}\n{advice}"
    details = {"reason": findings[0].kind, "where": where, "findings": [asdict(each) for each in findings]}
    return EnvironmentRefusedError(text, details=details)

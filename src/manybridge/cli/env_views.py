"""How `manybridge env` shows lists, scans and removals to a person."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from manybridge.environments.collecting import Collected
from manybridge.environments.scanning import ScanReport

MOST_NOT_AUDITED: Final = 20
"""Lines about what was not audited; the rest is counted, and --json has all."""


def print_environments(root: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Print one line for each environment."""
    if not rows:
        print(f"no environments in {root}")
        return
    print(f"{'NAME':<14}{'BRIDGES':<24}{'PACKAGES':>8}{'SIZE':>10}{'AGE':>8}  {'LOCKED':<8}{'USED BY'}")
    for row in rows:
        users = ", ".join(map(str, row["processes"])) or "-"
        if not row["usable"]:
            users = "its Python is gone; manybridge env sync builds it again"
        name = f"{row['name'][:12]:<14}{', '.join(row['bridges']):<24}"
        size = f"{len(row['packages']):>8}{megabytes(row['bytes']):>10}{_age(row['created']):>8}"
        print(f"{name}{size}  {'yes' if row['locked'] else 'no':<8}{users}")


def print_scan(reports: Sequence[ScanReport]) -> None:
    """Print what scans found, what they could not look at, and a line for the end."""
    if not reports:
        print("no bridge has an environment to scan")
    for each in reports:
        verdict = "passed" if each.passed else "FAILED" if each.found_something else "NOT AUDITED"
        print(f"{each.bridge}: {verdict}: {each.packages} packages, {each.files} files compared, in {each.what}")
        for vulnerability in each.vulnerabilities:
            fixed = f"; fixed in {', '.join(vulnerability.fixed_in)}" if vulnerability.fixed_in else ""
            names = ", ".join([vulnerability.id, *vulnerability.aliases])
            summary = f": {vulnerability.summary}" if vulnerability.summary else ""
            print(f"  vulnerable: {vulnerability.package}=={vulnerability.version}: {names}{summary}{fixed}")
        for finding in each.findings:
            print(f"  {finding.kind.replace('_', ' ')}: {finding.subject}: {finding.text}")
        for unknown in each.not_audited[:MOST_NOT_AUDITED]:
            print(f"  not audited: {unknown.subject}: {unknown.reason}")
        if (more := len(each.not_audited) - MOST_NOT_AUDITED) > 0:
            print(f"  not audited: {more} more (--json lists all)")


def print_collected(results: Sequence[Collected], *, dry_run: bool) -> None:
    """Print what was removed and what was kept, and the space that it makes."""
    for each in results:
        word = "would be removed" if dry_run and each.outcome == "removed" else each.outcome
        print(f"{word}: {each.folder} ({megabytes(each.size)}): {each.reason}")
    freed = sum(each.size for each in results if each.outcome == "removed")
    count = sum(each.outcome == "removed" for each in results)
    print(f"{count} removed, {megabytes(freed)}" if not dry_run else f"{count} would be removed, {megabytes(freed)}")


def megabytes(size: int) -> str:
    """Return a number of bytes as a person reads it."""
    return f"{size / 1e6:.1f} MB"


def _age(created: float) -> str:
    seconds = max(0.0, time.time() - created)
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"

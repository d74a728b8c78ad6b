"""A scan: everything that can be known about an environment, and a list of what could not be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from manybridge.environments.check import findings_before_start
from manybridge.environments.denylist import Release, denylist
from manybridge.environments.failures import Finding
from manybridge.environments.folders import Environment
from manybridge.environments.interpreters import Layout, locate
from manybridge.environments.locks import Lock
from manybridge.environments.osv import Unknown, Vulnerability
from manybridge.environments.progress import Report, Step, quiet
from manybridge.environments.records import Progress, verify
from manybridge.environments.settings import Settings
from manybridge.environments.startup import releases_of

if TYPE_CHECKING:
    from manybridge.environments.advisories import Database


@dataclass(slots=True)
class ScanReport:
    """What a scan of one bridge found. Only `passed` is a pass."""

    bridge: str
    what: str
    """What was looked at: a lock, a folder."""
    source: str = ""
    """The database that was asked."""
    packages: int = 0
    files: int = 0
    """Files whose hashes were compared."""
    vulnerabilities: list[Vulnerability] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    not_audited: list[Unknown] = field(default_factory=list)

    @property
    def found_something(self) -> bool:
        """Whether there is something wrong for certain."""
        return bool(self.vulnerabilities or self.findings)

    @property
    def passed(self) -> bool:
        """Whether everything was looked at and nothing is wrong."""
        return not self.found_something and not self.not_audited


def scan_lock(
    lock: Lock, environment: Environment | None, settings: Settings, database: Database, report: Report = quiet
) -> ScanReport:
    """Scan a lock, and the environment that was built from it if there is one."""
    result = ScanReport(lock.bridge, str(lock.path))
    result.findings += denylist(settings.denylist).find(lock.releases)
    if environment is None:
        reason = f"it is not built here, so no installed file was looked at (manybridge env sync {lock.bridge})"
        result.not_audited.append(Unknown(f"the environment of {lock.bridge}", reason))
    else:
        result.what = str(environment.folder)
        installed = _scan_folders(result, locate(environment.interpreter), settings, report, is_ours=True)
        locked = {str(each) for each in lock.releases}
        result.findings += [
            Finding("changed", str(each), "is installed, and the lock does not name it")
            for each in installed
            if str(each) not in locked
        ]
    _ask(result, lock.releases, database, report)
    return result


def scan_interpreter(
    bridge: str, executable: Path, settings: Settings, database: Database, report: Report = quiet
) -> ScanReport:
    """Scan the environment of a user's own interpreter. It is not started."""
    result = ScanReport(bridge, str(executable))
    installed = _scan_folders(result, locate(executable), settings, report, is_ours=False)
    _ask(result, installed, database, report)
    return result


def _scan_folders(
    result: ScanReport, layout: Layout, settings: Settings, report: Report, *, is_ours: bool
) -> Sequence[Release]:
    found = findings_before_start(layout, settings)
    known = {(each.kind, each.subject) for each in result.findings}
    result.findings += [each for each in found if (each.kind, each.subject) not in known]
    for folder in layout.packages:
        done = verify(folder, is_ours=is_ours, progress=_told(report, f"{result.bridge}: comparing hashes"))
        result.files += done.files
        result.findings += done.findings
        result.not_audited += [Unknown(text.partition(": ")[0], text.partition(": ")[2]) for text in done.unverified]
    return releases_of(layout)


def _ask(result: ScanReport, releases: Iterable[Release], database: Database, report: Report) -> None:
    asked = sorted(set(releases), key=lambda each: (each.name, each.version))
    report(Step(f"{result.bridge}: looking up {len(asked)} packages"))
    audit = database.audit(asked)
    result.source, result.packages = audit.source, len(asked)
    result.vulnerabilities += audit.vulnerabilities
    result.not_audited += audit.not_audited


def _told(report: Report, message: str) -> Progress:
    return lambda now, of: report(Step(message, now, of))

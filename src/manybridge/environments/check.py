"""The check before any interpreter starts: known-bad versions and code that would run at every start.

It reads the names in a few folders and the `.pth` files, and takes about a millisecond for a framework's environment,
so it is made before every start of a worker. Hashes of all files are compared when an environment is built and by
`manybridge env scan` (`records.py`): that takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from manybridge.environments.denylist import Release, denylist
from manybridge.environments.failures import Finding, refused
from manybridge.environments.interpreters import Layout, locate
from manybridge.environments.settings import Settings
from manybridge.environments.startup import look_into, startup_findings

_ADVICE: Final = (
    "Remove what is named. If you have read a line or file and trust it, add its sha256 to allowed_startup in "
    "[environments]"
)


def check_before_start(executable: Path, settings: Settings) -> None:
    """Look through an environment without starting anything in it.

    Args:
        executable: its interpreter, an absolute path.
        settings: what is on the list, and what is allowed.

    Raises:
        EnvironmentRefusedError: something in it must not be started.
        BridgeEnvironmentError: `unlocatable`; what it would load can't be told.
    """
    findings = findings_before_start(locate(executable), settings)
    if findings:
        raise refused(f"the environment of {executable}", findings, _ADVICE)


def findings_before_start(layout: Layout, settings: Settings) -> list[Finding]:
    """Return everything that `check_before_start` would refuse."""
    contents = [look_into(folder) for folder in layout.packages]
    releases = [release for each in contents for release in each.releases]
    return [
        *denylist(settings.denylist).find(releases),
        *startup_findings(layout, contents, settings.allowed_startup),
    ]


def check_versions(executable: str, folders: Iterable[Path], settings: Settings) -> None:
    """Check versions alone: for the interpreter that the host itself runs under, whose start-up code has run already.

    Raises:
        EnvironmentRefusedError: a known-bad version is installed.
    """
    releases = [release for folder in folders for release in look_into(folder).releases]
    if findings := denylist(settings.denylist).find(releases):
        raise refused(f"the environment of {executable}", findings, "Install another version")


def check_releases(where: str, releases: Iterable[Release], settings: Settings) -> None:
    """Check a lock, before anything that it names is downloaded.

    Raises:
        EnvironmentRefusedError: it names a known-bad version.
    """
    if findings := denylist(settings.denylist).find(releases):
        advice = "Exclude these versions in required_packages, then lock again:\n  manybridge env lock --upgrade"
        raise refused(where, findings, advice)

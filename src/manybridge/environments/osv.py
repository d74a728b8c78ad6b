"""Records of the Open Source Vulnerability format: does one affect a release, and can that be told at all.

The format is described at https://ossf.github.io/osv-schema/. What can't be decided is said, never taken for "no".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from manybridge.environments.denylist import Release

ECOSYSTEM: Final = "PyPI"


@dataclass(frozen=True, slots=True)
class Vulnerability:
    """One advisory that affects one release."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    fixed_in: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Unknown:
    """Something that was not audited, and why: a release, or everything."""

    subject: str
    reason: str


def packages_of(record: dict[str, Any]) -> set[str]:
    """Return the packages that a record is about, in their canonical form."""
    return {name for name, _ in _affected(record)}


def affects(record: dict[str, Any], release: Release) -> Vulnerability | Unknown | None:
    """Say whether a record is about a release; None if it is not."""
    withdrawn = moment_of(record.get("withdrawn"))
    if withdrawn is not None and withdrawn <= datetime.now(UTC):  # a date that is none takes nothing back
        return None
    try:
        version = Version(release.version)
    except InvalidVersion:
        return Unknown(str(release), f"its version can't be compared with {record.get('id')}")
    entries = [entry for name, entry in _affected(record) if name == release.name]
    answers = [_is_affected(entry, version) for entry in entries]
    if any(answers):
        return _vulnerability(record, release, entries)
    if None in answers:
        return Unknown(str(release), f"{record.get('id')} does not say which versions it is about")
    return None


def moment_of(text: Any) -> datetime | None:
    """Return a date of a record, or None if it is none."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _affected(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in record.get("affected") or ():
        package = entry.get("package") or {}
        if str(package.get("ecosystem", "")).partition(":")[0] == ECOSYSTEM and package.get("name"):
            yield canonicalize_name(package["name"]), entry


def _is_affected(entry: dict[str, Any], version: Version) -> bool | None:
    """Whether one entry is about a version; None if the entry can't say."""
    # A build with a local label (2.13.0+cpu) has the code of the release, so it is looked for without the label too.
    versions = {version, Version(version.public)}
    listed = [_parsed(each) for each in entry.get("versions") or ()]
    if versions & set(listed):
        return True
    ranges = [each for each in entry.get("ranges") or () if each.get("type") in {"ECOSYSTEM", "SEMVER"}]
    answers = [_in_range(each.get("events") or (), each_version) for each in ranges for each_version in versions]
    if any(answers):
        return True
    return None if None in answers or None in listed or not (ranges or listed) else False


def _in_range(events: Any, version: Version) -> bool | None:
    """Evaluate the events of a range in the order of their versions, as the format says."""
    points: list[tuple[Version, str]] = []
    for event in events:
        for kind, value in event.items():
            if (kind, value) == ("limit", "*"):
                continue
            parsed = Version("0.dev0") if value == "0" else _parsed(value)
            if parsed is None:
                return None
            points.append((parsed, kind))
    limits = [point for point, kind in points if kind == "limit"]
    if limits and version >= max(limits):
        return False
    inside = False
    for point, kind in sorted(points, key=lambda each: each[0]):
        if kind == "introduced" and version >= point:
            inside = True
        elif (kind == "fixed" and version >= point) or (kind == "last_affected" and version > point):
            inside = False
    return inside


def _vulnerability(record: dict[str, Any], release: Release, entries: list[dict[str, Any]]) -> Vulnerability:
    fixed = {
        str(event["fixed"])
        for entry in entries
        for each in entry.get("ranges") or ()
        if each.get("type") in {"ECOSYSTEM", "SEMVER"}
        for event in each.get("events") or ()
        if "fixed" in event
    }
    return Vulnerability(
        release.name,
        release.version,
        str(record.get("id", "without an id")),
        tuple(sorted(map(str, record.get("aliases") or ()))),
        str(record.get("summary") or record.get("details") or "").split("\n")[0][:200],
        tuple(sorted(fixed)),
    )


def _parsed(text: Any) -> Version | None:
    try:
        return Version(str(text))
    except InvalidVersion:
        return None

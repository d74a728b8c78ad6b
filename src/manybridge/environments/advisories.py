"""Where advisories come from: a snapshot on the disk, or an OSV server.

Both answer the same question, and both say what they could not look up. A database that is not there, is damaged, is
old, or does not answer has audited nothing.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from manybridge.environments.denylist import Release
from manybridge.environments.osv import ECOSYSTEM, Unknown, Vulnerability, affects, packages_of

OSV_SERVER: Final = "https://api.osv.dev"
SERVER_TIMEOUT: Final = 20.0
"""Seconds for one answer: a server that does not answer must not hold up a pipeline for minutes."""
QUERIES_AT_ONCE: Final = 500
"""The server takes 1000 in one request."""
MOST_PAGES: Final = 20
"""Pages of one answer that are asked for; a server that always has another has not answered."""

_DAY: Final = 86_400.0

# What damaged, encrypted, endlessly nested or foreign data make of the parsers; also a server that breaks off, or that
# does not speak HTTP. All of it means the same: nothing was looked up.
_UNREADABLE: Final = (
    OSError, ValueError, AttributeError, TypeError, KeyError, EOFError, RuntimeError,
    zipfile.BadZipFile, zlib.error, http.client.HTTPException,
)  # fmt: skip


@dataclass(slots=True)
class Audit:
    """What a database said."""

    source: str
    vulnerabilities: list[Vulnerability] = field(default_factory=list)
    not_audited: list[Unknown] = field(default_factory=list)


class Database(Protocol):
    """A source of advisories."""

    def audit(self, releases: Sequence[Release]) -> Audit:
        """Look up releases. Never raises: what could not be looked up is in the answer."""
        ...


def open_database(source: str | None, max_age: float) -> Database:
    """Return the database that `source` names: a URL or a path; None is OSV's own server.

    Args:
        source: what is configured.
        max_age: days after which a snapshot says nothing any more.
    """
    if source is None or source.startswith(("http://", "https://")):
        return Server(source or OSV_SERVER)
    return Snapshot(Path(source), max_age)


class Snapshot:
    """Records in a folder (a JSON file each), a zip file of such, or a file with one record in each line."""

    def __init__(self, path: Path, max_age: float) -> None:
        self._path = path
        self._max_age = max_age

    def audit(self, releases: Sequence[Release]) -> Audit:
        """Look up releases in every record. One damaged record leaves everything not audited: it may be about any."""
        audit = Audit(str(self._path))
        by_name: dict[str, list[Release]] = {}
        for release in releases:
            by_name.setdefault(release.name, []).append(release)
        newest, records = 0.0, 0
        try:
            for record in self._records():
                packages = packages_of(record)
                records += bool(packages)
                newest = max(newest, _modified(record))
                for release in (each for name in packages for each in by_name.get(name, ())):
                    _add(audit, affects(record, release))
        except _UNREADABLE as error:
            audit.not_audited += _all(releases, f"the snapshot {self._path} can't be read: {_said(error)}")
            return audit
        if not records:
            audit.not_audited += _all(releases, f"the snapshot {self._path} has no record about Python packages")
        elif (age := (time.time() - newest) / _DAY) > self._max_age:
            text = f"the newest record of {self._path} is {age:.0f} days old, and {self._max_age:g} are allowed"
            audit.not_audited += _all(releases, text)
        return audit

    def _records(self) -> Iterator[dict[str, Any]]:
        if self._path.is_dir():
            for path in sorted(self._path.rglob("*.json")):
                yield _record(path.read_bytes(), path.name)
        elif zipfile.is_zipfile(self._path):
            with zipfile.ZipFile(self._path) as archive:
                for name in archive.namelist():
                    if name.endswith(".json"):
                        yield _record(archive.read(name), name)
        else:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield _record(line, f"line {number}")


class Server:
    """An OSV server. Names and versions of packages go to it, nothing else."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def audit(self, releases: Sequence[Release]) -> Audit:
        """Ask the server about releases, some hundred at a time."""
        audit = Audit(self._url)
        for start in range(0, len(releases), QUERIES_AT_ONCE):
            some = releases[start : start + QUERIES_AT_ONCE]
            try:
                self._ask(some, audit)
            except _UNREADABLE as error:
                reason = error.reason if isinstance(error, urllib.error.URLError) else _said(error)
                audit.not_audited += _all(some, f"{self._url} can't be asked: {reason}")
        return audit

    def _ask(self, releases: Sequence[Release], audit: Audit) -> None:
        waiting: dict[int, str | None] = dict.fromkeys(range(len(releases)))
        for _ in range(MOST_PAGES):
            numbers = list(waiting)
            answers = self._post([_query(releases[number], waiting[number]) for number in numbers])
            if len(answers) != len(numbers):
                raise ValueError(f"{len(answers)} answers to {len(numbers)} questions")
            waiting = {}
            for number, answer in zip(numbers, answers, strict=True):
                release = releases[number]
                found = _found(answer)
                audit.vulnerabilities += [Vulnerability(release.name, release.version, each) for each in found]
                if token := answer.get("next_page_token"):
                    waiting[number] = str(token)
            if not waiting:
                return
        audit.not_audited += _all((releases[number] for number in waiting), f"{self._url} has no end of pages")

    def _post(self, queries: list[dict[str, Any]]) -> list[Any]:
        request = urllib.request.Request(  # noqa: S310  # open_database lets http and https through, nothing else
            f"{self._url}/v1/querybatch",
            data=json.dumps({"queries": queries}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=SERVER_TIMEOUT) as reply:  # noqa: S310  # as above
            results = json.load(reply)["results"]
        if not isinstance(results, list):
            raise TypeError("its answer has no list of results")
        return results


def _query(release: Release, page: str | None) -> dict[str, Any]:
    # The database knows releases, not builds with a local label (2.13.0+cpu).
    version = release.version.partition("+")[0]
    query: dict[str, Any] = {"package": {"name": release.name, "ecosystem": ECOSYSTEM}, "version": version}
    return query if page is None else {**query, "page_token": page}


def _found(answer: Any) -> list[str]:
    """Return the advisories of one answer. A package without any is answered by `{}`; all else is no answer at all.

    Raises:
        TypeError: it is no answer, such as null or an error in the place of one; taken for "none", it would be a pass.
        KeyError: an advisory has no id.
    """
    if not isinstance(answer, dict) or not answer.keys() <= {"vulns", "next_page_token"}:
        raise TypeError(f"expected {{vulns: [...]}} or {{}} for a package, found {json.dumps(answer)[:80]}")
    listed = answer.get("vulns", [])
    if not isinstance(listed, list):
        raise TypeError(f"expected a list of vulns, found {json.dumps(listed)[:80]}")
    return [str(each["id"]) for each in listed]


def _record(data: bytes, where: str) -> dict[str, Any]:
    try:
        record = json.loads(data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    if not isinstance(record, dict) or "id" not in record:
        raise ValueError(f"{where}: it is no advisory, since it has no id")
    return record


def _modified(record: dict[str, Any]) -> float:
    try:
        moment = datetime.fromisoformat(str(record.get("modified")))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _said(error: Exception) -> str:
    """The words of an error, or its name: many of HTTP's have no words."""
    return str(error) or type(error).__name__


def _add(audit: Audit, answer: Vulnerability | Unknown | None) -> None:
    if isinstance(answer, Vulnerability):
        audit.vulnerabilities.append(answer)
    elif answer is not None:
        audit.not_audited.append(answer)


def _all(releases: Iterable[Release], reason: str) -> list[Unknown]:
    return [Unknown(str(release), reason) for release in releases]

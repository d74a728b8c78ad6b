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
from pathlib import Path
from typing import IO, Any, Final, Protocol

from manybridge.environments.denylist import Release
from manybridge.environments.osv import ECOSYSTEM, Unknown, Vulnerability, affects, moment_of, packages_of

OSV_SERVER: Final = "https://api.osv.dev"
SERVER_TIMEOUT: Final = 20.0
"""Seconds for one answer: a server that does not answer must not hold up a pipeline for minutes."""
QUERIES_AT_ONCE: Final = 500
"""The server takes 1000 in one request."""
MOST_PAGES: Final = 20
"""Pages of one answer that are asked for; a server that always has another has not answered."""

_DAY: Final = 86_400.0
_READ_AT_ONCE: Final = 1 << 16
_FORMS: Final = (".json", ".jsonl", ".ndjson", ".zip")
"""What is read of a folder; it may hold other things too."""

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
    """Records in files: one, a list of them, an answer of OSV (`{"vulns": [...]}`), or one in each line.

    The path is such a file, a zip file of such, or a folder of both.
    """

    def __init__(self, path: Path, max_age: float) -> None:
        self._path = path
        self._max_age = max_age

    def audit(self, releases: Sequence[Release]) -> Audit:
        """Look up releases in every record. One damaged record leaves everything not audited: it may be about any."""
        audit = Audit(str(self._path))
        by_name: dict[str, list[Release]] = {}
        for release in releases:
            by_name.setdefault(release.name, []).append(release)
        now, newest, records = time.time(), 0.0, 0
        try:
            for record in self._records():
                packages = packages_of(record)
                records += bool(packages)
                newest = max(newest, _modified(record, now))
                for release in (each for name in packages for each in by_name.get(name, ())):
                    _add(audit, affects(record, release))
        except _UNREADABLE as error:
            audit.not_audited += _nothing(releases, f"the snapshot {self._path} can't be read: {_said(error)}")
            return audit
        if not records:
            audit.not_audited += _nothing(releases, f"the snapshot {self._path} has no record about Python packages")
        elif (age := (now - newest) / _DAY) > self._max_age:
            text = f"the newest record of {self._path} is {age:.0f} days old, and {self._max_age:g} are allowed"
            audit.not_audited += _nothing(releases, text)
        return audit

    def _records(self) -> Iterator[dict[str, Any]]:
        if self._path.is_dir():
            for path in sorted(each for each in self._path.rglob("*") if each.suffix in _FORMS):
                yield from _records_of(path, f"{path.relative_to(self._path)}: ")
        else:
            yield from _records_of(self._path, "")


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
            results = json.loads(_body(reply))["results"]
        if not isinstance(results, list):
            raise TypeError("its answer has no list of results")
        return results


def _body(reply: http.client.HTTPResponse) -> bytes:
    """Read an answer to its end. The timeout of the connection alone counts anew with each byte."""
    deadline = time.monotonic() + SERVER_TIMEOUT
    expected, body = reply.length, bytearray()
    while part := reply.read1(_READ_AT_ONCE):
        body += part
        if time.monotonic() > deadline:
            raise TimeoutError("timed out")
    if expected is not None and len(body) < expected:
        raise http.client.IncompleteRead(bytes(body), expected - len(body))
    return bytes(body)


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


def _records_of(path: Path, where: str) -> Iterator[dict[str, Any]]:
    """Yield the records of one file; `where` goes before what is said of it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(_FORMS):
                    with archive.open(name) as file:
                        yield from _records_in(file, f"{where}{name}: ")
    else:
        with path.open("rb") as file:
            yield from _records_in(file, where)


def _records_in(file: IO[bytes], where: str) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON document, or of a file with one in each line. That is read as it is needed."""
    number, first = next(((number, line) for number, line in enumerate(file, 1) if line.strip()), (0, b""))
    if not first:
        return
    try:
        begins = json.loads(first)
    except ValueError:
        begins = None  # a document of several lines, or damaged
    if not isinstance(begins, dict) or "id" not in begins:
        yield from _records_of_document(first + file.read(), f"{where}line {number}")
        return
    yield begins
    for later, line in enumerate(file, number + 1):
        if line.strip():
            yield _record(_parsed(line, f"{where}line {later}"), f"{where}line {later}")


def _records_of_document(data: bytes, where: str) -> Iterator[dict[str, Any]]:
    document = _parsed(data, where)
    if isinstance(document, dict) and isinstance(document.get("vulns"), list):
        document = document["vulns"]
    for record in document if isinstance(document, list) else [document]:
        yield _record(record, where)


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _record(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict) or "id" not in record:
        raise ValueError(f"{where}: it is no advisory, since it has no id")
    return record


def _modified(record: dict[str, Any], now: float) -> float:
    """Return when a record was changed last; one that is dated tomorrow says nothing about the snapshot's age."""
    moment = moment_of(record.get("modified"))
    stamp = moment.timestamp() if moment else 0.0
    return stamp if stamp <= now + _DAY else 0.0


def _said(error: Exception) -> str:
    """The words of an error, or its name: many of HTTP's have no words."""
    return str(error) or type(error).__name__


def _add(audit: Audit, answer: Vulnerability | Unknown | None) -> None:
    if isinstance(answer, Vulnerability):
        audit.vulnerabilities.append(answer)
    elif answer is not None:
        audit.not_audited.append(answer)


def _nothing(releases: Iterable[Release], reason: str) -> list[Unknown]:
    """All releases; where there are none, the database itself: what can't be read is no pass for anybody."""
    return _all(releases, reason) or [Unknown("advisories", reason)]


def _all(releases: Iterable[Release], reason: str) -> list[Unknown]:
    return [Unknown(str(release), reason) for release in releases]

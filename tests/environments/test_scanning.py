"""A scan passes only if everything was looked at and nothing is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from manybridge.environments.advisories import Audit
from manybridge.environments.check import findings_before_start
from manybridge.environments.denylist import Release
from manybridge.environments.interpreters import locate
from manybridge.environments.locks import read_lock
from manybridge.environments.osv import Unknown, Vulnerability
from manybridge.environments.scanning import scan_interpreter, scan_lock
from manybridge.environments.settings import Settings
from tests.environments.conftest import World
from tests.support import framework_python


class Prepared:
    """A database that says what it was told to, and remembers what it was asked."""

    def __init__(self, *said: Vulnerability | Unknown) -> None:
        self._said = said
        self.asked: list[str] = []

    def audit(self, releases: Sequence[Release]) -> Audit:
        """Answer."""
        self.asked = [str(each) for each in releases]
        audit = Audit("prepared")
        audit.vulnerabilities += [each for each in self._said if isinstance(each, Vulnerability)]
        audit.not_audited += [each for each in self._said if isinstance(each, Unknown)]
        return audit


def test_a_sound_environment_passes(world: World) -> None:
    """Every locked package was asked about."""
    environment = world.build("alpha")
    database = Prepared()

    report = scan_lock(read_lock(world.locks / "mine.txt"), environment, world.settings, database)

    assert report.passed
    assert database.asked == ["alpha==1.0", "beta==1.0"]
    assert (report.packages, report.source) == (2, "prepared")


def test_a_vulnerability_is_no_pass(world: World) -> None:
    """Even where the rest is right."""
    environment = world.build("alpha")
    database = Prepared(Vulnerability("beta", "1.0", "TEST-1"))

    report = scan_lock(read_lock(world.locks / "mine.txt"), environment, world.settings, database)

    assert (report.passed, report.found_something) == (False, True)


def test_what_could_not_be_looked_up_is_no_pass(world: World) -> None:
    """And nothing found either."""
    environment = world.build("alpha")
    database = Prepared(Unknown("beta==1.0", "nobody knows"))

    report = scan_lock(read_lock(world.locks / "mine.txt"), environment, world.settings, database)

    assert (report.passed, report.found_something) == (False, False)


def test_an_environment_that_is_not_built_was_not_audited(world: World) -> None:
    """Its lock alone was."""
    report = scan_lock(world.lock("alpha").lock, None, world.settings, Prepared())

    assert [each.subject for each in report.not_audited] == ["the environment of mine"]


def test_a_release_that_became_known_bad_after_the_build_is_found_once(world: World) -> None:
    """It is in the lock and in the environment."""
    environment = world.build("alpha")
    settings = replace(world.settings, denylist={"beta==1.0": "we learned of it today"})

    report = scan_lock(read_lock(world.locks / "mine.txt"), environment, settings, Prepared())

    assert [(each.kind, each.subject) for each in report.findings] == [("known_bad", "beta==1.0")]


def test_what_was_installed_beside_the_lock_is_found(world: World) -> None:
    """An environment is never changed; somebody did."""
    environment = world.build("alpha")
    (folder,) = environment.folder.glob("lib/python*/site-packages")
    (folder / "gamma-3.0.dist-info").mkdir()

    report = scan_lock(read_lock(world.locks / "mine.txt"), environment, world.settings, Prepared())

    assert ("changed", "gamma==3.0") in [(each.kind, each.subject) for each in report.findings]
    assert "gamma-3.0.dist-info" in [each.subject for each in report.not_audited]


@pytest.mark.framework
@pytest.mark.parametrize("name", ["dspy", "sklearn", "langchain", "transformers"])
def test_the_real_environments_may_be_started(name: str) -> None:
    """The one line that any of them runs at its start is setuptools' own, in front of setuptools' own module."""
    assert findings_before_start(locate(framework_python(name)), Settings(root=Path("/nowhere"))) == []


@pytest.mark.framework
def test_every_file_of_a_real_environment_is_what_was_installed() -> None:
    """The smallest of the four, with some thousand files; the database is another matter."""
    database = Prepared()

    report = scan_interpreter("langchain", framework_python("langchain"), Settings(root=Path("/nowhere")), database)

    assert (report.findings, report.not_audited) == ([], [])
    assert report.files > 1000
    assert len(database.asked) == report.packages > 30

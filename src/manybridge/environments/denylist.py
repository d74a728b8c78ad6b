"""Known-bad releases: a list that ships, extended by configuration."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from manybridge.environments.failures import Finding, failed

KNOWN_BAD: Final = Path(__file__).parent / "data" / "known_bad.toml"


@dataclass(frozen=True, slots=True)
class Release:
    """A package with its version, as a lock or a folder names it."""

    name: str
    """In its canonical form: lower case, single dashes."""
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


class Denylist:
    """Which releases are known to be bad, and why."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        """Read entries: requirement -> reason.

        Raises:
            BridgeEnvironmentError: `requirement`; an entry can't be read.
        """
        self._entries: dict[str, list[tuple[Requirement, str]]] = {}
        for text, reason in entries.items():
            try:
                requirement = Requirement(text)
            except InvalidRequirement as error:
                said = str(error).splitlines()[0]
                raise failed(
                    "requirement",
                    f'environments.extra_denylist: expected a requirement such as "litellm==1.82.8", '
                    f'found "{text}": {said}',
                    requirement=text,
                ) from error
            self._entries.setdefault(canonicalize_name(requirement.name), []).append((requirement, reason))

    def find(self, releases: Iterable[Release]) -> list[Finding]:
        """Return a finding for each release that is on the list."""
        return [
            Finding("known_bad", str(release), f"a known-bad version: {reason}")
            for release in releases
            for requirement, reason in self._entries.get(release.name, ())
            if _matches(requirement, release.version)
        ]


def denylist(extra: Mapping[str, str]) -> Denylist:
    """Return the list that ships together with `extra`.

    Raises:
        BridgeEnvironmentError: `requirement`; an entry of `extra` can't be read.
    """
    return _denylist(tuple(extra.items()))


@cache
def _denylist(extra: tuple[tuple[str, str], ...]) -> Denylist:
    shipped = tomllib.loads(KNOWN_BAD.read_text(encoding="utf-8"))["release"]
    return Denylist({entry["requirement"]: entry["reason"] for entry in shipped} | dict(extra))


def _matches(requirement: Requirement, version: str) -> bool:
    try:
        parsed = Version(version)
    except InvalidVersion:
        # What can't be compared is taken for bad if its package is on the list at all: never a pass.
        return True
    # 1.82.8+rebuilt is 1.82.8 with something added, so the public part counts too.
    return requirement.specifier.contains(parsed, prereleases=True) or requirement.specifier.contains(
        parsed.public, prereleases=True
    )

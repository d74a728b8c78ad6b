"""Lock files: what they say, and what of it makes an environment's name.

A lock is a requirements file that pip and uv can read: every package with its exact version and hashes, and nothing
else. No option is accepted in it, so that it can name no index, no folder and no address. The comments at its head
carry what it was made for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from manybridge.environments.denylist import Release
from manybridge.environments.failures import failed

TITLE: Final = "# Locked by manybridge. Commit this file; `manybridge env lock` changes it."

_HEAD: Final = re.compile(r"# (?P<key>bridge|python|platform|requires): (?P<value>.+)")
_PIN: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==(?P<version>[A-Za-z0-9.!+_-]+)\s*(?:;\s*(?P<marker>.+))?"
)
_HASH: Final = re.compile(r"--hash=(?P<hash>sha(?:256|384|512):[0-9a-f]{64,128})")
_DEMANDED_BY: Final = re.compile(r"#\s+(?:via\s+)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)$")

_NAME_LENGTH: Final = 32
"""Hexadecimal digits of an environment's name: 128 bits, so two never meet by chance."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One locked package."""

    release: Release
    hashes: tuple[str, ...]
    """`sha256:...`, sorted; one for each file of the release that fits."""
    marker: str | None = None
    demanded_by: tuple[str, ...] = ()
    """The locked packages that asked for it, as the resolver said."""


@dataclass(frozen=True, slots=True)
class Lock:
    """One lock file."""

    bridge: str
    python: str
    platform: str
    requires: tuple[str, ...]
    """The requirements that were locked, in their canonical form, sorted."""
    pins: tuple[Pin, ...]
    text: str = field(repr=False, default="")
    path: Path | None = None

    @property
    def releases(self) -> list[Release]:
        """Every locked package with its version."""
        return [pin.release for pin in self.pins]

    @property
    def environment(self) -> str:
        """The name of the environment that this lock describes.

        Made from packages, versions, markers and hashes, Python and platform. Comments, order and the bridge's name
        make no difference: two bridges with equal locks share one environment.
        """
        lines = [
            f"{pin.release};{pin.marker or ''} {' '.join(pin.hashes)}"
            for pin in sorted(self.pins, key=lambda pin: pin.release.name)
        ]
        content = "\n".join(["manybridge environment 1", self.python, self.platform, *lines])
        return hashlib.sha256(content.encode()).hexdigest()[:_NAME_LENGTH]


def lock_text(bridge: str, python: str, platform: str, requires: Iterable[str], body: str) -> str:
    """Return the text of a lock file."""
    head = [TITLE, f"# bridge: {bridge}", f"# python: {python}", f"# platform: {platform}"]
    head += [f"# requires: {each}" for each in requires]
    return "\n".join(head) + "\n\n" + body.strip() + "\n"


def read_lock(path: Path) -> Lock:
    """Read a lock file.

    Raises:
        BridgeEnvironmentError: `lock_missing`, `lock_unreadable` or `lock_incomplete`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise failed("lock_missing", f"there is no lock {path}; make it with:\n  manybridge env lock") from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, 0, str(error)) from error
    return parse_lock(text, path)


def parse_lock(text: str, path: Path) -> Lock:
    """Read the text of a lock.

    Raises:
        BridgeEnvironmentError: `lock_unreadable` or `lock_incomplete`; the text names the line.
    """
    head: dict[str, list[str]] = {"bridge": [], "python": [], "platform": [], "requires": []}
    pins: list[Pin] = []
    for number, line, comments in _entries(text):
        if not line:
            for comment in comments:
                if match := _HEAD.fullmatch(comment):
                    head[match["key"]].append(match["value"].strip())
            continue
        pins.append(_pin(path, number, line, comments))
    for key in ("bridge", "python", "platform"):
        if len(head[key]) != 1:
            raise _unreadable(path, 1, f'expected one line "# {key}: ...", found {len(head[key])}')
    if not pins and head["requires"]:
        raise _unreadable(path, 0, "it locks no package")
    seen = [pin.release.name for pin in pins if pin.marker is None]
    if twice := sorted({name for name in seen if seen.count(name) > 1}):
        raise _unreadable(path, 0, f"{twice[0]} is locked twice")
    (bridge,), (python,), (platform,) = head["bridge"], head["python"], head["platform"]
    return Lock(bridge, python, platform, tuple(head["requires"]), tuple(pins), text, path)


def canonical_requirements(key: str, requirements: Iterable[str]) -> tuple[str, ...]:
    """Return requirements in one spelling each, sorted, so that two lists can be compared.

    Args:
        key: where they are written, for the error.
        requirements: as they are written.

    Raises:
        BridgeEnvironmentError: `requirement`; one can't be read, or names an address.
    """
    return tuple(sorted(_canonical(key, each) for each in requirements))


def _canonical(key: str, text: str) -> str:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise failed(
            "requirement",
            f'{key}: expected a requirement such as "dspy>=3", found "{text}": {reason}',
            requirement=text,
        ) from error
    if requirement.url is not None:
        raise failed(
            "requirement",
            f'{key}: expected a package and its versions, found the address in "{text}". An address does not belong '
            "into a lock; put the wheel into a folder and name that in find_links of [environments]",
            requirement=text,
        )
    requirement.name = canonicalize_name(requirement.name)
    return str(requirement)


def _entries(text: str) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line number, joined line and the comments behind it; comments before the first entry come with no line."""
    number, current, comments, is_open = 1, "", list[str](), False
    for here, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            comments += [line] if line else []
            continue
        if not is_open:
            yield number, current, comments
            number, current, comments = here, "", []
        is_open = line.endswith("\\")
        current = f"{current} {line.removesuffix(chr(92)).strip()}".strip()
    yield number, current, comments


def _pin(path: Path, number: int, line: str, comments: list[str]) -> Pin:
    before, *rest = re.split(r"\s+(?=--)", line)
    match = _PIN.fullmatch(before.strip())
    if match is None:
        raise _unreadable(path, number, f'expected "name==version", found "{before[:80]}"')
    hashes = [_HASH.fullmatch(each.strip()) for each in rest]
    if None in hashes:
        wrong = next(each for each, found in zip(rest, hashes, strict=True) if found is None)
        raise _unreadable(path, number, f'expected --hash=sha256:..., found "{wrong[:80]}"')
    release = Release(canonicalize_name(match["name"]), match["version"])
    if not hashes:
        raise failed(
            "lock_incomplete",
            f"{path}:{number}: {release} has no hash, so what is installed could not be compared; lock again:\n"
            "  manybridge env lock",
            path=str(path),
            line=number,
            package=str(release),
        )
    found = sorted({each["hash"] for each in hashes if each})
    return Pin(release, tuple(found), _marker(path, number, match["marker"]), _demanded_by(comments))


def _marker(path: Path, number: int, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return str(Marker(text))
    except InvalidMarker as error:
        raise _unreadable(path, number, f'the marker "{text}" can\'t be read') from error


def _demanded_by(comments: list[str]) -> tuple[str, ...]:
    names = (match["name"] for comment in comments if (match := _DEMANDED_BY.fullmatch(comment)))
    return tuple(sorted({canonicalize_name(name) for name in names if name != "via"}))


def _unreadable(path: Path, line: int, reason: str) -> Exception:
    where = f"{path}:{line}" if line else str(path)
    text = f"the lock {where} can't be read: {reason}; lock again:\n  manybridge env lock"
    return failed("lock_unreadable", text, path=str(path), line=line)

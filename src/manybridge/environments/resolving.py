"""Making a lock: uv resolves the requirements of one bridge, and its answer becomes the lock's text."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from manybridge.environments.check import check_releases
from manybridge.environments.failures import Reason, failed
from manybridge.environments.locks import Lock, canonical_requirements, lock_text, parse_lock, read_lock
from manybridge.environments.progress import Report, Step, quiet
from manybridge.environments.settings import Settings
from manybridge.environments.target import base_python, platform_tag
from manybridge.environments.uv import Done, find_links, is_full, only_wheels, run_uv
from manybridge.errors import BridgeEnvironmentError

_OWN_INPUT: Final = re.compile(r"^(\s*#.*?)(?:-r )?[^\s#]*requirements\.in$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Locked:
    """What became of a lock file."""

    lock: Lock
    outcome: Literal["created", "updated", "unchanged"]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def make_lock(
    bridge: str,
    requirements: Sequence[str],
    path: Path,
    settings: Settings,
    *,
    upgrade: bool = False,
    report: Report = quiet,
) -> Locked:
    """Resolve the requirements of a bridge and write its lock.

    Versions of the present lock are kept where they still fit.

    Args:
        bridge: its name.
        requirements: its `required_packages`.
        path: the lock file; written only when everything is right.
        settings: where packages come from, and what is on the list.
        upgrade: take the newest versions that fit.
        report: told of the progress.

    Raises:
        BridgeEnvironmentError: `conflict` with uv's explanation, `requirement`, `uv_missing`, `uv_failed`, `disk_full`.
        EnvironmentRefusedError: what was resolved has a known-bad version; nothing was written.
    """
    wanted = canonical_requirements(f"bridges.{bridge}.required_packages", requirements)
    old = _present(path)
    python = base_python(settings)
    report(Step(f"{bridge}: resolving {len(wanted)} requirement(s) for {python.tag}"))
    keeps = None if upgrade or old is None else old.text
    body = _without_input_names(_resolve(bridge, wanted, keeps, python.executable, path.parent, settings, report))
    if not any(line and not line.startswith("#") for line in map(str.strip, body.splitlines())):
        text = f"bridges.{bridge}.required_packages: nothing of it applies to {python.tag} on {platform_tag()}"
        raise failed("requirement", f"{text}, so there is nothing to lock: {', '.join(wanted)}")
    lock = parse_lock(lock_text(bridge, python.tag, platform_tag(), wanted, body), path)
    check_releases(f'what was resolved for bridge "{bridge}"', lock.releases, settings)
    if old is not None and old.text == lock.text:
        return Locked(old, "unchanged")
    try:
        _write(path, lock.text)
    except OSError as error:
        raise _not_written(f"the lock {path}", error) from error
    before = {str(each) for each in old.releases} if old else set()
    after = {str(each) for each in lock.releases}
    outcome: Literal["created", "updated"] = "created" if old is None else "updated"
    return Locked(lock, outcome, tuple(sorted(after - before)), tuple(sorted(before - after)))


def _resolve(
    bridge: str, wanted: Sequence[str], keeps: str | None, python: str, folder: Path, settings: Settings, report: Report
) -> str:
    nearest = next(each for each in (folder, *folder.parents) if each.is_dir())
    with ExitStack() as held:
        try:
            scratch = held.enter_context(tempfile.TemporaryDirectory(prefix="manybridge-lock-"))
            source, target = Path(scratch, "requirements.in"), Path(scratch, "lock.txt")
            source.write_text("".join(f"{each}\n" for each in wanted), encoding="utf-8")
            if keeps is not None:
                target.write_text(keeps, encoding="utf-8")  # uv prefers the versions of the file that it writes
        except OSError as error:
            raise _not_written(f"files in {tempfile.gettempdir()}", error) from error
        arguments = [
            "pip", "compile", str(source), "--output-file", str(target), "--generate-hashes", "--python", python,
            "--no-header", "--no-emit-index-url", "--no-emit-find-links", "--annotation-style", "split",
            *only_wheels(settings), *find_links(settings), *(["--upgrade"] if keeps is None else []),
        ]  # fmt: skip
        done = run_uv(
            settings,
            arguments,
            folder=nearest,
            tick=lambda: report(Step(f"{bridge}: resolving {len(wanted)} requirement(s)")),
        )
        if done.status:
            raise _refusal(bridge, wanted, done)
        return target.read_text(encoding="utf-8")


def _refusal(bridge: str, wanted: Sequence[str], done: Done) -> BridgeEnvironmentError:
    heads: dict[Reason, str] = {
        "conflict": "there are no versions that fit together; uv says",
        "disk_full": "the disk is full; uv says",
        "hash_mismatch": "a file is not what its index promised; uv says",
    }
    head = heads.get(done.reason, "uv could not resolve its requirements")
    text = f'can\'t lock the environment of bridge "{bridge}" ({", ".join(wanted)}): {head}:\n{done.explanation}'
    return failed(done.reason, text, bridge=bridge, requirements=list(wanted), uv=done.explanation)


def _without_input_names(body: str) -> str:
    """Write "required_packages" where uv names the file that it was given, whose name is new each time."""
    return _OWN_INPUT.sub(r"\1required_packages", body)


def _present(path: Path) -> Lock | None:
    """Return the lock that is there. One that can't be read is replaced, so it is as if there were none."""
    try:
        return read_lock(path)
    except BridgeEnvironmentError:
        return None


def _not_written(what: str, error: OSError) -> BridgeEnvironmentError:
    """Return the error for a file that can't be written; the lock that was there is as it was."""
    said = error.strerror or str(error)
    if is_full(error):
        return failed("disk_full", f"not enough space for {what}; free some. The system said: {said}")
    return failed("uv_failed", f"can't write {what}: {said}")


def _write(path: Path, text: str) -> None:
    """Write the file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)

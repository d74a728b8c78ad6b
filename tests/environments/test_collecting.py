"""`env gc` removes what nobody needs, and nothing that anybody might."""

from __future__ import annotations

import os
import subprocess

import pytest

from manybridge.environments.claims import try_exclusive, try_shared, users_of, who_builds
from manybridge.environments.collecting import KNOWN, collect, known_locks, processes_in, remember_locks
from manybridge.environments.folders import BUILDING, REMOVED, scratch_name
from manybridge.errors import BridgeEnvironmentError
from tests.environments.conftest import World
from tests.support import eventually


def removed(world: World, *, dry_run: bool = False) -> list[str]:
    """Collect, and return the names of what was removed."""
    results = collect(world.settings.root, world.locks, dry_run=dry_run)
    return [each.folder.name for each in results if each.outcome == "removed"]


def test_an_environment_that_a_lock_describes_stays(world: World) -> None:
    """It is needed, whether or not it is used."""
    environment = world.build("alpha")

    assert removed(world) == []
    assert environment.interpreter.exists()


def test_an_environment_of_no_lock_goes(world: World) -> None:
    """A dry run says so and removes nothing."""
    old = world.build("alpha")
    new = world.build("beta")

    assert removed(world, dry_run=True) == [old.name]
    assert world.folders() == sorted([old.name, new.name])
    assert removed(world) == [old.name]
    assert (world.folders(), world.scratch()) == ([new.name], [])


def test_an_environment_that_another_known_configuration_needs_stays(world: World) -> None:
    """Two projects share the folder of environments."""
    remember_locks(world.settings.root, world.locks)
    remember_locks(world.settings.root, world.locks)
    remember_locks(world.settings.root, world.folder / "gone")
    world.build("alpha")

    assert known_locks(world.settings.root) == [world.locks]
    assert not [each for each in collect(world.settings.root, None, dry_run=False) if each.outcome == "removed"]


@pytest.mark.parametrize("half", [b"", b"proj", b"\xff"])
def test_half_a_note_of_a_configuration_is_none_and_is_written_again(world: World, half: bytes) -> None:
    """A full disk left it: as a path it would be this folder, or another one."""
    root = world.settings.root
    remember_locks(root, world.locks)
    (note,) = (root / KNOWN).iterdir()
    note.write_bytes(half)
    world.build("alpha")

    assert known_locks(root) == []
    remember_locks(root, world.locks)
    assert known_locks(root) == [world.locks]
    assert list((root / KNOWN).iterdir()) == [note]


def test_a_folder_whose_name_is_no_text_is_remembered(world: World) -> None:
    """To the system a name is bytes."""
    locks = world.folder / os.fsdecode(b"na\xefve")
    locks.mkdir()

    remember_locks(world.settings.root, locks)

    assert known_locks(world.settings.root) == [locks]


def test_an_environment_that_a_host_uses_stays(world: World) -> None:
    """And goes when the host has ended."""
    environment = world.build("alpha")
    world.lock("beta")
    claim = try_shared(world.settings.root, environment.name)
    assert claim is not None

    with claim:
        assert removed(world) == []

    assert removed(world) == [environment.name]


def test_an_environment_that_a_process_runs_in_stays(world: World) -> None:
    """A worker that somebody started by hand has no claim."""
    environment = world.build("alpha")
    world.lock("beta")
    with subprocess.Popen([environment.interpreter, "-c", "input()"], stdin=subprocess.PIPE) as process:
        eventually(lambda: process.pid in processes_in(world.settings.root, environment))
        assert removed(world) == []

    assert removed(world) == [environment.name]


def test_what_killed_builds_left_goes_unless_one_still_runs(world: World) -> None:
    """So do halves of removals."""
    for kind in (BUILDING, REMOVED):
        (world.settings.root / scratch_name(kind, "a" * 32)).mkdir(parents=True)
    (world.settings.root / scratch_name(BUILDING, "b" * 32)).mkdir()
    claim = try_exclusive(world.settings.root, "b" * 32, "builds it")
    assert claim is not None

    with claim:
        assert len(removed(world)) == 2
        assert len(world.scratch()) == 1


def test_nothing_is_removed_while_a_lock_cannot_be_read(world: World) -> None:
    """Which environment it needs can't be told."""
    environment = world.build("alpha")
    (world.locks / "mine.txt").write_text("<<<<<<< ours\n")

    with pytest.raises(BridgeEnvironmentError, match=r"mine\.txt"):
        collect(world.settings.root, world.locks, dry_run=False)

    assert environment.interpreter.exists()


def test_claims_are_seen_without_taking_one(world: World) -> None:
    """Asking turns nobody away."""
    environment = world.build("alpha")
    root, name = world.settings.root, environment.name
    before = users_of(root, name)
    with try_shared(root, name) as claim:  # type: ignore[union-attr]  # nobody else has it
        during = users_of(root, name)
        assert claim.fd >= 0

    assert before == []
    assert during is None or len(during) == 1


def test_a_builder_is_named_as_long_as_it_lives(world: World) -> None:
    """The note of one that was killed stays in the file and means nothing."""
    root, name = world.settings.root, "c" * 32
    claim = try_exclusive(root, name, "builds it")
    assert claim is not None
    with claim:
        assert (who_builds(root, name) or "").startswith("process ")
        assert try_shared(root, name) is None
        assert try_exclusive(root, name, "removes it") is None
    assert who_builds(root, name) is None

    (root / ".claims" / f"{name}.lock").write_text('{"pid": 4194304999, "what": "builds it", "since": 0}')
    assert who_builds(root, name) is None

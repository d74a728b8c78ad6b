"""`env lock`: uv's answer becomes a lock that names no address, and uv's refusal an error in its own words."""

from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from manybridge.environments import resolving
from manybridge.environments.building import build
from manybridge.environments.locks import read_lock
from manybridge.environments.resolving import make_lock
from manybridge.environments.target import host_tag, platform_tag
from manybridge.errors import BridgeEnvironmentError, EnvironmentRefusedError
from tests.environments.conftest import World
from tests.environments.wheels import make_wheel


def test_a_lock_has_everything_with_hashes_and_says_what_it_is_for(world: World) -> None:
    """Also what was only needed by what was asked for."""
    done = world.lock("Alpha >=1")

    assert done.outcome == "created"
    assert [str(each) for each in done.lock.releases] == ["alpha==1.0", "beta==1.0"]
    assert all(pin.hashes for pin in done.lock.pins)
    assert (done.lock.python, done.lock.platform, done.lock.requires) == (host_tag(), platform_tag(), ("alpha>=1",))
    assert done.lock.path is not None
    assert done.lock.path.read_text(encoding="utf-8") == done.lock.text


def test_no_address_and_no_folder_gets_into_a_lock(world: World) -> None:
    """A lock is committed; where packages come from is the business of each machine."""
    text = world.lock("alpha").lock.text

    assert "://" not in text
    assert str(world.folder) not in text


def test_versions_stay_until_an_upgrade_is_asked_for(world: World) -> None:
    """Locking again changes nothing by itself."""
    world.lock("alpha")
    make_wheel(world.wheels, "beta", "2.0")

    again = world.lock("alpha")
    upgraded = world.lock("alpha", upgrade=True)

    assert again.outcome == "unchanged"
    assert (upgraded.outcome, upgraded.added, upgraded.removed) == ("updated", ("beta==2.0",), ("beta==1.0",))


def test_a_conflict_is_told_in_the_words_of_uv_and_keeps_the_old_lock(world: World) -> None:
    """The resolver's explanation is the useful part."""
    world.lock("alpha")
    make_wheel(world.wheels, "gamma", requires=["beta<1"])

    with pytest.raises(BridgeEnvironmentError) as caught:
        world.lock("alpha", "gamma")

    assert caught.value.details["reason"] == "conflict"
    assert "gamma" in caught.value.message
    assert "beta<1" in caught.value.message
    assert world.lock("alpha").outcome == "unchanged"


def test_a_known_bad_version_is_refused_and_no_lock_is_written(world: World) -> None:
    """The list that ships has litellm 1.82.8."""
    make_wheel(world.wheels, "litellm", "1.82.8")

    with pytest.raises(EnvironmentRefusedError, match=r"litellm==1\.82\.8: a known-bad version: carried malware"):
        world.lock("litellm")

    assert not world.locks.exists()


def test_the_list_of_known_bad_versions_can_be_extended(world: World) -> None:
    """With a reason, which is in the error."""
    settings = replace(world.settings, denylist={"Beta<2": "we had trouble with it"})

    with pytest.raises(EnvironmentRefusedError, match=r"beta==1\.0: a known-bad version: we had trouble with it"):
        make_lock("mine", ["alpha"], world.locks / "mine.txt", settings)


def test_an_entry_of_the_list_that_cannot_be_read_is_an_error(world: World) -> None:
    """A typing error must not switch a protection off."""
    settings = replace(world.settings, denylist={"beta=>2": "?"})

    with pytest.raises(BridgeEnvironmentError, match=r'environments\.extra_denylist: .* found "beta=>2"'):
        make_lock("mine", ["alpha"], world.locks / "mine.txt", settings)


def test_folders_that_pip_knows_are_searched_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uv itself reads UV_FIND_LINKS alone."""
    settings = replace(world.settings, find_links=())
    monkeypatch.setenv("PIP_FIND_LINKS", str(world.wheels))

    assert len(make_lock("mine", ["alpha"], world.locks / "mine.txt", settings).lock.pins) == 2


def test_folders_that_uv_knows_are_searched_beside_those_of_pip(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Uv reads UV_FIND_LINKS only where no argument names a folder, and those of pip are arguments."""
    settings = replace(world.settings, find_links=())
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    monkeypatch.setenv("UV_FIND_LINKS", f"{tmp_path / 'empty'},{world.wheels}")
    path = world.locks / "mine.txt"

    assert len(make_lock("mine", ["alpha"], path, settings).lock.pins) == 2
    assert build(read_lock(path), settings).interpreter.exists()


@pytest.mark.parametrize("variable", ["PIP_FIND_LINKS", "UV_FIND_LINKS"])
def test_folders_of_wheels_are_meant_from_where_the_command_runs(
    world: World, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """Uv runs elsewhere, and not in the same folder for a lock that is new and for one that is there."""
    settings = replace(world.settings, find_links=())
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv(variable, "./wheels")
    path = world.locks / "mine.txt"

    made = [make_lock("mine", ["alpha"], path, settings).outcome for _ in range(2)]

    assert made == ["created", "unchanged"]
    assert build(read_lock(path), settings).interpreter.exists()


def test_the_cache_of_uv_is_meant_from_where_the_command_runs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipeline that keeps the folder `.uv-cache` would keep nothing; the folder of the locks would have it."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("UV_CACHE_DIR", ".uv-cache")

    world.build("alpha")

    assert (world.folder / ".uv-cache").is_dir()
    assert [path.name for path in world.locks.iterdir()] == ["mine.txt"]


def test_a_lock_that_cannot_be_written_is_told(world: World) -> None:
    """A file is where the folder should be."""
    world.locks.write_text("", encoding="utf-8")

    with pytest.raises(BridgeEnvironmentError, match=r"can't write the lock .*mine\.txt: ") as caught:
        world.lock("alpha")

    assert caught.value.details["reason"] == "uv_failed"


def test_a_full_disk_is_told_and_keeps_the_old_lock(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of file sizes stands in for it, below the size of the new lock."""
    before = world.lock("beta").lock.text
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = resolving._write

    def write_little(path: Path, text: str) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        try:
            write(path, text)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(resolving, "_write", write_little)

    with pytest.raises(BridgeEnvironmentError, match="not enough space for the lock") as caught:
        world.lock("alpha")

    assert caught.value.details["reason"] == "disk_full"
    assert [path.read_text() for path in world.locks.iterdir()] == [before]


def test_requirements_that_do_not_apply_here_are_told(world: World) -> None:
    """An empty lock could not be told from a damaged one."""
    with pytest.raises(BridgeEnvironmentError, match="nothing of it applies to") as caught:
        world.lock('alpha; python_version < "3"')

    assert caught.value.details["reason"] == "requirement"


def test_a_package_that_is_nowhere_is_named(world: World) -> None:
    """Offline, with no index: uv's words."""
    with pytest.raises(BridgeEnvironmentError, match="no-such-package"):
        world.lock("no-such-package")


def test_a_lock_that_cannot_be_read_is_made_anew(world: World) -> None:
    """After a merge that went wrong, locking again is the way out."""
    path = world.locks / "mine.txt"
    path.parent.mkdir()
    path.write_text("<<<<<<< ours\n", encoding="utf-8")

    assert world.lock("alpha").outcome == "created"


def test_a_missing_uv_is_told_with_the_command_that_installs_it(world: World) -> None:
    """Nothing else can lock."""
    settings = replace(world.settings, uv="/no/such/uv")

    with pytest.raises(BridgeEnvironmentError, match="pip install uv") as caught:
        make_lock("mine", ["alpha"], world.locks / "mine.txt", settings)

    assert caught.value.details["reason"] == "uv_missing"


@pytest.mark.parametrize("python", ["/no/such/python", "/bin/true"])
def test_a_base_interpreter_that_does_not_work_is_named(world: World, python: str) -> None:
    """The key that names it is in the error."""
    settings = replace(world.settings, python=python)

    with pytest.raises(BridgeEnvironmentError, match=r"environments\.python") as caught:
        make_lock("mine", ["alpha"], world.locks / "mine.txt", settings)

    assert caught.value.details["reason"] == "interpreter"

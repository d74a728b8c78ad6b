"""`env sync`: built once, checked before Python starts in it, whole or not there at all."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from manybridge.environments.building import build
from manybridge.environments.claims import try_exclusive, try_shared
from manybridge.environments.folders import BUILDING, find_environment
from manybridge.environments.locks import Lock, lock_text, parse_lock, read_lock
from manybridge.environments.progress import Step
from manybridge.environments.target import host_tag, platform_tag
from manybridge.environments.uv import find_uv
from manybridge.errors import BridgeEnvironmentError, EnvironmentRefusedError
from tests.environments.conftest import Canary, World
from tests.environments.wheels import make_wheel
from tests.support import eventually, process_is_running
from tests.timing import bounded, within

BUILDER = """
import sys
from pathlib import Path
from manybridge.environments.building import build_or_find
from manybridge.environments.locks import read_lock
from manybridge.environments.settings import Settings
root, wheels, lock, uv = sys.argv[1:]
settings = Settings(root=Path(root), find_links=(wheels,), uv=uv or None)
made = build_or_find(read_lock(Path(lock)), settings, report=lambda step: print(step.message, flush=True))
print("built", made.environment.folder, "new" if made.is_new else "found", flush=True)
"""


@contextlib.contextmanager
def builder(world: World, lock: Lock, uv: str = "") -> Iterator[subprocess.Popen[str]]:
    """Build in another process; it is killed in the end."""
    command = [sys.executable, "-c", BUILDER, str(world.settings.root), str(world.wheels), str(lock.path), uv]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """Read what a builder prints until a line has `text`."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f'it ended without "{text}": {lines}')


def changed(lock: Lock, before: str, after: str) -> Lock:
    """Return a lock with other text."""
    assert lock.path is not None
    return parse_lock(lock.text.replace(before, after), lock.path)


class TestABuild:
    def test_the_environment_has_what_the_lock_names_and_compiled_bytecode(self, world: World) -> None:
        """And nothing else lies where environments do."""
        environment = world.build("alpha")

        assert environment.packages == {"alpha": "1.0", "beta": "1.0"}
        assert list(environment.folder.glob("lib/python*/site-packages/alpha/__pycache__/*.pyc"))
        assert environment.size > 0
        assert (world.folders(), world.scratch()) == ([environment.name], [])

    def test_scripts_work_after_the_folder_was_renamed(self, world: World) -> None:
        """Virtual environments are not usually to be moved; these are made so that they can be."""
        environment = world.build("alpha")

        done = subprocess.run([environment.folder / "bin" / "alpha"], capture_output=True, text=True, check=False)

        assert (done.stdout, done.stderr) == ("alpha 1.0\n", "")

    @bounded
    def test_an_environment_that_is_there_needs_no_uv_no_network_and_no_time(self, world: World) -> None:
        """No resolver, no download: uv is not even looked for."""
        environment = world.build("alpha")
        lock = read_lock(world.locks / "mine.txt")
        with within(1_000):
            again = build(lock, replace(world.settings, uv="/no/such/uv", find_links=()))

            assert again == environment

    def test_bridges_with_equal_locks_share_an_environment(self, world: World) -> None:
        """Built once for both."""
        assert world.build("alpha", bridge="one") == world.build("alpha", bridge="two")

    def test_the_environment_of_a_python_that_has_gone_is_built_again(self, world: World) -> None:
        """A link that leads nowhere is no interpreter."""
        environment = world.build("alpha")
        environment.interpreter.unlink()
        environment.interpreter.symlink_to("/no/such/python")

        assert find_environment(world.settings.root, environment.name) is None
        assert world.build("alpha").interpreter.exists()
        assert world.scratch() == []

    def test_build_code_of_packages_does_not_run(self, world: World, canary: Canary) -> None:
        """A source distribution would run its own code before anything could be checked."""
        folder = world.folder / "delta-1.0"
        folder.mkdir()
        (folder / "setup.py").write_text(f"{canary.line}\nfrom setuptools import setup; setup(name='delta')")
        (folder / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: delta\nVersion: 1.0\n")
        subprocess.run(["tar", "czf", world.wheels / "delta-1.0.tar.gz", "delta-1.0"], cwd=world.folder, check=True)

        with pytest.raises(BridgeEnvironmentError, match="delta"):
            world.lock("delta")

        assert not canary.sang


class TestBeforeAnyPythonStarts:
    def test_a_lock_with_a_known_bad_version_is_refused_before_anything_is_downloaded(
        self, world: World, canary: Canary, uv_cache: Path
    ) -> None:
        """Litellm 1.82.8, as it was: malware in a .pth file. Here a canary sits in its place."""
        make_wheel(world.wheels, "litellm", "1.82.8", files={"litellm_init.pth": canary.line})
        pin = f"litellm==1.82.8 --hash=sha256:{'0' * 64}"
        lock = parse_lock(lock_text("mine", host_tag(), platform_tag(), ["litellm"], pin), world.locks / "mine.txt")

        with pytest.raises(EnvironmentRefusedError, match=r"litellm==1\.82\.8: a known-bad version") as caught:
            build(lock, world.settings)

        assert not canary.sang
        assert caught.value.code == "environment_refused"
        assert not world.settings.root.exists()
        assert not list(uv_cache.rglob("litellm*"))

    @pytest.mark.parametrize("is_listed", [True, False])
    def test_a_wheel_with_code_in_a_pth_file_is_refused_and_nothing_is_kept(
        self, world: World, canary: Canary, is_listed: bool
    ) -> None:
        """Of no list of versions, and whether or not the wheel owns up to the file."""
        files = {"innocent.pth": canary.line}
        make_wheel(world.wheels, "innocent", files=files if is_listed else {}, unlisted={} if is_listed else files)

        with pytest.raises(EnvironmentRefusedError, match=r"innocent\.pth: would run at every start of Python"):
            world.build("innocent")

        assert not canary.sang
        assert (world.folders(), world.scratch()) == ([], [])

    def test_uv_is_not_talked_into_starting_one(
        self, world: World, canary: Canary, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Compiling bytecode starts the environment's interpreter; a user may have switched it on for all of uv."""
        monkeypatch.setenv("UV_COMPILE_BYTECODE", "1")
        world.locks.mkdir()
        (world.locks / "uv.toml").write_text("[pip]\ncompile-bytecode = true\n")
        make_wheel(world.wheels, "innocent", files={"innocent.pth": canary.line})

        with pytest.raises(EnvironmentRefusedError):
            world.build("innocent")

        assert not canary.sang

    def test_the_canary_would_have_sung(self, world: World, canary: Canary) -> None:
        """What the tests above stand on: allowed by its hash, the same line runs."""
        make_wheel(world.wheels, "innocent", files={"innocent.pth": canary.line})
        with pytest.raises(EnvironmentRefusedError) as caught:
            world.build("innocent")
        assert not canary.sang

        environment = world.build(
            "innocent", allowed_startup=frozenset({caught.value.details["findings"][0]["sha256"]})
        )

        subprocess.run([environment.interpreter, "-I", "-c", ""], check=True)
        assert canary.sang

    @pytest.mark.parametrize("name", ["sitecustomize.py", "usercustomize/__init__.py"])
    def test_a_wheel_with_a_customize_module_is_refused(self, world: World, canary: Canary, name: str) -> None:
        """The other way to run at every start."""
        make_wheel(world.wheels, "innocent", files={name: canary.line})

        with pytest.raises(EnvironmentRefusedError, match="would be imported at every start of Python"):
            world.build("innocent")

        assert not canary.sang

    @pytest.mark.parametrize("target", ["scripts/python", "data/pyvenv.cfg", "data/bin/python"])
    def test_a_wheel_cannot_replace_the_interpreter(self, world: World, canary: Canary, target: str) -> None:
        """Nor the file that says where the interpreter looks for code."""
        text = f"#!/bin/sh\ntouch {canary.path}\n"
        make_wheel(world.wheels, "innocent", files={f"innocent-1.0.data/{target}": text})

        with pytest.raises(BridgeEnvironmentError):
            world.build("innocent")

        assert not canary.sang
        assert (world.folders(), world.scratch()) == ([], [])

    def test_a_wheel_cannot_write_into_the_metadata_of_another(self, world: World) -> None:
        """It could make the other's RECORD vouch for its own files."""
        files = {"beta-1.0.dist-info/extra.txt": "mine now"}
        make_wheel(world.wheels, "innocent", requires=["beta"], files=files)

        with pytest.raises(BridgeEnvironmentError, match=r"metadata|dist-info"):
            world.build("innocent")

        assert world.folders() == []


class TestHashes:
    def test_a_file_that_is_not_the_locked_one_is_refused(self, world: World, fresh_cache: None) -> None:
        """Somebody put another wheel under the same name."""
        lock = world.lock("alpha").lock
        make_wheel(world.wheels, "beta", files={"beta/more.py": "print('changed')"})
        shutil.rmtree(os.environ["UV_CACHE_DIR"])  # which has the locked one

        with pytest.raises(BridgeEnvironmentError, match="not the one that was locked") as caught:
            build(lock, world.settings)

        assert caught.value.details["reason"] == "hash_mismatch"
        assert (world.folders(), world.scratch()) == ([], [])

    def test_a_damaged_cache_of_uv_is_passed_by(self, world: World) -> None:
        """Uv links files out of its cache without another look: what is damaged there would be damaged for ever."""
        environment = world.build("alpha")
        (file,) = environment.folder.glob("lib/python*/site-packages/beta/__init__.py")
        with file.open("a", encoding="utf-8") as open_file:  # in place: the cache holds the same file
            open_file.write("# damaged\n")
        steps: list[Step] = []

        build(read_lock(world.locks / "mine.txt"), world.settings, rebuild=True, report=steps.append)

        (file,) = environment.folder.glob("lib/python*/site-packages/beta/__init__.py")
        assert "damaged" not in file.read_text(encoding="utf-8")
        told = any("cache holds is damaged" in step.message for step in steps)
        assert told or file.stat().st_nlink == 1  # where uv copies or clones, the cache was never damaged


class TestAnotherMachine:
    @pytest.mark.parametrize(
        ("before", "after", "reason"),
        [
            (f"# python: {host_tag()}", "# python: cpython-3.99", "lock_python"),
            (f"# platform: {platform_tag()}", "# platform: plan9-x86_64", "lock_platform"),
        ],
    )
    def test_a_lock_of_another_python_or_platform_is_refused(
        self, world: World, before: str, after: str, reason: str
    ) -> None:
        """Its hashes are of other files."""
        lock = changed(world.lock("alpha").lock, before, after)

        with pytest.raises(BridgeEnvironmentError, match="manybridge env lock mine") as caught:
            build(lock, world.settings)

        assert caught.value.details["reason"] == reason


class TestSeveralProcesses:
    def test_a_process_that_waits_says_why_and_takes_the_finished_environment(self, world: World) -> None:
        """Here this process has the claim, builds, and lets go."""
        lock = world.lock("alpha").lock
        claim = try_exclusive(world.settings.root, lock.environment, "builds it")
        assert claim is not None
        with builder(world, lock) as process:
            with claim:
                lines = lines_until(process, "waiting")
                elsewhere = replace(world.settings, root=world.folder / "elsewhere")
                made = build(lock, elsewhere)
                made.folder.rename(world.settings.root / made.name)
            lines += lines_until(process, "built")

        assert f"mine: waiting for the environment: process {os.getpid()} builds it since 0 s" in lines
        assert not any("installing" in line for line in lines)

    @pytest.mark.slow
    def test_two_processes_that_build_the_same_make_one_environment(self, world: World) -> None:
        """Whichever is first builds; the other waits, or finds it there."""
        lock = world.lock("alpha").lock

        with builder(world, lock) as one, builder(world, lock) as two:
            lines = [*lines_until(one, "built"), *lines_until(two, "built")]

        assert sum("making an empty environment" in line for line in lines) == 1
        assert sorted(line.split()[-1] for line in lines if line.startswith("built")) == ["found", "new"]
        assert (world.folders(), world.scratch()) == ([lock.environment], [])

    def test_a_rebuild_is_refused_while_a_host_uses_the_environment(self, world: World) -> None:
        """Its workers would lose their files."""
        environment = world.build("alpha")
        claim = try_shared(world.settings.root, environment.name)
        assert claim is not None

        with claim, pytest.raises(BridgeEnvironmentError, match="a running host uses it") as caught:
            build(read_lock(world.locks / "mine.txt"), world.settings, rebuild=True)

        assert caught.value.details["reason"] == "in_use"
        assert environment.interpreter.exists()


SLOW_UV = """#!/bin/sh
# Installs, and then does not come to its end, as on a slow network.
if [ "$1 $2" = "pip sync" ]; then
    sleep 600 &
    echo "$$ $!" > {pid}
    wait
fi
exec {uv} "$@"
"""


class TestABuildThatDoesNotEnd:
    @pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
    def test_a_killed_build_is_never_used_and_cleaned_up_by_the_next(self, world: World, end: signal.Signals) -> None:
        """Uv ends with its builder; the next waits for what uv had started, which goes on writing for a while."""
        lock = world.lock("alpha").lock
        pid_file = world.folder / "pid"
        uv = world.folder / "uv"
        uv.write_text(SLOW_UV.format(pid=pid_file, uv=find_uv(world.settings)))
        uv.chmod(0o755)
        with builder(world, lock, str(uv)) as process:
            pids = eventually(lambda: pid_file.read_text().split() if pid_file.exists() else [])
            uv_pid, pid = map(int, pids)
            process.send_signal(end)
            process.wait()

        try:
            eventually(lambda: not process_is_running(uv_pid))
            assert find_environment(world.settings.root, lock.environment) is None
            (left,) = world.scratch()
            assert left.startswith(f"{BUILDING}{lock.environment}")
            with builder(world, lock) as second:
                lines_until(second, "waiting")
                os.kill(pid, signal.SIGKILL)
                lines_until(second, "built")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        assert find_environment(world.settings.root, lock.environment) is not None
        assert world.scratch() == []

    @pytest.mark.parametrize("content", [None, "{", '{"bridge": "mine"}'])
    def test_a_folder_that_says_nothing_about_itself_is_no_environment(self, world: World, content: str | None) -> None:
        """Whoever made it: it is built again."""
        lock = world.lock("alpha").lock
        folder = world.settings.root / lock.environment
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").symlink_to(sys.executable)
        if content is not None:
            (folder / "environment.json").write_text(content, encoding="utf-8")

        assert find_environment(world.settings.root, lock.environment) is None
        assert build(lock, world.settings).packages == {"alpha": "1.0", "beta": "1.0"}


class TestAFullDisk:
    def test_the_error_names_the_folder_and_the_space_and_nothing_is_left(
        self, world: World, fresh_cache: None
    ) -> None:
        """A limit on the size of files stands in for the disk: uv is stopped in the middle of a write."""
        make_wheel(world.wheels, "large", files={"large/data.txt": "x" * 4_000_000})
        lock = world.lock("large").lock
        shutil.rmtree(os.environ["UV_CACHE_DIR"])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
        try:
            with pytest.raises(BridgeEnvironmentError, match="not enough space in") as caught:
                build(lock, world.settings)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

        details = caught.value.details
        assert (details["reason"], details["folder"]) == ("disk_full", str(world.settings.root))
        assert details["free"] > 0
        assert "manybridge env gc" in caught.value.message
        assert (world.folders(), world.scratch()) == ([], [])

    def test_a_folder_that_cannot_be_made_is_named(self, world: World) -> None:
        """A file lies where the folder should be."""
        lock = world.lock("alpha").lock
        world.settings.root.write_text("")

        with pytest.raises(BridgeEnvironmentError, match=f"can't write to {world.settings.root}"):
            build(lock, world.settings)


def test_the_facts_of_an_environment_are_written_down(world: World) -> None:
    """For people and for `env list`."""
    environment = world.build("alpha")

    facts = json.loads((environment.folder / "environment.json").read_text(encoding="utf-8"))

    assert facts["python_tag"] == host_tag()
    assert facts["base"] == getattr(sys, "_base_executable", sys.executable)

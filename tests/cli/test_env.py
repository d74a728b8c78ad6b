"""`manybridge env` from end to end, in a folder with a configuration and wheels, without a network."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.support import CommandLine
from tests.environments.conftest import fresh_cache, no_network, uv_cache
from tests.environments.wheels import make_wheel
from tests.support import TIME_FACTOR

__all__ = ["fresh_cache", "no_network", "uv_cache"]

CONFIG = """
[environments]
folder = "environments"
find_links = ["wheels"]

[bridges.mock]
required_packages = ["alpha"]

[bridges.python]
"""


@pytest.fixture(autouse=True)
def project(manybridge: CommandLine, tmp_path: Path) -> Path:
    """Write a configuration and wheels into the folder that commands run in."""
    (tmp_path / "manybridge.toml").write_text(CONFIG)
    make_wheel(tmp_path / "wheels", "alpha", requires=["beta"])
    make_wheel(tmp_path / "wheels", "beta")
    return tmp_path


def snapshot(folder: Path, *records: dict[str, object]) -> Path:
    """Write a snapshot of advisories that was made now; one record is about a package that nobody has."""
    nobody: dict[str, object] = {
        "id": "TEST-0",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "nobody"}, "versions": ["1"]}],
    }
    path = folder / "osv.jsonl"
    lines = [json.dumps({**each, "modified": datetime.now(UTC).isoformat()}) for each in (nobody, *records)]
    path.write_text("\n".join(lines))
    return path


VULNERABLE: dict[str, object] = {
    "id": "TEST-1",
    "summary": "It breaks",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "beta"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.1"}]}],
        }
    ],
}


class TestLockAndSync:
    def test_the_first_time_and_the_second(self, manybridge: CommandLine, project: Path) -> None:
        """Only what changed is done."""
        locked, built = manybridge("env", "lock"), manybridge("env", "sync")
        again, unchanged = manybridge("env", "lock"), manybridge("env", "sync")

        assert locked.out == f"mock: created, 2 packages: {project}/manybridge.locks/mock.txt\n"
        assert re.fullmatch(rf"mock: built in \S+ s, 2 packages: {project}/environments/[0-9a-f]{{32}}\n", built.out)
        assert again.out.startswith("mock: unchanged")
        assert unchanged.out.startswith("mock: unchanged")
        assert "comparing hashes of installed files" in built.err
        assert unchanged.err == ""

    @pytest.mark.slow
    def test_an_unchanged_lock_takes_less_than_a_second(self, manybridge: CommandLine, project: Path) -> None:
        """The whole command, the start of Python included; with no uv that it could run.

        Counted in processor time: the command waits for nothing, and a machine with other work is no slower by that.
        """
        manybridge("env", "lock")
        manybridge("env", "sync")
        text = (project / "manybridge.toml").read_text()
        (project / "manybridge.toml").write_text(text.replace("[environments]", '[environments]\nuv = "/no/such/uv"'))
        command = [sys.executable, "-m", "manybridge.cli.entry", "env", "sync", "--json"]

        times = []
        for _ in range(3):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

        (environment,) = json.loads(done.stdout)["environments"]
        assert environment["outcome"] == "unchanged"
        assert environment["seconds"] < 0.5
        assert min(times) < TIME_FACTOR

    def test_json_tells_everything_and_no_progress(self, manybridge: CommandLine, project: Path) -> None:
        """For scripts."""
        locked = manybridge("env", "lock", "--json")
        built = manybridge("env", "sync", "mock", "--json")

        (lock,) = locked.json["locks"]
        (environment,) = built.json["environments"]
        assert lock["added"] == ["alpha==1.0", "beta==1.0"]
        assert environment["folder"] == f"{project}/environments/{lock['environment']}"
        assert (locked.err, built.err) == ("", "")

    def test_a_conflict_is_told_in_the_words_of_uv(self, manybridge: CommandLine, project: Path) -> None:
        """With an exit code of its own."""
        config = (project / "manybridge.toml").read_text()
        (project / "manybridge.toml").write_text(config.replace('["alpha"]', '["alpha", "beta>=2"]'))

        ended = manybridge("env", "lock")

        assert ended.code == 13
        assert "there are no versions that fit together; uv says" in ended.err
        assert "beta>=2" in ended.err

    @pytest.mark.parametrize(
        ("arguments", "code", "said"),
        [
            (["sync"], 13, "manybridge env lock mock"),
            (["sync", "python"], 13, "it names no packages"),
            (["lock", "mok"], 4, 'no bridge "mok"; did you mean "mock"'),
            (["scan", "python"], 13, "there is nothing to scan"),
            (["export", "mock"], 13, "has no lock"),
        ],
    )
    def test_what_cannot_be_done_says_what_to_do(
        self, manybridge: CommandLine, arguments: list[str], code: int, said: str
    ) -> None:
        """Each with its exit code."""
        ended = manybridge("env", *arguments)

        assert (ended.code, said in ended.err) == (code, True), ended.err

    def test_requirements_that_changed_must_be_locked_first(self, manybridge: CommandLine, project: Path) -> None:
        """What is built is what is locked."""
        manybridge("env", "lock")
        config = (project / "manybridge.toml").read_text()
        (project / "manybridge.toml").write_text(config.replace('["alpha"]', '["beta"]'))

        ended = manybridge("env", "sync")

        assert ended.code == 13
        assert "manybridge env lock mock" in ended.err

    def test_without_a_configuration_there_is_no_place_for_locks(self, manybridge: CommandLine, project: Path) -> None:
        """Nothing to do is no error; a bridge that is named is not known."""
        (project / "manybridge.toml").unlink()

        assert manybridge("env", "lock").code == 0
        assert manybridge("env", "lock", "mock").code == 4

    def test_a_bridge_runs_in_what_was_built(self, manybridge: CommandLine) -> None:
        """The same configuration, the same command line."""
        before = manybridge("call", "mock", "mock:echo", "a:=1")
        manybridge("env", "lock")
        between = manybridge("call", "mock", "mock:echo", "a:=1")
        manybridge("env", "sync")
        after = manybridge("call", "mock", "mock:echo", "a:=1", "--json")

        assert (before.code, between.code, after.code) == (3, 3, 0)
        assert after.json == {"a": 1}


class TestListAndGc:
    def test_environments_are_listed_and_removed(self, manybridge: CommandLine, project: Path) -> None:
        """What no lock describes any more goes."""
        assert "no environments in" in manybridge("env", "list").out
        manybridge("env", "lock")
        manybridge("env", "sync")
        listed = manybridge("env", "list")
        (row,) = manybridge("env", "list", "--json").json["environments"]
        (project / "manybridge.locks" / "mock.txt").unlink()

        dry = manybridge("env", "gc", "--dry-run")
        done = manybridge("env", "gc", "--json")

        assert "mock" in listed.out
        assert (row["bridges"], row["locked"], row["usable"], row["processes"]) == (["mock"], True, True, [])
        assert row["packages"] == {"alpha": "1.0", "beta": "1.0"}
        assert "1 would be removed" in dry.out
        assert [each["outcome"] for each in done.json["results"]] == ["removed"]
        assert not Path(row["folder"]).exists()


class TestScan:
    def test_a_sound_environment_passes(self, manybridge: CommandLine, project: Path) -> None:
        """With a snapshot that was made now."""
        manybridge("env", "lock")
        manybridge("env", "sync")

        ended = manybridge("env", "scan", "--advisories", snapshot(project))

        assert (ended.code, "mock: passed: 2 packages" in ended.out) == (0, True), ended.out

    def test_a_vulnerable_package_fails(self, manybridge: CommandLine, project: Path) -> None:
        """The configuration may name the snapshot."""
        path = snapshot(project, VULNERABLE)
        config = (project / "manybridge.toml").read_text()
        (project / "manybridge.toml").write_text(
            config.replace("[environments]", f'[environments]\nadvisories = "{path.name}"')
        )
        manybridge("env", "lock")
        manybridge("env", "sync")

        ended = manybridge("env", "scan")

        assert ended.code == 13
        assert "vulnerable: beta==1.0: TEST-1: It breaks; fixed in 1.1" in ended.out

    def test_what_could_not_be_audited_is_a_failure_of_its_own(self, manybridge: CommandLine) -> None:
        """Nobody answers at this address: never a pass, and each package is named."""
        manybridge("env", "lock")
        manybridge("env", "sync")

        ended = manybridge("env", "scan", "--advisories", "http://127.0.0.1:9", "--json")

        assert ended.code == 14
        assert ended.json["passed"] is False
        assert [each["subject"] for each in ended.json["bridges"][0]["not_audited"]] == ["alpha==1.0", "beta==1.0"]

    def test_an_interpreter_of_the_users_own_is_scanned_too(self, manybridge: CommandLine, project: Path) -> None:
        """Every package that is installed there; here it is one that we built."""
        manybridge("env", "lock")
        (built,) = manybridge("env", "sync", "--json").json["environments"]
        (project / "manybridge.toml").write_text(f'[bridges.mock]\npython = "{built["folder"]}/bin/python"\n')

        ended = manybridge("env", "scan", "--advisories", snapshot(project, VULNERABLE), "--json")

        (bridge,) = ended.json["bridges"]
        assert bridge["packages"] == 2
        assert bridge["what"] == f"{built['folder']}/bin/python"
        assert [each["id"] for each in bridge["vulnerabilities"]] == ["TEST-1"]


class TestExport:
    def test_a_document_and_requirements_are_written(self, manybridge: CommandLine, project: Path) -> None:
        """To the output or into a file."""
        manybridge("env", "lock")

        printed = manybridge("env", "export", "mock")
        written = manybridge("env", "export", "mock", "--format", "requirements", "-o", "r.txt")

        assert printed.json["components"][0]["purl"] == "pkg:pypi/alpha@1.0"
        assert written.out == "wrote r.txt\n"
        assert (project / "r.txt").read_text().startswith("alpha==1.0 \\\n    --hash=sha256:")

    def test_a_file_that_can_not_be_written_is_no_fault_of_the_environment(
        self, manybridge: CommandLine, project: Path
    ) -> None:
        """Exit code 1, as for every output that could not be written."""
        manybridge("env", "lock")

        unwritable = manybridge("env", "export", "mock", "-o", project)

        assert unwritable.code == 1
        assert "can't write" in unwritable.err


def test_the_doctor_tells_the_state_of_the_environment(manybridge: CommandLine) -> None:
    """What is missing, with the command; then where it is."""
    missing = manybridge("doctor", "--bridge", "mock", "--json")
    manybridge("env", "lock")
    manybridge("env", "sync")
    there = manybridge("doctor", "--bridge", "mock", "--json")

    needs = next(each for each in missing.json["checks"] if each["name"] == "mock: needs")
    assert needs["fix"] == "manybridge env lock mock; manybridge env sync mock"
    assert "/environments/" in next(each for each in there.json["checks"] if each["name"] == "mock: needs")["found"]

"""`manybridge call`, with a real host and real workers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.support import CommandLine
from tests.support import MS, REPOSITORY

WORDS = str(REPOSITORY / "examples" / "newcomer" / "word_bridge.py")


class TestResults:
    def test_a_bundled_bridge_needs_no_configuration(self, manybridge: CommandLine) -> None:
        """The shortest call of all."""
        ended = manybridge("call", "mock", "mock:echo", "text=hi", "n:=3", "--json")

        assert (ended.code, ended.out, ended.err) == (0, '{"text": "hi", "n": 3}\n', "")

    def test_a_result_for_a_person_is_indented(self, manybridge: CommandLine) -> None:
        """Without --json the result is easy to read."""
        assert manybridge("call", "mock", "mock:echo", "a:=[1]").out == '{\n  "a": [\n    1\n  ]\n}\n'

    def test_a_newcomers_file_is_called_by_its_path(self, manybridge: CommandLine) -> None:
        """One file, no registration, no configuration."""
        ended = manybridge("call", WORDS, "words:count", "text=one two two", "--json")

        assert (ended.code, ended.json) == (0, {"two": 2, "one": 1})

    def test_the_first_project_works_at_once(self, manybridge: CommandLine) -> None:
        """What init writes and proposes is what the next command does."""
        manybridge("init")

        counted = manybridge("call", "words", "words:count", "text=One two TWO", "--json")
        read = manybridge("call", "words", "words:read", "text=a b\nb", "--json")
        tally = manybridge(
            "resources", "create", "words", "tally", "start:=1", "--execute", '{"text": "a b"}', "--json"
        )

        assert counted.json == {"two": 2, "one": 1}
        assert read.json == {"a": 1, "b": 2}
        assert tally.json["results"] == [{"words": 3}]

    def test_progress_goes_to_standard_error(self, manybridge: CommandLine) -> None:
        """A pipe gets the result alone."""
        ended = manybridge("call", "mock", "mock:progress", "steps:=2")

        assert json.loads(ended.out) == {"steps": 2}
        assert "2/2 step 2" in ended.err

    def test_a_stream_is_printed_as_it_comes(self, manybridge: CommandLine) -> None:
        """Chunks, and then the result; with --json one object on each line."""
        plain = manybridge("call", "mock", "mock:count", "n:=2", "--stream")
        lines = manybridge("call", "mock", "mock:count", "n:=2", "--stream", "--json").out.splitlines()

        assert plain.out == '0\n1\n{\n  "count": 2\n}\n'
        assert [json.loads(line) for line in lines] == [
            {"event": "chunk", "seq": 0, "data": 0},
            {"event": "chunk", "seq": 1, "data": 1},
            {"result": {"count": 2}},
        ]

    def test_a_call_can_be_made_in_a_session(self, manybridge: CommandLine) -> None:
        """The session begins and ends with the command."""
        assert manybridge("call", "mock", "mock:echo", "a=b", "--session", "s1").code == 0

    def test_what_a_worker_prints_is_seen_by_a_person(self, tmp_path: Path) -> None:
        """Printing is how a newcomer looks into a bridge; a program that reads JSON gets JSON alone."""
        command = [sys.executable, "-m", "manybridge.cli.entry", "call", "mock", "mock:print"]

        plain, as_json = (
            subprocess.run([*command, *flag], cwd=tmp_path, capture_output=True, text=True, check=True)
            for flag in ((), ("--json",))
        )

        assert plain.stderr.strip()
        assert as_json.stderr == ""
        assert json.loads(plain.stdout) == json.loads(as_json.stdout)


class TestAKey:
    def test_a_call_with_a_key_is_made_once(self, manybridge: CommandLine, tmp_path: Path) -> None:
        """Each command is a worker of its own, so a result that is repeated names the first one's."""
        config = tmp_path / "manybridge.toml"
        config.write_text(f'[bridges.mock]\n[store]\nurl = "sqlite:///{tmp_path}/store.db"\n', encoding="utf-8")
        asked = ["call", "mock", "mock:pid", "--config", str(config), "--json"]

        first, other = manybridge(*asked, "--idempotency-key", "one"), manybridge(*asked, "--idempotency-key", "two")
        again = manybridge(*asked, "--idempotency-key", "one")
        conflict = manybridge("call", "mock", "mock:echo", *asked[3:], "--idempotency-key", "one")

        assert again.json == first.json != other.json
        assert conflict.error["code"] == "conflict"

    def test_a_key_that_nobody_would_remember_is_refused(self, manybridge: CommandLine) -> None:
        """Taken without a word, it would promise what does not happen."""
        ended = manybridge("call", "mock", "mock:pid", "--json", "--idempotency-key", "one")

        assert ended.error["code"] == "config_error"
        assert "manybridge init" in ended.error["message"]


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "exit_code", "code"),
        [
            (["nowhere", "x:y"], 4, "unknown_bridge"),
            (["mock", "mock:nothing"], 4, "unknown_command"),
            (["mock", "mock:sleep", "seconds=long"], 5, "invalid_argument"),
            (["mock", "mock:sleep", "second:=1"], 5, "invalid_argument"),
            (["mock", "mock:echo", "what"], 5, "invalid_argument"),
            (["mock", "mock:sleep", "seconds:=30", "--timeout", "0.2"], 6, "timeout"),
            (["mock", "mock:fail"], 1, "handler_error"),
            (["mock", "mock:fail", "kind=kill"], 8, "worker_crashed"),
            (["./no.py", "x:y"], 3, "config_error"),
            (["no_such_module:Bridge", "x:y"], 8, "bridge_load_failed"),
        ],
    )
    def test_every_failure_has_its_code_and_exit_code(
        self, manybridge: CommandLine, arguments: list[str], exit_code: int, code: str
    ) -> None:
        """Scripts branch on the exit code, and find the error code in the JSON."""
        ended = manybridge("call", *arguments, "--json")

        assert (ended.code, ended.error["code"], ended.out) == (exit_code, code, "")
        assert ended.error["exit_code"] == exit_code

    def test_an_error_is_said_once(self, tmp_path: Path) -> None:
        """The host's log doesn't repeat it, so that standard error is one JSON object."""
        command = [sys.executable, "-m", "manybridge.cli.entry", "call", "mock", "mock:fail", "kind=kill", "--json"]

        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

        assert (ended.returncode, json.loads(ended.stderr)["error"]["code"]) == (8, "worker_crashed")

    def test_a_string_where_a_number_belongs_is_explained(self, manybridge: CommandLine) -> None:
        """The most common mistake of a first call."""
        ended = manybridge("call", "mock", "mock:sleep", "seconds=3")

        assert "hint: seconds=3 passes a string; write seconds:=3" in ended.err

    def test_a_missing_package_names_the_command_that_installs_it(self, manybridge: CommandLine) -> None:
        """The check comes before any worker starts."""
        Path("manybridge.toml").write_text('[bridges.mock]\nrequired_packages = ["no-such-package>=2"]\n')

        ended = manybridge("call", "mock", "mock:echo")

        assert ended.code == 3
        assert "manybridge env lock mock\n  manybridge env sync mock" in ended.err

    def test_a_missing_variable_is_named(self, manybridge: CommandLine) -> None:
        """So is a variable."""
        Path("manybridge.toml").write_text('[bridges.mock]\nrequired_env = ["NO_SUCH_KEY"]\n')

        ended = manybridge("call", "mock", "mock:echo")

        assert (ended.code, "export NO_SUCH_KEY=..." in ended.err) == (3, True)


def test_ctrl_c_cancels_the_call_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """The exit code is 130, no traceback is shown, and the worker is gone with the host."""
    command = [
        sys.executable,
        "-m",
        "manybridge.cli.entry",
        "call",
        "mock",
        "mock:progress",
        "steps:=3000",
        "delay:=0.01",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("1/3000")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10_000 * MS)

    assert (process.returncode, out) == (130, "")
    assert err.endswith("interrupted; the call was cancelled\n")
    assert "Traceback" not in err

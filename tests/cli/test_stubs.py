"""`manybridge stubs` as a command."""

from __future__ import annotations

from pathlib import Path

from tests.cli.support import CommandLine


def test_without_a_file_the_module_is_printed(manybridge: CommandLine) -> None:
    """Nothing else is on standard output."""
    ended = manybridge("stubs", "mock")

    assert (ended.code, ended.err) == (0, "")
    compile(ended.out, "<client>", "exec")
    assert "Made by: manybridge stubs mock\n" in ended.out


def test_a_file_is_written_and_checked(manybridge: CommandLine, tmp_path: Path) -> None:
    """The same command with --check passes, and another one does not."""
    file = tmp_path / "clients" / "mock client.py"
    written = manybridge("stubs", "mock", "--output", file)
    text = file.read_text()

    assert (written.code, written.out) == (0, "")
    assert f"Made by: manybridge stubs mock --output '{file}'" in text
    assert manybridge("stubs", "mock", "--output", file, "--check").code == 0
    stale = manybridge("stubs", "mock", "--output", file, "--async", "--check")
    assert stale.code == 1
    assert f"is out of date; run: manybridge stubs mock --output '{file}' --async" in stale.err
    assert file.read_text() == text


def test_a_file_that_is_missing_is_out_of_date(manybridge: CommandLine, tmp_path: Path) -> None:
    """And is not made by --check."""
    assert manybridge("stubs", "mock", "--output", tmp_path / "no.py", "--check").code == 1
    assert not (tmp_path / "no.py").exists()


def test_a_file_that_was_changed_by_hand_is_out_of_date(manybridge: CommandLine, tmp_path: Path) -> None:
    """By a single character."""
    file = tmp_path / "mock_client.py"
    manybridge("stubs", "mock", "--output", file)
    file.write_text(file.read_text() + "\n")
    assert manybridge("stubs", "mock", "--output", file, "--check").code == 1


def test_wrong_uses_say_what_is_wrong(manybridge: CommandLine, tmp_path: Path) -> None:
    """With the exit code of their kind."""
    assert manybridge("stubs", "mock", "--check").code == 2
    assert manybridge("stubs", "mok").code == 4
    (tmp_path / "folder").mkdir()
    unwritable = manybridge("stubs", "mock", "--output", tmp_path / "folder")
    assert unwritable.code == 1
    assert "can't write" in unwritable.err


def test_a_configured_bridge_keeps_its_own_name(manybridge: CommandLine, tmp_path: Path) -> None:
    """And its commands are asked without a namespace, so that the client fits whatever name a host gives it."""
    (tmp_path / "manybridge.toml").write_text('[bridges.mine-eu]\nbridge = "mock"\n')
    text = manybridge("stubs", "mine-eu").out
    assert "class MineEuClient(Client):" in text
    assert 'bridge: str = "mine-eu"' in text
    assert 'self._call("count", sent_' in text

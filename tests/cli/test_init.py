"""`manybridge init`."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybridge.cli.templates import FRAMEWORK_TABLES
from manybridge.host.config import bundled_bridges, load_config
from tests.cli.support import CommandLine


def test_what_it_writes_is_a_configuration_with_a_bridge(manybridge: CommandLine) -> None:
    """The file is read without complaint, with every template in it."""
    frameworks = [part for name in FRAMEWORK_TABLES for part in ("--framework", name)]

    ended = manybridge("init", "new/project", *frameworks)

    config = load_config("new/project/manybridge.toml")
    assert ended.code == 0
    assert config.default == "words"
    assert set(config.bridges) == {"words", *FRAMEWORK_TABLES} == {"words", *bundled_bridges()}
    assert "manybridge call words words:count" in ended.out


def test_existing_files_are_not_replaced_unless_forced(manybridge: CommandLine) -> None:
    """Nothing is written at all if one file is in the way."""
    Path("manybridge.toml").write_text("# mine")

    refused = manybridge("init")
    untouched = (Path("manybridge.toml").read_text(), Path("bridges").exists())
    forced = manybridge("init", "--force")

    assert (refused.code, untouched) == (3, ("# mine", False))
    assert "manybridge.toml exists already; nothing was written" in refused.err
    assert (forced.code, Path("bridges/words.py").exists()) == (0, True)


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_what_can_not_be_written_is_told_in_a_sentence(manybridge: CommandLine, force: tuple[str, ...]) -> None:
    """A file where a folder is needed, a folder where a file is: nothing is written, and no traceback."""
    Path("file").write_text("x")
    Path("made/bridges").mkdir(parents=True)
    Path("made/manybridge.toml").mkdir()
    Path("half").mkdir()
    Path("half/bridges").write_text("x")

    ended = [manybridge("init", name, *force) for name in ("file", "file/below", "made", "half")]

    assert [each.code for each in ended] == [3] * 4
    assert ended[0].err.startswith("error: config_error: file can't be written: it is no folder\n")
    assert "half/bridges can't be written: it is no folder" in ended[3].err
    assert not Path("half/manybridge.toml").exists()


def test_a_file_that_is_no_text_is_in_the_way_as_any_other(manybridge: CommandLine) -> None:
    """It is compared, not read."""
    Path("manybridge.toml").write_bytes(b"\xff\xfe")

    assert [manybridge("init").code, manybridge("init", "--force").code] == [3, 0]


def test_writing_twice_is_harmless(manybridge: CommandLine) -> None:
    """Files that already say the same are no obstacle."""
    assert [manybridge("init").code, manybridge("init").code] == [0, 0]


def test_an_unknown_framework_is_named_with_the_known_ones(manybridge: CommandLine) -> None:
    """The closest name is suggested."""
    ended = manybridge("init", "--framework", "dpsy")

    assert ended.code == 5
    assert 'there is no template for "dpsy"; did you mean "dspy"?' in ended.err


class TestDropIn:
    @pytest.fixture(autouse=True)
    def drop_in(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Stand in for the script: these tests are about where it goes."""
        package = tmp_path / "package"
        (package / "dropin").mkdir(parents=True)
        (package / "dropin" / "dspy_bridge.py").write_text("# the drop-in\n")
        monkeypatch.setattr("manybridge.cli.init_command.files", lambda _name: package)

    def test_the_script_goes_where_the_application_starts_it(self, manybridge: CommandLine) -> None:
        """Nothing else is written."""
        Path("app").mkdir()

        ended = manybridge("init", "--dspex", "app", "--json")

        assert ended.json == {"written": ["app/priv/python/dspy_bridge.py"]}
        assert Path("app/priv/python/dspy_bridge.py").read_text() == "# the drop-in\n"
        assert not Path("manybridge.toml").exists()

    def test_the_script_that_was_there_is_kept(self, manybridge: CommandLine) -> None:
        """--force replaces it and keeps the old one beside it, also when forced twice."""
        script = Path("app/priv/python/dspy_bridge.py")
        script.parent.mkdir(parents=True)
        script.write_text("# theirs\n")

        codes = [manybridge("init", "--dspex", "app", *force).code for force in ((), ("--force",), ("--force",))]

        assert codes == [3, 0, 0]
        assert script.with_name("dspy_bridge.py.before-manybridge").read_text() == "# theirs\n"

    def test_the_application_must_exist(self, manybridge: CommandLine) -> None:
        """A typing error in the path makes no new folder."""
        assert manybridge("init", "--dspex", "ap").code == 3
        assert not Path("ap").exists()

"""Which bridge a command line means."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybridge.cli.selecting import select_bridge
from manybridge.errors import ConfigError, RegistryError


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder with a configuration and two bridges."""
    (tmp_path / "word-bridge.py").write_text("")
    (tmp_path / "manybridge.toml").write_text('[bridges.mine]\npython_script = "word-bridge.py"\npool_size = 9\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MANYBRIDGE_CONFIG", raising=False)
    monkeypatch.setattr("manybridge.cli.selecting.bundled_bridges", lambda: ("mock",))


def test_a_configured_bridge_comes_first() -> None:
    """Its host has it alone, with one worker."""
    selected = select_bridge("mine")

    assert (selected.bridge.pool_size, list(selected.host_config().bridges)) == (9, ["mine"])
    assert selected.host_config().bridges["mine"].pool_size == 1


@pytest.mark.parametrize(
    ("target", "name", "reference"),
    [
        ("mock", "mock", "mock"),
        ("word-bridge.py", "word-bridge", "{here}/word-bridge.py"),
        ("./word-bridge.py:Words", "word-bridge", "{here}/word-bridge.py:Words"),
        ("package.words:Words", "words", "package.words:Words"),
    ],
)
def test_a_bundled_name_a_path_and_a_class_need_no_configuration(
    target: str, name: str, reference: str, tmp_path: Path
) -> None:
    """Each is named after what it is."""
    selected = select_bridge(target)

    assert (selected.name, selected.bridge.reference) == (name, reference.format(here=tmp_path))


def test_an_installed_entry_point_is_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `manybridge worker NAME` finds it; a configured or bundled bridge of that name comes first."""
    installed = tmp_path / "site" / "team-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Name: team\nVersion: 1.0\n")
    points = "".join(f"{name} = team:Bridge\n" for name in ("team", "mine", "mock"))
    (installed / "entry_points.txt").write_text(f"[manybridge.bridges]\n{points}")
    monkeypatch.syspath_prepend(installed.parent)

    assert (select_bridge("team").name, select_bridge("team").bridge.bridge) == ("team", "team")
    assert select_bridge("mine").bridge.python_script is not None
    assert select_bridge("mock").bridge.bridge == "mock"


def test_a_file_that_is_not_there_is_a_config_error() -> None:
    """The path is in the message."""
    with pytest.raises(ConfigError, match=r"there is no file .*/nowhere\.py"):
        select_bridge("./nowhere.py")


def test_an_unknown_name_lists_what_there_is() -> None:
    """Configured and bundled ones together."""
    with pytest.raises(RegistryError, match='there is no bridge "mok"; did you mean "mock"') as caught:
        select_bridge("mok")

    assert caught.value.details["known"] == ["mine", "mock"]

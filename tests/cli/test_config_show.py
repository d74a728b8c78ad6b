"""`manybridge config show`."""

from __future__ import annotations

from pathlib import Path

import pytest

from manybridge.host.config import load_config
from manybridge.host.config_secrets import MASK
from tests.cli.support import CommandLine

CONFIG = """\
[bridges.mock]
pool_size = 2
default_timeout = "none"
required_env = ["SECRET_WORD"]
[bridges.mock.options]
api_key = "sk-1"
url = "http://ada:pw@host/"
header = "Bearer abcdef"
model = "${MODEL}"
max_tokens = 5
[bridges.mock.restart]
window = 5
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables that the configuration names."""
    monkeypatch.setenv("SECRET_WORD", "abcdef")
    monkeypatch.setenv("MODEL", "expanded")


def test_what_is_shown_is_the_configuration(manybridge: CommandLine, tmp_path: Path) -> None:
    """The output is TOML; where nothing is masked, reading it gives the same configuration."""
    Path("manybridge.toml").write_text('default = "mock"\n[bridges.mock]\ndefault_timeout = "none"\nmax_age = 5\n')

    shown = manybridge("config", "show")
    Path("again.toml").write_text(shown.out)

    assert shown.code == 0
    assert shown.out.startswith(f"# {tmp_path}/manybridge.toml\n")
    assert load_config("again.toml") == load_config("manybridge.toml")


def test_secrets_are_masked_and_variables_stay_variables(manybridge: CommandLine) -> None:
    """No secret by key, by URL or by value of a required variable, and no expansion."""
    Path("manybridge.toml").write_text(CONFIG)

    shown = manybridge("config", "show", "--json")

    assert shown.json["config"]["bridges"]["mock"]["options"] == {
        "api_key": MASK,
        "url": f"http://ada:{MASK}@host/",
        "header": f"Bearer {MASK}",
        "model": "${MODEL}",
        "max_tokens": 5,
    }
    assert not any(secret in manybridge("config", "show").out for secret in ("sk-1", "pw@", "abcdef", "expanded"))


def test_the_source_of_each_value_is_told(manybridge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value comes from the file, a variable or the default."""
    Path("manybridge.toml").write_text(CONFIG)
    monkeypatch.setenv("MANYBRIDGE__BRIDGES__MOCK__POOL_SIZE", "3")

    out = manybridge("config", "show", "--source").out

    assert "pool_size = 3  # environment variable MANYBRIDGE__BRIDGES__MOCK__POOL_SIZE" in out
    assert "max_overflow = 0  # default" in out
    assert f"window = 5.0  # {Path.cwd()}/manybridge.toml" in out


def test_no_file_shows_the_defaults(manybridge: CommandLine) -> None:
    """Nothing configured is said as such."""
    assert manybridge("config", "show").out.startswith("# no configuration file was found; these are the defaults\n")


def test_a_broken_configuration_ends_with_3(manybridge: CommandLine) -> None:
    """The error is on standard error, as JSON where that was asked for."""
    Path("bad.toml").write_text("[bridges.mock]\npool_sise = 2\n")

    plain = manybridge("config", "show", "--config", "bad.toml")
    as_json = manybridge("--config", "bad.toml", "config", "show", "--json")

    assert (plain.code, plain.out, as_json.code, as_json.out) == (3, "", 3, "")
    assert 'bad.toml:2: bridges.mock.pool_sise: unknown key; did you mean "pool_size"?' in plain.err
    assert as_json.error["code"] == "config_error"
    assert as_json.error["exit_code"] == 3


def test_an_option_wins_over_the_variable(manybridge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config is nearer than MANYBRIDGE_CONFIG, wherever it is said."""
    Path("one.toml").write_text("[limits]\nmax_jobs = 1")
    Path("two.toml").write_text("[limits]\nmax_jobs = 2")
    monkeypatch.setenv("MANYBRIDGE_CONFIG", "one.toml")

    jobs = [
        manybridge(*before, "config", "show", "--json", *after).json["config"]["limits"]["max_jobs"]
        for before, after in [((), ()), (("--config", "two.toml"), ()), ((), ("--config", "two.toml"))]
    ]

    assert jobs == [1, 2, 2]

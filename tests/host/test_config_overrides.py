"""Environment variables that override keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import ConfigError
from manybridge.host.config import BridgeConfig, load_config, read_config

SCRIPTED: dict[str, Any] = {"bridges": {"my-bridge": {"bridge": "m:B", "options": {"topP": 1, "deep": {"a": 1}}}}}


def overridden(environ: dict[str, str]) -> BridgeConfig:
    """Return my-bridge under these variables."""
    return load_config(SCRIPTED, environ).bridges["my-bridge"]


def refused(environ: dict[str, str]) -> str:
    """Return the message about these variables."""
    with pytest.raises(ConfigError) as caught:
        load_config(SCRIPTED, environ)
    return caught.value.message


def test_a_variable_overrides_a_key_of_a_bridge_with_a_dash() -> None:
    """MY_BRIDGE means my-bridge, and the value is read as the key's type asks."""
    assert overridden({"MANYBRIDGE__BRIDGES__MY_BRIDGE__POOL_SIZE": "3"}).pool_size == 3


@pytest.mark.parametrize(
    "variable",
    ["MANYBRIDGE__BRIDGES__My_Bridge__Pool_Size", "manybridge__bridges__my_bridge__pool_size"],
)
def test_case_does_not_matter(variable: str) -> None:
    """Shells and container systems differ in what they allow."""
    assert overridden({variable: "3"}).pool_size == 3


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("eager", "False", False),
        ("default_timeout", "none", None),
        ("default_timeout", "2.5", 2.5),
        ("max_requests", "1_000", 1000),
        ("required_env", '["A", "B"]', ["A", "B"]),
        ("required_env", "['A']", ["A"]),
        ("zygote", "never", "never"),
        ("python", "3.11", "3.11"),
    ],
)
def test_values_are_read_as_json_then_toml_then_text(key: str, text: str, expected: object) -> None:
    """A key that takes a string gets the text as it is, every other one what JSON or TOML reads."""
    bridge = overridden({f"MANYBRIDGE__BRIDGES__MY_BRIDGE__{key.upper()}": text})

    assert expected == getattr(bridge, key)


def test_options_keep_the_names_that_the_file_has() -> None:
    """An option that is there is matched without regard to case; a new one is lower-case."""
    prefix = "MANYBRIDGE__BRIDGES__MY_BRIDGE__OPTIONS__"

    options = overridden({f"{prefix}TOPP": "0.5", f"{prefix}DEEP__B": "text", f"{prefix}MODEL": "m"}).options

    assert options == {"topP": 0.5, "deep": {"a": 1, "b": "text"}, "model": "m"}


def test_environment_values_stay_text_in_capitals() -> None:
    """A worker's variable named by a variable keeps its capitals and is not parsed."""
    bridge = overridden({"MANYBRIDGE__BRIDGES__MY_BRIDGE__ENVIRONMENT__OMP_NUM_THREADS": "1"})

    assert bridge.environment == {"OMP_NUM_THREADS": "1"}


def test_a_new_bridge_and_nested_tables_can_be_said() -> None:
    """A name that matches none is a new bridge."""
    config = load_config(
        {},
        {
            "MANYBRIDGE__BRIDGES__EXTRA__BRIDGE": "m:B",
            "MANYBRIDGE__BRIDGES__EXTRA__RESTART__WINDOW": "5",
            "MANYBRIDGE__BRIDGES__OTHER": '{"bridge": "m:C"}',
        },
    )

    assert (config.bridges["extra"].bridge, config.bridges["extra"].restart.window) == ("m:B", 5.0)
    assert config.bridges["other"].bridge == "m:C"


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        (
            "MANYBRIDGE__BRIDGES__MY_BRIDGE__POOLSIZE",
            'unknown key bridges.my-bridge.poolsize; did you mean "pool_size"?',
        ),
        ("MANYBRIDGE__DEFALT", 'unknown key defalt; did you mean "default"?'),
        ("MANYBRIDGE__DEFAULT__X", "default is not a table"),
        ("MANYBRIDGE__BRIDGES__MY_BRIDGE__POOL_SIZE____", "expected names between the double underscores"),
    ],
)
def test_a_variable_that_fits_nothing_is_an_error_that_names_it(variable: str, said: str) -> None:
    """A misspelt variable must not be ignored in silence."""
    message = refused({variable: "1"})

    assert f"environment variable {variable}" in message
    assert said in message


def test_a_wrong_value_names_the_variable_and_the_key() -> None:
    """The source of a wrong value is the variable, not the file."""
    message = refused({"MANYBRIDGE__BRIDGES__MY_BRIDGE__POOL_SIZE": "0"})

    assert "environment variable MANYBRIDGE__BRIDGES__MY_BRIDGE__POOL_SIZE: bridges.my-bridge.pool_size:" in message


def test_an_ambiguous_name_is_refused() -> None:
    """`a-b` and `a.b` can't be told apart in a variable's name."""
    with pytest.raises(ConfigError, match=r"A_B may mean a-b or a\.b"):
        load_config(
            {"bridges": {"a-b": {"bridge": "m:B"}, "a.b": {"bridge": "m:B"}}},
            {"MANYBRIDGE__BRIDGES__A_B__EAGER": "false"},
        )


def test_the_source_mapping_is_not_changed_and_origins_are_told(tmp_path: Path) -> None:
    """Overrides go into a copy; which variable set which key is part of what is read."""
    loaded = read_config(SCRIPTED, {"MANYBRIDGE__BRIDGES__MY_BRIDGE__POOL_SIZE": "3"})

    assert "pool_size" not in SCRIPTED["bridges"]["my-bridge"]
    assert loaded.overrides == {("bridges", "my-bridge", "pool_size"): "MANYBRIDGE__BRIDGES__MY_BRIDGE__POOL_SIZE"}

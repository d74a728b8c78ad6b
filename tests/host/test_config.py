"""The configuration as a whole: sources, defaults, what is checked, and what errors say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import ConfigError
from manybridge.host import config as config_module
from manybridge.host.config import BridgeConfig, HostConfig, load_config, make_bridge_config, read_config


@pytest.fixture(autouse=True)
def mock_is_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fix the list of bundled bridges: these tests are not about which ones this release has."""
    monkeypatch.setattr("manybridge.host.config_checks.bundled_bridges", lambda: ("dspy", "mock", "python"))


def write(folder: Path, text: str, name: str = "manybridge.toml") -> Path:
    """Write a configuration file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(source: Any, environ: dict[str, str] | None = None) -> list[dict[str, str]]:
    """Return the problems that loading `source` reports."""
    with pytest.raises(ConfigError) as caught:
        load_config(source, environ or {})
    listed: list[dict[str, str]] = caught.value.details["problems"]
    return listed


def problem_of(values: dict[str, Any], environ: dict[str, str] | None = None) -> dict[str, str]:
    """Return the one problem of a bridge `b` with these keys."""
    (problem,) = problems_of({"bridges": {"b": {"bridge": "m:B", **values}}}, environ)
    return problem


class TestSources:
    def test_a_file_is_read_and_its_relative_paths_are_relative_to_it(self, tmp_path: Path) -> None:
        """A relative python_script and a relative python lie beside the file, not in the working folder."""
        write(tmp_path, "X = 1", "mine.py")
        path = write(tmp_path, '[bridges.mine]\npython_script = "mine.py:Mine"\npython = "env/bin/python"')

        bridge = load_config(path, {}).bridges["mine"]

        assert f"{tmp_path}/mine.py:Mine" == bridge.python_script
        assert f"{tmp_path}/env/bin/python" == bridge.python

    def test_pyproject_table_is_a_configuration(self, tmp_path: Path) -> None:
        """`[tool.manybridge]` says the same as manybridge.toml."""
        path = write(tmp_path, '[tool.manybridge]\ndefault = "mock"\n[tool.manybridge.bridges.mock]', "pyproject.toml")

        assert load_config(path, {}).default == "mock"

    def test_pyproject_without_our_table_is_an_error(self, tmp_path: Path) -> None:
        """A pyproject.toml that was named must have our table."""
        path = write(tmp_path, "[tool.other]", "pyproject.toml")

        assert [("tool.manybridge", str(path))] == [(each["key"], each["source"]) for each in problems_of(path)]

    def test_the_search_goes_upward_and_prefers_manybridge_toml(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a source the nearest folder wins, and in it manybridge.toml."""
        write(tmp_path, "[tool.manybridge.limits]\nmax_jobs = 1", "pyproject.toml")
        write(tmp_path, "[limits]\nmax_jobs = 2")
        inner = tmp_path / "a" / "b"
        inner.mkdir(parents=True)
        write(inner, "[project]", "pyproject.toml")
        monkeypatch.chdir(inner)

        loaded = read_config(None, {})

        assert (2, tmp_path / "manybridge.toml") == (loaded.config.limits.max_jobs, loaded.path)

    def test_nothing_found_is_an_empty_configuration(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """No file anywhere is no error: bridges can be registered while running."""
        monkeypatch.chdir(tmp_path)

        assert HostConfig() == load_config(None, {})

    def test_a_variable_names_the_file(self, tmp_path: Path) -> None:
        """MANYBRIDGE_CONFIG is used where no source is given."""
        path = write(tmp_path, "[limits]\nmax_jobs = 3")

        assert load_config(None, {"MANYBRIDGE_CONFIG": str(path)}).limits.max_jobs == 3

    def test_a_found_file_of_somebody_else_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that the search found counts only if this user or root owns it, since it names code to run."""
        write(tmp_path, "")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("manybridge.host.config_sources._owner", lambda _path: 4242)

        assert "belongs to user 4242" in problems_of(None)[0]["text"]

    def test_a_missing_file_tells_of_the_one_nearby(self, tmp_path: Path) -> None:
        """A wrong path is answered with the file that was probably meant."""
        near = write(tmp_path, "")

        assert f"there is one at {near}" in problems_of(tmp_path / "manybrige.toml")[0]["text"]

    def test_a_syntax_error_names_line_and_column(self, tmp_path: Path) -> None:
        """Broken TOML is reported as FILE:LINE:COLUMN with the line and a mark under it."""
        path = write(tmp_path, 'default = "mock"\n[bridges.mock\n')

        (problem,) = problems_of(path)

        assert f"{path}:2:14" == problem["source"]
        assert "[bridges.mock\n                 ^" in problem["text"]

    def test_a_checked_configuration_is_returned_as_it_is(self) -> None:
        """A HostConfig is a source too."""
        config = HostConfig(bridges={"mock": BridgeConfig(bridge="mock")})

        assert load_config(config, {"MANYBRIDGE__DEFAULT": "x"}) is config


class TestChecks:
    def test_a_bundled_bridge_needs_no_key(self) -> None:
        """A table without bridge and python_script is the bundled bridge of its name."""
        assert load_config({"bridges": {"mock": {}}}, {}).bridges["mock"].reference == "mock"

    def test_an_unknown_name_needs_bridge_or_script(self) -> None:
        """Neither key, and no bundled bridge of that name: the error says so and suggests."""
        (problem,) = problems_of({"bridges": {"moc": {}}})

        assert problem["key"] == "bridges.moc"
        assert 'did you mean "mock"?' in problem["text"]

    def test_bridge_and_script_exclude_each_other(self, tmp_path: Path) -> None:
        """Both keys at once are an error."""
        script = write(tmp_path, "", "b.py")

        assert "found both" in problem_of({"python_script": str(script)})["text"]

    def test_a_script_must_exist(self, tmp_path: Path) -> None:
        """The error has the text that was written and the path that it meant."""
        (problem,) = problems_of(write(tmp_path, '[bridges.b]\npython_script = "no.py"'))

        assert problem["key"] == "bridges.b.python_script"
        assert f'found "no.py", and there is no file {tmp_path}/no.py' in problem["text"]

    @pytest.mark.parametrize(
        ("values", "key", "text"),
        [
            ({"pol_size": 2}, "pol_size", 'unknown key; did you mean "pool_size"?'),
            ({"pool_size": "two"}, "pool_size", 'expected a whole number from 1 to 1024, found "two" (a string)'),
            ({"pool_size": True}, "pool_size", "found true (true or false)"),
            ({"pool_size": 0}, "pool_size", "found 0 (a whole number)"),
            ({"max_age": float("nan")}, "max_age", 'expected a number of seconds above 0 (or "none"), found NaN'),
            ({"zygote": "maybe"}, "zygote", 'expected one of "always", "auto", "never", found "maybe"'),
            ({"required_env": "A"}, "required_env", 'expected a list of strings, found "A" (a string)'),
            ({"required_env": ["A B"]}, "required_env", "expected names of environment variables"),
            ({"environment": {"A": 1}}, "environment", "expected a table of strings"),
            ({"options": {"when": {1, 2}}}, "options.when", "expected a value that JSON can carry"),
            ({"restart": {"window": 0}}, "restart.window", "expected a number of seconds above 0"),
            (
                {"restart": {"max_backoff": 0}},
                "restart.max_backoff",
                "expected at least initial_backoff (0.1), found 0",
            ),
            ({"restart": 3}, "restart", "expected a table, found 3 (a whole number)"),
        ],
    )
    def test_a_wrong_value_is_named_with_what_was_expected(self, values: dict[str, Any], key: str, text: str) -> None:
        """Every kind of wrong value says its key, what was expected and what was found."""
        problem = problem_of(values)

        assert f"bridges.b.{key}" == problem["key"]
        assert text in problem["text"]

    def test_all_problems_are_reported_at_once_with_their_lines(self, tmp_path: Path) -> None:
        """Nobody should have to start five times to find five errors."""
        path = write(
            tmp_path,
            'default = "mokc"\n[bridges.mock]\npool_size = 0\neagre = true\n[bridges.mock.restart]\nwindow = "x"\n',
        )

        lines = {each["key"]: each["source"] for each in problems_of(path)}

        assert {
            "default": f"{path}:1",
            "bridges.mock.pool_size": f"{path}:3",
            "bridges.mock.eagre": f"{path}:4",
            "bridges.mock.restart.window": f"{path}:6",
        } == lines

    @pytest.mark.parametrize("name", ["common", "a:b", "a b", "-a", ""])
    def test_a_bridge_name_must_be_usable_as_a_namespace(self, name: str) -> None:
        """Names with colons or spaces, and the reserved one, are refused."""
        assert "expected a name" in problems_of({"bridges": {name: {"bridge": "m:B"}}})[0]["text"]

    def test_none_switches_a_limit_off(self) -> None:
        """TOML has no null: the word "none" stands for it."""
        assert make_bridge_config("b", {"bridge": "m:B", "default_timeout": "none"}).default_timeout is None

    def test_a_secret_is_not_quoted_in_an_error(self) -> None:
        """The value under a secret key never reaches a message."""
        problem = problem_of({"environment": {"API_KEY": 5, "OTHER_KEY": "sk-12345"}})

        assert "sk-12345" not in str(problem)

    def test_defaults_are_those_of_the_documentation(self) -> None:
        """A bridge with nothing said has the defaults that INTERFACES and the reference promise."""
        bridge = make_bridge_config("mock", {})

        assert (
            bridge.pool_size,
            bridge.max_overflow,
            bridge.max_queue,
            bridge.default_timeout,
            bridge.cancel_grace,
            bridge.zygote,
            bridge.eager,
        ) == (1, 0, 1000, 60.0, 0.5, "auto", True)

    @pytest.mark.parametrize("value", [3, [], "mock", None])
    def test_bridges_that_are_no_table_are_a_problem_like_any_other(self, value: Any) -> None:
        """Said once, with what was found; the default that can't be among them is told as well."""
        problems = problems_of({"default": "mock", "bridges": value})

        assert [each["key"] for each in problems] == ["bridges", "default"]
        assert problems[0]["text"].startswith("expected a table of tables, found ")


class TestWorkingFolder:
    def test_a_working_folder_that_was_deleted_harms_nobody_who_needs_no_file_of_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A deployment that swaps folders leaves long-running programs in such a one."""
        folder = tmp_path / "deployed"
        folder.mkdir()
        monkeypatch.chdir(folder)
        folder.rmdir()

        assert load_config({"bridges": {"mock": {}}}, {}).bridges["mock"].bridge == "mock"
        assert load_config({"bridges": {"b": {"bridge": "m:C"}}}, {}).bridges["b"].bridge == "m:C"
        assert load_config(None, {}).bridges == {}
        assert "no such configuration file" in problems_of("manybridge.toml")[0]["text"]
        assert "there is no file" in problem_of({"python_script": "b.py"})["text"]


class TestExpansion:
    def test_variables_are_replaced_in_options_and_environment(self) -> None:
        """`${NAME}` is replaced at any depth; `$${` is a literal `${`."""
        bridge = make_bridge_config(
            "b",
            {
                "bridge": "m:B",
                "options": {"url": "http://${HOST}/", "list": [{"a": "$${HOST}"}]},
                "environment": {"WHERE": "${HOST}"},
            },
            environ={"HOST": "h1"},
        )

        assert bridge.options == {"url": "http://h1/", "list": [{"a": "${HOST}"}]}
        assert bridge.environment == {"WHERE": "h1"}

    def test_a_missing_variable_is_an_error_of_its_own_code(self) -> None:
        """A variable that is not set is `missing_variable` and names key, variable and remedy."""
        with pytest.raises(ConfigError) as caught:
            load_config({"bridges": {"b": {"bridge": "m:B", "options": {"api_key": "${NO_KEY}"}}}}, {})

        assert caught.value.code == "missing_variable"
        assert "bridges.b.options.api_key" in caught.value.message
        assert "export NO_KEY=..." in caught.value.message

    def test_a_store_that_is_none_is_a_problem_of_the_file(self, tmp_path: Path) -> None:
        """File, line, key, what is expected and what was found; no host is needed to learn of it."""
        path = write(tmp_path, '[store]\nurl = "mysql://localhost/db"\n')

        (problem,) = problems_of(path)

        assert (problem["source"], problem["key"]) == (f"{path}:2", "store.url")
        assert problem["text"].startswith("expected `memory:`, `sqlite:///FILE`")
        assert problem["text"].endswith("found mysql:...")

    def test_what_was_read_once_is_not_expanded_again(self) -> None:
        """A value that looks like a variable after expansion stays as it is when it is checked again."""
        first = make_bridge_config("b", {"bridge": "m:B", "options": {"a": "$${X}"}}, environ={})

        assert first == make_bridge_config("b", first, environ={})
        assert first == load_config({"bridges": {"b": first}}, {}).bridges["b"]


def test_bundled_bridges_are_listed_without_importing_them() -> None:
    """The list comes from the folder."""
    assert config_module.bundled_bridges() == ("dspy", "langchain", "mock", "python", "transformers")

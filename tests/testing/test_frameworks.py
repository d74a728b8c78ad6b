"""Where a framework is found, and what is said where it is not. No framework is started here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from manybridge.errors import ConfigError
from manybridge.host.config import BridgeConfig, EnvironmentsConfig
from manybridge.testing import (
    FrameworkNotFoundError,
    InMemoryMLBridge,
    KitError,
    ScriptedLLM,
    framework_config,
    start_framework,
)
from manybridge.testing.frameworks import FRAMEWORKS, Found, _wired, find_framework, wiring

DSPY = FRAMEWORKS["dspy"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with a folder of tests, and an interpreter that is only there to be found."""
    (tmp_path / "tests").mkdir()
    interpreter(tmp_path / "env")
    return tmp_path


def interpreter(folder: Path) -> Path:
    """Make what looks like the interpreter of an environment."""
    (folder / "bin").mkdir(parents=True)
    path = folder / "bin" / "python"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def configured(project: Path, text: str) -> None:
    """Write the project's `manybridge.toml`."""
    (project / "manybridge.toml").write_text(text, encoding="utf-8")


def found(project: Path, **keywords: Any) -> Found:
    """Look from the folder of the tests."""
    return find_framework(DSPY, folder=project / "tests", **keywords)


def test_the_test_counts_before_the_ini_option_and_that_before_the_file(project: Path) -> None:
    """An environment's folder stands for its interpreter; a name without a slash is a command."""
    configured(project, '[bridges.dspy]\npython = "env/bin/python"\n')
    own = interpreter(project / "own")
    assert found(project, python=project / "own", said="python3").config.python == str(own)
    assert found(project, said="python3").config.python == "python3"
    assert found(project).config.python == str(project / "env/bin/python")
    assert found(project).source == f'bridge "dspy" in {project / "manybridge.toml"}'


def test_a_bridge_of_the_framework_is_found_under_any_name(project: Path) -> None:
    """One of its own name first, else the only one; with several the test says which."""
    configured(project, '[bridges.qa]\nbridge = "dspy"\n[bridges.other]\nbridge = "mock"\n')
    assert found(project).bridge == "qa"
    assert found(project).environments.locks == str(project / "manybridge.locks")  # of `manybridge env`
    configured(project, '[bridges.qa]\nbridge = "dspy"\n[bridges.dspy]\n')
    assert found(project).bridge == "dspy"
    assert found(project, bridge="qa").bridge == "qa"
    configured(project, '[bridges.qa]\nbridge = "dspy"\n[bridges.dspy-eu]\nbridge = "dspy"\n')
    with pytest.raises(KitError, match="several bridges of DSPy; say which: bridge='qa'"):
        found(project)
    with pytest.raises(KitError, match='no bridge "us" of DSPy; it has qa, dspy-eu'):
        found(project, bridge="us")


def test_nobody_needs_a_provider_s_key(project: Path) -> None:
    """A variable that the file mentions, and that is not set where the tests run."""
    configured(
        project,
        '[bridges.dspy]\nrequired_env = ["NO_SUCH_API_KEY", "PATH"]\n'
        'options = { model = "openai/gpt-4o", api_key = "${NO_SUCH_API_KEY}", temperature = 0.2, adapter = "json" }\n',
    )
    llm = ScriptedLLM()
    config = _wired(DSPY, found(project), wiring(DSPY, llm), {"temperature": 0.0}, {"pool_size": 2})
    llm.stop()
    assert config.options["api_base"] == llm.openai_base
    assert (config.options["model"], config.options["adapter"]) == ("openai/scripted", "json")
    assert config.options["temperature"] == 0.0
    assert config.required_env == ["PATH"]
    assert config.pool_size == 2


def test_a_host_of_one_s_own_gets_the_same_configuration(project: Path) -> None:
    """For `AsyncMLBridge`, and for hosts that have more than this."""
    with ScriptedLLM() as llm:
        config = framework_config("langchain", llm=llm, python=project / "env", bridge="chat", pool_size=2)
        assert list(config.bridges) == ["chat"]
        assert config.bridges["chat"].options["base_url"] == llm.openai_base
        assert config.bridges["chat"].python == str(project / "env/bin/python")


def test_without_a_model_of_ours_the_project_s_own_stays() -> None:
    """With what it requires."""
    own = BridgeConfig(bridge="dspy", options={"model": "openai/gpt-4o"}, required_env=["OPENAI_API_KEY"])
    config = _wired(DSPY, Found("dspy", own, EnvironmentsConfig(), "a test"), wiring(DSPY, None), {}, {})
    assert (config.options, config.required_env) == (own.options, own.required_env)


def test_an_interpreter_that_has_the_package_is_the_last_resort(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that runs the test."""
    (project / "dspy-3.0.dist-info").mkdir()
    (project / "dspy-3.0.dist-info" / "METADATA").write_text("Name: dspy\nVersion: 3.0\n")
    monkeypatch.syspath_prepend(project)
    assert found(project).config.python == sys.executable


def test_where_nothing_is_said_the_error_says_what_to_say(project: Path) -> None:
    """Every place that was looked at, and lines to copy."""
    with pytest.raises(FrameworkNotFoundError) as caught:
        found(project)
    text = str(caught.value)
    assert f"there is none from {project / 'tests'} upward" in text
    assert f"{sys.executable} (has no package dspy)" in text
    assert '[tool.pytest.ini_options]\n  manybridge_dspy_python = ".envs/dspy/bin/python"' in text
    assert 'manybridge_missing_framework = "skip"' in text
    configured(project, "[bridges.mock]\n")
    with pytest.raises(FrameworkNotFoundError, match=r"manybridge\.toml has no bridge of it"):
        found(project)


def test_what_is_said_must_be_there(project: Path) -> None:
    """Named by whoever said it."""
    with pytest.raises(FrameworkNotFoundError, match="nowhere/python, which the argument python names for DSPy, does"):
        found(project, python=project / "nowhere" / "python")
    with pytest.raises(FrameworkNotFoundError, match="which the ini option manybridge_dspy_python names"):
        found(project, said=project / "nowhere")
    (project / "empty").mkdir()
    with pytest.raises(FrameworkNotFoundError, match="empty/bin/python"):
        found(project, python=project / "empty")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_counts_only_by_its_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names code to run: the rule of the host."""
    configured(project, '[bridges.dspy]\npython = "env/bin/python"\n')
    os.chown(project / "manybridge.toml", 12_345, -1)
    with pytest.raises(KitError, match="belongs to user 12345"):
        found(project)
    monkeypatch.setenv("MANYBRIDGE_CONFIG", str(project / "manybridge.toml"))
    assert found(project).config.python == str(project / "env/bin/python")


def test_a_framework_that_has_no_fixture_is_named(tmp_path: Path) -> None:
    """With those that have one, and what serves the others."""
    with pytest.raises(KitError, match="expected one of dspy, langchain, transformers, found 'sklearn'"):
        start_framework("sklearn")


def test_a_host_in_memory_has_no_environments() -> None:
    """It says so before anything is looked for."""
    with InMemoryMLBridge({}) as ml, pytest.raises(KitError, match="real=True"):
        start_framework("dspy", ml=ml)


def test_a_key_that_the_configuration_does_not_know_starts_nothing() -> None:
    """As in a file."""
    with pytest.raises(ConfigError, match="pool_sice"):
        start_framework("dspy", python=sys.executable, pool_sice=2)


def test_an_interpreter_without_the_framework_is_told_with_who_named_it() -> None:
    """The error of the worker, and a note; the host is closed again."""
    with pytest.raises(Exception, match="dspy") as caught:
        start_framework("dspy", python=sys.executable)
    assert getattr(caught.value, "code", None) == "missing_package"
    assert caught.value.__notes__ == ["The interpreter for DSPy was named by the argument python."]

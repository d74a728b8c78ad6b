"""What a bridge needs is checked before a worker starts, and the error has the command that helps."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from manybridge.errors import ConfigError, WorkerStartError
from manybridge.host import requirements
from manybridge.host.config import BridgeConfig
from manybridge.host.requirements import check_requirements, check_variables, probe


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Begin and end each test without remembered answers."""
    requirements.forget_answers()
    yield
    requirements.forget_answers()


def needing(*packages: str, python: str | None = None) -> BridgeConfig:
    """Return a bridge that needs these packages; its interpreter may be a script, which nobody can look through."""
    return BridgeConfig(bridge="m:B", required_packages=list(packages), python=python, check_python=False)


def fake_python(folder: Path, text: str, mode: int = 0o755) -> str:
    """Write an executable that is not a usable Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(mode)
    return str(path)


async def test_met_requirements_tell_the_versions() -> None:
    """What is installed in a version that fits passes."""
    interpreter = await check_requirements("b", needing("msgspec>=0.18", "Typer"))

    assert version("msgspec") == interpreter.packages["msgspec"]
    assert sys.version_info[:3] == interpreter.version


async def test_missing_packages_are_all_named_with_the_command_that_installs_them() -> None:
    """Not installed and too old are both `missing_package`."""
    with pytest.raises(WorkerStartError) as caught:
        await check_requirements("b", needing("no-such-package>=1", "msgspec>=99", "rich"))

    error = caught.value
    assert error.code == "missing_package"
    assert f"no-such-package>=1 (not installed), msgspec>=99 (it has {version('msgspec')})" in error.message
    assert f"uv pip install --python {sys.executable} 'no-such-package>=1' 'msgspec>=99'" == error.details["install"]
    assert error.details["install"] in error.message


async def test_a_marker_that_does_not_apply_is_skipped() -> None:
    """A requirement for another platform is no requirement here."""
    await check_requirements("b", needing('no-such-package; sys_platform == "win32"'))


async def test_a_requirement_that_cannot_be_read_is_a_config_error() -> None:
    """The error names the key and shows what a requirement looks like."""
    with pytest.raises(ConfigError, match=r'bridges\.b\.required_packages: expected a requirement such as "dspy>=3"'):
        await check_requirements("b", needing("dspy=>3"))


async def test_all_missing_variables_are_named() -> None:
    """`missing_variable` comes before the interpreter is even looked for."""
    config = BridgeConfig(bridge="m:B", required_env=["A_KEY", "B_KEY", "C_KEY"], environment={"C_KEY": "c"})

    with pytest.raises(WorkerStartError, match=r"export A_KEY=\.\.\.\n  export B_KEY") as caught:
        await check_requirements("b", config, {"B_KEY": ""})

    assert (caught.value.code, caught.value.details["missing"]) == ("missing_variable", ["A_KEY", "B_KEY"])


def test_variables_that_are_set_pass() -> None:
    """Nothing missing is no error."""
    check_variables("b", BridgeConfig(bridge="m:B", required_env=["A_KEY"]), {"A_KEY": "a"})


@pytest.mark.parametrize(
    ("python", "said"),
    [
        (
            "/no/such/bin/python",
            r"does not exist; make it with:\n  uv venv /no/such\n  uv pip install --python /no/such/bin/python rich",
        ),
        ("no-such-python", "not a command on PATH"),
    ],
)
async def test_an_interpreter_that_is_not_there_is_a_config_error(python: str, said: str) -> None:
    """A path and a command are told apart."""
    with pytest.raises(ConfigError, match=said):
        await check_requirements("b", needing("rich", python=python))


async def test_a_file_that_cannot_be_executed_is_a_config_error(tmp_path: Path) -> None:
    """The permission is the problem, and is named."""
    python = fake_python(tmp_path, "", mode=0o644)

    with pytest.raises(ConfigError, match="can't be executed"):
        await check_requirements("b", needing(python=python))


async def test_a_program_that_is_no_python_is_a_config_error(tmp_path: Path) -> None:
    """Its last words are in the error."""
    python = fake_python(tmp_path, "echo what is this >&2; exit 3")

    with pytest.raises(ConfigError, match="exit code 3: what is this"):
        await check_requirements("b", needing(python=python))


async def test_an_old_python_is_a_config_error(tmp_path: Path) -> None:
    """The worker side needs the versions that the host needs."""
    python = fake_python(tmp_path, """echo '{"version": [3, 9, 1], "packages": {}}'""")

    with pytest.raises(ConfigError, match=r"is Python 3\.9\.1, and a worker needs at least 3\.11"):
        await check_requirements("b", needing(python=python))


async def test_an_interpreter_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe ends, and leaves no process behind."""
    monkeypatch.setattr(requirements, "PROBE_TIMEOUT", 0.05)

    with pytest.raises(ConfigError, match=r"no answer within 0\.05 seconds"):
        await check_requirements("b", needing(python=fake_python(tmp_path, "exec sleep 60")))


async def test_an_answer_is_remembered_until_the_interpreter_changes(tmp_path: Path) -> None:
    """One probe per interpreter and set of packages."""
    count = tmp_path / "count"
    python = fake_python(tmp_path, f"""echo x >> {count}; echo '{{"version": [3, 12, 1], "packages": {{"a": "1"}}}}'""")

    await probe(python, ["a"])
    await probe(python, ["a"])
    once = count.read_text()
    requirements.forget_answers()
    await probe(python, ["a"])

    assert (once, count.read_text()) == ("x\n", "x\nx\n")

"""`manybridge doctor`."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from manybridge.cli import checks
from manybridge.host.config import BridgeConfig
from tests.cli.support import CommandLine, Ended

BROKEN = """
import sys
from manybridge.bridge import Bridge

class BrokenBridge(Bridge):
    name = "broken"

    def setup(self, options):
        raise RuntimeError("the model file is missing")
"""


def by_name(ended: Ended) -> dict[str, dict[str, Any]]:
    """Return the findings by name."""
    return {check["name"]: check for check in ended.json["checks"]}


def test_a_sound_project_passes(manybridge: CommandLine) -> None:
    """Every bridge was started and answered a ping."""
    Path("manybridge.toml").write_text("[bridges.mock]\n")

    ended = manybridge("doctor", "--json")

    assert (ended.code, ended.json["ok"]) == (0, True)
    assert by_name(ended)["mock: worker"]["status"] == "ok"
    assert "ready after" in by_name(ended)["mock: worker"]["found"]


def test_each_bridge_is_judged_by_itself(manybridge: CommandLine) -> None:
    """One that lacks something doesn't hide the others, and each finding has its fix."""
    Path("broken.py").write_text(BROKEN)
    Path("manybridge.toml").write_text(
        '[bridges.mock]\n[bridges.poor]\nbridge = "mock"\nrequired_packages = ["no-such-package"]\n'
        '[bridges.bare]\nbridge = "mock"\nrequired_env = ["NO_SUCH_KEY"]\n'
        '[bridges.lost]\nbridge = "mock"\npython = "env/bin/python"\n[bridges.broken]\npython_script = "broken.py"\n'
    )

    ended = manybridge("doctor", "--json")
    found = by_name(ended)

    assert ended.code == 1
    assert found["mock: worker"]["status"] == "ok"
    assert found["poor: needs"]["fix"] == "manybridge env lock poor; manybridge env sync poor"
    assert found["bare: needs"]["fix"] == "export NO_SUCH_KEY=..."
    assert "env/bin/python does not exist" in found["lost: needs"]["found"]
    assert found["broken: worker"]["status"] == "fail"
    assert "the model file is missing" in found["broken: worker"]["found"]


def test_a_broken_configuration_is_a_finding(manybridge: CommandLine) -> None:
    """The rest is checked all the same."""
    Path("manybridge.toml").write_text("[bridges.mock]\npool_sise = 1\n")

    ended = manybridge("doctor")

    assert ended.code == 1
    assert "fail  configuration:" in ended.out
    assert "ok    python:" in ended.out


def test_no_configuration_is_a_warning_with_its_fix(manybridge: CommandLine) -> None:
    """Nothing is wrong yet."""
    ended = manybridge("doctor")

    assert ended.code == 0
    assert "warn  configuration: none found\n      fix: manybridge init writes one" in ended.out


def test_one_bridge_can_be_checked_alone(manybridge: CommandLine) -> None:
    """A bundled one needs no configuration."""
    names = set(by_name(manybridge("doctor", "--bridge", "mock", "--json")))

    assert {"mock: needs", "mock: worker"} <= names
    assert "configuration" not in names


def test_too_few_descriptors_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fix says how many."""
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, 4096))

    check = checks.check_descriptors({"a": BridgeConfig(bridge="mock", pool_size=200, max_overflow=20)})

    assert (check.status, check.fix) == ("warn", "ulimit -n 1888 (the hard limit is 4096)")


def test_a_terminal_gets_a_table(manybridge: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same findings, in columns."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")

    out = manybridge("doctor", "--bridge", "mock").out

    assert "check" in out.splitlines()[1]
    assert "mock: worker" in out


def test_it_is_the_command_of_the_package(tmp_path: Path) -> None:
    """The installed command and the module are the same."""
    script = Path(sys.executable).with_name("manybridge")

    ended = subprocess.run([script, "doctor", "--help"], capture_output=True, text=True, cwd=tmp_path, check=True)

    assert "Check Python, uv, the configuration and every bridge" in ended.stdout


def test_the_store_is_looked_at_and_not_touched(manybridge: CommandLine, tmp_path: Path) -> None:
    """Where it is, its schema, and what is wrong with it; a password is not shown."""

    def store(url: str) -> dict[str, Any]:
        (tmp_path / "manybridge.toml").write_text(f'[bridges.mock]\nzygote = "never"\n[store]\nurl = "{url}"\n')
        found: dict[str, Any] = by_name(manybridge("doctor", "--json"))["store"]
        return found

    assert store("memory:")["status"] == "ok"
    fresh = store("sqlite:///records.db")
    assert (fresh["status"], "made when the first record" in fresh["found"]) == ("ok", True)
    assert not (tmp_path / "records.db").exists()
    assert manybridge("resources", "create", "mock", "echo").code == 0
    made = store("sqlite:///records.db")
    assert (made["status"], "schema 0002" in made["found"], str(tmp_path) in made["found"]) == ("ok", True, True)
    lacking = store("sqlite:///nowhere/records.db")
    assert (lacking["status"], lacking["fix"]) == ("fail", f"mkdir -p {tmp_path}/nowhere")
    (tmp_path / "other.db").write_bytes(b"no database at all" * 500)
    assert store("sqlite:///other.db")["status"] == "fail"
    away = store("postgresql://user:very-secret@127.0.0.1:1/db")
    assert (away["status"], "very-secret" in str(away), "127.0.0.1:1" in away["found"]) == ("fail", False, True)

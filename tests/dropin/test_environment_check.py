"""Section 1: what DSPex checks before it starts a process."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dropin.port import PLAIN_PYTHON, SCRIPT, Port
from tests.support import SOURCE, framework_python


@pytest.mark.parametrize("pattern", [r"class DSPyBridge", r"def handle_command", r"def main\(\)"])
def test_the_script_has_the_texts_that_dspex_looks_for(pattern: str) -> None:
    """A script without them is refused before it is started."""
    assert re.search(pattern, SCRIPT.read_text(encoding="utf-8"))


def test_the_script_is_a_readable_regular_file() -> None:
    """DSPex checks both."""
    assert SCRIPT.is_file()
    assert not SCRIPT.is_symlink()
    assert SCRIPT.read_bytes().startswith(b"#!")


def test_the_interpreter_prints_its_version_on_stdout() -> None:
    """DSPex wants `Python X.Y.Z`, 3.8.0 or newer."""
    printed = subprocess.run([PLAIN_PYTHON, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.fullmatch(r"Python (\d+)\.(\d+)\.\d+\s*", printed)
    assert match is not None
    assert (int(match[1]), int(match[2])) >= (3, 8)


@pytest.mark.framework
def test_dspy_can_be_imported_and_tells_its_version() -> None:
    """DSPex runs exactly this before every start, with stderr merged in; so nothing may be printed there."""
    command = [str(framework_python("dspy")), "-c", "import dspy; print(dspy.__version__)"]
    found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert found.returncode == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\s*", found.stdout)


def test_a_link_to_the_script_finds_manybridge(tmp_path: Path) -> None:
    """The package is found where the file really lies."""
    link = tmp_path / "priv" / "python" / "dspy_bridge.py"
    link.parent.mkdir(parents=True)
    link.symlink_to(SCRIPT)
    with Port(script=link, cwd=tmp_path) as port:
        assert port.result("ping")["status"] == "ok"


@pytest.mark.parametrize("home", [SOURCE.parent, SOURCE, SOURCE / "manybridge"])
def test_a_copy_of_the_script_finds_manybridge_through_its_variable(tmp_path: Path, home: Path) -> None:
    """MANYBRIDGE_HOME may be the checkout, the folder of the package, or the package."""
    copy = shutil.copy(SCRIPT, tmp_path / "dspy_bridge.py")
    with Port(script=Path(copy), cwd=tmp_path, env={"MANYBRIDGE_HOME": str(home)}) as port:
        assert port.result("ping")["status"] == "ok"


@pytest.mark.parametrize(
    ("home", "said"), [(None, "pip install manybridge"), ("/nowhere", "MANYBRIDGE_HOME is '/nowhere'")]
)
def test_a_script_that_finds_no_manybridge_says_what_to_do(tmp_path: Path, home: str | None, said: str) -> None:
    """On stderr and with status 1, because stdout belongs to the frames."""
    copy = shutil.copy(SCRIPT, tmp_path / "dspy_bridge.py")
    env = {"PATH": "/usr/bin"} | ({"MANYBRIDGE_HOME": home} if home else {})
    # -S: the test environment has manybridge installed
    ended = subprocess.run(
        [PLAIN_PYTHON, "-S", copy], env=env, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert said in ended.stderr


def test_the_class_serves_commands_in_process() -> None:
    """The three texts are real code, not a decoy."""
    code = (
        "import runpy, sys; found = runpy.run_path(sys.argv[1]); bridge = found['DSPyBridge']('pool-worker', 'w7');"
        "print(bridge.handle_command('ping', {})['worker_id'], bridge.handle_command('get_stats', {})['command_count'])"
        "\ntry: bridge.handle_command('predict', {})\nexcept ValueError as error: print(error)"
    )
    ended = subprocess.run([PLAIN_PYTHON, "-c", code, SCRIPT], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == ["w7 2", "Unknown command: predict"]

"""What runs at the start of Python is found by reading files, and the judge of that is Python itself."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from manybridge.environments.check import check_before_start, findings_before_start
from manybridge.environments.interpreters import locate
from manybridge.environments.settings import Settings
from manybridge.errors import EnvironmentRefusedError
from tests.environments.conftest import Canary

SHIM = (
    b"import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') == 'local'; "
    b"enabled and __import__('_distutils_hack').add_shim(); \n"
)

HAS_ITS_OWN = (Path(sysconfig.get_path("stdlib")) / "sitecustomize.py").exists()
"""Debian's Python brings a sitecustomize, which comes before any other; ours names one all the same."""


class Venv:
    """A virtual environment of the standard library's kind, without pip."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.packages = folder / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
        base = Path(getattr(sys, "_base_executable", sys.executable))
        self.packages.mkdir(parents=True)
        self.python.parent.mkdir()
        self.python.symlink_to(base)
        (folder / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
        self.settings = Settings(root=folder)

    def write(self, name: str, content: bytes | str) -> Path:
        """Put a file into its site-packages."""
        path = self.packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def findings(self, **settings: frozenset[str]) -> list[str]:
        """Look through it, as before a start."""
        found = findings_before_start(locate(self.python), Settings(root=self.folder, **settings))  # type: ignore[arg-type]  # the one field that tests set
        return [each.subject for each in found]

    def start(self) -> None:
        """Start its interpreter the way a worker is started."""
        subprocess.run([self.python, "-I", "-c", ""], check=True, capture_output=True)


@pytest.fixture
def venv(tmp_path: Path) -> Venv:
    """Return an empty virtual environment."""
    return Venv(tmp_path / "venv")


def test_an_empty_environment_has_no_start_up_code(venv: Venv) -> None:
    """Neither has the Python that it was made from."""
    assert venv.findings() == []


PTH = {
    "plain": "{line}",
    "with a tab": "import\t{code}",
    "behind a comment": "# a comment\n\n{line}",
    "behind a path": "/tmp\n{line}",
    "behind an old line end": "# a comment\r{line}",
    "with Windows line ends": "# a comment\r\n{line}\r\n",
    "without a line end": "{line}",
    "behind another line that fails": "{line}import no_such_module_at_all\n",
}


@pytest.mark.parametrize("form", PTH.values(), ids=PTH.keys())
def test_whatever_python_runs_of_a_pth_file_is_found(venv: Venv, canary: Canary, form: str) -> None:
    """Each form is first looked at, then shown to Python, which runs it."""
    path = venv.write("x.pth", form.format(line=canary.line, code=canary.line.removeprefix("import ")))

    assert str(path) in venv.findings()
    venv.start()
    assert canary.sang


@pytest.mark.parametrize("name", [".hidden.pth", "X.pth", "a.b.pth"])
def test_files_are_found_by_the_end_of_their_name_alone(venv: Venv, canary: Canary, name: str) -> None:
    """Newer releases of Python skip hidden ones; older ones run them."""
    assert venv.findings() == []

    assert venv.findings() != [str(venv.write(name, canary.line))]


@pytest.mark.parametrize("form", [" {line}", "#import x; {line}", "x; {line}", "importlib; {line}"])
def test_what_python_does_not_run_is_not_found(venv: Venv, canary: Canary, form: str) -> None:
    """A path that does not exist is skipped, and a comment is one."""
    venv.write("x.pth", form.format(line=canary.line))

    assert venv.findings() == []
    venv.start()
    assert not canary.sang


@pytest.mark.parametrize("end", ["\f", "\v", "\x1c", "\x85", "\u2028"])
def test_a_line_that_begins_for_newer_releases_of_python_alone_is_found(venv: Venv, canary: Canary, end: str) -> None:
    """Python 3.13 splits a .pth file as `str.splitlines` does; earlier ones see a comment and no more."""
    path = venv.write("x.pth", f"# a comment{end}{canary.line}")

    assert venv.findings() == [str(path)]


def test_a_pth_file_that_is_not_utf_8_is_split_all_the_same(venv: Venv, canary: Canary) -> None:
    """Python reads it in the encoding of the locale then."""
    path = venv.write("x.pth", b"# \xff\x85" + canary.line.encode())

    assert venv.findings() == [str(path)]


def test_a_byte_order_mark_hides_nothing(venv: Venv, canary: Canary) -> None:
    """Python 3.13 skips it and runs the line; earlier ones do not."""
    path = venv.write("x.pth", b"\xef\xbb\xbf" + canary.line.encode())

    assert venv.findings() == [str(path)]


@pytest.mark.parametrize("name", ["sitecustomize.py", "sitecustomize/__init__.py"])
def test_sitecustomize_is_found_wherever_python_finds_it(venv: Venv, canary: Canary, name: str) -> None:
    """Beside the packages, and in a folder that a .pth file puts on the path."""
    elsewhere = venv.folder / "elsewhere"
    (elsewhere / name).parent.mkdir(parents=True)
    (elsewhere / name).write_text(canary.line)
    assert venv.findings() == []

    venv.write("paths.pth", f"{elsewhere}\n")

    assert venv.findings() == [str(elsewhere / name.partition("/")[0])]
    venv.start()
    assert canary.sang != HAS_ITS_OWN


def test_sitecustomize_in_an_archive_on_the_path_is_found(venv: Venv, canary: Canary) -> None:
    """Python imports from zip files too."""
    archive = venv.folder / "code.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("sitecustomize.py", canary.line)
    venv.write("paths.pth", f"{archive}\n")

    assert venv.findings() == [str(archive / "sitecustomize.py")]
    venv.start()
    assert canary.sang != HAS_ITS_OWN


def test_a_pth_file_of_paths_alone_is_no_code(venv: Venv) -> None:
    """An editable install is one."""
    venv.write("_editable.pth", f"{venv.folder}\nno/such/folder\n\0\n{'x' * 5000}\n")

    assert venv.findings() == []


def test_the_line_of_setuptools_is_known_with_the_module_of_setuptools_alone(venv: Venv, canary: Canary) -> None:
    """The same line in front of another module of that name would run that."""
    path = venv.write("distutils-precedence.pth", SHIM)
    module = venv.write("_distutils_hack/__init__.py", f"{canary.line}\ndef add_shim(): pass\n")
    assert venv.findings() == [str(path)]

    digest = hashlib.sha256(module.read_bytes()).digest()
    text = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    venv.write("evil-1.0.dist-info/RECORD", f"_distutils_hack/__init__.py,sha256={text},1\n")
    assert venv.findings() == [str(path)]

    venv.write("setuptools-80.0.dist-info/RECORD", f"_distutils_hack/__init__.py,sha256={text},1\n")
    assert venv.findings() == []


def test_the_line_of_setuptools_in_a_file_of_another_name_is_not_known(venv: Venv) -> None:
    """And neither is the line with something behind it."""
    venv.write("_distutils_hack/__init__.py", "")
    first = venv.write("other.pth", SHIM)
    second = venv.write("distutils-precedence.pth", SHIM.strip() + b"; import evil\n")

    assert venv.findings() == [str(second), str(first)]


def test_a_line_that_was_allowed_by_its_hash_is_let_through(venv: Venv, canary: Canary) -> None:
    """The error names the hash."""
    venv.write("x.pth", canary.line)
    with pytest.raises(EnvironmentRefusedError, match="allowed_startup") as caught:
        check_before_start(venv.python, venv.settings)
    digest = caught.value.details["findings"][0]["sha256"]

    assert f"(sha256 {digest})" in caught.value.message
    assert venv.findings(allowed_startup=frozenset({digest})) == []


@pytest.mark.parametrize(
    "name",
    [
        "litellm-1.82.8.dist-info/METADATA",
        "LiteLLM-1.82.8.dist-info/METADATA",
        "litellm-1.82.8+patched.dist-info/METADATA",
        "litellm-1.82.8-py3.11.egg-info",
        "litellm-1.82.7.dist-info/METADATA",
        "litellm-no.version.dist-info/METADATA",
    ],
)
def test_a_known_bad_version_is_found_by_its_metadata_folder(venv: Venv, name: str) -> None:
    """However it is spelled; a version that can't be compared is none that passes."""
    venv.write(name, "")

    with pytest.raises(EnvironmentRefusedError, match=r"litellm==.*: a known-bad version"):
        check_before_start(venv.python, venv.settings)


def test_other_versions_pass(venv: Venv) -> None:
    """The list is of two releases, not of a package."""
    venv.write("litellm-1.82.9.dist-info/METADATA", "")
    venv.write("litellm_proxy_extras-1.82.8.dist-info/METADATA", "")

    assert venv.findings() == []


def test_all_findings_are_listed_at_once(venv: Venv, canary: Canary) -> None:
    """Nobody wants to learn of them one by one."""
    venv.write("litellm-1.82.8.dist-info/METADATA", "")
    venv.write("x.pth", canary.line * 2)
    venv.write("usercustomize.py", canary.line)

    assert len(venv.findings()) == 4
    assert not canary.sang

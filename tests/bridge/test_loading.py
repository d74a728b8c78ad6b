"""Bridges are found by bundled name, entry point, class and file, and failures teach."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manybridge.bridge import Bridge, BridgeError
from manybridge.bridge.loading import BUNDLED, check_required_modules, load_bridge, package_of
from manybridge.protocol.errors import ErrorCode

GOOD = """
from __future__ import annotations
from dataclasses import dataclass
from manybridge.bridge import Bridge, Context, command

@dataclass
class Layer:
    units: int
    child: Layer | None = None

class {name}Bridge(Bridge):
    name = "{lower}"

    @command
    def build(self, layer: Layer, *, ctx: Context) -> dict:
        return {{"units": layer.units}}
"""


def source(name: str) -> str:
    """A file with one bridge called NAMEBridge."""
    return GOOD.format(name=name, lower=name.lower())


@pytest.fixture(autouse=True)
def imports_restored() -> Iterator[None]:
    """Loading changes sys.path and sys.modules, which other tests must not see."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


def write(folder: Path, name: str, text: str) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def failure(reference: str | Path, **options: object) -> BridgeError:
    """Load what can't be loaded."""
    with pytest.raises(BridgeError) as caught:
        load_bridge(str(reference), **options)  # type: ignore[arg-type]  # options come from the tests below
    assert caught.value.code is ErrorCode.BRIDGE_LOAD_FAILED
    assert caught.value.details["reference"] == str(reference)
    assert caught.value.message.startswith(f"Can't load the bridge {str(reference)!r}: ")
    return caught.value


# ---------------------------------------------------------------- what works


def test_a_file_is_loaded_by_its_path(tmp_path: Path) -> None:
    """The file's types are found, also from postponed annotations, and its folder comes first on the path."""
    path = write(tmp_path, "mine.py", source("Mine"))

    cls = load_bridge(str(path))

    assert (cls.__name__, cls.name, cls.__module__) == ("MineBridge", "mine", "mine")
    assert sys.path[0] == str(tmp_path)
    build = cls().spec.commands["build"]
    kwargs = build.validate({"layer": {"units": 1, "child": {"units": 2}}})
    assert kwargs["layer"].child.units == 2
    assert pickle.loads(pickle.dumps(kwargs["layer"])) == kwargs["layer"]


def test_a_relative_path_is_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere on a command line."""
    write(tmp_path, "bridges/mine.py", source("Mine"))
    monkeypatch.chdir(tmp_path)

    assert load_bridge("bridges/mine.py").name == "mine"


def test_a_file_imports_what_lies_beside_it(tmp_path: Path) -> None:
    """A bridge may be more than one file."""
    write(tmp_path, "shared_part.py", "VALUE = 'beside'")
    path = write(tmp_path, "mine.py", f"{source('Mine')}\nfrom shared_part import VALUE\n")

    assert load_bridge(str(path)).name == "mine"


def test_a_class_of_a_file_is_chosen_by_name(tmp_path: Path) -> None:
    """A file may define several bridges."""
    path = write(tmp_path, "two.py", source("One") + source("Two").replace("from __future__ import annotations", ""))

    assert load_bridge(f"{path}:TwoBridge").name == "two"


def test_a_nameless_base_class_in_the_file_is_no_second_bridge(tmp_path: Path) -> None:
    """What two bridges share may stand in a class between them and Bridge."""
    text = source("Mine").replace("class MineBridge(Bridge)", "class Shared(Bridge): pass\n\nclass MineBridge(Shared)")

    assert load_bridge(str(write(tmp_path, "mine.py", text))).__name__ == "MineBridge"


def test_a_class_is_loaded_from_a_module(tmp_path: Path) -> None:
    """`package.module:Class` is imported as Python imports it; `search_path` comes first."""
    write(tmp_path, "package_of_bridges/__init__.py", "")
    write(tmp_path, "package_of_bridges/mine.py", source("Mine"))

    cls = load_bridge("package_of_bridges.mine:MineBridge", search_path=[str(tmp_path)])

    assert cls.__module__ == "package_of_bridges.mine"


def test_an_entry_point_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package adds a bridge without a line of ours."""
    write(tmp_path, "other_package.py", source("Other"))
    write(
        tmp_path, "other_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n"
    )
    write(
        tmp_path,
        "other_package-1.0.dist-info/entry_points.txt",
        "[manybridge.bridges]\nother = other_package:OtherBridge\nmock = other_package:OtherBridge\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    assert load_bridge("other").name == "other"
    assert load_bridge("mock", bundled={"mock": f"{__name__}:LocalBridge"}) is LocalBridge


class LocalBridge(Bridge):
    """A bundled bridge for these tests."""

    name = "local"


def test_a_bundled_bridge_is_loaded_by_its_name() -> None:
    """Bundled names are a table that a caller may replace."""
    assert load_bridge("mine", bundled={"mine": f"{__name__}:LocalBridge"}) is LocalBridge
    assert set(BUNDLED) == {"mock", "python", "dspy", "langchain", "transformers"}


@pytest.mark.parametrize("name", ["json.py", "my-bridge.py", "pytest.py"])
def test_a_file_may_be_called_like_a_module_that_exists(tmp_path: Path, name: str) -> None:
    """Loading it neither replaces the module nor gives back the module instead."""
    before = sys.modules.get(name.removesuffix(".py"))

    cls = load_bridge(str(write(tmp_path, name, source("Mine"))))

    assert cls.name == "mine"
    assert sys.modules.get(name.removesuffix(".py")) is before


def test_a_file_loaded_twice_gives_the_same_module_name(tmp_path: Path) -> None:
    """A reload does not pile up modules."""
    path = str(write(tmp_path, "mine.py", source("Mine")))

    assert load_bridge(path).__module__ == load_bridge(path).__module__ == "mine"


# ---------------------------------------------------------------- what fails, and how it tells


def test_an_unknown_name_shows_the_known_ones_and_the_closest() -> None:
    """A typing mistake is told as one."""
    error = failure("dspi")

    assert "did you mean 'dspy'?" in error.message
    assert "mock" in error.details["known"]
    assert "manybridge.bridges" in error.message


def test_a_file_named_without_its_ending_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mine` where `mine.py` lies here is a likely mistake."""
    write(tmp_path, "mine.py", source("Mine"))
    monkeypatch.chdir(tmp_path)

    assert "did you mean the file mine.py?" in failure("mine").message
    assert "write package.module:ClassName" in failure("package.module").message


def test_a_missing_file_says_where_it_was_looked_for(tmp_path: Path) -> None:
    """The absolute path, and the file that comes close."""
    write(tmp_path, "my_bridge.py", "")

    error = failure(tmp_path / "my_brigde.py")

    assert f"there is no file {tmp_path / 'my_brigde.py'}; did you mean my_bridge.py?" in error.message
    assert f"there is no folder {tmp_path / 'none'}" in failure(tmp_path / "none" / "a.py").message
    (tmp_path / "folder.py").mkdir()
    assert "is a folder" in failure(tmp_path / "folder.py").message


def test_a_reference_of_no_known_form_is_told_the_forms() -> None:
    """A colon without a module or class before or after it."""
    for reference in ("a b:C", "module:", ":Class"):
        assert "package.module:Class or path/to/file.py:Class" in failure(reference).message


def test_a_missing_module_says_where_it_was_looked_for() -> None:
    """Distinguished from a module that is there but imports something missing."""
    error = failure("no_such_module.part:MyBridge")

    assert "there is no module 'no_such_module' in" in error.message
    assert error.details["module"] == "no_such_module"


def test_a_missing_package_inside_the_file_is_named_with_the_command_that_installs_it(tmp_path: Path) -> None:
    """And with the line, and the reason why it should not be imported there."""
    path = write(tmp_path, "mine.py", f"{source('Mine')}\nimport sklearn_of_nowhere.tree\n")

    error = failure(path)

    line = len(path.read_text().splitlines())
    assert (error.details["module"], error.details["line"]) == ("sklearn_of_nowhere", line)
    assert f"{path}, line {line} imports 'sklearn_of_nowhere', which is not installed here" in error.message
    assert f"uv pip install --python {sys.executable} sklearn_of_nowhere" in error.message
    assert "`preload` or `setup`" in error.message
    assert error.__cause__ is not None


def test_a_syntax_error_shows_file_and_line(tmp_path: Path) -> None:
    """As Python would."""
    path = write(tmp_path, "mine.py", "x = 1\ndef broken(:\n")

    error = failure(path)

    assert f"{path}, line 2: syntax error" in error.message
    assert (error.details["path"], error.details["line"]) == (str(path), 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('at import')", "line 1 raised RuntimeError: at import"),
        ("x = 1\nraise SystemExit(3)", "line 2 raised SystemExit: 3"),
        ("def f(): undefined\nf()", "line 1 raised NameError"),
        ("import json\njson.loads('x')", "line 2 raised JSONDecodeError"),
    ],
)
def test_a_file_that_fails_shows_its_own_line(tmp_path: Path, text: str, words: str) -> None:
    """Also where the error came from deeper inside a library, and when the file tries to exit."""
    assert words in failure(write(tmp_path, "mine.py", text)).message
    assert "mine" not in sys.modules


def test_a_file_with_two_bridges_asks_for_one(tmp_path: Path) -> None:
    """Both are named in the form that works."""
    path = write(tmp_path, "two.py", source("One") + source("Two").replace("from __future__ import annotations", ""))

    assert f"it defines 2 bridges; write {path}:OneBridge or {path}:TwoBridge" in failure(path).message


def test_a_file_without_a_bridge_says_what_a_bridge_is(tmp_path: Path) -> None:
    """A bridge that is only imported must be asked for by name."""
    none = write(tmp_path, "none.py", "from manybridge.bridge import Bridge\n")
    imported = write(tmp_path, "imported.py", f"from {__name__} import LocalBridge\n")

    assert "a class that derives from manybridge.bridge.Bridge" in failure(none).message
    assert f"for one that it imports write {imported}:LocalBridge" in failure(imported).message
    assert load_bridge(f"{imported}:LocalBridge") is LocalBridge


def test_a_class_that_is_missing_or_no_bridge_is_told_apart(tmp_path: Path) -> None:
    """With the bridges that are there."""
    path = write(tmp_path, "mine.py", source("Mine"))

    assert "mine has no Mine; its bridges are MineBridge" in failure(f"{path}:Mine").message
    assert "Layer in mine is not a subclass" in failure(f"{path}:Layer").message
    assert "json has no JSONBridge; it has no bridge at all" in failure("json:JSONBridge").message


def test_a_declaration_that_is_not_valid_fails_the_load(tmp_path: Path) -> None:
    """Found when the bridge is loaded, not when a command is called."""
    path = write(tmp_path, "mine.py", source("Mine").replace("layer: Layer", "layer: bytes"))

    message = failure(path).message

    assert "its declaration is not valid: MineBridge.build: parameter 'layer': bytes is not supported" in message


def test_a_file_that_hides_the_package_it_needs_is_refused(tmp_path: Path) -> None:
    """Its folder is first on the path, so `import framework_x` would give the file itself."""
    text = source("Mine").replace('name = "mine"', 'name = "mine"\n    required_modules = ("framework_x.core",)')

    assert (
        "hides the package 'framework_x' that it needs; rename it"
        in failure(write(tmp_path, "framework_x.py", text)).message
    )


# ---------------------------------------------------------------- required modules


def test_required_modules_that_are_there_are_not_imported() -> None:
    """Looking is cheap, importing a framework is not."""

    class Needs(Bridge):
        name = "needs"
        required_modules = ("json", "xml.dom", "wsgiref.handlers")

    sys.modules.pop("wsgiref.handlers", None)

    check_required_modules(Needs)

    assert "wsgiref.handlers" not in sys.modules


def test_missing_modules_are_named_with_the_package_and_the_command() -> None:
    """The name to import and the name to install differ for some."""

    class Needs(Bridge):
        name = "needs"
        required_modules = ("json", "no_such_a", "no_such_b.part")

    with pytest.raises(BridgeError) as caught:
        check_required_modules(Needs)

    command = f"uv pip install --python {sys.executable} no_such_a no_such_b"
    assert caught.value.code is ErrorCode.MISSING_PACKAGE
    assert caught.value.details == {
        "modules": ["no_such_a", "no_such_b.part"],
        "packages": ["no_such_a", "no_such_b"],
        "interpreter": sys.executable,
        "command": command,
    }
    assert command in caught.value.message
    assert [package_of("sklearn.tree"), package_of("dspy")] == ["scikit-learn", "dspy"]

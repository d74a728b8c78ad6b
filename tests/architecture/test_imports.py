"""Who may import what. `lint-imports` checks the same between our packages; here is what it can't see."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import SOURCE

PACKAGE = SOURCE / "manybridge"
WORKER_SIDE = ("protocol", "bridge", "worker", "bridges")

# What else of ours a package of the worker side may import, at any depth of the code.
MAY_IMPORT = {
    "protocol": {"protocol"},
    "bridge": {"bridge", "protocol"},
    "worker": {"worker", "bridge", "protocol"},
    "bridges": {"bridges", "bridge", "protocol"},
}

# The codec may use a faster JSON where the environment happens to have it.
FAST_JSON = {"msgspec", "orjson"}

LANGCHAIN = ("langchain", "langchain_core", "langchain_openai", "langgraph", "openai")
HUGGING_FACE = (
    "accelerate",
    "datasets",
    "huggingface_hub",
    "peft",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
)
FRAMEWORKS = {"dspy", "litellm", "sklearn", *LANGCHAIN, *HUGGING_FACE}

# Where each framework may be named in an import, and nowhere else in src.
HOMES = {
    "dspy": ("bridges/dspy", "adapters/dspy"),
    **dict.fromkeys(LANGCHAIN, ("bridges/langchain",)),
    **dict.fromkeys(HUGGING_FACE, ("bridges/transformers",)),
}


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module and whether the statement runs when its own module is imported."""

    module: str
    path: Path
    line: int
    at_start: bool
    guarded: bool
    """Inside `try` with an `except ImportError`: the module works without it."""

    def __str__(self) -> str:
        return f"{self.path.relative_to(SOURCE)}:{self.line} imports {self.module}"


def modules_of(*folders: str) -> list[Path]:
    """Return the source files of packages of ours; `.` is the whole of src."""
    return sorted(path for folder in folders for path in (PACKAGE / folder).rglob("*.py"))


def imports_of(path: Path) -> list[Import]:
    """Return every import statement of a source file, those for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return list(_walk(tree, path, at_start=True, guarded=False))


def _walk(node: ast.AST, path: Path, *, at_start: bool, guarded: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for statement in node.orelse:
            yield from _walk(statement, path, at_start=at_start, guarded=guarded)
        return
    for module in _imported(node, path):
        yield Import(module, path, getattr(node, "lineno", 0), at_start, guarded)
    at_start = at_start and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    handlers = node.handlers if isinstance(node, ast.Try) else []
    guarded = guarded or any("ImportError" in ast.unparse(handler.type or node) for handler in handlers)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, path, at_start=at_start, guarded=guarded)


def _imported(node: ast.AST, path: Path) -> list[str]:
    """Return the absolute names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        package = path.parent.relative_to(SOURCE).parts
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    # `from manybridge import host` imports a package of ours as surely as `import manybridge.host`.
    return [f"manybridge.{alias.name}" for alias in node.names] if base == "manybridge" else [base]


def top(module: str) -> str:
    """Return the first part of a dotted name."""
    return module.partition(".")[0]


@pytest.mark.parametrize("package", WORKER_SIDE)
def test_worker_side_modules_import_only_the_standard_library_at_start(package: str) -> None:
    """An import that runs at start is standard library or ours, or its absence is handled in the codec."""
    foreign = [
        str(found)
        for path in modules_of(package)
        for found in imports_of(path)
        if found.at_start
        and top(found.module) not in sys.stdlib_module_names | {"manybridge"}
        and not (package == "protocol" and found.guarded and top(found.module) in FAST_JSON)
    ]
    assert foreign == []


@pytest.mark.parametrize("package", WORKER_SIDE)
def test_worker_side_packages_import_only_downwards(package: str) -> None:
    """Also inside functions, a package of the worker side imports only those below it."""
    allowed = {f"manybridge.{name}" for name in MAY_IMPORT[package]} | {"manybridge.__version__"}
    upward = [
        str(found)
        for path in modules_of(package)
        for found in imports_of(path)
        if top(found.module) == "manybridge" and ".".join(found.module.split(".")[:2]) not in allowed
    ]
    assert upward == []


def test_frameworks_are_imported_only_in_their_bridge_and_adapter() -> None:
    """DSPy is named by imports in its bridge and its adapter alone; the other frameworks nowhere yet."""
    strangers = [
        str(found)
        for path in modules_of(".")
        for found in imports_of(path)
        if top(found.module) in FRAMEWORKS
        and not str(path.relative_to(PACKAGE)).startswith(HOMES.get(top(found.module), ()))
    ]
    assert strangers == []


def test_bridges_import_their_framework_only_inside_functions() -> None:
    """Importing a bridge is quick and needs no framework, so that the first ping is answered before it is loaded."""
    early = [
        str(found)
        for path in modules_of("bridges")
        for found in imports_of(path)
        if found.at_start and top(found.module) in FRAMEWORKS
    ]
    assert early == []


# Runs with nothing but Python and src: -I ignores the user's settings, -S leaves site-packages out.
IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys, sysconfig
sys.path.insert(0, sys.argv[1])
names = []
for package in sys.argv[2:]:
    root = importlib.import_module("manybridge." + package)
    names.append(root.__name__)
    for module in pkgutil.walk_packages(root.__path__, root.__name__ + "."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
            names.append(module.name)
ours = tuple(sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib"))
foreign = sorted(
    name for name, module in sys.modules.items()
    if name.partition(".")[0] not in ("manybridge", "__main__")
    and (path := getattr(module, "__file__", None))
    and (not path.startswith(ours) or "-packages" in path)
)
print(json.dumps({"imported": names, "foreign": foreign}))
"""


def test_worker_side_imports_with_nothing_but_python() -> None:
    """Every module of the worker side imports under `python -I -S` and loads the standard library alone."""
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", IMPORT_EVERYTHING, str(SOURCE), *WORKER_SIDE],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    answer = json.loads(result.stdout)
    assert answer["foreign"] == []
    assert {f"manybridge.{package}" for package in WORKER_SIDE} <= set(answer["imported"])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import dspy", [("dspy", True, False)]),
        ("def f():\n    import dspy.utils", [("dspy.utils", False, False)]),
        ("try:\n    import msgspec\nexcept ImportError:\n    msgspec = None", [("msgspec", True, True)]),
        ("if TYPE_CHECKING:\n    import dspy\nelse:\n    import json", [("json", True, False)]),
        ("from manybridge import host", [("manybridge.host", True, False)]),
        ("from ..protocol import frames", [("manybridge.protocol", True, False)]),
        ("from . import base", [("manybridge.bridge", True, False)]),
    ],
)
def test_the_import_reader_sees_every_form(source: str, expected: list[tuple[str, bool, bool]], tmp_path: Path) -> None:
    """The reader that the rules above stand on tells module, time and guard of each form of import."""
    path = PACKAGE / "bridge" / "example.py"
    found = list(_walk(ast.parse(source), path, at_start=True, guarded=False))
    assert [(each.module, each.at_start, each.guarded) for each in found] == expected

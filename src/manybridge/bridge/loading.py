"""From the text in a configuration or on a command line to a bridge class.

A reference is one of, in this order: the path of a Python file (`bridges/mine.py`, `bridges/mine.py:MyBridge`), a class
in a module (`package.module:MyBridge`), the name of a bundled bridge (`dspy`), the name of an entry point of the group
`manybridge.bridges`. Bundled names come before entry points, so that installing a package can't replace one of ours.

Every failure is a BridgeError `bridge_load_failed` that says what was looked for, where, and what comes close.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any, Final, NoReturn

from manybridge.bridge.base import Bridge
from manybridge.bridge.compiling import compile_bridge
from manybridge.bridge.errors import BridgeDeclarationError, BridgeError
from manybridge.bridge.fresh import FreshLoader, load_fresh
from manybridge.bridge.problems import closest_match
from manybridge.protocol.errors import ErrorCode

ENTRY_POINT_GROUP: Final = "manybridge.bridges"

BUNDLED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "mock": "manybridge.bridges.mock:MockBridge",
        "python": "manybridge.bridges.python:PythonBridge",
        "dspy": "manybridge.bridges.dspy:DSPyBridge",
        "langchain": "manybridge.bridges.langchain:LangChainBridge",
        "transformers": "manybridge.bridges.transformers:TransformersBridge",
    }
)

PACKAGES: Final = MappingProxyType(
    {
        "PIL": "pillow",
        "attr": "attrs",
        "bs4": "beautifulsoup4",
        "cv2": "opencv-python",
        "dateutil": "python-dateutil",
        "faiss": "faiss-cpu",
        "skimage": "scikit-image",
        "sklearn": "scikit-learn",
        "yaml": "pyyaml",
    }
)
"""Import name -> package, where the two differ."""

_FILE: Final = re.compile(r"(?P<path>.+\.py)(?::(?P<cls>[^:/\\]+))?")
_CLASS: Final = re.compile(r"(?P<module>[^\W\d][\w.]*):(?P<cls>[^\W\d]\w*)")


def load_bridge(
    reference: str, *, bundled: Mapping[str, str] = BUNDLED, search_path: Sequence[str] | None = None
) -> type[Bridge]:
    """Find, import and compile a bridge class.

    Args:
        reference: see the module's docstring. A relative file path is relative to the working folder.
        bundled: name -> `module:Class`.
        search_path: folders to put first on `sys.path`, in this order.

    Raises:
        BridgeError: `bridge_load_failed`; details hold `reference` and what is known of `path`, `module`, `line`.
    """
    _put_first_on_path(search_path or ())
    file = _FILE.fullmatch(reference)
    if file is not None:
        found = _from_file(reference, file["path"], file["cls"])
    elif ":" in reference:
        found = _from_module(reference, reference)
    elif reference in bundled:
        found = _from_module(reference, bundled[reference])
    else:
        found = _from_entry_point(reference, bundled)
    try:
        compile_bridge(found)
    except BridgeDeclarationError as error:
        raise _failure(reference, f"its declaration is not valid: {error}") from error
    return found


def check_required_modules(cls: type[Bridge]) -> None:
    """Look for the modules that a bridge needs, without importing them.

    Raises:
        BridgeError: `missing_package`; details hold `modules`, `packages`, `interpreter` and the `command` to install.
    """
    missing = [name for name in cls.required_modules if not _exists(name)]
    if missing:
        raise missing_modules(cls.name, missing)


def missing_modules(bridge: str, missing: list[str]) -> BridgeError:
    """The error `missing_package` that says how to install what provides the modules that a bridge lacks."""
    packages = [package_of(name) for name in missing]
    command = install_command(packages)
    return BridgeError(
        ErrorCode.MISSING_PACKAGE,
        f"The bridge {bridge} needs {', '.join(missing)}, which {sys.executable} does not have. "
        f"Install with: {command}",
        details={"modules": missing, "packages": packages, "interpreter": sys.executable, "command": command},
    )


def package_of(module: str) -> str:
    """The package that provides a module, as far as names tell."""
    top = module.partition(".")[0]
    return PACKAGES.get(top, top)


def install_command(packages: Iterable[str]) -> str:
    """What a person types to install packages for this interpreter."""
    return f"uv pip install --python {sys.executable} {' '.join(packages)}"


def _exists(module: str) -> bool:
    from importlib.util import find_spec

    try:
        return module in sys.modules or find_spec(module) is not None
    except (ImportError, ValueError):  # a parent is missing, or a module without a spec
        return False


# ---------------------------------------------------------------- the four ways


def _from_module(reference: str, target: str) -> type[Bridge]:
    match = _CLASS.fullmatch(target)
    if match is None:
        raise _failure(reference, "it is not of the form package.module:Class or path/to/file.py:Class")
    module = _import(reference, match["module"])
    return _class_in(reference, module, match["cls"])


def _from_entry_point(reference: str, bundled: Mapping[str, str]) -> type[Bridge]:
    from importlib.metadata import entry_points

    found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
    if reference in found:
        return _from_module(reference, found[reference].value)
    names = sorted({*bundled, *found})
    closest = closest_match(reference, names)
    hints = [f"the bundled bridges and entry points of the group {ENTRY_POINT_GROUP} are {', '.join(names)}"]
    if closest:
        hints.insert(0, f"did you mean {closest!r}?")
    if os.path.isfile(f"{reference}.py"):  # noqa: PTH113  # pathlib would cost the worker 3 ms
        hints.insert(0, f"did you mean the file {reference}.py?")
    elif "." in reference:
        hints.append(f"for a class in a module write {reference}:ClassName")
    raise _failure(reference, f"no bridge has that name; {'; '.join(hints)}", known=names)


def _from_file(reference: str, path: str, class_name: str | None) -> type[Bridge]:
    path = os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111  # as above
    if not os.path.isfile(path):  # noqa: PTH113  # as above
        raise _failure(reference, _describe_missing_file(path), path=path)
    _put_first_on_path([os.path.dirname(path)])  # noqa: PTH120  # as above
    module = _execute(reference, path)
    found = _only_bridge_in(reference, module) if class_name is None else _class_in(reference, module, class_name)
    stem = _stem(path)
    if stem in {name.partition(".")[0] for name in getattr(found, "required_modules", ())}:
        raise _failure(
            reference, f"a file called {stem}.py hides the package {stem!r} that it needs; rename it", path=path
        )
    return found


def _describe_missing_file(path: str) -> str:
    folder, name = os.path.split(path)
    if not os.path.isdir(folder):  # noqa: PTH112  # as above
        return f"there is no folder {folder}"
    if os.path.isdir(path):  # noqa: PTH112  # as above
        return f"{path} is a folder"
    files = [entry for entry in os.listdir(folder) if entry.endswith(".py")]  # noqa: PTH208  # as above
    closest = closest_match(name, files)
    return f"there is no file {path}" + (f"; did you mean {closest}?" if closest else "")


# ---------------------------------------------------------------- running the author's code


def _put_first_on_path(folders: Sequence[str]) -> None:
    for folder in reversed(folders):
        absolute = os.path.abspath(folder)  # noqa: PTH100  # as above
        if absolute in sys.path:
            sys.path.remove(absolute)
        sys.path.insert(0, absolute)
        load_fresh(absolute)


def _stem(path: str) -> str:
    return os.path.basename(path).removesuffix(".py")  # noqa: PTH119  # as above


def _module_name(path: str) -> str:
    """The name under which the file is imported: its own where that is free, so that pickles of its classes work."""
    stem = _stem(path)
    free = stem.isidentifier() and stem not in sys.stdlib_module_names
    loaded = sys.modules.get(stem)
    if free and (loaded is None or getattr(loaded, "__file__", None) == path):
        return stem
    return f"manybridge_file_{re.sub(r'[^0-9A-Za-z_]', '_', stem)}"


def _execute(reference: str, path: str) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    name = _module_name(path)
    spec = spec_from_file_location(name, path, loader=FreshLoader(name, path))
    if spec is None or spec.loader is None:
        raise _failure(reference, f"{path} can't be imported as Python", path=path)
    module = module_from_spec(spec)
    # Registered before it runs, as the import system does it: dataclasses look their module up.
    before, sys.modules[name] = sys.modules.get(name), module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # an author's file may raise anything
        sys.modules.pop(name)
        if before is not None:
            sys.modules[name] = before
        _fail_import(reference, path, error, path)
    return module


def _import(reference: str, name: str) -> ModuleType:
    try:
        return import_module(name)
    except (Exception, SystemExit) as error:  # an author's file may raise anything
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and (name == missing or name.startswith(f"{missing}.")):
            where = ", ".join(folder or "the working folder" for folder in sys.path)
            raise _failure(reference, f"there is no module {missing!r} in {where}", module=missing) from error
        _fail_import(reference, name, error, None)


def _fail_import(reference: str, what: str, error: BaseException, path: str | None) -> NoReturn:
    facts: dict[str, Any] = {} if path is None else {"path": path}
    if isinstance(error, SyntaxError):
        facts |= {"path": error.filename, "line": error.lineno}
        text = f"{error.filename}, line {error.lineno}: syntax error: {error.msg}"
        raise _failure(reference, text, **facts) from error
    line = _last_line_in(error, path)
    place = what if line is None else f"{what}, line {line}"
    if line is not None:
        facts["line"] = line
    if isinstance(error, ModuleNotFoundError) and error.name:
        facts["module"] = error.name
        install = install_command([package_of(error.name)])
        raise _failure(
            reference,
            f"{place} imports {error.name!r}, which is not installed here. Install with: {install}. "
            "A bridge imports its framework in `preload` or `setup`, never at the top of the file",
            **facts,
        ) from error
    raise _failure(reference, f"{place} raised {type(error).__name__}: {error}", **facts) from error


def _last_line_in(error: BaseException, path: str | None) -> int | None:
    """The line of the file that was being run when the error came."""
    line, traceback = None, error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == path:
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


# ---------------------------------------------------------------- picking the class


def _class_in(reference: str, module: ModuleType, name: str) -> type[Bridge]:
    found = getattr(module, name, None)
    if isinstance(found, type) and issubclass(found, Bridge) and found is not Bridge:
        return found
    if found is not None:
        raise _failure(reference, f"{name} in {module.__name__} is not a subclass of manybridge.bridge.Bridge")
    names = [cls.__name__ for cls in _bridges_in(module)]
    raise _failure(reference, f"{module.__name__} has no {name}; {_listing(names)}", known=names)


def _only_bridge_in(reference: str, module: ModuleType) -> type[Bridge]:
    bridges = _bridges_in(module)
    defined = [cls for cls in bridges if cls.__module__ == module.__name__]
    # A base class that only holds what two bridges share has no name of its own.
    named = [cls for cls in defined if hasattr(cls, "name")] or defined
    if len(named) == 1:
        return named[0]
    file, names = reference, [cls.__name__ for cls in named or bridges]
    if named:
        raise _failure(reference, f"it defines {len(named)} bridges; write {_choices(file, names)}", known=names)
    if bridges:
        raise _failure(
            reference, f"it defines no bridge of its own; for one that it imports write {_choices(file, names)}"
        )
    raise _failure(reference, "it defines no bridge; a bridge is a class that derives from manybridge.bridge.Bridge")


def _bridges_in(module: ModuleType) -> list[type[Bridge]]:
    values = dict.fromkeys(value for value in vars(module).values() if isinstance(value, type))
    return [value for value in values if issubclass(value, Bridge) and value is not Bridge]


def _choices(file: str, names: Sequence[str]) -> str:
    return " or ".join(f"{file}:{name}" for name in names)


def _listing(names: Sequence[str]) -> str:
    return f"its bridges are {', '.join(names)}" if names else "it has no bridge at all"


def _failure(reference: str, reason: str, **facts: Any) -> BridgeError:
    return BridgeError(
        ErrorCode.BRIDGE_LOAD_FAILED,
        f"Can't load the bridge {reference!r}: {reason}",
        details={"reference": reference, **facts},
    )

"""The options of the `python` bridge, and loading what `paths` names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from manybridge.bridge import BridgeError
from manybridge.bridge.fresh import FreshLoader, load_fresh
from manybridge.bridges.common.allow import DEFAULT_ALLOW, AllowList

from .objects import DEFAULT_MAX_OBJECTS, DEFAULT_TTL
from .output import DEFAULT_MAX_BYTES

if TYPE_CHECKING:
    from pathlib import Path


class PythonOptions(NamedTuple):
    """What `[bridges.python] options = {...}` may hold."""

    allow: Sequence[str] = DEFAULT_ALLOW
    """Modules that callers may reach: `"math"`, `"numpy.*"`. Replaces the default list."""
    paths: Sequence[str] = ()
    """A team's own files and folders. Their modules load by path and are allowed without being listed."""
    evaluate: bool = False
    """Whether `python:evaluate` works."""
    max_objects: int = DEFAULT_MAX_OBJECTS
    """How many objects live at once in a worker."""
    ttl_seconds: float = DEFAULT_TTL
    """Seconds without use after which an object goes."""
    max_output_bytes: int = DEFAULT_MAX_BYTES
    """How much of what `python:execute` prints is kept and sent, both streams together."""


def read_options(given: dict[str, Any]) -> PythonOptions:
    """Checks the options.

    Raises:
        BridgeError: `config_error`, naming the key, what was expected and what was found.
    """
    for key in given:
        if key not in PythonOptions._fields:
            raise _wrong(key, f"is unknown; known options: {', '.join(PythonOptions._fields)}")
    for key in ("allow", "paths"):
        if key in given and not _is_list_of_str(given[key]):
            raise _wrong(key, f"expected a list of strings, found {given[key]!r}")
    _refuse_paths(given.get("allow", ()))
    if not isinstance(given.get("evaluate", False), bool):
        raise _wrong("evaluate", f"expected true or false, found {given['evaluate']!r}")
    if not _is_number(given.get("max_objects", 1), int, 1):
        raise _wrong("max_objects", f"expected a whole number from 1 on, found {given['max_objects']!r}")
    if not _is_number(given.get("max_output_bytes", 0), int, 0):
        raise _wrong("max_output_bytes", f"expected a whole number from 0 on, found {given['max_output_bytes']!r}")
    if not _is_number(given.get("ttl_seconds", 1), (int, float), 0.001):
        raise _wrong("ttl_seconds", f"expected a number of seconds above 0, found {given['ttl_seconds']!r}")
    return PythonOptions(**given)


def _refuse_paths(allow: Sequence[str]) -> None:
    for name in allow:
        if "/" in name or name.endswith(".py"):
            text = f"{name!r} is a path, and modules stand here; files and folders go into options.paths"
            raise _wrong("allow", text)


def load_paths(paths: Sequence[str], allow: AllowList) -> None:
    """Makes the modules of `paths` importable and allowed. Files are imported now: a broken one is told at start.

    Raises:
        BridgeError: `config_error` where a path is not there or would hide another module, `setup_failed` where a
            file can't be imported.
    """
    from pathlib import Path  # most workers have no paths, and starting is quicker without it

    for text in paths:
        path = Path(text).expanduser().resolve()
        if path.is_dir():
            _add_folder(path, allow)
        elif path.is_file() and path.suffix == ".py":
            _load_file(path, allow)
        else:
            raise _wrong("paths", f"{path} is neither a folder nor a Python file")


def _add_folder(folder: Path, allow: AllowList) -> None:
    names = sorted({name for entry in folder.iterdir() if (name := _module_in(entry)) is not None})
    for name in names:
        _refuse_hiding(name, folder)
    _put_first(folder)
    for name in names:
        allow.add_module(name, with_submodules=True)


def _load_file(path: Path, allow: AllowList) -> None:
    from importlib.util import module_from_spec, spec_from_file_location

    name = path.stem
    if not name.isidentifier():
        raise _wrong("paths", f"{path}: {name!r} can't be a module's name; rename the file")
    _refuse_hiding(name, path)
    _put_first(path.parent)  # its neighbours can be imported by it; only the file itself is allowed to callers
    spec = spec_from_file_location(name, path, loader=FreshLoader(name, str(path)))
    if spec is None or spec.loader is None:  # not so for a .py file, but the types say it may be
        raise _wrong("paths", f"{path} can't be loaded")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as exc:
        del sys.modules[name]
        raise BridgeError(
            "setup_failed", f"{path} can't be imported: {type(exc).__name__}: {exc}", details={"path": str(path)}
        ) from exc
    allow.add_module(name, with_submodules=False)


def _module_in(entry: Path) -> str | None:
    """The name under which a folder's entry is imported; None for what is no module."""
    name = entry.stem if entry.suffix == ".py" else entry.name
    if not name.isidentifier() or name.startswith("__"):
        return None
    if entry.is_file():
        return name if entry.suffix == ".py" else None
    return name if any(entry.glob("*.py")) else None


def _refuse_hiding(name: str, path: Path) -> None:
    """A team's `random.py` first on the path would replace Python's for everybody in the process, without a word."""
    loaded = sys.modules.get(name)
    if loaded is not None and not str(getattr(loaded, "__file__", "")).startswith(str(path)):
        raise _wrong("paths", f"{path}: a module named {name!r} is already loaded; rename yours")
    # "test" is a package of Python's own test suite: nobody misses it, and many projects have such a folder.
    if name in sys.stdlib_module_names and name != "test":
        raise _wrong("paths", f"{path}: {name!r} would hide Python's own module of that name; rename it")


def _put_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    load_fresh(str(folder))


def _is_list_of_str(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_number(value: object, kind: type | tuple[type, ...], least: float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and value >= least  # type: ignore[operator]  # int or float


def _wrong(key: str, problem: str) -> BridgeError:
    return BridgeError("config_error", f"options.{key}: {problem}", details={"key": key})

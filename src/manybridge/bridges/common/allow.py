"""Which modules and attributes a caller may reach: the allow list of a bridge that runs code by its name.

What is promised, exactly
-------------------------
1. A module is imported on a caller's behalf only if the allow list names it: `"pkg"` allows that one module, `"pkg.*"`
   allows it and every module below it. (An allowed module imports what it likes; that is its author's decision.)
2. No step of a path may start with an underscore, so dunder and private names can't be reached.
3. A step that arrives at a module arrives only if that module is itself allowed: `statistics.sys` is refused. The
   same holds for frames, code objects and tracebacks, which lead to everybody's globals under public names.
4. A function or class that a module merely imported (`from shutil import rmtree`) is not part of that module's
   surface. It is reachable only if its home shares the module's top-level package, if its home is allowed too, or if
   the module publishes it in `__all__`. Other values (constants, instances, bound methods) are judged by their path.

What is not promised: this is a fence that keeps honest callers in bounds, not a sandbox. A permitted function may hand
out anything (`str.format` reads attributes by itself, `operator.attrgetter` does nothing else, if you allow it), and
whoever can call it has the rights of the worker process. Callers that are not trusted belong in a sandboxed bridge.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import missing_package

DEFAULT_ALLOW: Final[tuple[str, ...]] = (
    "bisect",
    "calendar",
    "cmath",
    "collections",
    "datetime",
    "decimal",
    "difflib",
    "fractions",
    "heapq",
    "itertools",
    "json",
    "math",
    "random",
    "re",
    "statistics",
    "textwrap",
    "unicodedata",
    "uuid",
)
"""Modules of the standard library that compute and touch no file, process or network."""

_HAS_HOME = (type, FunctionType, BuiltinFunctionType)
_LEADS_EVERYWHERE = (FrameType, CodeType, TracebackType)


class AllowList:
    """The allow list of one worker. Immutable but for `add_module`, which setup calls for the team's own files.

    Args:
        patterns: `"module"`, `"package.module"` or `"package.*"`.
        option: the option of the bridge that they come from, for the errors.
    """

    def __init__(self, patterns: Iterable[str], option: str = "allow") -> None:
        self._option = option
        self._modules: set[str] = set()
        self._trees: set[str] = set()
        self._admitted: set[ModuleType] = set()
        """Modules that were reached under an allowed name: `os.path` is really named `posixpath`."""
        for pattern in patterns:
            self._add(pattern)

    @property
    def patterns(self) -> list[str]:
        """The patterns, sorted; what error messages show."""
        return sorted(self._modules | {f"{tree}.*" for tree in self._trees})

    def add_module(self, name: str, *, with_submodules: bool) -> None:
        """Allows a module that setup found under `options.paths`."""
        (self._trees if with_submodules else self._modules).add(name)

    def _add(self, pattern: str) -> None:
        name = pattern.removesuffix(".*")
        if not all(part.isidentifier() for part in name.split(".")):
            raise BridgeError(
                "config_error",
                f"options.{self._option}: {pattern!r} is no pattern; expected 'module', 'package.module' or "
                "'package.*'",
                details={"key": self._option, "found": pattern},
            )
        (self._trees if pattern.endswith(".*") else self._modules).add(name)

    def allows(self, module: str) -> bool:
        """Whether a caller may reach the module of that dotted name."""
        if module in self._modules or module in self._trees:
            return True
        return any(module.startswith(f"{tree}.") for tree in self._trees)

    # -- resolving ---------------------------------------------------------------------------------------------------

    def resolve(self, target: str) -> Any:
        """Finds what `target` names: `"module:attribute.path"`, or dotted, where the longest allowed module wins.

        Raises:
            BridgeError: `invalid_argument` (malformed, or no such attribute), `permission_denied` (outside the allow
                list), `missing_package` (allowed, but not installed here).
        """
        if ":" in target:
            module_name, _, path = target.partition(":")
            self._demand(module_name)
            return self.walk(self._import(module_name), _split(path, target))
        return self._resolve_dotted(target)

    def _resolve_dotted(self, target: str) -> Any:
        parts = _split(target, target)
        candidates = [cut for cut in range(len(parts) - 1, 0, -1) if self.allows(".".join(parts[:cut]))]
        if not candidates:
            if len(parts) == 1:
                raise _malformed(target)
            self._demand(".".join(parts[:-1]))
        for cut in candidates[:-1]:
            module = self._import_if_module(".".join(parts[:cut]))
            if module is not None:
                return self.walk(module, parts[cut:])
        cut = candidates[-1]
        return self.walk(self._import(".".join(parts[:cut])), parts[cut:])

    def walk(self, start: Any, path: list[str]) -> Any:
        """Follows attribute names from `start`, one checked step after the other."""
        value = start
        for name in path:
            value = self.step(value, name)
        return value

    def step(self, owner: Any, name: str) -> Any:
        """One attribute of `owner`, under the rules of the module's docstring.

        Raises:
            BridgeError: `permission_denied` or `invalid_argument` (no such attribute, with the closest names).
        """
        if name.startswith("_"):
            raise BridgeError(
                "permission_denied",
                f"{name!r} is private: names that start with an underscore can't be reached through this bridge",
                details={"attribute": name},
            )
        if isinstance(owner, ModuleType):
            self._demand_reachable(owner, owner.__name__)
        try:
            value = getattr(owner, name)
        except AttributeError as exc:
            raise _no_attribute(owner, name, exc) from exc
        if isinstance(value, ModuleType):
            self._demand_reachable(value, f"{_module_name(owner)}.{name}")
        elif isinstance(value, _LEADS_EVERYWHERE):
            raise BridgeError(
                "permission_denied", f"{name!r} is a {type(value).__name__}, which leads out of the allowed modules"
            )
        elif isinstance(owner, ModuleType):
            self._demand_own(owner, name, value)
        return value

    # -- rules -------------------------------------------------------------------------------------------------------

    def _demand(self, module: str) -> None:
        if self.allows(module):
            return
        raise BridgeError(
            "permission_denied",
            f"module {module!r} is not allowed; this bridge allows {', '.join(self.patterns) or 'nothing'}. "
            f"To allow it, add {module!r} to the bridge's options.{self._option}",
            details={"module": module, "allow": self.patterns},
        )

    def _demand_reachable(self, module: ModuleType, reached_as: str) -> None:
        """The importable path counts as well as the module's own name."""
        if module in self._admitted:
            return
        if not (sys.modules.get(reached_as) is module and self.allows(reached_as)):
            self._demand(module.__name__)
        self._admitted.add(module)

    def _demand_own(self, module: ModuleType, name: str, value: Any) -> None:
        if not isinstance(value, _HAS_HOME):
            return
        home = getattr(value, "__module__", None)
        if not isinstance(home, str) or _top(home) == _top(module.__name__) or self.allows(home):
            return
        if name in getattr(module, "__all__", ()):
            return
        raise BridgeError(
            "permission_denied",
            f"{module.__name__}.{name} is imported from {home!r} and not published by {module.__name__!r}. "
            f"Add {name!r} to its __all__, or {home!r} to the bridge's options.{self._option}",
            details={"module": module.__name__, "attribute": name, "home": home},
        )

    # -- importing ---------------------------------------------------------------------------------------------------

    def import_allowed(self, name: str) -> ModuleType:
        """Imports a module by name if the list allows it. Raises as `resolve` does."""
        self._demand(name)
        return self._import(name)

    def _import(self, name: str) -> ModuleType:
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as exc:
            missing = exc.name or name
            package = missing.partition(".")[0]
            why = f"module {missing!r} is not installed in this bridge's environment; install it with"
            raise missing_package(package, why, module=missing, wanted_by=name) from exc
        self._admitted.add(module)
        return module

    def _import_if_module(self, name: str) -> ModuleType | None:
        """The module, or None where that dotted name is no module (then it is an attribute of its parent)."""
        try:
            return self._import(name)
        except BridgeError as exc:
            missing = exc.details.get("module", "")
            if missing and (missing == name or name.startswith(f"{missing}.")):
                return None
            raise


def split_path(path: str) -> list[str]:
    """`"a.b"` as `["a", "b"]`. Raises `invalid_argument` where a part is not an identifier."""
    return _split(path, path)


def _split(path: str, target: str) -> list[str]:
    parts = path.split(".")
    if not all(part.isidentifier() for part in parts):
        raise _malformed(target)
    return parts


def _malformed(target: str) -> BridgeError:
    return BridgeError(
        "invalid_argument",
        f"{target!r} does not name an attribute of a module; expected 'module:attribute' or 'module.attribute'",
        details={"found": target},
    )


def _top(module: str) -> str:
    """`_json.scanner` and `json` are one house: C accelerators carry a leading underscore."""
    return module.partition(".")[0].lstrip("_")


def _module_name(owner: Any) -> str:
    return owner.__name__ if isinstance(owner, ModuleType) else ""


def _no_attribute(owner: Any, name: str, cause: AttributeError) -> BridgeError:
    import difflib  # only needed to teach; keeps an idle worker small

    what = f"module {owner.__name__!r}" if isinstance(owner, ModuleType) else type(owner).__name__
    close = difflib.get_close_matches(name, [known for known in dir(owner) if not known.startswith("_")], n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    # A property may raise AttributeError from inside; its own words matter then.
    reason = "" if cause.name == name else f" ({cause})"
    return BridgeError(
        "invalid_argument",
        f"{what} has no attribute {name!r}{reason}{hint}",
        details={"attribute": name, "close_matches": close},
    )

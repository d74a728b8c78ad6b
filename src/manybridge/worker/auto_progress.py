"""Progress, and a place where a cancel is noticed, in libraries that know nothing of us.

`HOOKS` says which module gets which hook. A hook is installed when that module has been imported, by whomever, whenever
that is; nothing is imported for its sake. A hook that fails leaves its library as it was.

To add one: a function `install(current)` that changes the library, which is imported then; `current` returns the
context of the call that the asking thread serves, or None. Write it down in `HOOKS` by name, so that it costs nothing
until the module is there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Final

from manybridge.bridge import Context
from manybridge.bridge.progress import current_context

HOOKS: Final[dict[str, str]] = {
    "tqdm.std": "manybridge.worker.tqdm_progress:install",
    "tqdm.notebook": "manybridge.worker.tqdm_progress:install_without_notebook",
    "dspy.dsp.utils.settings": "manybridge.bridges.dspy.callbacks:install",
    "langchain_core.callbacks.manager": "manybridge.bridges.langchain.progress:install",
    "transformers.trainer": "manybridge.bridges.transformers.progress:install",
}
"""Name of a module: `module:function` of its hook."""

Hook = Callable[[Callable[[], Context | None]], None]


def install(hooks: dict[str, str] | None = None) -> None:
    """Install the hooks of modules that are imported already, and of the others when they are.

    Calling it again does nothing.

    Args:
        hooks: in the place of `HOOKS`.
    """
    if any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    waiting: dict[str, str] = {}
    for name, hook in (HOOKS if hooks is None else hooks).items():
        if name in sys.modules:
            _call(hook)
        else:
            waiting[name] = hook
    sys.meta_path.insert(0, _Finder(waiting))


class _Finder:
    """Finds nothing by itself: has the loaders of some modules call a hook. Owner of the hooks that wait."""

    def __init__(self, waiting: dict[str, str]) -> None:
        self._waiting = waiting

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        """Called by the import system, for every module that is not imported yet."""
        if name not in self._waiting:
            return None
        hook = self._waiting.pop(name)  # first of all: the other finders are asked through the same list
        for finder in sys.meta_path:
            spec: Any = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None and hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader, hook)
                return spec
        self._waiting[name] = hook
        return None


class _Loader:
    """A module's own loader, and then the hook."""

    def __init__(self, loader: Any, hook: str) -> None:
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """Called by the import system."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Called by the import system."""
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _call(self._hook)


def _call(hook: str) -> None:
    from importlib import import_module

    module, _, function = hook.partition(":")
    try:
        getattr(import_module(module), function)(current_context)
    except Exception as error:  # noqa: BLE001  # another release of the library: it works, it only shows no progress
        sys.stderr.write(f"no automatic progress from {hook}: {type(error).__qualname__}: {error}\n")

"""An author's files run as they are now, also right after an edit.

Python trusts a file of `__pycache__` that notes the size of the source and its time in whole seconds. Whoever changes
one digit within the second in which the file was loaded, and reloads the bridge, would be served the old code for ever.
So here bytecode counts only if it was written in a later second than its source, and none is written of a source that
may still change within its second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from importlib.util import cache_from_source
from time import time
from typing import Any, Final

SETTLED_SECONDS: Final = 2.0
"""A source that is older than this can't change any more within the second that bytecode would note."""


class FreshLoader(SourceFileLoader):
    """Loads a source file, from its bytecode only where that can't be of an earlier text."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Return size and time of the source.

        Raises:
            OSError: no bytecode may be read or written; the import system compiles the source then.
        """
        stats = super().path_stats(path)
        changed = stats["mtime"]
        if time() - changed < SETTLED_SECONDS or _written_at(path) <= int(changed):
            raise OSError("the bytecode may be of an earlier text")
        return stats


def _written_at(path: str) -> float:
    """The whole second in which the bytecode of a source was written; infinity where there is none."""
    try:
        return int(os.stat(cache_from_source(path)).st_mtime)  # noqa: PTH116  # pathlib would cost the worker 3 ms
    except (OSError, NotImplementedError):
        return float("inf")


_roots: Final[set[str]] = set()

_make_finder: Final = FileFinder.path_hook(
    (ExtensionFileLoader, EXTENSION_SUFFIXES), (FreshLoader, SOURCE_SUFFIXES), (SourcelessFileLoader, BYTECODE_SUFFIXES)
)


def _find_under_roots(path: str) -> Any:
    if not any(path == root or path.startswith(root + os.sep) for root in _roots):
        raise ImportError(path)  # the next hook is asked
    return _make_finder(path)


def load_fresh(folder: str) -> None:
    """Have every source under a folder loaded as it is now, also by a plain import.

    Args:
        folder: absolute.
    """
    if _find_under_roots not in sys.path_hooks:
        sys.path_hooks.insert(0, _find_under_roots)
    if folder in _roots:
        return
    _roots.add(folder)
    for known in [path for path in sys.path_importer_cache if path == folder or path.startswith(folder + os.sep)]:
        del sys.path_importer_cache[known]

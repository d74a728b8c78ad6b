"""Bars of tqdm inside a handler: they report to the caller, draw nothing, and notice a cancel.

Changed in place, on the class from which every other bar derives (`tqdm.auto`, those of Transformers and datasets).
A bar belongs to the call in which it was made, whichever thread moves it. Bars outside of calls stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

from manybridge.bridge import Context
from manybridge.bridge.progress import ProgressSource, begin_progress

LONGEST_INTERVAL: Final = 0.1
"""Seconds between two looks at the clock and the cancel: what tqdm itself draws with."""

SOURCE: Final = "_manybridge_source"
"""The attribute of a bar that has its `ProgressSource`."""


class Nowhere:
    """A text stream that keeps nothing."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        """Take it."""
        return len(text)

    def flush(self) -> None:
        """Do nothing."""

    def isatty(self) -> bool:
        """No: no colours, no size."""
        return False


NOWHERE: Final = Nowhere()


def install(_current: Callable[[], Context | None]) -> None:
    """Change `tqdm.std.tqdm`, which is imported."""
    bar = sys.modules["tqdm.std"].tqdm
    if not hasattr(bar, SOURCE):
        setattr(bar, SOURCE, None)
        bar.__init__ = _beginning(bar.__init__)
        bar.refresh = _refreshing(bar.refresh)
        bar.display = _displaying(bar.display)
        bar.close = _closing(bar.close)


def install_without_notebook(_current: Callable[[], Context | None]) -> None:
    """Have `tqdm.notebook`, which is imported, give plain bars where there is no notebook: its own fail there."""
    notebook, standard = sys.modules["tqdm.notebook"], sys.modules["tqdm.std"]
    if getattr(notebook, "IProgress", None) is None:
        notebook.tqdm = notebook.tqdm_notebook = standard.tqdm  # type: ignore[attr-defined]  # a module of theirs
        notebook.trange = notebook.tnrange = standard.trange  # type: ignore[attr-defined]  # the same


def _beginning(original: Callable[..., None]) -> Callable[..., None]:
    @wraps(original)
    def begin(self: Any, *args: Any, **keywords: Any) -> None:
        source = None if keywords.get("gui") else begin_progress()
        if source is None:
            original(self, *args, **keywords)
            return
        if len(args) < _POSITION_OF_FILE and _is_standard(keywords.get("file")):
            keywords["file"] = NOWHERE
        if keywords.get("disable", False) is None:  # "unless on a terminal": the caller's may be one
            keywords["disable"] = False
        try:
            original(self, *args, **keywords)
        except BaseException:
            source.close()
            raise
        if self.disable:
            source.close()
            return
        _watch_closely(self)
        setattr(self, SOURCE, source)
        self.refresh()

    return begin


_POSITION_OF_FILE: Final = 5
"""tqdm(iterable, desc, total, leave, file): nobody gives so many by position."""


def _is_standard(file: Any) -> bool:
    return file is None or file in (sys.stderr, sys.stdout, sys.__stderr__, sys.__stdout__)


def _watch_closely(bar: Any) -> None:
    """Have the bar look at the clock in every step.

    tqdm guesses how many steps it can leave out, and is late where they slow down: a cancel must not be.
    """
    bar.miniters, bar.dynamic_miniters = 0, False
    bar.mininterval = min(bar.mininterval, LONGEST_INTERVAL)
    bar.delay = 0


def _refreshing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def refresh(self: Any, *args: Any, **keywords: Any) -> Any:
        source: ProgressSource | None = getattr(self, SOURCE)
        if source is None:
            return original(self, *args, **keywords)
        if self.disable:
            return None
        if self.fp is not None and not _is_nowhere(self.fp):
            original(self, *args, **keywords)  # a file of the handler's own choice
        source.report(self.n, self.total, self.desc.removesuffix(": "))
        source.check()  # with none of tqdm's locks held
        return True

    return refresh


def _is_nowhere(file: Any) -> bool:
    return file is NOWHERE or getattr(file, "_wrapped", None) is NOWHERE


def _displaying(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def display(self: Any, *args: Any, **keywords: Any) -> Any:
        if getattr(self, SOURCE) is None or not _is_nowhere(self.fp):
            return original(self, *args, **keywords)
        return True  # what would be drawn is made in vain

    return display


def _closing(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def close(self: Any) -> Any:
        source: ProgressSource | None = getattr(self, SOURCE, None)
        if source is None:
            return original(self)
        if not self.disable:
            source.report(self.n, self.total, self.desc.removesuffix(": "))
        try:
            return original(self)
        finally:
            source.close()

    return close

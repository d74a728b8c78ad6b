"""Python code that a caller names as `package.module:attribute`: metrics, tools, whole programs.

Naming code runs code, so only modules that the option `allow_modules` lists can be named, and of them only what is
their own; see `allow` for what exactly is reached, and what is not.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.allow import AllowList
from manybridge.bridges.common.problems import invalid
from manybridge.protocol.errors import ErrorCode

OPTION: Final = "allow_modules"


class References:
    """Loads named code from allowed modules.

    Args:
        allowed: module names; `"team"` allows `team` and everything below it.
        search_path: folders that are looked in first, absolute or relative to the working folder.
    """

    def __init__(self, allowed: Iterable[str] = (), search_path: Iterable[str] = ()) -> None:
        self.allowed = tuple(allowed)
        self._allow = AllowList((f"{name.removesuffix('.*')}.*" for name in self.allowed), OPTION)
        for folder in search_path:
            resolved = os.path.realpath(folder)
            if resolved not in sys.path:
                sys.path.insert(0, resolved)

    def load(self, reference: str, where: str) -> Any:
        """Return what `reference` names; `where` is the caller's argument, for the errors.

        Raises:
            BridgeError: `permission_denied` for what is not allowed, `invalid_argument` where nothing of that name is
                found, `missing_package` where the module needs a package that is not installed.
        """
        module, _, attribute = reference.partition(":")
        if not module or not attribute:
            raise invalid(where, f"expected 'package.module:attribute', found {reference!r}")
        try:
            return self._allow.resolve(reference)
        except ImportError as error:
            raise invalid(where, f"module {module!r} could not be imported: {error}") from error
        except BridgeError as error:
            raise _in_place(error, module, where) from error

    def function(self, reference: str, where: str) -> Any:
        """Return the function that `reference` names. Raises as `load`, and for what can't be called."""
        found = self.load(reference, where)
        if not callable(found):
            raise invalid(where, f"{reference!r} is not a function")
        return found


def _in_place(error: BridgeError, module: str, where: str) -> BridgeError:
    """The same error with the caller's argument; a module that is not there is the caller's mistake."""
    missing = error.details.get("module", "")
    if error.code is ErrorCode.MISSING_PACKAGE and f"{module}.".startswith(f"{missing}."):
        return invalid(where, f"module {module!r} could not be imported: there is no {missing!r}")
    return BridgeError(error.code, f"{where}: {error.message}", details={**error.details, "argument": where})

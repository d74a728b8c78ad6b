"""Python functions that a caller names as `package.module:function`, to be used as tools.

Naming code runs code, so only modules that the bridge's configuration lists can be named.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from manybridge.bridge import BridgeError
from manybridge.bridges.langchain.problems import invalid
from manybridge.protocol.errors import ErrorCode


class References:
    """Loads named functions from allowed modules.

    Args:
        allowed: module names; `"team"` allows `team` and everything below it.
        search_path: folders that are looked in first, absolute or relative to the working folder.
    """

    def __init__(self, allowed: Iterable[str] = (), search_path: Iterable[str] = ()) -> None:
        self.allowed = tuple(allowed)
        for folder in search_path:
            resolved = os.path.realpath(folder)
            if resolved not in sys.path:
                sys.path.insert(0, resolved)

    def load(self, reference: str, where: str) -> Any:
        """Return the function that `reference` names; `where` is the caller's argument, for the errors.

        Raises:
            BridgeError: `permission_denied` for a module that is not allowed, `invalid_argument` where no function of
                that name is found.
        """
        module_name, separator, attribute = reference.partition(":")
        if not separator or not module_name or not attribute:
            raise invalid(where, f"expected 'package.module:function', found {reference!r}")
        self._check_allowed(module_name, where)
        try:
            found: Any = importlib.import_module(module_name)
        except ImportError as error:
            raise invalid(where, f"module {module_name!r} could not be imported: {error}") from error
        for part in attribute.split("."):
            if part.startswith("_") or not hasattr(found, part):
                raise invalid(where, f"{module_name!r} has no public {attribute!r}")
            found = getattr(found, part)
        if not callable(found):
            raise invalid(where, f"{reference!r} is not a function")
        return found

    def _check_allowed(self, module_name: str, where: str) -> None:
        if any(module_name == name or module_name.startswith(name + ".") for name in self.allowed):
            return
        raise BridgeError(
            ErrorCode.PERMISSION_DENIED,
            f"{where}: module {module_name!r} is not one that callers may name. Add it to the option allow_modules "
            f"of this bridge; allowed now: {', '.join(self.allowed) or 'none'}.",
            details={"module": module_name, "allowed": list(self.allowed)},
        )

"""A JSON document that callers share: read, write, merge, count, and change only if nobody else did.

Every change raises the document's version by one. `compare_and_set` is what makes two writers safe: it names the value
or the version that the caller saw, and loses with code `conflict` when that is no longer true.
"""

from __future__ import annotations

import copy
from typing import Any, Final, Literal

from manybridge.bridge import BridgeError

Operation = Literal["get", "set", "delete", "update", "compare_and_set", "increment"]
_MISSING: Final = object()
"""Stands for "nothing there" where None may be there."""


class StateDocument:
    """One document and its version. Owns its data: values are copied in and out."""

    def __init__(self, document: Any = None, version: int = 0) -> None:
        self.document: Any = {} if document is None else copy.deepcopy(document)
        self.version = version

    def apply(
        self,
        op: Operation,
        path: str | list[str],
        *,
        value: Any = None,
        expected: Any = None,
        version: int | None = None,
        by: float = 1,
        default: Any = None,
    ) -> dict[str, Any]:
        """Runs one operation and returns `{"value": ..., "version": n}`. The document is unchanged after an error.

        Args:
            path: keys from the root, as a list or joined by dots; empty means the whole document.
            value: for `set`, `update` (an object, merged key by key) and `compare_and_set`.
            expected: for `compare_and_set`: the value that the caller saw; None stands for "nothing there yet".
            version: for `compare_and_set`: the version that the caller saw. Where it is given, an `expected` of None
                is not compared.
            by: for `increment`.
            default: for `get` and `increment`, where the path leads nowhere (`increment`: None counts from 0).

        Raises:
            BridgeError: `invalid_argument` or, for a lost compare-and-set, `conflict`.
        """
        keys = [key for key in path.split(".") if key] if isinstance(path, str) else list(path)
        if op == "get":
            return self._answer(self._look_up(keys, default))
        if op == "increment":
            return self._set(keys, self._incremented(keys, by, default))
        if op == "delete":
            return self._delete(keys)
        if op == "compare_and_set":
            self._compare(keys, expected, version)
        elif op == "update":
            value = self._merged(keys, value)
        return self._set(keys, value)

    # -- operations --------------------------------------------------------------------------------------------------

    def _set(self, keys: list[str], value: Any) -> dict[str, Any]:
        value = copy.deepcopy(value)
        if keys:
            self._parent(keys, create=True)[keys[-1]] = value
        else:
            self.document = value
        self.version += 1
        return self._answer(value)

    def _delete(self, keys: list[str]) -> dict[str, Any]:
        """Deletes what is there; what is not there changes nothing, and the version stays."""
        gone = self._look_up(keys, _MISSING)
        if gone is _MISSING:
            return {**self._answer(None), "deleted": False}
        if keys:
            del self._parent(keys, create=False)[keys[-1]]
        else:
            self.document = {}
        self.version += 1
        return {**self._answer(gone), "deleted": True}

    def _merged(self, keys: list[str], value: Any) -> dict[str, Any]:
        found = self._look_up(keys, {})
        if not isinstance(value, dict):
            raise _invalid("update", "value", f"expected an object to merge, found {_kind(value)}")
        if not isinstance(found, dict):
            raise _invalid("update", "path", f"{_shown(keys)} holds {_kind(found)}, not an object")
        return {**found, **value}

    def _incremented(self, keys: list[str], by: float, default: Any) -> Any:
        found = self._look_up(keys, 0 if default is None else default)
        if isinstance(found, bool) or not isinstance(found, (int, float)):
            raise _invalid("increment", "path", f"{_shown(keys)} holds {_kind(found)}, not a number")
        return found + by

    def _compare(self, keys: list[str], expected: Any, version: int | None) -> None:
        found = self._look_up(keys, None)
        if version is not None and version != self.version:
            raise BridgeError(
                "conflict",
                f"the document is at version {self.version}, not {version}",
                details={"expected_version": version, "version": self.version, "found": copy.deepcopy(found)},
            )
        if (version is None or expected is not None) and expected != found:
            raise BridgeError(
                "conflict",
                f"{_shown(keys)} no longer holds the expected value",
                details={"expected": expected, "found": copy.deepcopy(found), "version": self.version},
            )

    # -- finding -----------------------------------------------------------------------------------------------------

    def _look_up(self, keys: list[str], default: Any) -> Any:
        node = self.document
        for key in keys:
            if not isinstance(node, dict) or key not in node:
                return default
            node = node[key]
        return node

    def _parent(self, keys: list[str], *, create: bool) -> dict[str, Any]:
        """The object that holds the last key. Checks the whole way before it creates anything on it."""
        self._check_way(keys)
        node: dict[str, Any] = self.document
        for key in keys[:-1]:
            node = node.setdefault(key, {}) if create else node[key]
        return node

    def _check_way(self, keys: list[str]) -> None:
        node = self.document
        for depth, key in enumerate(keys):
            if not isinstance(node, dict):
                raise _invalid("set", "path", f"{_shown(keys[:depth])} holds {_kind(node)}, not an object")
            if key not in node:
                return
            node = node[key]

    def _answer(self, value: Any) -> dict[str, Any]:
        return {"value": copy.deepcopy(value), "version": self.version}


def _shown(keys: list[str]) -> str:
    return repr(".".join(keys)) if keys else "the document"


_KINDS: Final[dict[type, str]] = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    return _KINDS.get(type(value), "a number")


def _invalid(op: str, argument: str, problem: str) -> BridgeError:
    return BridgeError("invalid_argument", f"{op}: {argument}: {problem}", details={"argument": argument})

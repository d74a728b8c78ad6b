"""What every adapter's objects share: a resource on a host that one holds, and how its calls are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from manybridge.adapters.base import AsyncGenericAdapter, GenericAdapter

CALL_OPTIONS: Final = frozenset({"timeout", "session", "idempotency_key"})
"""Keywords that say how a call is made, not what it asks."""

EXECUTE: Final = "common:execute_resource"


def given(**values: Any) -> dict[str, Any]:
    """What was given, without what was not."""
    return {name: value for name, value in values.items() if value is not None}


def split_options(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Separate what goes to the bridge from what says how to call it."""
    options = {name: value for name, value in settings.items() if name in CALL_OPTIONS}
    return {name: value for name, value in settings.items() if name not in CALL_OPTIONS}, options


class _Kept:
    """What a handle knows, blocking or not."""

    def __init__(self, id: str, config: Any, options: Mapping[str, Any]) -> None:
        self.id = id
        self.config = config
        # Later calls share the session of the one that made it, but not its time or its key.
        self._options = given(session=options.get("session"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def _call_options(self, timeout: float | None) -> dict[str, Any]:
        return {**self._options, **given(timeout=timeout)}


class Handle(_Kept):
    """A resource on a host, with what it takes to make it again.

    Attributes:
        adapter: whose it is.
        id: of the resource.
        config: its recipe.
    """

    def __init__(self, adapter: GenericAdapter, id: str, config: Any, options: Mapping[str, Any]) -> None:
        super().__init__(id, config, options)
        self.adapter = adapter

    def delete(self) -> None:
        """Delete the resource; what it wrote to a disk, such as threads in SQLite or a training run, stays."""
        self.adapter.delete(self.id, **self._options)

    def _execute(self, inputs: dict[str, Any], timeout: float | None) -> Any:
        return self.adapter.execute(self.id, inputs, **self._call_options(timeout))

    def _stream(self, inputs: dict[str, Any], timeout: float | None) -> Iterator[Any]:
        return self.adapter.stream(EXECUTE, {"id": self.id, "inputs": inputs}, **self._call_options(timeout))


class AsyncHandle(_Kept):
    """`Handle` for `AsyncMLBridge`."""

    def __init__(self, adapter: AsyncGenericAdapter, id: str, config: Any, options: Mapping[str, Any]) -> None:
        super().__init__(id, config, options)
        self.adapter = adapter

    async def delete(self) -> None:
        """See `Handle.delete`."""
        await self.adapter.delete(self.id, **self._options)

    async def _execute(self, inputs: dict[str, Any], timeout: float | None) -> Any:
        return await self.adapter.execute(self.id, inputs, **self._call_options(timeout))

    def _stream(self, inputs: dict[str, Any], timeout: float | None) -> AsyncIterator[Any]:
        return self.adapter.stream(EXECUTE, {"id": self.id, "inputs": inputs}, **self._call_options(timeout))

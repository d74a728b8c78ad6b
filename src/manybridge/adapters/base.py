"""What an adapter is, what it needs, and the one that fits every framework."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any, Protocol, Self, runtime_checkable


@runtime_checkable
class Adapter(Protocol):
    """A client for one framework, bound to one bridge of one host.

    A class of yours is an adapter when it takes `(ml, bridge)` and has these two attributes; see `registry` for how
    `get_adapter` finds it.

    Attributes:
        framework: the framework that it speaks for, for example `dspy`.
        bridge: the name under which that bridge is registered, for example `dspy` or `dspy-eu`.
    """

    @property
    def framework(self) -> str:
        """The framework."""

    @property
    def bridge(self) -> str:
        """The bridge's registered name."""


class ResourceLike(Protocol):
    """The part of a host's resource that adapters read."""

    @property
    def id(self) -> str:
        """The resource's id."""


class Caller(Protocol):
    """The part of `MLBridge` that adapters use. `options` are `timeout`, `session`, `idempotency_key`."""

    def call(self, bridge: str, command: str, args: dict[str, Any], **options: Any) -> Any:
        """Run a command and return its result."""

    def stream(self, bridge: str, command: str, args: dict[str, Any], **options: Any) -> Any:
        """Run a command and return its events, an iterator with `.result`."""

    def create_resource(self, bridge: str, type: str, config: dict[str, Any], **options: Any) -> Any:
        """Make a resource."""

    def execute_resource(self, bridge: str, id: str, inputs: dict[str, Any], **options: Any) -> Any:
        """Execute a resource."""

    def list_resources(self, bridge: str, type: str, **options: Any) -> Any:
        """List resources."""

    def delete_resource(self, bridge: str, id: str, **options: Any) -> Any:
        """Delete a resource."""


class AsyncCaller(Protocol):
    """The same part of `AsyncMLBridge`."""

    async def call(self, bridge: str, command: str, args: dict[str, Any], **options: Any) -> Any:
        """Run a command and return its result."""

    def stream(self, bridge: str, command: str, args: dict[str, Any], **options: Any) -> Any:
        """Run a command and return its events, an async iterator with `.result`."""

    async def create_resource(self, bridge: str, type: str, config: dict[str, Any], **options: Any) -> Any:
        """Make a resource."""

    async def execute_resource(self, bridge: str, id: str, inputs: dict[str, Any], **options: Any) -> Any:
        """Execute a resource."""

    async def list_resources(self, bridge: str, type: str, **options: Any) -> Any:
        """List resources."""

    async def delete_resource(self, bridge: str, id: str, **options: Any) -> Any:
        """Delete a resource."""


class _Bound:
    """What the sync and the async generic adapter share: names."""

    def __init__(self, bridge: str, framework: str | None = None) -> None:
        self.bridge = bridge
        self.framework = framework or bridge

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.bridge!r})"

    def _command(self, operation: str) -> str:
        """`train` means the framework's own `train`; a name with a namespace is taken as it is."""
        return operation if ":" in operation else f"{self.framework}:{operation}"


class GenericAdapter(_Bound):
    """Any framework: commands and resources without repeating the bridge's name.

    Args:
        ml: a host.
        bridge: the bridge's registered name.
        framework: the namespace of its commands, where that is another name.
    """

    def __init__(self, ml: Caller, bridge: str, framework: str | None = None) -> None:
        super().__init__(bridge, framework)
        self.ml = ml

    def call(self, operation: str, args: dict[str, Any] | None = None, **options: Any) -> Any:
        """Run a command of the framework, for example `adapter.call("train", {"epochs": 3})`."""
        return self.ml.call(self.bridge, self._command(operation), args or {}, **options)

    def stream(self, operation: str, args: dict[str, Any] | None = None, **options: Any) -> Iterator[Any]:
        """Run a command and yield its events; the iterator's `.result` holds the result after the last one."""
        found: Iterator[Any] = self.ml.stream(self.bridge, self._command(operation), args or {}, **options)
        return found

    def create(self, type: str, config: dict[str, Any] | None = None, **options: Any) -> Any:
        """Make a resource."""
        return self.ml.create_resource(self.bridge, type, config or {}, **options)

    def execute(self, id: str, inputs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Execute a resource."""
        return self.ml.execute_resource(self.bridge, id, inputs or {}, **options)

    def list(self, type: str, **options: Any) -> list[Any]:
        """List the resources of a type."""
        return list(self.ml.list_resources(self.bridge, type, **options))

    def delete(self, id: str, **options: Any) -> Any:
        """Delete a resource."""
        return self.ml.delete_resource(self.bridge, id, **options)


class AwaitableAdapter:
    """`await ml.get_adapter(...)` gives the adapter as well: every other method of `AsyncMLBridge` is awaited too."""

    def __await__(self) -> Generator[None, None, Self]:
        yield from ()  # nothing to wait for
        return self


class AsyncGenericAdapter(AwaitableAdapter, _Bound):
    """`GenericAdapter` for `AsyncMLBridge`; every method but `stream` is awaited."""

    def __init__(self, ml: AsyncCaller, bridge: str, framework: str | None = None) -> None:
        super().__init__(bridge, framework)
        self.ml = ml

    async def call(self, operation: str, args: dict[str, Any] | None = None, **options: Any) -> Any:
        """Run a command of the framework."""
        return await self.ml.call(self.bridge, self._command(operation), args or {}, **options)

    def stream(self, operation: str, args: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Any]:
        """Run a command and yield its events."""
        found: AsyncIterator[Any] = self.ml.stream(self.bridge, self._command(operation), args or {}, **options)
        return found

    async def create(self, type: str, config: dict[str, Any] | None = None, **options: Any) -> Any:
        """Make a resource."""
        return await self.ml.create_resource(self.bridge, type, config or {}, **options)

    async def execute(self, id: str, inputs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Execute a resource."""
        return await self.ml.execute_resource(self.bridge, id, inputs or {}, **options)

    async def list(self, type: str, **options: Any) -> list[Any]:
        """List the resources of a type."""
        return list(await self.ml.list_resources(self.bridge, type, **options))

    async def delete(self, id: str, **options: Any) -> Any:
        """Delete a resource."""
        return await self.ml.delete_resource(self.bridge, id, **options)

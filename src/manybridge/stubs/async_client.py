"""What a generated client of `AsyncMLBridge` is built on: the classes of `client`, awaitable."""

from __future__ import annotations

import builtins
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.streams import AsyncStream, StreamEvent
from manybridge.stubs.client import UNSET, Options, given

__all__ = ["UNSET", "Client", "Options", "Resource", "Resources", "Stream", "given"]

R = TypeVar("R")
H = TypeVar("H", bound="Resource")


class Stream(Generic[R]):
    """The events of a call: `async for event in stream`, or over its `chunks()`. `result` follows the last one."""

    def __init__(self, stream: AsyncStream) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self._events()

    async def _events(self) -> AsyncIterator[StreamEvent]:
        async for event in self._stream:
            yield event

    async def chunks(self) -> AsyncIterator[Any]:
        """The pieces of the answer, without progress and log."""
        async for event in self._stream:
            if event.event == "chunk":
                yield event.data

    @property
    def result(self) -> R:
        """What the call returned. See `manybridge.stubs.client.Stream.result`."""
        result: R = self._stream.result
        return result

    async def aclose(self) -> None:
        """Stop the call if it still runs."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Client:
    """The base of a client: a host, and the name under which it has the bridge."""

    def __init__(self, ml: AsyncMLBridge, bridge: str) -> None:
        self._ml = ml
        self._bridge = bridge

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bridge!r})"

    async def _call(self, command: str, args: dict[str, Any], options: Options) -> Any:
        return await self._ml.call(self._bridge, command, args, **options._asdict())

    def _stream(self, command: str, args: dict[str, Any], options: Options) -> Stream[Any]:
        return Stream(self._ml.stream(self._bridge, command, args, **options._asdict()))


class Resource:
    """The base of one resource. Leaving an `async with` block deletes it.

    Attributes:
        id: its id.
        session: the session that it was made in, which its calls are made in too.
    """

    def __init__(self, ml: AsyncMLBridge, bridge: str, id: str, session: str | None) -> None:
        self._ml = ml
        self._bridge = bridge
        self.id = id
        self.session = session

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    async def delete(self) -> None:
        """Delete it."""
        await self._ml.delete_resource(self._bridge, self.id, session=self.session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.delete()

    async def _execute(self, inputs: dict[str, Any], options: Options) -> Any:
        return await self._ml.execute_resource(self._bridge, self.id, inputs, **options._asdict())

    def _stream(self, inputs: dict[str, Any], options: Options) -> Stream[Any]:
        args = {"id": self.id, "inputs": inputs}
        return Stream(self._ml.stream(self._bridge, "common:execute_resource", args, **options._asdict()))


class Resources(Generic[H]):
    """The base of all resources of one type."""

    type_name: ClassVar[str]
    handle: type[H]

    def __init__(self, ml: AsyncMLBridge, bridge: str) -> None:
        self._ml = ml
        self._bridge = bridge

    def get(self, id: str, session: str | None = None) -> H:
        """A resource that exists already, by its id. Nobody is asked whether it does."""
        return self.handle(self._ml, self._bridge, id, session)

    async def list(self, session: str | None = None) -> builtins.list[H]:
        """Those that the session, or a caller without one, can see."""
        found = await self._ml.list_resources(self._bridge, self.type_name, session=session)
        return [self.get(each.id, each.session) for each in found]

    async def _create(self, config: dict[str, Any], resource_id: str | None, options: Options) -> H:
        made = await self._ml.create_resource(self._bridge, self.type_name, config, id=resource_id, **options._asdict())
        return self.get(made.id, made.session)

"""What a generated client of `MLBridge` is built on. `async_client` has the same for `AsyncMLBridge`."""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, NamedTuple, Self, TypeVar

from manybridge.host.streams import StreamEvent
from manybridge.host.sync import MLBridge
from manybridge.host.sync import Stream as HostStream

R = TypeVar("R")
H = TypeVar("H", bound="Resource")


class _Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final[Any] = _Unset()
"""Stands for an argument that was not given: it does not travel, and the bridge's own default holds."""


class Options(NamedTuple):
    """How a call is made; as for `MLBridge.call`."""

    timeout: float | None = None
    session: str | None = None
    idempotency_key: str | None = None


def given(arguments: dict[str, Any], more: dict[str, Any] | None = None) -> dict[str, Any]:
    """The arguments that are not `UNSET`, by their names on the wire."""
    kept = {name: value for name, value in arguments.items() if value is not UNSET}
    return {**kept, **(more or {})}


class Stream(Generic[R]):
    """The events of a call: iterate over it, or over its `chunks()`. `result` follows the last one."""

    def __init__(self, stream: HostStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[StreamEvent]:
        return iter(self._stream)

    def chunks(self) -> Iterator[Any]:
        """The pieces of the answer, without progress and log."""
        return (event.data for event in self._stream if event.event == "chunk")

    @property
    def result(self) -> R:
        """What the call returned.

        Raises:
            ManybridgeError: it failed, or has not ended: read the events to their end first.
        """
        result: R = self._stream.result
        return result

    def close(self) -> None:
        """Stop the call if it still runs."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Client:
    """The base of a client: a host, and the name under which it has the bridge."""

    def __init__(self, ml: MLBridge, bridge: str) -> None:
        self._ml = ml
        self._bridge = bridge

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bridge!r})"

    def _call(self, command: str, args: dict[str, Any], options: Options) -> Any:
        return self._ml.call(self._bridge, command, args, **options._asdict())

    def _stream(self, command: str, args: dict[str, Any], options: Options) -> Stream[Any]:
        return Stream(self._ml.stream(self._bridge, command, args, **options._asdict()))


class Resource:
    """The base of one resource. Leaving a `with` block deletes it.

    Attributes:
        id: its id.
        session: the session that it was made in, which its calls are made in too.
    """

    def __init__(self, ml: MLBridge, bridge: str, id: str, session: str | None) -> None:
        self._ml = ml
        self._bridge = bridge
        self.id = id
        self.session = session

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    def delete(self) -> None:
        """Delete it."""
        self._ml.delete_resource(self._bridge, self.id, session=self.session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.delete()

    def _execute(self, inputs: dict[str, Any], options: Options) -> Any:
        return self._ml.execute_resource(self._bridge, self.id, inputs, **options._asdict())

    def _stream(self, inputs: dict[str, Any], options: Options) -> Stream[Any]:
        args = {"id": self.id, "inputs": inputs}
        return Stream(self._ml.stream(self._bridge, "common:execute_resource", args, **options._asdict()))


class Resources(Generic[H]):
    """The base of all resources of one type."""

    type_name: ClassVar[str]
    handle: type[H]

    def __init__(self, ml: MLBridge, bridge: str) -> None:
        self._ml = ml
        self._bridge = bridge

    def get(self, id: str, session: str | None = None) -> H:
        """A resource that exists already, by its id. Nobody is asked whether it does."""
        return self.handle(self._ml, self._bridge, id, session)

    def list(self, session: str | None = None) -> builtins.list[H]:
        """Those that the session, or a caller without one, can see."""
        found = self._ml.list_resources(self._bridge, self.type_name, session=session)
        return [self.get(each.id, each.session) for each in found]

    def _create(self, config: dict[str, Any], resource_id: str | None, options: Options) -> H:
        made = self._ml.create_resource(self._bridge, self.type_name, config, id=resource_id, **options._asdict())
        return self.get(made.id, made.session)

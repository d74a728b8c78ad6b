"""`PythonAdapter` and its handles for `AsyncMLBridge`: the same methods, awaitable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from manybridge.adapters.base import AsyncCaller, AwaitableAdapter
from manybridge.adapters.handles import given
from manybridge.adapters.python_types import (
    CHANGE_ATTEMPTS,
    EXECUTE,
    ITERATE,
    STATE,
    Execution,
    OnOutput,
    Path,
    Progress,
    Reference,
    Versioned,
    call_args,
    from_wire,
    keys_of,
    report,
    to_wire,
)
from manybridge.errors import ManybridgeError
from manybridge.protocol.errors import ErrorCode


class AsyncPythonAdapter(AwaitableAdapter):
    """`PythonAdapter` for `AsyncMLBridge`: the same methods, awaitable; `iterate` is an async iterator."""

    framework = "python"

    def __init__(self, ml: AsyncCaller, bridge: str = "python", **options: Any) -> None:
        self.ml = ml
        self.bridge = bridge
        self._options = options

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.bridge!r})"

    def using(self, *, timeout: float | None = None, session: str | None = None) -> Self:
        """See `PythonAdapter.using`."""
        return type(self)(self.ml, self.bridge, **{**self._options, **given(timeout=timeout, session=session)})

    # -- functions and objects ---------------------------------------------------------------------------------------

    async def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """See `PythonAdapter.call`."""
        return self._read(await self._ask("call", call_args(args, kwargs, target=function)))

    async def keep(self, function: str, /, *args: Any, **kwargs: Any) -> AsyncRemoteObject:
        """See `PythonAdapter.keep`."""
        return AsyncRemoteObject(self, await self._ask("call", call_args(args, kwargs, store=True, target=function)))

    async def attribute(self, name: str) -> Any:
        """See `PythonAdapter.attribute`."""
        return self._read(await self._ask("attribute", {"name": name}))

    def iterate(self, function: str, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        """See `PythonAdapter.iterate`."""
        return self._items(call_args(args, kwargs, target=function))

    async def evaluate(self, expression: str, **names: Any) -> Any:
        """See `PythonAdapter.evaluate`."""
        return self._read(await self._ask("evaluate", {"expression": expression, "names": to_wire(names)}))

    async def objects(self) -> list[AsyncRemoteObject]:
        """See `PythonAdapter.objects`."""
        return [AsyncRemoteObject(self, each) for each in (await self._ask("objects", {}))["objects"]]

    # -- code --------------------------------------------------------------------------------------------------------

    async def execute(
        self,
        code: str,
        variables: Mapping[str, Any] | None = None,
        *,
        result: str | None = None,
        namespace: str | None = None,
        on_output: OnOutput | None = None,
        on_progress: Progress | None = None,
        **more_variables: Any,
    ) -> Execution:
        """See `PythonAdapter.execute`."""
        bound = {**(variables or {}), **more_variables}
        args = {"code": code, **given(variables=to_wire(bound) or None, result=result, namespace=namespace)}
        if on_output is None and on_progress is None:
            return self._execution(await self._ask("execute", args))
        stream = self.ml.stream(self.bridge, EXECUTE, args, **self._options)
        async for event in stream:
            report(event, on_output, on_progress)
        return self._execution(stream.result)

    # -- state -------------------------------------------------------------------------------------------------------

    async def create_state(self, initial: Mapping[str, Any] | None = None, *, id: str | None = None) -> AsyncState:
        """See `PythonAdapter.create_state`."""
        config = given(initial=dict(initial) if initial is not None else None)
        made = await self.ml.create_resource(self.bridge, STATE, config, **given(id=id), **self._options)
        return AsyncState(self, made.id)

    def state(self, id: str) -> AsyncState:
        """See `PythonAdapter.state`."""
        return AsyncState(self, id)

    async def list_states(self) -> list[AsyncState]:
        """See `PythonAdapter.list_states`."""
        return [AsyncState(self, each.id) for each in await self.ml.list_resources(self.bridge, STATE, **self._options)]

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _ask(self, operation: str, args: dict[str, Any]) -> Any:
        return await self.ml.call(self.bridge, f"python:{operation}", args, **self._options)

    def _read(self, value: Any) -> Any:
        return from_wire(value, lambda reference: AsyncRemoteObject(self, reference))

    def _execution(self, result: Mapping[str, Any]) -> Execution:
        return Execution.read(result, self._read(result["result"]))

    async def _items(self, args: dict[str, Any]) -> AsyncIterator[Any]:
        async for event in self.ml.stream(self.bridge, ITERATE, args, **self._options):
            if event.event == "chunk":
                yield self._read(event.data)


class AsyncRemoteObject(Reference):
    """An object that lives in a worker. Give it as an argument, or `async with` it: leaving the block releases it."""

    def __init__(self, adapter: AsyncPythonAdapter, reference: Mapping[str, Any]) -> None:
        super().__init__(reference)
        self.adapter = adapter

    async def method(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """See `RemoteObject.method`."""
        asked = call_args(args, kwargs, object=self, method=name)
        return self.adapter._read(await self.adapter._ask("method", asked))

    async def keep(self, name: str, /, *args: Any, **kwargs: Any) -> AsyncRemoteObject:
        """See `RemoteObject.keep`."""
        asked = call_args(args, kwargs, store=True, object=self, method=name)
        return AsyncRemoteObject(self.adapter, await self.adapter._ask("method", asked))

    async def attribute(self, name: str) -> Any:
        """See `RemoteObject.attribute`."""
        return self.adapter._read(await self.adapter._ask("attribute", {"object": self.wire, "name": name}))

    def iterate(self, limit: int | None = None) -> AsyncIterator[Any]:
        """See `RemoteObject.iterate`."""
        return self.adapter._items({"object": self.wire, **given(limit=limit)})

    async def release(self) -> None:
        """See `RemoteObject.release`."""
        await self.adapter._ask("release", {"object": self.wire})

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.release()
        except ManybridgeError:
            # What went wrong inside the block says more, and a worker that died has taken the object along.
            if kind is None:
                raise


class AsyncState:
    """`State` for `AsyncMLBridge`: the same methods, awaitable."""

    def __init__(self, adapter: AsyncPythonAdapter, id: str) -> None:
        self.adapter = adapter
        self.id = id

    def __repr__(self) -> str:
        return f"AsyncState({self.id!r})"

    async def get(self, path: Path = "", default: Any = None) -> Any:
        """See `State.get`."""
        return (await self.read(path, default)).value

    async def read(self, path: Path = "", default: Any = None) -> Versioned:
        """See `State.read`."""
        return await self._apply("get", path, default=default)

    async def set(self, path: Path, value: Any) -> int:
        """See `State.set`."""
        return (await self._apply("set", path, value=value)).version

    async def update(self, values: Mapping[str, Any], path: Path = "") -> Versioned:
        """See `State.update`."""
        return await self._apply("update", path, value=dict(values))

    async def increment(self, path: Path, by: float = 1) -> Any:
        """See `State.increment`."""
        return (await self._apply("increment", path, by=by)).value

    async def delete_key(self, path: Path) -> Any:
        """See `State.delete_key`."""
        return (await self._apply("delete", path)).value

    async def compare_and_set(
        self, path: Path, value: Any, *, expected: Any = None, version: int | None = None
    ) -> Versioned:
        """See `State.compare_and_set`."""
        return await self._apply("compare_and_set", path, value=value, **given(expected=expected, version=version))

    async def change(self, function: Callable[[Any], Any], path: Path = "", default: Any = None) -> Versioned:
        """See `State.change`."""
        for _ in range(CHANGE_ATTEMPTS - 1):
            try:
                return await self._try_change(function, path, default)
            except ManybridgeError as error:
                if error.code != ErrorCode.CONFLICT:
                    raise
        return await self._try_change(function, path, default)

    async def _try_change(self, function: Callable[[Any], Any], path: Path, default: Any) -> Versioned:
        seen = await self.read(path, default)
        return await self.compare_and_set(path, function(seen.value), version=seen.version)

    async def delete(self) -> None:
        """See `State.delete`."""
        await self.adapter.ml.delete_resource(self.adapter.bridge, self.id, **self.adapter._options)

    async def _apply(self, op: str, path: Path, **inputs: Any) -> Versioned:
        asked = {"op": op, "path": keys_of(path), **inputs}
        found = await self.adapter.ml.execute_resource(self.adapter.bridge, self.id, asked, **self.adapter._options)
        return Versioned(found["value"], found["version"])

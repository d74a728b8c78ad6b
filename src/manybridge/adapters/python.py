"""The typed client for the `python` bridge: functions, objects, shared state and code.

    python = ml.get_adapter("python")
    python.call("math:hypot", 3, 4)                                  # 5.0
    with python.keep("collections:Counter", "banana") as counter:    # an object that stays in its worker
        counter.method("most_common", 1)                             # [["a", 3]]
    visits = python.create_state({"count": 0})
    visits.change(lambda count: count + 1, "count")                  # nobody's change is lost
    python.execute("sum(range(n))", n=10).result                     # 45, where the configuration allows code

`AsyncPythonAdapter` (in `python_async`) has the same methods, awaitable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from manybridge.adapters.base import Caller
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


class PythonAdapter:
    """Plain Python on a blocking host.

    Keywords of `call` and its like are the function's own, so `using` says how calls are made. What JSON can't carry
    comes back as a `RemoteObject`, which lives in one worker: with more than one worker, use a session.

    Args:
        ml: a host.
        bridge: the bridge's registered name.
    """

    framework = "python"

    def __init__(self, ml: Caller, bridge: str = "python", **options: Any) -> None:
        self.ml = ml
        self.bridge = bridge
        self._options = options

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.bridge!r})"

    def using(self, *, timeout: float | None = None, session: str | None = None) -> Self:
        """Return the same adapter whose calls have this timeout (seconds) and this session."""
        return type(self)(self.ml, self.bridge, **{**self._options, **given(timeout=timeout, session=session)})

    # -- functions and objects ---------------------------------------------------------------------------------------

    def call(self, function: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call an allowed function, class or method, `module:name` or `module.name`, and return its result."""
        return self._read(self._ask("call", call_args(args, kwargs, target=function)))

    def keep(self, function: str, /, *args: Any, **kwargs: Any) -> RemoteObject:
        """Call a function and keep its result in the worker, whatever it is."""
        return RemoteObject(self, self._ask("call", call_args(args, kwargs, store=True, target=function)))

    def attribute(self, name: str) -> Any:
        """Read a public attribute of an allowed module, `module:NAME`."""
        return self._read(self._ask("attribute", {"name": name}))

    def iterate(self, function: str, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Call a function and yield the items of what it returns, each as soon as it is there."""
        return self._items(call_args(args, kwargs, target=function))

    def evaluate(self, expression: str, **names: Any) -> Any:
        """Evaluate one expression over `names` and the allowed modules; where the bridge's options allow it."""
        return self._read(self._ask("evaluate", {"expression": expression, "names": to_wire(names)}))

    def objects(self) -> list[RemoteObject]:
        """The objects that this session holds in the worker that answers, least recently used first."""
        return [RemoteObject(self, each) for each in self._ask("objects", {})["objects"]]

    # -- code --------------------------------------------------------------------------------------------------------

    def execute(
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
        """Run code; where the configuration says `sandbox = "none"`, because it has all the rights of the worker.

        Args:
            code: any Python. It finds `ctx`, the call's context, beside its variables.
            variables: name -> value; `more_variables` are added to them.
            result: the variable to return; by default the value of the last expression.
            namespace: a name under which the variables live on for later calls of this session in this worker.
            on_output: called with ("stdout" or "stderr", text) while the code runs.
            on_progress: called with (current, total or None, message) when the code says `ctx.progress(...)`.

        Raises:
            CallError: `permission_denied`, code is off; `handler_error`, it raised: `details["line"]` is the line of
                the code, and `traceback` shows the frames of the code alone.
        """
        bound = {**(variables or {}), **more_variables}
        args = {"code": code, **given(variables=to_wire(bound) or None, result=result, namespace=namespace)}
        if on_output is None and on_progress is None:
            return self._execution(self._ask("execute", args))
        stream = self.ml.stream(self.bridge, EXECUTE, args, **self._options)
        for event in stream:
            report(event, on_output, on_progress)
        return self._execution(stream.result)

    # -- state -------------------------------------------------------------------------------------------------------

    def create_state(self, initial: Mapping[str, Any] | None = None, *, id: str | None = None) -> State:
        """Make a JSON document that callers share; it survives the worker that holds it.

        Args:
            initial: the document at version 0.
            id: chosen by the host if left out.
        """
        config = given(initial=dict(initial) if initial is not None else None)
        made = self.ml.create_resource(self.bridge, STATE, config, **given(id=id), **self._options)
        return State(self, made.id)

    def state(self, id: str) -> State:
        """A document that exists already, by its id."""
        return State(self, id)

    def list_states(self) -> list[State]:
        """The documents that this adapter's session can see."""
        return [State(self, each.id) for each in self.ml.list_resources(self.bridge, STATE, **self._options)]

    # -- inside ------------------------------------------------------------------------------------------------------

    def _ask(self, operation: str, args: dict[str, Any]) -> Any:
        return self.ml.call(self.bridge, f"python:{operation}", args, **self._options)

    def _read(self, value: Any) -> Any:
        return from_wire(value, lambda reference: RemoteObject(self, reference))

    def _execution(self, result: Mapping[str, Any]) -> Execution:
        return Execution.read(result, self._read(result["result"]))

    def _items(self, args: dict[str, Any]) -> Iterator[Any]:
        for event in self.ml.stream(self.bridge, ITERATE, args, **self._options):
            if event.event == "chunk":
                yield self._read(event.data)


class RemoteObject(Reference):
    """An object that lives in a worker. Give it as an argument, or `with` it: leaving the block releases it."""

    def __init__(self, adapter: PythonAdapter, reference: Mapping[str, Any]) -> None:
        super().__init__(reference)
        self.adapter = adapter

    def method(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        """Call a public method, also one of an attribute (`"columns.tolist"`)."""
        asked = call_args(args, kwargs, object=self, method=name)
        return self.adapter._read(self.adapter._ask("method", asked))

    def keep(self, name: str, /, *args: Any, **kwargs: Any) -> RemoteObject:
        """Call a public method and keep its result in the worker, whatever it is."""
        asked = call_args(args, kwargs, store=True, object=self, method=name)
        return RemoteObject(self.adapter, self.adapter._ask("method", asked))

    def attribute(self, name: str) -> Any:
        """Read a public attribute."""
        return self.adapter._read(self.adapter._ask("attribute", {"object": self.wire, "name": name}))

    def iterate(self, limit: int | None = None) -> Iterator[Any]:
        """Yield its items, at most `limit`; an iterator goes on from there the next time."""
        return self.adapter._items({"object": self.wire, **given(limit=limit)})

    def release(self) -> None:
        """Forget the object. Whoever uses it then gets `resource_not_found`."""
        self.adapter._ask("release", {"object": self.wire})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.release()
        except ManybridgeError:
            # What went wrong inside the block says more, and a worker that died has taken the object along.
            if kind is None:
                raise


class State:
    """A JSON document on a host. Every change raises its version by one.

    Attributes:
        id: of the resource.
    """

    def __init__(self, adapter: PythonAdapter, id: str) -> None:
        self.adapter = adapter
        self.id = id

    def __repr__(self) -> str:
        return f"State({self.id!r})"

    def get(self, path: Path = "", default: Any = None) -> Any:
        """The value at `path`, or `default` where there is none."""
        return self.read(path, default).value

    def read(self, path: Path = "", default: Any = None) -> Versioned:
        """The value at `path` and the document's version."""
        return self._apply("get", path, default=default)

    def set(self, path: Path, value: Any) -> int:
        """Write a value and return the new version. Objects on the way are made."""
        return self._apply("set", path, value=value).version

    def update(self, values: Mapping[str, Any], path: Path = "") -> Versioned:
        """Merge `values` into the object at `path`, key by key."""
        return self._apply("update", path, value=dict(values))

    def increment(self, path: Path, by: float = 1) -> Any:
        """Add to a number, which starts from 0, and return what it is then."""
        return self._apply("increment", path, by=by).value

    def delete_key(self, path: Path) -> Any:
        """Delete what is at `path` and return it; None where nothing was."""
        return self._apply("delete", path).value

    def compare_and_set(self, path: Path, value: Any, *, expected: Any = None, version: int | None = None) -> Versioned:
        """Write a value if nobody wrote another one before.

        Args:
            path: where.
            value: what.
            expected: the value that you saw; None stands for "nothing there yet".
            version: the document's version that you saw, instead of `expected` or beside it.

        Raises:
            CallError: `conflict`; `details["found"]` and `details["version"]` say what is there now.
        """
        return self._apply("compare_and_set", path, value=value, **given(expected=expected, version=version))

    def change(self, function: Callable[[Any], Any], path: Path = "", default: Any = None) -> Versioned:
        """Write what `function` makes of the value at `path`; again from the new value if somebody was quicker.

        Args:
            function: from the old value to the new one; may run more than once.
            path: where.
            default: what it gets where nothing is.

        Raises:
            CallError: `conflict`, after `CHANGE_ATTEMPTS` losses in a row.
        """
        for _ in range(CHANGE_ATTEMPTS - 1):
            try:
                return self._try_change(function, path, default)
            except ManybridgeError as error:
                if error.code != ErrorCode.CONFLICT:
                    raise
        return self._try_change(function, path, default)

    def _try_change(self, function: Callable[[Any], Any], path: Path, default: Any) -> Versioned:
        seen = self.read(path, default)
        return self.compare_and_set(path, function(seen.value), version=seen.version)

    def delete(self) -> None:
        """Delete the document."""
        self.adapter.ml.delete_resource(self.adapter.bridge, self.id, **self.adapter._options)

    def _apply(self, op: str, path: Path, **inputs: Any) -> Versioned:
        asked = {"op": op, "path": keys_of(path), **inputs}
        found = self.adapter.ml.execute_resource(self.adapter.bridge, self.id, asked, **self.adapter._options)
        return Versioned(found["value"], found["version"])

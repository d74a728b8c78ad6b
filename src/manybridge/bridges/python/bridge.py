"""`PythonBridge`: functions, objects and shared state of plain Python, as commands and resources.

Order of a call: the target is resolved against the allow list, references in the arguments become objects, the function
runs (and is awaited if need be), and the result goes out by value or by reference. `common/allow.py` says what callers
can reach, `objects.py` how long a reference lives, `values.py` what goes by value.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, ClassVar

from manybridge.bridge import Bridge, BridgeError, Context, command
from manybridge.bridges.common.allow import AllowList, split_path

from .awaiting import LoopThread
from .evaluate import evaluate
from .execute import CodeRunner, Request
from .objects import ObjectStore
from .options import PythonOptions, load_paths, read_options
from .resources import ObjectResource, StateResource
from .values import incoming, outgoing, reference_id


class PythonBridge(Bridge):
    """Owns the allow list, the object store and the event loop of one worker."""

    name: ClassVar[str] = "python"
    capabilities: ClassVar[tuple[str, ...]] = ("functions", "objects", "state", "code", "streaming")
    zygote_safe: ClassVar[bool] = True

    Object = ObjectResource
    State = StateResource

    def setup(self, options: dict[str, Any]) -> None:
        """Reads the options and imports the team's own files.

        Raises:
            BridgeError: `config_error` or `setup_failed`.
        """
        self.options: PythonOptions = read_options(options)
        self.allow = AllowList(self.options.allow)
        self.objects = ObjectStore(self.options.max_objects, self.options.ttl_seconds)
        self.loop = LoopThread()
        self.code = CodeRunner(self.loop)
        load_paths(self.options.paths, self.allow)

    def close(self) -> None:
        """Forgets every object and every variable, and stops the event loop."""
        self.objects.clear()
        self.code.close()
        self.loop.close()

    def cleanup(self, session_id: str | None) -> dict[str, Any]:
        """Forgets the session's objects and namespaces; without a session, all of them."""
        released = self.objects.clear() if session_id is None else self.objects.release_owned_by(session_id)
        return {"objects_released": released, "namespaces_forgotten": self.code.namespaces.forget_session(session_id)}

    def stats(self) -> dict[str, Any]:
        """How many objects and namespaces live, and whether code may run."""
        return {
            "objects": len(self.objects),
            "max_objects": self.objects.max_objects,
            "namespaces": len(self.code.namespaces),
            "code_allowed": self._code_allowed,
        }

    @property
    def _code_allowed(self) -> bool:
        return self.worker.sandbox == "none"

    # -- commands ----------------------------------------------------------------------------------------------------

    @command
    def call(
        self,
        target: str,
        args: list[Any] = [],  # noqa: B006  # the default is part of the schema and never changed
        kwargs: dict[str, Any] = {},  # noqa: B006
        store: bool = False,
        ttl_seconds: float | None = None,
        *,
        ctx: Context,
    ) -> Any:
        """Calls an allowed function, class or method, `module:name` or `module.name`, and returns its result."""
        function = self.allow.resolve(target)
        return self._outgoing(self.run(function, target, args, kwargs, ctx), ctx, store, ttl_seconds)

    @command
    def method(
        self,
        object: str | dict[str, Any],  # the name on the wire
        method: str,
        args: list[Any] = [],  # noqa: B006
        kwargs: dict[str, Any] = {},  # noqa: B006
        store: bool = False,
        ttl_seconds: float | None = None,
        *,
        ctx: Context,
    ) -> Any:
        """Calls a public method of an object that is held by reference."""
        function = self.allow.walk(self._object(object, ctx), split_path(method))
        return self._outgoing(self.run(function, method, args, kwargs, ctx), ctx, store, ttl_seconds)

    @command
    def attribute(
        self,
        name: str,
        object: str | dict[str, Any] | None = None,  # the name on the wire
        store: bool = False,
        ttl_seconds: float | None = None,
        *,
        ctx: Context,
    ) -> Any:
        """Reads a public attribute of an object; without an object, of an allowed module (`module:NAME`)."""
        if object is None:
            value = self.allow.resolve(name)
        else:
            value = self.allow.walk(self._object(object, ctx), split_path(name))
        return self._outgoing(value, ctx, store, ttl_seconds)

    @command
    def iterate(
        self,
        target: str | None = None,
        object: str | dict[str, Any] | None = None,  # the name on the wire
        args: list[Any] = [],  # noqa: B006
        kwargs: dict[str, Any] = {},  # noqa: B006
        limit: int | None = None,
        collect: bool = False,
        *,
        ctx: Context,
    ) -> Generator[Any, None, dict[str, Any]]:
        """Streams the items of what a function returns, or of an object; `collect` puts them into the result too.

        An iterator that is held by reference goes on where it stopped, so `limit` reads it in parts.
        """
        items: list[Any] = []
        count = 0
        for item in self._items(self._source(target, object, args, kwargs, ctx), limit, ctx):
            count += 1
            chunk = self._outgoing(item, ctx)
            if collect:
                items.append(chunk)
            yield chunk
        return {"count": count, "items": items} if collect else {"count": count}

    @command
    def evaluate(
        self,
        expression: str,
        names: dict[str, Any] = {},  # noqa: B006
        store: bool = False,
        ttl_seconds: float | None = None,
        *,
        ctx: Context,
    ) -> Any:
        """Evaluates one expression over `names`, the allowed modules and harmless builtins. Off unless configured."""
        if not self.options.evaluate:
            raise BridgeError(
                "permission_denied",
                "python:evaluate is off: an expression runs with all the rights of the worker. If every caller is "
                "trusted, turn it on with options = { evaluate = true } in this bridge's configuration",
                details={"option": "evaluate"},
            )
        bound = incoming(names, self.objects, ctx.session_id)
        value = self.loop.finish(evaluate(expression, bound, self.allow), ctx.check)
        return self._outgoing(value, ctx, store, ttl_seconds)

    @command
    def execute(
        self,
        code: str,
        variables: dict[str, Any] = {},  # noqa: B006
        result: str | None = None,
        namespace: str | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Runs code and returns `{result, stdout, stderr, dropped_bytes, seconds}`. Off unless `sandbox = "none"`.

        The result is the variable that `result` names, else the value of a last expression. Variables live on under
        `namespace` where one is given. What the code prints is streamed as `{"stream", "text"}`.
        """
        if not self._code_allowed:
            raise BridgeError(
                "permission_denied",
                "python:execute is off: code runs with all the rights of the worker, and this version has no sandbox. "
                'If every caller is trusted, set sandbox = "none" in the configuration of this bridge '
                "(--sandbox none for a worker that is started by hand)",
                details={"key": "sandbox", "found": self.worker.sandbox},
            )
        bound = incoming(variables, self.objects, ctx.session_id)
        ran = self.code.run(Request(code, bound, result, namespace, self.options.max_output_bytes), ctx)
        return {**ran, "result": self._outgoing(ran["result"], ctx)}

    @command
    def forget(self, namespace: str, *, ctx: Context) -> dict[str, Any]:
        """Forgets the variables of a namespace."""
        return {"namespace": namespace, "forgotten": self.code.namespaces.forget(ctx.session_id, namespace)}

    @command
    def release(self, object: str | dict[str, Any], *, ctx: Context) -> dict[str, Any]:  # as on the wire
        """Forgets an object before it expires."""
        object_id = reference_id(object)
        self.objects.release(object_id, ctx.session_id)
        return {"object": object_id, "released": True}

    @command("objects")
    def list_objects(self, *, ctx: Context) -> dict[str, Any]:
        """Lists the objects that this session holds, least recently used first."""
        held = self.objects.owned_by(ctx.session_id)
        return {"objects": held, "total_count": len(held), "max_objects": self.objects.max_objects}

    # -- shared with the resource types ------------------------------------------------------------------------------

    def run(self, function: Any, name: str, args: list[Any], kwargs: dict[str, Any], ctx: Context) -> Any:
        """Calls `function` with references resolved, fills a parameter annotated `Context`, awaits an awaitable.

        Raises:
            BridgeError: `invalid_argument` if it is not callable or the arguments do not fit its signature.
        """
        if not callable(function):
            raise BridgeError(
                "invalid_argument",
                f"{name} is {type(function).__name__}, which can't be called; python:attribute reads it",
                details={"argument": "target", "found": type(function).__name__},
            )
        positional = incoming(args, self.objects, ctx.session_id)
        named = incoming(kwargs, self.objects, ctx.session_id)
        _fit(function, name, positional, named, ctx)
        return self.loop.finish(function(*positional, **named), ctx.check)

    def _object(self, reference: str | dict[str, Any], ctx: Context) -> Any:
        return self.objects.get(reference_id(reference), ctx.session_id)

    def _outgoing(self, value: Any, ctx: Context, store: bool = False, ttl: float | None = None) -> Any:
        if ttl is not None and ttl <= 0:
            raise BridgeError(
                "invalid_argument",
                f"ttl_seconds: expected a number above 0, found {ttl:g}",
                details={"argument": "ttl_seconds"},
            )
        return outgoing(value, self.objects, ctx.session_id, store=store, ttl=ttl)

    def _source(
        self,
        target: str | None,
        reference: str | dict[str, Any] | None,
        args: list[Any],
        kwargs: dict[str, Any],
        ctx: Context,
    ) -> Any:
        if target is not None and reference is None:
            return self.run(self.allow.resolve(target), target, args, kwargs, ctx)
        if reference is not None and target is None:
            return self._object(reference, ctx)
        raise BridgeError(
            "invalid_argument", "give either target or object, not both or neither", details={"argument": "target"}
        )

    def _items(self, source: Any, limit: int | None, ctx: Context) -> Iterator[Any]:
        """At most `limit` items; the next one is not asked for, so that a held iterator loses none."""
        if limit is not None and limit <= 0:
            return
        for count, item in enumerate(self._iterable(source, ctx), start=1):
            ctx.check()
            yield item
            if count == limit:
                return

    def _iterable(self, source: Any, ctx: Context) -> Iterable[Any]:
        if hasattr(source, "__aiter__"):
            return self.loop.iterate(source.__aiter__(), ctx.check)
        try:
            iterator: Iterator[Any] = iter(source)
            return iterator
        except TypeError as exc:
            raise BridgeError(
                "invalid_argument",
                f"{type(source).__name__} can't be iterated over",
                details={"found": type(source).__name__},
            ) from exc


def _fit(function: Callable[..., Any], name: str, positional: list[Any], named: dict[str, Any], ctx: Context) -> None:
    """Adds `ctx` where the function declares it, and checks the arguments where Python knows the signature."""
    import inspect  # not before the first call: it is a good part of a small worker's start

    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # many functions in C tell no signature; they check their arguments themselves
        return
    for parameter in signature.parameters.values():
        if parameter.annotation in (Context, "Context") and parameter.kind is not parameter.POSITIONAL_ONLY:
            named.setdefault(parameter.name, ctx)
    try:
        signature.bind(*positional, **named)
    except TypeError as exc:
        raise BridgeError(
            "invalid_argument",
            f"{name}{signature}: {exc}",
            details={"argument": "args", "signature": str(signature)},
        ) from exc

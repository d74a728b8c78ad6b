"""The resource types of the `python` bridge: `object`, made again from its recipe, and `state`, restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manybridge.bridge import BridgeError, Context, resource
from manybridge.bridges.common.allow import split_path

from .state import Operation, StateDocument
from .values import contains_reference, outgoing

if TYPE_CHECKING:
    from .bridge import PythonBridge


@resource("object", policy="recreate")
class ObjectResource:
    """An instance of an allowed class (or what an allowed function returns), made again when its worker dies."""

    bridge: PythonBridge

    def create(
        self,
        target: str,
        args: list[Any] = [],  # noqa: B006  # the default is part of the schema and never changed
        kwargs: dict[str, Any] = {},  # noqa: B006
        *,
        ctx: Context,
    ) -> None:
        """Calls `target` with the arguments and keeps what it returns."""
        if contains_reference(args) or contains_reference(kwargs):
            raise BridgeError(
                "invalid_argument",
                "a resource is made again from its config in another worker, where an object reference leads nowhere; "
                "give plain values",
                details={"argument": "args"},
            )
        self.instance = self.bridge.run(self.bridge.allow.resolve(target), target, args, kwargs, ctx)

    def execute(
        self,
        method: str | None = None,
        args: list[Any] = [],  # noqa: B006
        kwargs: dict[str, Any] = {},  # noqa: B006
        store: bool = False,
        *,
        ctx: Context,
    ) -> Any:
        """Calls a public method of the instance; without `method`, the instance itself."""
        allow = self.bridge.allow
        function = self.instance if method is None else allow.walk(self.instance, split_path(method))
        result = self.bridge.run(function, method or type(self.instance).__name__, args, kwargs, ctx)
        return outgoing(result, self.bridge.objects, ctx.session_id, store=store)

    def close(self) -> None:
        """Lets go of the instance."""
        self.instance = None


@resource("state", policy="restore")
class StateResource:
    """A JSON document with versions and compare-and-set, restored from its last snapshot when its worker dies."""

    def create(self, initial: dict[str, Any] = {}) -> None:  # noqa: B006
        """Starts from `initial`, at version 0."""
        self.document = StateDocument(initial)

    def execute(
        self,
        op: Operation,
        path: str | list[str] = "",
        value: Any = None,
        expected: Any = None,
        version: int | None = None,
        by: int | float = 1,  # noqa: PYI041  # not the same here: a whole number stays one
        default: Any = None,
    ) -> dict[str, Any]:
        """Runs one operation at `path` (`"a.b"` or `["a", "b"]`); code `conflict` when a compare-and-set lost."""
        return self.document.apply(op, path, value=value, expected=expected, version=version, by=by, default=default)

    def snapshot(self) -> dict[str, Any]:
        """The document and its version."""
        return {"document": self.document.document, "version": self.document.version}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes the place of `create` from a snapshot."""
        self.document = StateDocument(state["document"], state["version"])

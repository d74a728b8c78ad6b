"""A bridge class becomes a spec, or an error that says what to write instead."""

# ruff: noqa: D102  # handlers of sample bridges

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from manybridge.bridge import (
    Bridge,
    BridgeDeclarationError,
    BridgeError,
    Context,
    command,
    compile_bridge,
    resource,
)


class SampleBridge(Bridge):
    """A bridge with one of everything."""

    name = "sample"
    version = "1.2"
    capabilities = ("training", "prediction")

    @dataclass
    class Options:
        depth: int = 1

    @command
    def bare(self, a: int) -> int:
        """Bare.

        More text that is not shown.
        """
        return a + 1

    @command("renamed", description="Described.", idempotent=True)
    def method(self, options: Options, ctx: Context) -> dict[str, Any]:
        return {"depth": options.depth, "call": ctx.call_id}

    @command("open", args={"type": "object", "properties": {"x": {"type": "number"}}}, any_args=True)
    def opened(self, **values: Any) -> dict[str, Any]:
        return values

    @command
    @staticmethod
    def static(a: int) -> int:
        return a

    @command
    @classmethod
    def of_class(cls, a: int) -> str:
        return f"{cls.name}{a}"

    @command
    def stream(self, n: int) -> Iterator[int]:
        yield from range(n)

    @resource("model")
    class Model:
        """A model."""

        id: str
        type: str
        session_id: str | None
        bridge: SampleBridge

        def __init__(self) -> None:
            self.born_as = f"{self.type}/{self.id}"

        def create(self, config: dict[str, Any]) -> None:
            self.config = config

        def execute(self, x: float, *, ctx: Context) -> dict[str, Any]:
            """Predict."""
            return {"y": x * 2, "in": ctx.session_id}

    @resource("run", policy="pinned", description="One run.")
    class Run:
        def create(self, options: SampleBridge.Options | None = None) -> None: ...

        def execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
            return inputs

    @resource("memory")
    class Memory:
        def create(self, size: int = 1) -> None: ...

        def execute(self) -> None: ...

        def snapshot(self) -> int:
            return 1

        def restore(self, state: int) -> None: ...


def test_commands_are_bound_to_the_bridge_that_is_asked() -> None:
    """`bridge.spec` is ready to call: validate, then the function with what validation returned."""
    bridge = SampleBridge()
    results = {
        name: bridge.spec.commands[name].function(**bridge.spec.commands[name].validate({"a": 3}))
        for name in ("bare", "static", "of_class", "open")
    }

    assert results == {"bare": 4, "static": 3, "of_class": "sample3", "open": {"a": 3}}


def test_a_class_can_be_compiled_without_an_object_of_it() -> None:
    """Documents about a bridge need no instance, and compiling is done once per class."""
    spec = compile_bridge(SampleBridge)

    assert list(spec.commands) == ["bare", "renamed", "open", "static", "of_class", "stream"]
    assert spec is compile_bridge(SampleBridge)
    assert spec.commands["bare"].function(SampleBridge(), a=1) == 2


def test_the_capabilities_document_describes_everything() -> None:
    """`spec.describe()` is the result of `common:capabilities`."""
    document = SampleBridge().spec.describe()

    assert document["framework"] == "sample"
    assert document["version"] == "1.2"
    assert document["capabilities"] == ["training", "prediction"]
    assert document["commands"]["sample:bare"] == {
        "description": "Bare.",
        "args": {
            "type": "object",
            "properties": {"a": {"type": "integer"}},
            "required": ["a"],
            "additionalProperties": False,
        },
        "result": {"type": "integer"},
        "streaming": False,
        "idempotent": False,
    }
    assert document["commands"]["sample:renamed"]["description"] == "Described."
    assert document["commands"]["sample:renamed"]["idempotent"] is True
    assert document["commands"]["sample:open"]["args"] == {
        "type": "object",
        "properties": {"x": {"type": "number"}},
    }
    streaming = [name for name, entry in document["commands"].items() if entry["streaming"]]
    assert streaming == ["sample:renamed", "sample:stream"]
    assert document["resources"]["model"]["config"] == {"type": "object"}
    assert document["resources"]["model"]["inputs"]["required"] == ["x"]
    assert document["resources"]["model"]["streaming"] is True
    assert document["resources"]["run"]["description"] == "One run."
    policies = {name: entry["policy"] for name, entry in document["resources"].items()}
    assert policies == {"model": "recreate", "run": "pinned", "memory": "restore"}


def test_a_worker_may_serve_a_bridge_under_another_name() -> None:
    """`--name` of a worker shows in the document."""
    document = compile_bridge(SampleBridge).describe("other")

    assert document["framework"] == "other"
    assert "other:bare" in document["commands"]


def test_a_resource_knows_who_it_is_before_it_is_created() -> None:
    """`bridge`, `id`, `type` and `session_id` are there in `__init__` already."""
    bridge = SampleBridge()
    kind = bridge.spec.resources["model"]
    model = kind.new(bridge, "m1", "s1")
    kind.create.bind(model).function(**kind.create.validate({"depth": 3}))

    assert (bridge, "m1", "model", "s1", "model/m1") == (
        model.bridge, model.id, model.type, model.session_id, model.born_as,
    )  # fmt: skip
    assert model.config == {"depth": 3}
    assert kind.execute.wants_context == "ctx"
    assert kind.execute.function(model, ctx=Context.detached(session_id="s1"), **kind.execute.validate({"x": 2})) == {
        "y": 4.0,
        "in": "s1",
    }


def test_errors_of_a_resources_config_name_the_operation() -> None:
    """The caller learns which of the two methods refused."""
    kind = compile_bridge(SampleBridge).resources["memory"]

    with pytest.raises(BridgeError) as caught:
        kind.create.validate({"sizes": 3})

    assert caught.value.message == (
        "Invalid arguments for create sample:memory: sizes: unknown argument (did you mean 'size'?). It takes size."
    )


def test_a_subclass_inherits_overrides_and_withdraws_commands() -> None:
    """Overriding needs no second decorator; None withdraws."""

    class Derived(SampleBridge):
        name = "derived"
        opened = None  # type: ignore[assignment]  # withdrawn

        def bare(self, a: int, b: int = 0) -> int:
            return a + b

        class Model(SampleBridge.Model):
            """A better model."""

    spec = Derived().spec

    assert list(spec.commands) == ["bare", "renamed", "static", "of_class", "stream"]
    assert spec.commands["bare"].function(**spec.commands["bare"].validate({"a": 1, "b": 2})) == 3
    assert spec.resources["model"].description == "A better model."
    assert "open" in compile_bridge(SampleBridge).commands


def _handler(name: str, **options: Any) -> Any:
    return command(name, **options)(lambda self, a: a)


def _resource(**body: Any) -> Any:
    methods = {"create": lambda self: None, "execute": lambda self: None}
    return resource("model", policy=body.pop("policy", None))(type("Model", (), {**methods, **body}))


async def _async_hook(self: Any, *_: Any) -> None:
    """A hook that nobody would await."""


def _yielding_hook(self: Any, *_: Any) -> Iterator[None]:
    """A hook that nobody would iterate."""
    yield


BAD_BRIDGES: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ['WrongBridge: it has no name; write `name = "wrong"` in the class']),
    ({"name": "Wrong"}, ["the name 'Wrong' is not allowed", "[a-z][a-z0-9_-]"]),
    ({"name": "a:b"}, ["the name 'a:b' is not allowed"]),
    ({"name": 3}, ["the name 3 is not allowed"]),
    ({"name": "common"}, ["taken by manybridge itself"]),
    ({"capabilities": "training"}, ['capabilities must be a tuple of strings, for example ("training",)']),
    ({"required_modules": ["a"]}, ["required_modules must be a tuple of strings"]),
    ({"version": 1}, ["version must be a string"]),
    ({"max_concurrency": 0}, ["max_concurrency must be an integer from 1 on, not 0"]),
    ({"max_concurrency": True}, ["max_concurrency must be an integer from 1 on, not True"]),
    ({"dialect": "erlang"}, ['dialect must be "native" or "dspex"']),
    ({"a": _handler("x"), "b": command("x")(lambda self: 1)}, ["a and b both declare the command 'x'"]),
    ({"a": _handler("bad name")}, ["WrongBridge.a: the name 'bad name' is not allowed"]),
    ({"_hidden": command(lambda self: 1)}, ["WrongBridge._hidden: the name '<lambda>' is not allowed"]),
    ({"a": command("x")(lambda self, *rest: rest)}, ["WrongBridge.a: *rest can't be called by name"]),
    ({"stats": command("stats")(lambda self: {})}, ["`stats` is a method of Bridge itself", '@command("stats")']),
    ({"a": _handler("x", args={"x": int})}, ['args must be the JSON Schema of an object, with "type"']),
    ({"a": _handler("x", any_args=True)}, ["any_args=True needs a **kwargs parameter"]),
    ({"M": _resource(create=None)}, ["Model: a resource needs a method `def create(self, ...)`"]),
    ({"M": _resource(execute=None)}, ["Model: a resource needs a method `def execute(self, ...)`"]),
    ({"M": _resource(create=lambda self, *a: None)}, ["Model.create: *a can't be called by name"]),
    ({"M": _resource(snapshot=lambda self: 1)}, ["it has `snapshot` but no `restore`; write both, or neither"]),
    ({"M": _resource(restore=lambda self, state: 1)}, ["it has `restore` but no `snapshot`"]),
    ({"M": _resource(policy="restore")}, ["policy 'restore' needs the methods `snapshot(self)`"]),
    ({"setup": _async_hook}, ["WrongBridge: `setup` must be a plain function", "would never run"]),
    ({"stats": _yielding_hook}, ["`stats` must be a plain function"]),
    ({"preload": classmethod(_async_hook)}, ["`preload` must be a plain function"]),
    (
        {"M": _resource(snapshot=_async_hook, restore=lambda self, state: None)},
        ["Model: `snapshot` must be a plain function"],
    ),
    ({"M": _resource(close=_async_hook)}, ["Model: `close` must be a plain function"]),
    ({"M": _resource(policy="never")}, ["policy 'never' is not one of recreate, restore, pinned"]),
    (
        {"M": _resource(__init__=lambda self, size: None)},
        ["__init__ is called without", "take size in `create`"],
    ),
    ({"M": _resource(), "N": _resource()}, ["Model and N both declare the resource type 'model'"]),
]


@pytest.mark.parametrize(("body", "words"), BAD_BRIDGES, ids=lambda part: str(part)[:50])
def test_a_bridge_that_cannot_be_exposed_is_refused_with_advice(body: dict[str, Any], words: list[str]) -> None:
    """Each declaration error names the place and what to write instead."""
    cls = type("WrongBridge", (Bridge,), {"name": "wrong", **body} if body else {})

    with pytest.raises(BridgeDeclarationError) as caught:
        compile_bridge(cls)

    for word in words:
        assert word in str(caught.value)


def test_a_resource_decorator_without_a_name_says_what_to_write() -> None:
    """`@resource` needs the type's name, unlike `@command`."""
    with pytest.raises(BridgeDeclarationError, match="write @resource\\('model'\\) above the class"):
        resource(type("Model", (), {}))  # type: ignore[arg-type]  # the mistake under test


def test_a_decorated_handler_can_be_called_directly() -> None:
    """Decorators leave the method as it is, so a bridge is tested without a worker."""
    assert SampleBridge().bare(1) == 2


def test_a_bridge_with_its_own_init_has_its_spec_all_the_same() -> None:
    """Authors override `__init__` and forget to call the base's."""

    class Careless(Bridge):
        name: ClassVar[str] = "careless"

        def __init__(self) -> None:
            self.ready = True

        @command
        def ask(self) -> bool:
            return self.ready

    assert Careless().spec.commands["ask"].function() is True


def test_a_command_that_changes_a_resource_names_an_argument_that_it_has() -> None:
    """A misspelt name would mean that nothing is ever kept."""

    class Right(Bridge):
        name: ClassVar[str] = "right"

        @command(changes="box")
        def paint(self, box: str) -> None: ...

    class Wrong(Bridge):
        name: ClassVar[str] = "wrong"

        @command(changes="bix")
        def paint(self, box: str) -> None: ...

    assert compile_bridge(Right).commands["paint"].changes == "box"
    with pytest.raises(BridgeDeclarationError, match="changes names an argument that it does not have: 'bix'"):
        compile_bridge(Wrong)

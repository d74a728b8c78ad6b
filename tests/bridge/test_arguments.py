"""Handlers' signatures become schemas and validators."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict

import pytest

from manybridge.bridge import BridgeDeclarationError, Context
from manybridge.bridge.problems import MAX_PROBLEMS
from manybridge.bridge.signatures import handler_kind
from tests.bridge.checks import arguments_of, refusal


@dataclass
class Layer:
    units: int


class Config(TypedDict):
    layers: list[Layer]


def train(dataset: str, epochs: int = 3, *, rate: float = 0.1, ctx: Context) -> dict[str, Any]:
    """Train."""
    return {"dataset": dataset, "epochs": epochs, "rate": rate, "call": ctx.call_id}


def extras(a: int, **others: int) -> None:
    """Take anything that is a number."""


def test_arguments_become_keywords() -> None:
    """What was sent is passed on by name; defaults stay Python's business."""
    validate = arguments_of(train).validate

    assert validate({"dataset": "d"}) == {"dataset": "d"}
    assert validate({"dataset": "d", "rate": 1, "epochs": 5.0}) == {"dataset": "d", "rate": 1.0, "epochs": 5}


def test_the_schema_has_defaults_and_hides_the_context() -> None:
    """The context is no argument of the caller."""
    arguments = arguments_of(train)

    assert arguments.wants_context == "ctx"
    assert arguments.schema == {
        "type": "object",
        "properties": {
            "dataset": {"type": "string"},
            "epochs": {"type": "integer", "default": 3},
            "rate": {"type": "number", "default": 0.1},
        },
        "required": ["dataset"],
        "additionalProperties": False,
    }
    assert arguments.result_schema == {"type": "object"}


def test_every_problem_of_a_call_is_reported_at_once() -> None:
    """One error tells all: wrong, missing and unknown arguments, the known ones, and what was probably meant."""
    error = refusal(train, {"epoch": 3, "rate": "fast", "epochs": True, "zzz": None})

    assert error.details == {
        "problems": [
            {"argument": "epoch", "expected": "a known argument", "found": "integer 3", "closest": "epochs"},
            {"argument": "rate", "expected": "number", "found": "string of 4 characters"},
            {"argument": "epochs", "expected": "integer", "found": "boolean true"},
            {"argument": "zzz", "expected": "a known argument", "found": "null"},
            {"argument": "dataset", "expected": "string", "found": "nothing"},
        ],
        "known": ["dataset", "epochs", "rate"],
    }
    assert error.message == (
        "Invalid arguments for test:handler: epoch: unknown argument (did you mean 'epochs'?); rate: expected number, "
        "found string of 4 characters; epochs: expected integer, found boolean true; zzz: unknown argument; dataset: "
        "missing, expected string. It takes dataset, epochs, rate."
    )


@pytest.mark.parametrize("written", ["EPOCHS", "Epochs", "epochS", "Epoch"])
def test_an_argument_in_another_case_is_recognised_in_the_error(written: str) -> None:
    """It stays unknown; the error says which one is meant."""
    error = refusal(train, {"dataset": "d", written: 3})

    assert f"{written}: unknown argument (did you mean 'epochs'?)" in error.message


def test_an_error_never_repeats_a_string_value() -> None:
    """A value may be a key; errors end up in logs."""
    secret = "sk-very-secret"

    error = refusal(train, {"dataset": [secret], "epochs": secret, "rate": {secret: secret}, "key": secret})

    assert secret not in error.message
    assert secret not in repr(error.details)


def test_an_error_stays_small_whatever_was_sent() -> None:
    """Neither a huge name nor a huge number of arguments makes a huge error."""
    error = refusal(train, {f"{'x' * 10_000}{n}": n for n in range(1_000)})

    assert len(error.details["problems"]) == MAX_PROBLEMS
    assert len(repr(error.details)) < 10_000
    assert "and more" in error.message


def test_arguments_that_are_no_object_are_refused() -> None:
    """The wire's args must be an object by the time they are validated."""
    args: Any
    for args in (None, [], "text", 3):
        assert refusal(train, args).details["problems"][0]["expected"] == "object"


def test_a_caller_cannot_pass_the_context_or_the_instance() -> None:
    """`ctx` and `self` are unknown to callers even where `**kwargs` would take them."""

    class Handlers:
        def take(self, *, ctx: Context, **others: Any) -> None: ...

    arguments = arguments_of(Handlers().take)

    assert arguments.validate({"a": 1}) == {"a": 1}
    for name in ("self", "ctx"):
        assert refusal(Handlers().take, {name: 1}).details["problems"][0]["argument"] == name
    assert refusal(train, {"dataset": "d", "ctx": None}).details["problems"][0]["argument"] == "ctx"


def test_keyword_arguments_take_what_their_annotation_allows() -> None:
    """Extra arguments are checked against the annotation of `**kwargs`, and the schema says so."""
    arguments = arguments_of(extras)

    assert arguments.validate({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert arguments.schema["additionalProperties"] == {"type": "integer"}
    assert refusal(extras, {"a": 1, "b": "x"}).details["problems"][0]["argument"] == "b"
    assert "It takes" not in refusal(extras, {"a": "x"}).message


def test_a_handler_without_annotations_takes_any_value() -> None:
    """An annotation is an offer, not a duty."""

    def handler(a, b=2, **rest):  # type: ignore[no-untyped-def]  # the point of this test
        return a, b, rest

    arguments = arguments_of(handler)

    assert arguments.validate({"a": {}, "c": []}) == {"a": {}, "c": []}
    assert arguments.schema == {
        "type": "object",
        "properties": {"a": {}, "b": {"default": 2}},
        "required": ["a"],
        "additionalProperties": True,
    }


def test_a_single_config_parameter_receives_everything() -> None:
    """`create(config: dict)` is the whole object, also with a type that says more; paths start inside it."""

    def plain(config: dict[str, Any]) -> None: ...
    def typed(config: Config, ctx: Context) -> None: ...
    def other(config: str) -> None: ...
    def two(config: dict[str, Any], more: int = 0) -> None: ...

    assert arguments_of(plain, whole="config").validate({"a": 1}) == {"config": {"a": 1}}
    assert arguments_of(plain).validate({"config": {"a": 1}}) == {"config": {"a": 1}}
    assert {"config": {"layers": [Layer(3)]}} == arguments_of(typed, whole="config").validate(
        {"layers": [{"units": 3}]}
    )
    assert arguments_of(other, whole="config").validate({"config": "x"}) == {"config": "x"}
    assert arguments_of(two, whole="config").validate({"config": {}}) == {"config": {}}
    error = refusal(typed, {"layers": [{"units": 1}, {"units": "x"}]}, whole="config")
    assert error.details["problems"][0]["argument"] == "layers[1].units"
    assert error.details["known"] == ["layers"]
    assert "It takes" not in refusal(plain, 3, whole="config").message
    assert arguments_of(plain, whole="config").schema == {"type": "object"}


def test_nesting_beyond_the_interpreters_stack_is_an_invalid_argument() -> None:
    """Depth is the caller's doing, so it must not look like a bug of the bridge."""

    def handler(tree: Nested) -> None: ...

    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"child": value}

    error = refusal(handler, {"tree": value})

    assert error.details["problems"][0]["found"] == "one that is nested too deeply"
    while value:  # taken apart by hand: releasing it in one go recurses in C
        value = value["child"]


@dataclass
class Nested:
    child: Nested | None = None


def test_the_context_is_found_by_name_or_by_annotation() -> None:
    """Either is enough, also as Optional."""

    def by_name(ctx): ...  # type: ignore[no-untyped-def]  # the point of this test
    def by_type(c: Context) -> None: ...
    def optional(c: Context | None = None) -> None: ...
    def none() -> None: ...

    found = [arguments_of(handler).wants_context for handler in (by_name, by_type, optional, none)]

    assert found == ["ctx", "c", "c", None]


def test_a_context_that_only_type_checkers_import_is_found_by_its_text() -> None:
    """`if TYPE_CHECKING: from manybridge.bridge import Context` is common and must work."""
    scope: dict[str, Any] = {}
    exec(  # a file of its own, in which the name does not exist
        "from __future__ import annotations\n"
        "def plain(a: int, call: Context) -> None: ...\n"
        "def quoted(a: int, call: 'bridge.Context | None' = None) -> None: ...\n"
        "def named(a: int, ctx: Anything) -> None: ...\n",
        scope,
    )

    found = [arguments_of(scope[name]).wants_context for name in ("plain", "quoted", "named")]

    assert found == ["call", "call", "ctx"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def handler(a: bytes): ...", ["parameter 'a'", "bytes", "write str (base64 text) or list[int] instead"]),
        ("def handler(a: 'list[set[int]]'): ...", ["set[int] (inside list[set[int]])", "write list[...] instead"]),
        ("def handler(*items: int): ...", ["*items can't be called by name", "`items: list[...]`"]),
        ("def handler(a, /, b): ...", ["parameter 'a' is positional-only", "remove the `/`"]),
        ("def handler(a: 'Missing'): ...", ["parameter 'a'", "'Missing' is not defined", "at the top of the file"]),
        ("def handler(a: 'list['): ...", ["parameter 'a'", "is not valid"]),
        ("def handler(ctx: int): ...", ["parameter 'ctx' is for the Context, not for int"]),
        ("def handler(ctx, c: 'Context'): ...", ["ctx and c are both the Context"]),
        ("def handler(**rest: bytes): ...", ["parameter 'rest'", "bytes"]),
        ("handler = print", ["*args can't be called by name"]),
        ("handler = dict", ["its parameters can't be read"]),
    ],
)
def test_a_handler_that_cannot_be_exposed_is_refused_with_advice(source: str, words: list[str]) -> None:
    """A declaration error says what is wrong with which parameter, and what to write."""
    scope: dict[str, Any] = {}
    exec(source, scope)

    with pytest.raises(BridgeDeclarationError) as caught:
        arguments_of(scope["handler"])

    for word in words:
        assert word in str(caught.value)
    assert str(caught.value).startswith("Handler: ")


def test_any_args_needs_somewhere_to_put_them() -> None:
    """A promise to take everything is checked at declaration."""
    with pytest.raises(BridgeDeclarationError, match="needs a \\*\\*kwargs parameter"):
        arguments_of(train, any_args=True)

    assert arguments_of(extras, any_args=True).wants_context is None


class Outer:
    """Types that are defined inside a class are found through its names."""

    @dataclass
    class Inner:
        value: int

    def list(self) -> None:
        """A method that is called like a type must not hide it."""


def test_wrapped_and_partial_handlers_show_what_they_take() -> None:
    """Decorators made with functools.wraps, partials and callable objects work as handlers."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    class CallableObject:
        def __call__(self, a: Layer) -> int:
            return a.units

    assert list(arguments_of(decorated(extras)).schema["properties"]) == ["a"]
    assert arguments_of(functools.partial(train, epochs=1)).schema["required"] == ["dataset"]
    assert {"a": Layer(3)} == arguments_of(CallableObject()).validate({"a": {"units": 3}})


def test_types_of_the_function_around_are_found_if_the_handler_uses_them() -> None:
    """A local type is in reach of postponed annotations through the handler's own closure."""

    @dataclass
    class Local:
        value: int

    def handler(a: Local) -> int:
        return a.value if isinstance(a, Local) else 0

    assert {"a": Local(3)} == arguments_of(handler).validate({"a": {"value": 3}})


def plain() -> int:
    """A function."""
    return 1


def generator() -> Generator[int, None, str]:
    """A generator with a result."""
    yield 1
    return "done"


def iterator() -> Iterator[int]:
    """A generator without a declared result."""
    yield 1


async def coroutine() -> list[int]:
    """A coroutine."""
    return [1]


async def async_generator() -> AsyncIterator[int]:
    """An async generator."""
    yield 1


def unknown_result() -> bytes:
    """A result that no schema can describe."""
    return b""


def commented() -> Annotated[int, "the count"]:
    """A described result."""
    return 1


@pytest.mark.parametrize(
    ("function", "kind", "result"),
    [
        (plain, "function", {"type": "integer"}),
        (generator, "generator", {"type": "string"}),
        (iterator, "generator", None),
        (coroutine, "coroutine", {"type": "array", "items": {"type": "integer"}}),
        (async_generator, "async_generator", None),
        (unknown_result, "function", None),
        (commented, "function", {"type": "integer", "description": "the count"}),
        (functools.partial(generator), "generator", {"type": "string"}),
    ],
)
def test_a_handlers_kind_and_result_are_read_from_its_code(
    function: Callable[..., Any], kind: str, result: dict[str, Any] | None
) -> None:
    """The runtime needs the kind; the result's schema is there where the annotation says something."""
    assert kind == handler_kind(function)
    if not isinstance(function, functools.partial):
        assert result == arguments_of(function).result_schema

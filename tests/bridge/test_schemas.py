"""Annotations become schemas, and values are checked against them."""

from __future__ import annotations

import collections.abc
import sys
import typing
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from time import process_time
from typing import Annotated, Any, Literal, NewType, NotRequired, Optional, Required, TypedDict, Union

import pytest

from manybridge.bridge.nodes import UnsupportedAnnotationError
from manybridge.bridge.problems import MAX_PROBLEMS
from manybridge.bridge.schemas import TypeCompiler, to_json, with_default
from tests.bridge.checks import accepts, check, node_of


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Bad(Enum):
    LIST = [1]  # noqa: RUF012  # a value that JSON can't compare, on purpose


@dataclass
class Layer:
    """One layer."""

    units: int
    activation: str = "relu"


@dataclass
class Network:
    layers: list[Layer]
    tags: list[str] = field(default_factory=list)
    note: str | None = None
    computed: int = field(init=False, default=0)


@dataclass
class Tree:
    value: int
    children: list[Tree] = field(default_factory=list)


@dataclass
class Positive:
    value: int

    def __post_init__(self) -> None:
        if self.value < 1:
            raise ValueError("value must be positive")


@dataclass
class Number:
    kind: Literal["number"]
    value: int


@dataclass
class Sum:
    kind: Literal["sum"]
    left: Sum | Number


@dataclass
class Product:
    kind: Literal["product"]
    left: Product | Sum | Number | Product2


@dataclass
class Product2:
    left: Product | Product2
    kind: Literal["product2"]


class Point(TypedDict):
    x: float
    y: float
    label: NotRequired[str]


class Loose(TypedDict, total=False):
    a: int
    b: Required[Annotated[str, "the b"]]


UserId = NewType("UserId", int)

ACCEPTED: list[tuple[Any, Any, Any]] = [
    (str, "text", "text"),
    (int, 3, 3),
    (int, 3.0, 3),
    (float, 3, 3.0),
    (float, 1.5, 1.5),
    (float, 10**400, 10**400),
    (bool, True, True),
    (None, None, None),
    (Any, {"a": [1]}, {"a": [1]}),
    (object, "x", "x"),
    (list, [1, "a"], [1, "a"]),
    (list[int], [], []),
    (list[int], [1, 2], [1, 2]),
    (list[float], [1, 2.5], [1.0, 2.5]),
    (list[Any], [None, {}], [None, {}]),
    (list[list[int]], [[1], []], [[1], []]),
    (dict, {"a": 1}, {"a": 1}),
    (dict[str, int], {"a": 1}, {"a": 1}),
    (dict[str, Any], {"a": None}, {"a": None}),
    (dict[str, float], {"a": 1}, {"a": 1.0}),
    (tuple, [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2], (1, 2)),
    (tuple[Any, ...], [1, "a"], (1, "a")),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[()], [], ()),
    (Optional[int], None, None),  # noqa: UP045  # authors write it
    (Union[int, str], "a", "a"),  # noqa: UP007
    (int | None, 3, 3),
    (float | int, 3, 3.0),
    (int | float, 3, 3),
    (int | float, 3.5, 3.5),
    (str | list[str], ["a"], ["a"]),
    (Literal["a", 1, True, None], None, None),  # noqa: PYI061  # authors write it
    (Literal["a", 1], 1, 1),
    (Colour, "red", Colour.RED),
    (Level, 2, Level.HIGH),
    (UserId, 3, 3),
    (Annotated[int, "how many"], 3, 3),
    (Annotated[int, ["not", "hashable"]], 3, 3),
    (Layer, {"units": 3}, Layer(3)),
    (Network, {"layers": [{"units": 1}]}, Network([Layer(1)])),
    (Point, {"x": 1, "y": 2.5}, {"x": 1.0, "y": 2.5}),
    (Loose, {"b": "x"}, {"b": "x"}),
    (Tree, {"value": 1, "children": [{"value": 2}]}, Tree(1, [Tree(2)])),
    (collections.abc.Sequence[int], [1], [1]),
    (collections.abc.Mapping[str, int], {"a": 1}, {"a": 1}),
    (typing.List[int], [1], [1]),  # noqa: UP006
    (typing.List, [1, "a"], [1, "a"]),  # noqa: UP006
    (typing.Dict, {"a": 1}, {"a": 1}),  # noqa: UP006
    (typing.Tuple, [1], (1,)),  # noqa: UP006
    (typing.Sequence, [1], [1]),
]


@pytest.mark.parametrize(("annotation", "value", "expected"), ACCEPTED, ids=lambda part: repr(part)[:40])
def test_a_fitting_value_reaches_the_handler_in_its_python_form(annotation: Any, value: Any, expected: Any) -> None:
    """Values that fit pass, converted only where the annotation asks for it."""
    result, problems = check(annotation, value)

    assert problems == []
    assert expected == result
    assert type(expected) is type(result)


@pytest.mark.parametrize(("annotation", "value"), [case[:2] for case in ACCEPTED], ids=lambda part: repr(part)[:40])
def test_the_schema_accepts_what_the_check_accepts(annotation: Any, value: Any) -> None:
    """Schema and check of one annotation say the same."""
    compiler = TypeCompiler()
    schema = compiler.compile(annotation).schema

    assert accepts({**schema, "$defs": compiler.definitions}, value)


REFUSED: list[tuple[Any, Any, str, str, str]] = [
    (str, 3, "it", "string", "integer 3"),
    (str, None, "it", "string", "null"),
    (int, True, "it", "integer", "boolean true"),
    (int, "3", "it", "integer", "string of 1 character"),
    (int, 3.5, "it", "integer", "number 3.5"),
    (int, float("inf"), "it", "integer", "number inf"),
    (float, False, "it", "number", "boolean false"),
    (float, "1.0", "it", "number", "string of 3 characters"),
    (bool, 1, "it", "boolean", "integer 1"),
    (None, 0, "it", "null", "integer 0"),
    (list, {}, "it", "array", "object of 0 keys"),
    (list[int], [1, "a"], "it[1]", "integer", "string of 1 character"),
    (list[int], [True], "it[0]", "integer", "boolean true"),
    (dict, [1], "it", "object", "array of 1 item"),
    (dict[str, int], {"a b": "x"}, 'it["a b"]', "integer", "string of 1 character"),
    (dict[str, dict[str, int]], {"a": {"b": None}}, "it.a.b", "integer", "null"),
    (tuple[int, str], [1], "it", "array of 2 items", "array of 1 item"),
    (tuple[int, str], [1, 2], "it[1]", "string", "integer 2"),
    (tuple[int, ...], "ab", "it", "array", "string of 2 characters"),
    (int | None, "a", "it", "integer or null", "string of 1 character"),
    (int | str | None, [], "it", "integer or string or null", "array of 0 items"),
    (str | list[int], ["a"], "it[0]", "integer", "string of 1 character"),
    (Layer | None, {"units": "x"}, "it.units", "integer", "string of 1 character"),
    (list[int] | list[str], [None], "it[0]", "integer", "null"),
    (Sum | Number, {"kind": "number", "value": "x"}, "it.value", "integer", "string of 1 character"),
    (Sum | Number, {"kind": "sum", "left": 1}, "it.left", "object", "integer 1"),
    (Literal["a", "b"], "c", "it", "one of 'a', 'b'", "string of 1 character"),
    (Literal[1], True, "it", "1", "boolean true"),
    (Literal[True], 1, "it", "True", "integer 1"),
    (Literal["a"], [], "it", "'a'", "array of 0 items"),
    (Colour, "green", "it", "one of 'red', 'blue'", "string of 5 characters"),
    (Layer, 3, "it", "object", "integer 3"),
    (Layer, {}, "it.units", "integer", "nothing"),
    (Layer, {"units": 1, "unit": 2}, "it.unit", "a known argument", "integer 2"),
    (Network, {"layers": [{"units": 1}, {"units": None}]}, "it.layers[1].units", "integer", "null"),
    (Network, {"layers": [], "computed": 1}, "it.computed", "a known argument", "integer 1"),
    (Point, {"x": 1}, "it.y", "number", "nothing"),
    (Point, {"x": 1, "y": 1, "label": 1}, "it.label", "string", "integer 1"),
    (Loose, {}, "it.b", "string", "nothing"),
    (Tree, {"value": 1, "children": [{"value": "x"}]}, "it.children[0].value", "integer", "string of 1 character"),
    (Positive, {"value": 0}, "it", "a valid Positive", "one that it refuses (ValueError: value must be positive)"),
    (int, 10**30, "", "", ""),
]


@pytest.mark.parametrize(
    ("annotation", "value", "argument", "expected", "found"),
    [case for case in REFUSED if case[2]],
    ids=lambda part: repr(part)[:40],
)
def test_a_value_that_does_not_fit_is_refused_by_its_place(
    annotation: Any, value: Any, argument: str, expected: str, found: str
) -> None:
    """A problem names the path, what was expected and what was found, in the words of JSON."""
    _, problems = check(annotation, value)

    assert [(argument, expected, found)] == [problem[:3] for problem in problems]


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (Any, {}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, bool], {"type": "object", "additionalProperties": {"type": "boolean"}}),
        (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {
            "type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [{"type": "integer"}, {"type": "string"}],
        }),
        (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, None], {"enum": [1, None]}),  # noqa: PYI061  # as above
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (Annotated[int, 5], {"type": "integer"}),
        (Network, {
            "type": "object",
            "title": "Network",
            "properties": {
                "layers": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "title": "Layer",
                        "properties": {
                            "units": {"type": "integer"},
                            "activation": {"type": "string", "default": "relu"},
                        },
                        "required": ["units"],
                        "additionalProperties": False,
                    },
                },
                "tags": {"type": "array", "items": {"type": "string"}, "default": []},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            "required": ["layers"],
            "additionalProperties": False,
        }),
        (Loose, {
            "type": "object",
            "title": "Loose",
            "properties": {"a": {"type": "integer"}, "b": {"type": "string", "description": "the b"}},
            "required": ["b"],
            "additionalProperties": False,
        }),
    ],
    ids=lambda part: repr(part)[:40],
)  # fmt: skip
def test_an_annotation_has_its_schema(annotation: Any, schema: dict[str, Any]) -> None:
    """The published schema is what a JSON Schema reader expects, defaults and descriptions included."""
    assert schema == node_of(annotation).schema


def test_a_recursive_type_refers_to_its_definition() -> None:
    """A type that contains itself is written once, under `$defs`."""
    compiler = TypeCompiler()

    assert compiler.compile(Tree).schema == {"$ref": "#/$defs/Tree"}
    assert compiler.compile(Tree).schema == {"$ref": "#/$defs/Tree"}
    children = compiler.definitions["Tree"]["properties"]["children"]
    assert children == {"type": "array", "items": {"$ref": "#/$defs/Tree"}, "default": []}


@pytest.mark.parametrize(
    ("annotation", "instead"),
    [
        (bytes, "str (base64 text) or list[int]"),
        (set[int], "list[...]"),
        (frozenset, "list[...]"),
        (datetime, "str (ISO 8601)"),
        (Decimal, "str or float"),
        (Path, "str"),
        (collections.abc.Callable[[int], int], "str (the name of a tool, for ctx.call_host)"),
        (dict[int, str], "dict[str, ...] (keys of a JSON object are strings)"),
        (Literal[b"a"], "a Literal of strings, numbers, booleans and None"),
        (Bad, "an Enum whose values are strings, numbers or booleans"),
        (typing.TypeVar("T"), "a dataclass, a TypedDict, dict[str, Any] or Any"),
        (list[list[bytes]], "str (base64 text) or list[int]"),
        (5, "a dataclass, a TypedDict, dict[str, Any] or Any"),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_an_annotation_without_a_json_form_says_what_to_write(annotation: Any, instead: str) -> None:
    """Types that JSON can't carry are refused with a replacement, also deep inside others."""
    with pytest.raises(UnsupportedAnnotationError) as caught:
        node_of(annotation)

    assert instead == caught.value.instead


@pytest.mark.parametrize("innermost", [{"kind": "number", "value": 1}, {"kind": "number", "value": "x"}, {}])
def test_unions_that_contain_themselves_cost_no_more_than_their_depth(innermost: dict[str, Any]) -> None:
    """Each part is looked at once by each branch, not once for every way to reach it."""
    value = {"kind": "product", "left": innermost}
    for _ in range(60):
        value = {"left": value, "kind": "product2"}

    begun = process_time()
    _, problems = check(Product | Product2, value)

    assert process_time() - begun < 1
    assert bool(problems) == (innermost.get("value") != 1)
    if problems:
        assert problems[0].argument.startswith("it" + ".left" * 61)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = ...` is new in Python 3.12")
def test_type_statements_are_followed_and_refused_where_they_turn_in_circles() -> None:
    """An alias means what it stands for; one that contains itself has no end to write down."""
    scope: dict[str, Any] = {}
    exec("type Plain = list[int]\ntype Endless = dict[str, Endless]", scope)

    assert node_of(scope["Plain"]).schema == {"type": "array", "items": {"type": "integer"}}
    with pytest.raises(UnsupportedAnnotationError) as caught:
        node_of(scope["Endless"])
    assert caught.value.instead == "Any, because the alias contains itself"


@pytest.mark.skipif(sys.version_info < (3, 13), reason="ReadOnly is new in Python 3.13")
def test_read_only_keys_are_keys() -> None:
    """ReadOnly speaks to type checkers alone."""
    hint = getattr(typing, "ReadOnly")[NotRequired[int]]  # noqa: B009  # unknown to the checker of Python 3.11
    schema = node_of(typing.TypedDict("Entry", {"a": hint})).schema  # type: ignore[operator]  # as above

    assert schema["properties"] == {"a": {"type": "integer"}}
    assert schema["required"] == []


def test_all_problems_of_a_value_are_reported_but_not_a_million() -> None:
    """The number of collected problems has a limit, and the check stops there."""
    _, few = check(list[int], ["a", 1, None])
    _, many = check(list[int], ["a"] * 1_000_000)

    assert [problem.argument for problem in few] == ["it[0]", "it[2]"]
    assert len(many) == MAX_PROBLEMS


def test_a_long_list_of_right_items_is_passed_on_as_it_is() -> None:
    """Exact types cost no copy and no call for each item."""
    numbers = [0.5] * 100_000

    result, problems = check(list[float], numbers)

    assert (numbers, []) == (result, problems)
    assert result is numbers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, "red"),
        ((1, 2.5, None), [1, 2.5, None]),
        ({"a": [True]}, {"a": [True]}),
        (Layer(3), {"units": 3, "activation": "relu"}),
    ],
)
def test_a_default_is_written_as_json(value: Any, expected: Any) -> None:
    """Defaults stand in the schema in their JSON form."""
    assert expected == to_json(value)


@pytest.mark.parametrize("value", [object(), float("nan"), {"a": object()}])
def test_a_default_without_a_json_form_is_left_out(value: Any) -> None:
    """A schema without the default is better than none."""
    assert with_default({"type": "string"}, value) == {"type": "string"}

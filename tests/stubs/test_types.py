"""From a JSON Schema to Python types."""

from __future__ import annotations

from typing import Any

import pytest

from manybridge.stubs.names import Names
from manybridge.stubs.types import Direction, TypeWriter

LONG = [f"choice number {number}" for number in range(9)]
NODE = {
    "type": "object",
    "title": "Node",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
    "required": ["value"],
    "additionalProperties": False,
}
POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"], "additionalProperties": False}


def written(schema: Any, direction: Direction = Direction.OUT) -> tuple[str, list[str]]:
    """The annotation of a schema, and the definitions that it needs."""
    writer = TypeWriter(Names())
    return writer.write(schema, direction, "train", "result"), writer.definitions


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({}, "Any"),
        (True, "Any"),
        ({"type": "string"}, "str"),
        ({"type": "integer", "minimum": 1}, "int"),
        ({"type": "number"}, "float"),
        ({"type": "boolean"}, "bool"),
        ({"type": "null"}, "None"),
        ({"type": ["string", "null"]}, "str | None"),
        ({"type": "string", "nullable": True}, "str | None"),
        ({"type": "surprise"}, "Any"),
        ({"type": "array"}, "list[Any]"),
        ({"type": "array", "items": {"type": "integer"}}, "list[int]"),
        ({"items": {"type": "integer"}}, "list[int]"),
        ({"type": "object"}, "dict[str, Any]"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float]"),
        ({"type": "object", "patternProperties": {"^a": {}}}, "dict[str, Any]"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "int | None"),
        ({"oneOf": [{"type": "integer"}, {"type": "integer"}]}, "int"),
        ({"anyOf": [{"type": "integer"}, {}]}, "Any"),
        ({"enum": ["a", 1, True, None]}, 'Literal["a", 1, True, None]'),
        ({"enum": ["a | b", '"]']}, 'Literal["a | b", "\\"]"]'),
        ({"const": "x"}, 'Literal["x"]'),
        ({"enum": [1.5, "a"]}, "float | str"),
        ({"enum": []}, "Any"),
        ({"$ref": "#/$defs/P", "$defs": {"P": {"type": "integer"}}}, "int"),
        ({"$ref": "#/$defs/missing"}, "Any"),
        ({"$ref": "https://elsewhere/schema"}, "Any"),
        ({"allOf": [{"type": "string"}]}, "str"),
        ({"allOf": [{"type": "string"}, {"maxLength": 3}]}, "Any"),
        ({"not": {"type": "string"}}, "Any"),
    ],
)
def test_a_schema_without_parts_is_one_annotation(schema: Any, text: str) -> None:
    """What Python's types can't say is left out, and never made narrower."""
    assert written(schema) == (text, [])


@pytest.mark.parametrize(
    ("schema", "sent", "received"),
    [
        ({"type": "array", "items": {"type": "string"}}, "list[str] | tuple[str, ...]", "list[str]"),
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "minItems": 2, "maxItems": 2},
            "tuple[str, int] | list[str | int]",
            "list[str | int]",
        ),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, "list[Any] | tuple[Any, ...]", "list[Any]"),
        ({**POINT, "additionalProperties": True}, "dict[str, Any]", "TrainResult"),
    ],
)
def test_what_is_sent_may_be_more_than_what_is_received(schema: Any, sent: str, received: str) -> None:
    """A tuple goes in, a list comes out; an object that takes further keys takes any."""
    assert written(schema, Direction.IN)[0] == sent
    assert written(schema, Direction.OUT)[0] == received


def test_an_object_with_listed_keys_is_a_typed_dict() -> None:
    """Named by its title, else by its place; parts by theirs."""
    schema = {
        "type": "object",
        "properties": {"point": POINT, "name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    assert written(schema) == (
        "TrainResult",
        [
            "class TrainResultPoint(TypedDict):\n    x: float",
            "class TrainResult(TypedDict):\n    point: NotRequired[TrainResultPoint]\n    name: str",
        ],
    )
    assert written({**POINT, "title": "Point"})[0] == "Point"


def test_keys_that_are_no_identifiers_are_written_as_texts() -> None:
    """With types in quotes, since they are evaluated."""
    schema = {"type": "object", "properties": {"max-tokens": {"type": "integer"}, "class": {"type": "array"}}}
    text, definitions = written(schema)
    assert (text, len(definitions)) == ("TrainResult", 1)
    assert '"max-tokens": "NotRequired[int]",' in definitions[0]
    assert '"class": "NotRequired[list[Any]]",' in definitions[0]
    compile(definitions[0], "<definition>", "exec")


def test_a_structure_that_contains_itself_is_named_once() -> None:
    """And an alias where it is no object."""
    assert written({"$ref": "#/$defs/Node", "$defs": {"Node": NODE}}) == (
        "Node",
        ["class Node(TypedDict):\n    value: int\n    children: NotRequired[list[Node]]"],
    )
    json = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#/$defs/Json"}}]}
    assert written({"$ref": "#/$defs/Json", "$defs": {"Json": json}}) == (
        "Json", ['Json: TypeAlias = "str | list[Json]"'],
    )  # fmt: skip
    assert written({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}) == ("A", ['A: TypeAlias = "Any"'])


def test_a_long_choice_gets_a_name() -> None:
    """Used again where the same one comes in the same place."""
    writer = TypeWriter(Names())
    texts = [writer.write({"enum": LONG}, direction, "train", "kind") for direction in Direction]
    assert texts == ["TrainKind", "TrainKind"]
    assert len(writer.definitions) == 1


def test_objects_that_are_put_together_are_one() -> None:
    """`allOf` of objects."""
    schema = {"allOf": [{**POINT, "title": "P"}, {"properties": {"y": {"type": "string"}}}], "title": "Both"}
    assert written(schema) == ("Both", ["class Both(TypedDict):\n    x: float\n    y: NotRequired[str]"])


def test_two_structures_of_one_name_stay_two() -> None:
    """The second one gets another."""
    writer = TypeWriter(Names())
    first = writer.write({**POINT, "title": "P"}, Direction.OUT, "a")
    second = writer.write({**POINT, "title": "P", "required": []}, Direction.OUT, "b")
    third = writer.write({**POINT, "title": "P"}, Direction.OUT, "c")
    assert [first, second, third] == ["P", "P_", "P"]

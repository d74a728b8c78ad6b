"""For any JSON value, schema and validator agree, and nothing but an invalid_argument comes out."""

from __future__ import annotations

from typing import Any, Literal, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manybridge.bridge import BridgeError
from manybridge.bridge.arguments import compile_arguments
from manybridge.bridge.problems import MAX_PROBLEMS, Problems
from manybridge.bridge.schemas import TypeCompiler
from manybridge.bridge.signatures import Place
from manybridge.protocol.errors import ErrorCode
from tests.bridge.checks import accepts
from tests.bridge.test_schemas import Colour, Layer, Level, Loose, Network, Point, Tree

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["red", "a", "", "relu"])
    | st.text(max_size=3)
)
keys = st.sampled_from(["a", "b", "x", "y", "label", "units", "layers", "value", "children", "tags"]) | st.text(
    max_size=2
)
json_values = st.recursive(
    scalars, lambda part: st.lists(part, max_size=4) | st.dictionaries(keys, part, max_size=4), max_leaves=12
)

SIMPLE: list[Any] = [
    str, int, float, bool, None, Any, list, dict, tuple, Literal["a", 1], Literal[True], Colour, Level, Layer, Network,
    Point, Loose, Tree,
]  # fmt: skip


def _containers(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Annotations made of others; subscripted by call, because they exist at run time only."""
    return st.one_of(
        part.map(list.__class_getitem__),
        part.map(lambda item: dict.__class_getitem__((str, item))),
        part.map(lambda item: tuple.__class_getitem__((item, ...))),
        st.tuples(part, part).map(tuple.__class_getitem__),
        st.lists(part, min_size=1, max_size=3).map(lambda parts: Union[tuple(parts)]),  # noqa: UP007  # as above
    )


types: st.SearchStrategy[Any] = st.recursive(st.sampled_from(SIMPLE), _containers, max_leaves=4)


@given(types, json_values)
def test_schema_and_check_agree(annotation: Any, value: Any) -> None:
    """The check finds a problem exactly where the schema does not accept."""
    compiler = TypeCompiler()
    node = compiler.compile(annotation)
    problems = Problems()

    node.check(value, None, problems)

    assert accepts({**node.schema, "$defs": compiler.definitions}, value) == (not problems)
    if type(value) in node.exact:
        assert not problems


@given(types, st.data())
def test_what_a_schema_describes_is_accepted(annotation: Any, data: st.DataObject) -> None:
    """Values that are built from the annotation, rather than found by chance, pass."""
    compiler = TypeCompiler()
    node = compiler.compile(annotation)
    value = data.draw(_values({**node.schema, "$defs": compiler.definitions}, 3))
    problems = Problems()

    node.check(value, None, problems)

    assert problems == []


def _values(schema: dict[str, Any], depth: int, root: dict[str, Any] | None = None) -> st.SearchStrategy[Any]:
    """Values that a schema accepts."""
    root = root or schema
    if "$ref" in schema:
        target = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
        return st.deferred(lambda: _values(target, depth - 1, root))
    if "anyOf" in schema:
        return st.one_of([_values(branch, depth, root) for branch in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "type" not in schema:
        return json_values
    if schema["type"] == "array":
        if "maxItems" in schema:
            return st.tuples(*[_values(part, depth, root) for part in schema.get("prefixItems", ())]).map(list)
        return st.lists(_values(schema.get("items", {}), depth, root), max_size=2) if depth > 0 else st.just([])
    if schema["type"] == "object":
        return _objects(schema, depth, root)
    return _SCALARS[str(schema["type"])]


def _objects(schema: dict[str, Any], depth: int, root: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "properties" not in schema:
        others = schema.get("additionalProperties", True)
        return st.dictionaries(keys, json_values if others is True else _values(others, depth, root), max_size=2)
    parts = {name: _values(part, depth, root) for name, part in schema["properties"].items()}
    required = {name: parts[name] for name in schema["required"]}
    return st.fixed_dictionaries(required, optional={name: parts[name] for name in parts.keys() - required.keys()})


_SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "integer": st.integers() | st.integers(-5, 5).map(float),
    "number": st.integers() | st.floats(allow_nan=False),
    "string": st.text(max_size=3),
}


def _everything(
    a: int, b: str | None = None, *, x: Network | None = None, y: list[Point] | None = None, label: Tree | None = None
) -> None: ...


def _open(a: list[Layer], **others: Colour) -> None: ...


def _whole(config: Loose) -> None: ...


HANDLERS = [
    compile_arguments(_everything, Place("Handler", "test:everything"), skip_first=False),
    compile_arguments(_open, Place("Handler", "test:open"), skip_first=False),
    compile_arguments(_whole, Place("Handler", "test:whole"), skip_first=False, whole="config"),
]


@given(st.sampled_from(HANDLERS), json_values | st.dictionaries(keys, json_values, max_size=5))
def test_a_validator_raises_nothing_but_invalid_argument(handler: Any, args: Any) -> None:
    """Whatever was sent, the answer is keyword arguments or one error of bounded size, as the schema says."""
    if accepts(handler.schema, args):
        assert isinstance(handler.validate(args), dict)
        return
    with pytest.raises(BridgeError) as caught:
        handler.validate(args)
    problems = caught.value.details["problems"]
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    assert 1 <= len(problems) <= MAX_PROBLEMS
    assert all(isinstance(text, str) for problem in problems for text in problem.values())

"""A mini JSON Schema checker, and short ways to compile one annotation or one handler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from manybridge.bridge import BridgeError
from manybridge.bridge.arguments import Arguments, compile_arguments
from manybridge.bridge.nodes import Schema, TypeNode
from manybridge.bridge.problems import Problems
from manybridge.bridge.schemas import TypeCompiler
from manybridge.bridge.signatures import Place
from manybridge.protocol.errors import ErrorCode


def node_of(annotation: Any) -> TypeNode:
    """Compile one annotation."""
    return TypeCompiler().compile(annotation)


def check(annotation: Any, value: Any) -> tuple[Any, Problems]:
    """Check one value: what the handler would get, and the problems."""
    problems = Problems()
    return node_of(annotation).check(value, (None, "it"), problems), problems


def arguments_of(function: Callable[..., Any], **options: Any) -> Arguments:
    """Compile a plain function as a handler."""
    return compile_arguments(function, Place("Handler", "test:handler"), skip_first=False, **options)


def refusal(function: Callable[..., Any], args: Any, **options: Any) -> BridgeError:
    """Validate arguments that must be refused."""
    with pytest.raises(BridgeError) as caught:
        arguments_of(function, **options).validate(args)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
    return caught.value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_KINDS: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
    "number": _is_number,
    "string": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


def accepts(schema: Schema, value: Any, root: Schema | None = None) -> bool:
    """Whether a JSON Schema, as far as ours use the language, accepts a value."""
    root = schema if root is None else root
    if "$ref" in schema:
        return accepts(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root)
    return (
        ("type" not in schema or _KINDS[schema["type"]](value))
        and ("enum" not in schema or any(_equal(value, member) for member in schema["enum"]))
        and ("anyOf" not in schema or any(accepts(branch, value, root) for branch in schema["anyOf"]))
        and (not isinstance(value, list) or _accepts_items(schema, value, root))
        and (not isinstance(value, dict) or _accepts_keys(schema, value, root))
    )


def _equal(left: Any, right: Any) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def _accepts_items(schema: Schema, value: list[Any], root: Schema) -> bool:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return False
    if any(not accepts(schema["items"], item, root) for item in value if "items" in schema):
        return False
    return all(accepts(part, item, root) for part, item in zip(schema.get("prefixItems", ()), value, strict=False))


def _accepts_keys(schema: Schema, value: dict[str, Any], root: Schema) -> bool:
    if not value.keys() >= set(schema.get("required", ())):
        return False
    properties, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key, item in value.items():
        part = properties.get(key, others)
        if part is False or (part is not True and not accepts(part, item, root)):
            return False
    return True

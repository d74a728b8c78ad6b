"""JSON Schema, the part that describes arguments: checked when it is given, then enforced.

LangChain takes a JSON Schema for a tool's arguments, shows it to the model, and checks nothing against it. This does.
Three rules differ from the standard, on purpose: a schema that lists properties is one of an object, also where it has
no `type`; such an object takes no other properties unless it says `additionalProperties`; and a keyword that is not
enforced here is refused when the schema is given, not ignored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from manybridge.bridges.common.problems import expected, invalid
from manybridge.protocol.messages import json_type

Schema: TypeAlias = Mapping[str, Any]

TYPES: Final = ("string", "integer", "number", "boolean", "object", "array", "null")
MAX_DEPTH: Final = 64
"""Schemas and values nested deeper are refused: both are read recursively."""

ROUNDING: Final = 1e-9
"""0.3 is a multiple of 0.1, although not to the last bit."""

_SPOKEN: Final = frozenset(
    {
        "title", "description", "default", "examples", "format", "$schema", "$id", "$comment", "deprecated", "readOnly",
        "writeOnly", "$defs", "definitions", "$ref", "contentMediaType", "contentEncoding", "strict",
    }
)  # fmt: skip
"""Keywords that say something and demand nothing, or are looked at elsewhere."""

_COUNTS: Final = {
    "minLength": ("string", "at least {} characters"),
    "maxLength": ("string", "at most {} characters"),
    "minItems": ("array", "at least {} items"),
    "maxItems": ("array", "at most {} items"),
    "minProperties": ("object", "at least {} properties"),
    "maxProperties": ("object", "at most {} properties"),
}
_BOUNDS: Final[dict[str, tuple[Callable[[float, float], bool], str]]] = {
    "minimum": (lambda value, bound: value >= bound, "{} or more"),
    "maximum": (lambda value, bound: value <= bound, "{} or less"),
    "exclusiveMinimum": (lambda value, bound: value > bound, "more than {}"),
    "exclusiveMaximum": (lambda value, bound: value < bound, "less than {}"),
}
_OTHERS: Final = frozenset(
    {
        "type", "enum", "const", "properties", "required", "additionalProperties", "items", "prefixItems",
        "uniqueItems", "anyOf", "oneOf", "allOf", "pattern", "multipleOf",
    }
)  # fmt: skip
KEYWORDS: Final = _SPOKEN | set(_COUNTS) | set(_BOUNDS) | _OTHERS


# ---------------------------------------------------------------- the schema itself


def check_schema(schema: Any, where: str) -> None:
    """Refuse what could not be enforced later.

    Raises:
        BridgeError: `invalid_argument`, naming the place in the schema.
    """
    _check(schema, where, schema, 0)


def check_object_schema(schema: Any, where: str) -> None:
    """As `check_schema`, for the schema of arguments: it must describe an object."""
    check_schema(schema, where)
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        raise invalid(f"{where}.type", "arguments are an object, so it must be 'object'")


def _check(schema: Any, where: str, root: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise invalid(where, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise expected(where, "a JSON Schema, that is an object", schema)
    unknown = sorted(set(schema) - KEYWORDS)
    if unknown:
        raise invalid(
            f"{where}.{unknown[0]}", f"this keyword is not enforced here; known: {', '.join(sorted(KEYWORDS))}"
        )
    _check_words(schema, where)
    if "$ref" in schema:
        _resolve(schema["$ref"], root, f"{where}.$ref")
    for part, path in _parts(schema, where):
        _check(part, path, root, depth + 1)


def _check_words(schema: Schema, where: str) -> None:
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in TYPES:
            raise invalid(f"{where}.type", f"expected one of {', '.join(TYPES)}, found {kind!r}")
    if not isinstance(schema.get("enum", []), list):
        raise expected(f"{where}.enum", "an array", schema["enum"])
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise expected(f"{where}.required", "an array of names", required)
    for word in (*_COUNTS, *_BOUNDS, "multipleOf"):
        if word in schema and (isinstance(schema[word], bool) or not isinstance(schema[word], int | float)):
            raise expected(f"{where}.{word}", "a number", schema[word])
    try:
        re.compile(schema.get("pattern", ""))
    except (re.error, TypeError) as error:
        raise invalid(f"{where}.pattern", f"not a regular expression: {error}") from None


def _parts(schema: Schema, where: str) -> Iterator[tuple[Any, str]]:
    for word in ("properties", "$defs", "definitions"):
        parts = schema.get(word, {})
        if not isinstance(parts, Mapping):
            raise expected(f"{where}.{word}", "an object of schemas", parts)
        yield from ((part, f"{where}.{word}.{name}") for name, part in parts.items())
    for word in ("anyOf", "oneOf", "allOf", "prefixItems"):
        parts = schema.get(word, [])
        if not isinstance(parts, list):
            raise expected(f"{where}.{word}", "an array of schemas", parts)
        yield from ((part, f"{where}.{word}[{number}]") for number, part in enumerate(parts))
    for word in ("items", "additionalProperties"):
        if word in schema:
            yield schema[word], f"{where}.{word}"


def _resolve(reference: Any, root: Any, where: str) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise invalid(where, "expected a reference within the schema, such as '#/$defs/name'")
    found = root
    for step in filter(None, reference[1:].split("/")):
        key = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or key not in found:
            raise invalid(where, f"{reference!r} leads nowhere in this schema")
        found = found[key]
    return found


# ---------------------------------------------------------------- values


def problems_of(schema: Any, value: Any, where: str = "") -> list[str]:
    """Every way in which a JSON value does not fit, each with its place; none of them repeats the value.

    Args:
        schema: one that passed `check_schema`.
        value: a JSON value.
        where: what the value is called.
    """
    return list(_find(schema, value, where, schema, 0))


def with_defaults(schema: Schema, value: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, with the defaults of those that were left out."""
    defaults = {
        name: part["default"]
        for name, part in schema.get("properties", {}).items()
        if isinstance(part, Mapping) and "default" in part
    }
    return {**defaults, **value}


def _find(schema: Any, value: Any, where: str, root: Any, depth: int) -> Iterator[str]:
    if schema is True or depth > MAX_DEPTH:
        yield from [f"{where or 'value'}: nested deeper than {MAX_DEPTH} levels"] if depth > MAX_DEPTH else []
        return
    if schema is False:
        yield f"{where}: not allowed"
        return
    if "$ref" in schema:
        yield from _find(_resolve(schema["$ref"], root, where), value, where, root, depth + 1)
    kinds = schema.get("type", "object" if "properties" in schema else None)
    if kinds is not None and not any(_is(value, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds)):
        wanted = kinds if isinstance(kinds, str) else " or ".join(kinds)
        yield f"{where or 'value'}: expected {wanted}, found {json_type(value)}"
        return
    yield from _find_words(schema, value, where or "value")
    if isinstance(value, Mapping):
        yield from _find_in_object(schema, value, where, root, depth)
    elif isinstance(value, list):
        yield from _find_in_array(schema, value, where, root, depth)
    yield from _find_in_choices(schema, value, where or "value", root, depth)


def _is(value: Any, kind: str) -> bool:
    if kind == "integer":
        return (isinstance(value, int) and not isinstance(value, bool)) or (
            isinstance(value, float) and value.is_integer()
        )
    if kind == "number":
        return isinstance(value, int | float) and not isinstance(value, bool)
    python = {"string": str, "boolean": bool, "object": Mapping, "array": list, "null": type(None)}[kind]
    return isinstance(value, python)


def _same(one: Any, other: Any) -> bool:
    """JSON's equality: true is not 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _find_words(schema: Schema, value: Any, where: str) -> Iterator[str]:
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        yield f"{where}: expected one of {', '.join(map(repr, schema['enum']))}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{where}: expected {schema['const']!r}"
    for word, (kind, said) in _COUNTS.items():
        if word in schema and _is(value, kind):
            fits = len(value) >= schema[word] if word.startswith("min") else len(value) <= schema[word]
            if not fits:
                yield f"{where}: expected {said.format(schema[word])}, found {len(value)}"
    if _is(value, "number"):
        yield from _find_bounds(schema, value, where)
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{where}: does not match the pattern {schema['pattern']!r}"


def _find_bounds(schema: Schema, value: float, where: str) -> Iterator[str]:
    for word, (holds, said) in _BOUNDS.items():
        if word in schema and not holds(value, schema[word]):
            yield f"{where}: expected {said.format(schema[word])}"
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > ROUNDING:
        yield f"{where}: expected a multiple of {step}"


def _find_in_object(schema: Schema, value: Mapping[str, Any], where: str, root: Any, depth: int) -> Iterator[str]:
    declared = schema.get("properties", {})
    others = schema.get("additionalProperties", not declared)
    for name in schema.get("required", []):
        if name not in value:
            yield f"{_inside(where, name)}: missing"
    for name, part in value.items():
        if name in declared:
            yield from _find(declared[name], part, _inside(where, name), root, depth + 1)
        elif others is False:
            yield f"{_inside(where, name)}: unknown; known: {', '.join(declared) or 'none'}"
        else:
            yield from _find(others, part, _inside(where, name), root, depth + 1)


def _find_in_array(schema: Schema, value: list[Any], where: str, root: Any, depth: int) -> Iterator[str]:
    first = schema.get("prefixItems", [])
    for number, item in enumerate(value):
        part = first[number] if number < len(first) else schema.get("items", True)
        yield from _find(part, item, f"{where}[{number}]", root, depth + 1)
    if schema.get("uniqueItems") and any(_same(a, b) for n, a in enumerate(value) for b in value[:n]):
        yield f"{where or 'value'}: expected items that differ from each other"


def _find_in_choices(schema: Schema, value: Any, where: str, root: Any, depth: int) -> Iterator[str]:
    for part in schema.get("allOf", []):
        yield from _find(part, value, where, root, depth + 1)
    for word in ("anyOf", "oneOf"):
        if word not in schema:
            continue
        found = [list(_find(part, value, where, root, depth + 1)) for part in schema[word]]
        fitting = sum(not problems for problems in found)
        if fitting == 0:
            yield f"{where}: fits none of {len(found)} possibilities ({'; '.join(p[0] for p in found if p)})"
        elif word == "oneOf" and fitting > 1:
            yield f"{where}: fits {fitting} possibilities, expected exactly one"


def _inside(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name

"""From a JSON Schema to Python types: an annotation, and the definitions that it needs.

What a schema says and Python's types can't (ranges, patterns, lengths) is left to the bridge, which checks it anyway.
A type is never narrower than its schema: whatever the bridge accepts, mypy accepts, with three exceptions that are
worth the errors they find. An array goes in as a list or tuple and comes out as a list; an object with listed keys is
a TypedDict, which lets no other key in where the schema says so; a schema that says nothing is `Any`.
"""

from __future__ import annotations

import json
import keyword
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

from manybridge.stubs.names import Names, class_name, literal

Schema: TypeAlias = Mapping[str, Any] | bool

LINE: Final = 80
"""Longer choices get a name of their own."""

NAME: Final = "\0"
"""Stands for its own name in the text of a definition: no schema's text can have it there."""

_SCALARS: Final = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}


class Direction(Enum):
    """Which way a value goes."""

    IN = "in"
    """Arguments: an array may be a tuple."""
    OUT = "out"
    """Results: an array is a list."""


class TypeWriter:
    """Writes annotations. Owner of the definitions that go to the top of the module.

    Args:
        names: of the module's classes and aliases.
    """

    def __init__(self, names: Names) -> None:
        self._names = names
        self._defined: dict[tuple[str, str], str] = {}  # wanted name and text of the definition -> its name
        self._recursive: dict[tuple[int, str, Direction], str] = {}
        self._roots: list[Schema] = []  # kept alive, so that their ids stay theirs
        self.definitions: list[str] = []

    def write(self, schema: Schema, direction: Direction, *names: str) -> str:
        """The annotation of a whole schema.

        Args:
            schema: with its own `$defs`.
            direction: whether such a value is sent or received.
            names: what a class is called that has to be made for it, as for `class_name`.
        """
        self._roots.append(schema)
        return _OneSchema(self, schema, direction).write(schema, names)

    def define(self, wanted: str, body: str) -> str:
        """Add a definition, in whose text `NAME` stands for its name. An equal one of the same wanted name serves."""
        key = (wanted, body)
        if key not in self._defined:
            name = self._defined[key] = self._names.take(wanted)
            self.definitions.append(body.replace(NAME, name))
        return self._defined[key]

    def open_recursive(self, key: tuple[int, str, Direction], wanted: str) -> str:
        """Give a name to a definition that will contain itself."""
        self._recursive[key] = self._names.take(wanted)
        return self._recursive[key]

    def find_recursive(self, key: tuple[int, str, Direction]) -> str | None:
        """The name of a definition that is written or being written."""
        return self._recursive.get(key)


class _OneSchema:
    """Writes one schema, whose references are relative to its root."""

    def __init__(self, writer: TypeWriter, root: Schema, direction: Direction) -> None:
        self._writer = writer
        self._root = root
        self._direction = direction

    def write(self, schema: Schema, names: tuple[str, ...]) -> str:
        if not isinstance(schema, Mapping):
            return "Any"
        if "$ref" in schema:
            return self._reference(str(schema["$ref"]), names)
        if "const" in schema:
            return self._choice([schema["const"]], names)
        if isinstance(schema.get("enum"), list):
            return self._choice(schema["enum"], names)
        for key in ("anyOf", "oneOf"):
            if isinstance(schema.get(key), list):
                return self._union([self.write(branch, names) for branch in schema[key]])
        if isinstance(schema.get("allOf"), list):
            return self._all_of(schema, names)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return self._union([self.write({**schema, "type": kind}, names) for kind in kinds])
        return self._of_kind(kinds or _guess(schema), schema, names)

    def _of_kind(self, kind: Any, schema: Mapping[str, Any], names: tuple[str, ...]) -> str:
        if kind in _SCALARS:
            return f"{_SCALARS[kind]} | None" if schema.get("nullable") is True else _SCALARS[kind]
        if kind == "array":
            return self._array(schema, names)
        return self._object(schema, names) if kind == "object" else "Any"

    def _array(self, schema: Mapping[str, Any], names: tuple[str, ...]) -> str:
        parts = schema.get("prefixItems")
        if not isinstance(parts, list):
            return self._array_of(self.write(schema.get("items", True), (*names, "item")))
        if not len(parts) == schema.get("minItems") == schema.get("maxItems"):
            return self._array_of("Any")
        written = [self.write(part, (*names, f"item_{number}")) for number, part in enumerate(parts, 1)]
        as_list = f"list[{self._union(written)}]"
        return as_list if self._direction is Direction.OUT else f"tuple[{', '.join(written)}] | {as_list}"

    def _array_of(self, item: str) -> str:
        return f"list[{item}]" if self._direction is Direction.OUT else f"list[{item}] | tuple[{item}, ...]"

    def _object(self, schema: Mapping[str, Any], names: tuple[str, ...]) -> str:
        properties = schema.get("properties") or {}
        others = schema.get("additionalProperties", True)
        is_open = others is not False or "patternProperties" in schema
        if properties and not (is_open and self._direction is Direction.IN):
            return self._structure(schema, properties, names)
        if properties or "patternProperties" in schema:
            return "dict[str, Any]"
        return f"dict[str, {self.write(others, (*names, 'value'))}]"

    def _structure(self, schema: Mapping[str, Any], properties: Mapping[str, Any], names: tuple[str, ...]) -> str:
        wanted = class_name(str(schema["title"])) if schema.get("title") else class_name(*names)
        return self._writer.define(wanted, self._structure_text(schema, properties, wanted))

    def _structure_text(self, schema: Mapping[str, Any], properties: Mapping[str, Any], wanted: str) -> str:
        required = set(schema.get("required") or ())
        fields = {name: self.write(part, (wanted, name)) for name, part in properties.items()}
        fields = {name: text if name in required else f"NotRequired[{text}]" for name, text in fields.items()}
        if all(name.isidentifier() and not keyword.iskeyword(name) and name[:2] != "__" for name in fields):
            lines = [f"    {name}: {text}" for name, text in fields.items()]
            return "\n".join([f"class {NAME}(TypedDict):", *lines])
        lines = [f"        {literal(name)}: {literal(text)}," for name, text in fields.items()]
        return "\n".join([f"{NAME} = TypedDict(", f'    "{NAME}",', "    {", *lines, "    },", ")"])

    def _choice(self, values: list[Any], names: tuple[str, ...]) -> str:
        if not values or any(not (value is None or isinstance(value, (str, int))) for value in values):
            return "Any" if not values else self._union([_type_of(value) for value in values])
        text = f"Literal[{', '.join(dict.fromkeys(map(literal, values)))}]"
        if len(text) <= LINE:
            return text
        lines = [f"    {literal(value)}," for value in values]
        text = "\n".join([f"{NAME}: TypeAlias = Literal[", *lines, "]"])
        return self._writer.define(class_name(*names), text)

    def _union(self, written: list[str]) -> str:
        branches = dict.fromkeys(part for text in written for part in _branches(text))
        return "Any" if "Any" in branches or not branches else " | ".join(branches)

    def _all_of(self, schema: Mapping[str, Any], names: tuple[str, ...]) -> str:
        parts = [self._resolved(part) for part in schema["allOf"]]
        own = {key: value for key, value in schema.items() if key != "allOf"}
        if len(parts) == 1 and not own.keys() - {"description", "default", "title"}:
            return self.write(schema["allOf"][0], names)
        merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
        for part in (*parts, own):
            if not isinstance(part, Mapping) or part.get("type", _guess(part) or "object") != "object":
                return "Any"
            merged["properties"].update(part.get("properties") or {})
            merged["required"] += part.get("required") or []
        return self.write({**own, **merged}, names)

    # -- references --------------------------------------------------------------------------------------------------

    def _reference(self, pointer: str, names: tuple[str, ...]) -> str:
        target = self._target(pointer)
        if target is None:
            return "Any"
        key = (id(self._root), pointer, self._direction)
        found = self._writer.find_recursive(key)
        if found is not None:
            return found
        if not self._reaches(target, pointer):
            return self.write(target, names)
        return self._write_recursive(key, target)

    def _write_recursive(self, key: tuple[int, str, Direction], target: Mapping[str, Any]) -> str:
        wanted = class_name(str(target.get("title") or key[1].rpartition("/")[2]))
        name = self._writer.open_recursive(key, wanted)
        properties = target.get("properties")
        if target.get("type") == "object" and properties:
            self._writer.definitions.append(self._structure_text(target, properties, wanted).replace(NAME, name))
        else:
            text = self.write(target, (wanted,))
            self._writer.definitions.append(f"{name}: TypeAlias = {literal(text if text != name else 'Any')}")
        return name

    def _resolved(self, schema: Any) -> Any:
        if isinstance(schema, Mapping) and "$ref" in schema:
            return self._target(str(schema["$ref"])) or {}
        return schema

    def _target(self, pointer: str) -> Mapping[str, Any] | None:
        if not pointer.startswith("#"):
            return None  # another document: nobody loads it
        found: Any = self._root
        for part in pointer[1:].split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, Mapping) or key not in found:
                return None
            found = found[key]
        return found if isinstance(found, Mapping) else None

    def _reaches(self, start: Any, pointer: str) -> bool:
        """Whether a definition contains a reference to itself."""
        seen: set[str] = set()
        pending = [start]
        while pending:
            for reference in _references(pending.pop()):
                if reference == pointer:
                    return True
                if reference not in seen:
                    seen.add(reference)
                    pending.append(self._target(reference))
        return False


_PARTS: Final = ("additionalProperties", "items", "prefixItems", "anyOf", "oneOf", "allOf")
"""Keywords that hold a schema or several, of those that are looked at here."""


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for part in schema:
            yield from _references(part)
    elif isinstance(schema, Mapping):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"]
        for part in (schema.get("properties") or {}).values():
            yield from _references(part)
        for keyword_ in _PARTS:
            yield from _references(schema.get(keyword_))


def _guess(schema: Mapping[str, Any]) -> str | None:
    if "properties" in schema or "additionalProperties" in schema:
        return "object"
    return "array" if "items" in schema or "prefixItems" in schema else None


def _type_of(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "dict[str, Any]" if isinstance(value, dict) else "list[Any]"
    return {bool: "bool", int: "int", float: "float", str: "str"}.get(type(value), "None")


def _branches(text: str) -> Iterator[str]:
    """The parts of `A | B`, but not those inside brackets or quotes."""
    depth, begun, quoted, escaped = 0, 0, False, False
    for position, character in enumerate(text):
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            quoted, escaped = True, False
        elif character in "[]":
            depth += 1 if character == "[" else -1
        elif character == "|" and not depth:
            yield text[begun:position].strip()
            begun = position + 1
    yield text[begun:].strip()


def default_text(schema: Any) -> str | None:
    """The default of an argument for its description; None where it has none, or none that says something."""
    if not isinstance(schema, Mapping) or schema.get("default") is None:
        return None
    text = json.dumps(schema["default"], ensure_ascii=False)
    return text if len(text) <= LINE else None

"""The keys of a configuration struct, read from the struct itself: type, range, unit, default and meaning in words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast

import msgspec
from msgspec import NODEFAULT, Struct, inspect

NONE_WORD: Final = "none"
"""TOML has no null; this word says "no value" for a key that may have none."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table of the configuration."""

    name: str
    type: Any
    """The annotation, for `msgspec.convert`."""
    node: inspect.Type
    """The type without its metadata and without None."""
    optional: bool
    description: str
    unit: str | None
    default: Any

    @property
    def table(self) -> type[Struct] | None:
        """The struct of a nested table, if the key is one."""
        return self.node.cls if isinstance(self.node, inspect.StructType) else None

    @property
    def table_of(self) -> type[Struct] | None:
        """The struct of every entry, if the key is a table of named tables."""
        if isinstance(self.node, inspect.DictType) and isinstance(self.node.value_type, inspect.StructType):
            return self.node.value_type.cls
        return None

    @property
    def is_mapping(self) -> bool:
        """Whether the key holds a table whose keys are the user's own."""
        return isinstance(self.node, inspect.DictType) and self.table_of is None

    @property
    def holds_strings(self) -> bool:
        """Whether the key holds a table of strings."""
        return isinstance(self.node, inspect.DictType) and isinstance(self.node.value_type, inspect.StrType)

    @property
    def takes_none_word(self) -> bool:
        """Whether `"none"` means no value: the key may have none, and is not itself a string."""
        return self.optional and not isinstance(self.node, inspect.StrType)

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        words = _in_words(self.node, self.unit)
        return f'{words} (or "{NONE_WORD}")' if self.takes_none_word else words


@cache
def keys_of(struct: type[Struct]) -> dict[str, Key]:
    """Return the keys of a configuration struct in the order in which they are declared."""
    annotations = {field.name: field.type for field in msgspec.structs.fields(struct)}
    info = cast(inspect.StructType, inspect.type_info(struct))
    return {field.encode_name: _key(field, annotations[field.name]) for field in info.fields}


def _key(field: inspect.Field, annotation: Any) -> Key:
    node, optional, description, unit = _unwrap(field.type)
    default = field.default if field.default_factory is NODEFAULT else field.default_factory()
    return Key(field.encode_name, annotation, node, optional, description, unit, default)


def _unwrap(node: inspect.Type) -> tuple[inspect.Type, bool, str, str | None]:
    optional, description, unit = False, "", None
    while isinstance(node, (inspect.Metadata, inspect.UnionType)):
        if isinstance(node, inspect.UnionType):
            optional = True
            (node,) = (member for member in node.types if not isinstance(member, inspect.NoneType))
        else:
            description = (node.extra_json_schema or {}).get("description", description)
            unit = (node.extra or {}).get("unit", unit)
            node = node.type
    return node, optional, description, unit


def _in_words(node: inspect.Type, unit: str | None = None) -> str:
    match node:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return _number("a whole number", node, unit)
        case inspect.FloatType():
            return _number("a number", node, unit)
        case inspect.StrType():
            return "a string"
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(json.dumps(value) for value in values)
        case inspect.ListType(item_type=item):
            return f"a list of {_plural(item)}"
        case inspect.DictType(value_type=value):
            return "a table" if isinstance(value, inspect.AnyType) else f"a table of {_plural(value)}"
        case _:
            return "a table"


def _number(words: str, node: inspect.IntType | inspect.FloatType, unit: str | None) -> str:
    if unit:
        words += f" of {unit}"
    if node.ge is not None and node.le is not None:
        return f"{words} from {node.ge} to {node.le}"
    if node.ge is not None:
        return f"{words}, at least {node.ge}"
    return f"{words} above {node.gt}" if node.gt is not None else words


def _plural(node: inspect.Type) -> str:
    return "strings" if isinstance(node, inspect.StrType) else "tables"

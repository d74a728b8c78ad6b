"""From a Python annotation to a JSON Schema and to a function that checks a value against it.

Each annotation is compiled once, into a `TypeNode`. What its schema accepts, its `check` accepts, and the other way
round, with one exception: a dataclass may refuse more in its `__post_init__`. Schemas are JSON Schema 2020-12,
https://json-schema.org/draft/2020-12. As there, `3.0` is an integer and `true` is not a number.
"""

from __future__ import annotations

import types
import typing
from collections import abc
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final

from manybridge.bridge.nodes import (
    ANY_NODE,
    ARRAY_NODE,
    NOTHING,
    OBJECT_NODE,
    Schema,
    TypeNode,
    UnsupportedAnnotationError,
    array_node,
    check_float,
    check_int,
    described_node,
    enum_node,
    fixed_tuple_node,
    literal_node,
    mapping_node,
    plain_node,
    tuple_node,
    union_node,
)
from manybridge.bridge.problems import Path, Problems

_ARRAYS: Final = frozenset({list, abc.Sequence, abc.MutableSequence, abc.Iterable, abc.Collection})
_OBJECTS: Final = frozenset({dict, abc.Mapping, abc.MutableMapping})


class TypeCompiler:
    """Compiles the annotations of one handler, and holds the definitions of its recursive types.

    Args:
        namespace: names beyond those of the annotation's own module, for types that are defined inside a class.
    """

    def __init__(self, namespace: Mapping[str, Any] | None = None) -> None:
        self.namespace = dict(namespace or {})
        self.definitions: dict[str, Schema] = {}
        self._open: dict[type, str] = {}
        self._recursive: set[type] = set()
        self._finished: dict[type, TypeNode] = {}

    def compile(self, annotation: Any) -> TypeNode:
        """Compile one resolved annotation.

        Raises:
            UnsupportedAnnotationError: it, or a part of it, has no JSON form.
        """
        simple = _simple_node(annotation)
        if simple is not None:
            return simple
        origin = typing.get_origin(annotation)
        if origin is not None:
            return self._compile_generic(annotation, origin, typing.get_args(annotation))
        if isinstance(annotation, type):
            return self._compile_class(annotation)
        target = getattr(annotation, "__supertype__", None) or getattr(annotation, "__value__", None)
        if target is not None:  # NewType, and `type X = ...` of Python 3.12
            return self._compile_alias(annotation, target)
        raise _unsupported(annotation)

    def _compile_alias(self, alias: Any, target: Any) -> TypeNode:
        try:
            return self.compile(target)
        except RecursionError:
            raise UnsupportedAnnotationError(alias, "Any, because the alias contains itself") from None

    def _compile_generic(self, annotation: Any, origin: Any, args: tuple[Any, ...]) -> TypeNode:
        if origin is typing.Annotated:
            return described_node(self.compile(args[0]), annotation.__metadata__)
        if origin in {typing.Union, types.UnionType}:
            return union_node([self.compile(arg) for arg in args])
        if origin is typing.Literal:
            return literal_node(annotation, args)
        if origin is tuple:
            return self._compile_tuple(args)
        if origin in _ARRAYS:
            return array_node(self.compile(args[0]))
        if origin in _OBJECTS:
            return self._compile_mapping(annotation, args)
        raise _unsupported(annotation)

    def _compile_mapping(self, annotation: Any, args: tuple[Any, ...]) -> TypeNode:
        if args[0] not in {str, Any}:
            raise UnsupportedAnnotationError(annotation, "dict[str, ...] (keys of a JSON object are strings)")
        return mapping_node(self.compile(args[1]))

    def _compile_tuple(self, args: tuple[Any, ...]) -> TypeNode:
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple_node(array_node(self.compile(args[0])))
        return fixed_tuple_node([self.compile(arg) for arg in args])

    def _compile_class(self, cls: type) -> TypeNode:
        if issubclass(cls, Enum):
            return enum_node(cls)
        if typing.is_typeddict(cls) or hasattr(cls, "__dataclass_fields__"):
            return self._compile_structure(cls)
        raise _unsupported(cls)

    def _compile_structure(self, cls: type) -> TypeNode:
        from manybridge.bridge.structures import compile_structure

        if cls in self._finished:
            return self._finished[cls]
        if cls in self._open:
            return self._reference(cls)
        self._open[cls] = self._definition_name(cls)
        node = compile_structure(self, cls)
        name = self._open.pop(cls)
        if cls in self._recursive:
            self.definitions[name] = node.schema
            node = node._replace(schema={"$ref": f"#/$defs/{name}"})
        self._finished[cls] = node
        return node

    def _definition_name(self, cls: type) -> str:
        taken = {*self.definitions, *self._open.values()}
        return cls.__name__ if cls.__name__ not in taken else f"{cls.__name__}_{len(taken)}"

    def _reference(self, cls: type) -> TypeNode:
        """Stand in for a structure that contains itself while it is being compiled."""
        self._recursive.add(cls)

        def check(value: Any, path: Path, problems: Problems) -> Any:
            return self._finished[cls].check(value, path, problems)

        return TypeNode({"$ref": f"#/$defs/{self._open[cls]}"}, check, "object", NOTHING, frozenset({dict}))


# ---------------------------------------------------------------- tables


_SIMPLE: Final[dict[Any, TypeNode]] = {
    str: plain_node(str, "string"),
    bool: plain_node(bool, "boolean"),
    int: TypeNode({"type": "integer"}, check_int, "integer", frozenset({int}), frozenset({int, float})),
    float: TypeNode({"type": "number"}, check_float, "number", frozenset({float}), frozenset({int, float})),
    None: plain_node(types.NoneType, "null"),
    types.NoneType: plain_node(types.NoneType, "null"),
    Any: ANY_NODE,
    object: ANY_NODE,
    tuple: tuple_node(ARRAY_NODE),
    **dict.fromkeys(_ARRAYS, ARRAY_NODE),
    **dict.fromkeys(_OBJECTS, OBJECT_NODE),
}


def _simple_node(annotation: Any) -> TypeNode | None:
    # typing.List and its like without parameters have an origin; tuple[()] has none of its own but means "empty".
    bare = not typing.get_args(annotation) and not isinstance(annotation, types.GenericAlias)
    try:
        return _SIMPLE.get((typing.get_origin(annotation) or annotation) if bare else annotation)
    except TypeError:  # not hashable, for example Annotated[int, []]
        return None


_INSTEAD: Final = {
    "bytes": "str (base64 text) or list[int]",
    "bytearray": "str (base64 text) or list[int]",
    "set": "list[...]",
    "frozenset": "list[...]",
    "complex": "tuple[float, float]",
    "Decimal": "str or float",
    "Fraction": "str or float",
    "datetime": "str (ISO 8601)",
    "date": "str (ISO 8601)",
    "time": "str (ISO 8601)",
    "timedelta": "float (seconds)",
    "UUID": "str",
    "Path": "str",
    "PosixPath": "str",
    "Callable": "str (the name of a tool, for ctx.call_host)",
    "ndarray": "list[float] or list[list[float]]",
}


def _unsupported(annotation: Any) -> UnsupportedAnnotationError:
    origin = typing.get_origin(annotation) or annotation
    name = getattr(origin, "__name__", "")
    return UnsupportedAnnotationError(annotation, _INSTEAD.get(name, "a dataclass, a TypedDict, dict[str, Any] or Any"))


def to_json(value: Any) -> Any:
    """Write a default value as JSON, for the schema.

    Raises:
        TypeError: the value has no JSON form.
    """
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and value - value == 0):
        return value
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: to_json(getattr(value, name)) for name in fields}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def with_default(schema: Schema, value: Any) -> Schema:
    """Add a default to a schema; a default that JSON can't carry is left out."""
    try:
        return {**schema, "default": to_json(value)}
    except TypeError:
        return schema

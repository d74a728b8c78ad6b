"""Dataclasses and TypedDicts: JSON objects with known keys."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from manybridge.bridge.nodes import NOTHING, Schema, TypeNode, UnsupportedAnnotationError
from manybridge.bridge.problems import MAX_PROBLEMS, Path, Problems, note, note_missing, note_unknown, report
from manybridge.bridge.schemas import TypeCompiler, with_default

Build: TypeAlias = Callable[[dict[str, Any]], Any]

MAX_REASON = 200
"""Characters of an author's own `__post_init__` message that are passed on."""


class _Field(NamedTuple):
    node: TypeNode
    required: bool
    schema: Schema


def compile_structure(compiler: TypeCompiler, cls: type) -> TypeNode:
    """Compile a dataclass or TypedDict.

    Raises:
        UnsupportedAnnotationError: a field has no JSON form.
    """
    if typing.is_typeddict(cls):
        return _structure_node(cls, _typed_dict_fields(compiler, cls), dict)
    return _structure_node(cls, _dataclass_fields(compiler, cls), lambda values: cls(**values))


def _field_hints(compiler: TypeCompiler, cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except NameError:
        # A type that is defined inside a class or function; the module's own names come first, because a class may
        # have a method called `list`.
        return typing.get_type_hints(cls, localns=compiler.namespace, include_extras=True)


def _dataclass_fields(compiler: TypeCompiler, cls: Any) -> dict[str, _Field]:
    from dataclasses import MISSING, InitVar, fields

    hints = _field_hints(compiler, cls)
    if any(isinstance(hint, InitVar) for hint in hints.values()):
        raise UnsupportedAnnotationError(cls, "a dataclass without InitVar fields")
    compiled = {}
    for field in fields(cls):
        if not field.init:
            continue
        node = compiler.compile(hints[field.name])
        schema = node.schema if field.default is MISSING else with_default(node.schema, field.default)
        if field.default_factory is list or field.default_factory is dict:  # others may do anything: not called here
            schema = with_default(schema, field.default_factory())
        required = field.default is MISSING and field.default_factory is MISSING
        compiled[field.name] = _Field(node, required, schema)
    return compiled


def _typed_dict_fields(compiler: TypeCompiler, cls: Any) -> dict[str, _Field]:
    compiled = {}
    for name, hint in _field_hints(compiler, cls).items():
        # `__required_keys__` is wrong about Required and NotRequired in a file that postpones its annotations, so the
        # resolved hint decides where it says something.
        required, bare = name in cls.__required_keys__, hint
        while (origin := typing.get_origin(bare)) in _QUALIFIERS:
            required = {typing.Required: True, typing.NotRequired: False}.get(origin, required)
            bare = typing.get_args(bare)[0]
        node = compiler.compile(bare)
        compiled[name] = _Field(node, required, node.schema)
    return compiled


_QUALIFIERS = {typing.Required, typing.NotRequired, getattr(typing, "ReadOnly", typing.Required)}


def _structure_node(cls: type, fields: dict[str, _Field], build: Build) -> TypeNode:
    required = [name for name, field in fields.items() if field.required]
    schema: Schema = {
        "type": "object",
        "title": cls.__name__,
        "properties": {name: field.schema for name, field in fields.items()},
        "required": required,
        "additionalProperties": False,
    }

    def check(value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            return report(problems, path, "object", value)
        before = len(problems)
        values = _check_keys(fields, value, path, problems)
        for name in required:
            if name not in values:
                note_missing(problems, (path, name), fields[name].node.expected)
        # The list may be full already, in which case nothing more is noted and the call fails anyway.
        return _construct(cls, build, values, path, problems) if len(problems) == before < MAX_PROBLEMS else None

    return TypeNode(schema, check, "object", NOTHING, frozenset({dict}))


def _check_keys(fields: dict[str, _Field], value: dict[str, Any], path: Path, problems: Problems) -> dict[str, Any]:
    values = {}
    for name, part in value.items():
        field = fields.get(name)
        if field is not None:
            node = field.node
            values[name] = part if part.__class__ in node.exact else node.check(part, (path, name), problems)
        else:
            note_unknown(problems, (path, str(name)), fields, part)
        if len(problems) >= MAX_PROBLEMS:
            break
    return values


def _construct(cls: type, build: Build, values: dict[str, Any], path: Path, problems: Problems) -> Any:
    try:
        return build(values)
    except RecursionError:
        raise
    except Exception as error:  # noqa: BLE001  # an author's __post_init__ may refuse with any exception
        reason = f"{type(error).__name__}: {error}"[:MAX_REASON]
        return note(problems, path, f"a valid {cls.__name__}", f"one that it refuses ({reason})")

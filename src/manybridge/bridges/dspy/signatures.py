"""Signatures from JSON: a string as DSPy takes it, or an object with typed fields.

    {"name": "Triage", "instructions": "...",
     "inputs":  [{"name": "text", "type": "str", "description": "..."}],
     "outputs": [{"name": "label", "enum": ["bug", "idea"]}, {"name": "tags", "type": "list[str]"}]}

A field's type is a Python annotation in words (`str`, `list[int]`, `dict[str, float]`, `Literal["a", "b"]`,
`str | None`, `image`, `history`), or a JSON Schema: `enum`, `items`, `properties`. Nothing is evaluated: the
annotation is parsed, and only the names below mean something.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any, Final, Literal, Optional, Union

from manybridge.bridges.common.problems import expected, invalid

_PLAIN_TYPES: Final[dict[str, Any]] = {
    "str": str, "string": str, "text": str,
    "int": int, "integer": int,
    "float": float, "number": float,
    "bool": bool, "boolean": bool,
    "list": list, "array": list,
    "dict": dict, "object": dict,
    "any": Any, "Any": Any,
    "None": None, "null": None,
}  # fmt: skip
_DSPY_TYPES: Final = {"image": "Image", "audio": "Audio", "file": "File", "history": "History", "code": "Code"}
_FIELD_KEYS: Final = frozenset({"name", "type", "description", "desc", "enum", "items", "properties", "required"})
_TYPING: Final = {"List": "list", "Dict": "dict", "Tuple": "tuple", "Set": "set", "array": "list", "object": "dict"}
_NAMES_OF_DSPY: Final = frozenset(
    {"signature", "instructions", "fields", "input_fields", "output_fields", "model_config"}
)
"""What DSPy's signature classes have for themselves."""

_INPUTS_OF_DSPY: Final = frozenset({"demos", "config", "lm", "self"})
"""What DSPy takes from the inputs of a call for itself, so that no model would see it."""

_REFUSED: Final = (ValueError, TypeError, SyntaxError, NameError, AttributeError, AssertionError, RuntimeError)
"""What DSPy and Pydantic raise over a signature; too deep a nesting is a RuntimeError."""

_SIGNATURE_KEYS: Final = frozenset({"name", "description", "instructions", "inputs", "outputs"})


MAX_SHOWN: Final = 80
"""Characters of a type that an error repeats."""

MAX_DEPTH: Final = 20
"""Brackets in brackets of one type. Pydantic gives up somewhere after a hundred."""


def make_signature(dspy: Any, signature: str | Mapping[str, Any], instructions: str | None = None) -> Any:
    """Make a DSPy signature class.

    Args:
        instructions: takes the place of the signature's own.

    Raises:
        BridgeError: `invalid_argument`, naming the field and what was expected.
    """
    if isinstance(signature, str):
        return _from_string(dspy, signature, instructions)
    unknown = sorted(set(signature) - _SIGNATURE_KEYS)
    if unknown:
        raise invalid("signature", f"unknown key {unknown[0]!r}; known: {', '.join(sorted(_SIGNATURE_KEYS))}")
    for key in ("name", "instructions", "description"):
        _demand_text(signature.get(key), f"signature.{key}")
    fields: dict[str, Any] = {}
    for kind, make_field in (("inputs", dspy.InputField), ("outputs", dspy.OutputField)):
        _add_fields(dspy, fields, kind, signature.get(kind), make_field)
    text = instructions or signature.get("instructions") or signature.get("description")
    try:
        return dspy.make_signature(fields, instructions=text, signature_name=signature.get("name") or "Signature")
    except _REFUSED as error:
        raise invalid("signature", str(error)) from error


def _from_string(dspy: Any, signature: str, instructions: str | None) -> Any:
    if "->" not in signature:
        raise invalid("signature", "expected 'inputs -> outputs', for example 'question -> answer'")
    try:
        made = dspy.make_signature(signature, instructions)
    except _REFUSED as error:
        own = f" (no field may be called {', '.join(sorted(_NAMES_OF_DSPY))}: these are DSPy's own)"
        raise invalid("signature", f"{error}{own if isinstance(error, TypeError) else ''}") from error
    taken = sorted(_INPUTS_OF_DSPY & set(made.input_fields))
    if taken:
        raise invalid("signature", f"no input may be called {taken[0]!r}: DSPy takes it for itself")
    if not made.input_fields or not made.output_fields:
        raise invalid("signature", "expected at least one input and one output")
    return made


def _add_fields(dspy: Any, fields: dict[str, Any], kind: str, described: Any, make_field: Any) -> None:
    if not isinstance(described, list) or not described:
        raise invalid(f"signature.{kind}", "expected a list of at least one field")
    for position, one in enumerate(described):
        where = f"signature.{kind}[{position}]"
        field = {"name": one} if isinstance(one, str) else one
        if not isinstance(field, Mapping) or not isinstance(field.get("name"), str):
            raise invalid(where, "expected an object with a name")
        name = field["name"]
        if not name.isidentifier() or name in fields:
            raise invalid(f"{where}.name", "expected a Python identifier that no other field has")
        if name.startswith("_") or name in _NAMES_OF_DSPY or (kind == "inputs" and name in _INPUTS_OF_DSPY):
            raise invalid(f"{where}.name", f"{name!r} is a name that DSPy keeps for itself")
        unknown = sorted(set(field) - _FIELD_KEYS)
        if unknown:
            raise invalid(where, f"unknown key {unknown[0]!r}; known: {', '.join(sorted(_FIELD_KEYS))}")
        description = _description(field, where)
        fields[name] = (make_type(dspy, field, where), make_field(desc=description) if description else make_field())


def _description(field: Mapping[str, Any], where: str) -> str | None:
    return _demand_text(field.get("description") or field.get("desc"), f"{where}.description")


def _demand_text(value: Any, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise expected(where, "a text", value)


def make_type(dspy: Any, described: Mapping[str, Any], where: str) -> Any:
    """Make the Python type of a field or of a part of it."""
    if "enum" in described:
        choices = described["enum"]
        if not isinstance(choices, list) or not choices or not all(isinstance(c, str | int | None) for c in choices):
            raise invalid(f"{where}.enum", "expected a list of strings, integers or null")
        return Literal[tuple(choices)]
    if "properties" in described:
        return _make_model(dspy, described, where)
    if "items" in described:
        return list[make_type(dspy, _described(described["items"]), f"{where}.items")]  # type: ignore[misc]  # built at run time
    kind = described.get("type", "str")
    if isinstance(kind, list) and kind:  # JSON Schema's way to say "or null"
        return Union[tuple(parse_type(dspy, str(one), f"{where}.type") for one in kind)]  # noqa: UP007  # of a list
    return parse_type(dspy, str(kind), f"{where}.type")


def _described(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {"type": value}


def _make_model(dspy: Any, described: Mapping[str, Any], where: str) -> Any:
    """A structured value: DSPy shows the model its JSON schema and reads the answer into this class."""
    import pydantic

    properties = described["properties"]
    if not isinstance(properties, Mapping):
        raise expected(f"{where}.properties", "an object", properties)
    required = described.get("required", list(properties))
    if not isinstance(required, list) or not set(map(str, required)) <= set(properties):
        raise invalid(f"{where}.required", f"expected a list of names in properties: {', '.join(properties)}")
    fields: dict[str, Any] = {}
    for name, part in properties.items():
        place, described_part = f"{where}.properties.{name}", _described(part)
        if name.startswith("_"):
            raise invalid(place, "expected a name that does not begin with _")
        part_type, text = make_type(dspy, described_part, place), _description(described_part, place)
        needed = name in required
        wanted = part_type if needed else Optional[part_type]  # noqa: UP045  # of a value
        fields[name] = (wanted, pydantic.Field(... if needed else None, description=text))
    return pydantic.create_model(str(described.get("name", "Object")).title(), **fields)


def parse_type(dspy: Any, text: str, where: str) -> Any:
    """Read an annotation without evaluating it."""
    try:
        if text.count("[") > MAX_DEPTH:
            raise _UnknownTypeError(text)
        return _build(dspy, ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError, _UnknownTypeError) as error:
        known = ", ".join([*list(_PLAIN_TYPES)[:12], "list[...]", "dict[str, ...]", "Literal[...]", *_DSPY_TYPES])
        raise invalid(where, f"{text[:MAX_SHOWN]!r} is not a type that is known here; known: {known}") from error


class _UnknownTypeError(Exception):
    """A part of an annotation that means nothing here."""


def _build(dspy: Any, node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and node.value is None:
        return None
    if isinstance(node, ast.Name):
        return _named(dspy, node.id)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return Union[_build(dspy, node.left), _build(dspy, node.right)]  # noqa: UP007  # None has no |
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return _subscripted(dspy, node.value.id, parts)
    raise _UnknownTypeError


def _named(dspy: Any, name: str) -> Any:
    if name in _PLAIN_TYPES:
        return _PLAIN_TYPES[name]
    if name.lower() in _DSPY_TYPES:
        return getattr(dspy, _DSPY_TYPES[name.lower()])
    raise _UnknownTypeError(name)


def _subscripted(dspy: Any, name: str, parts: list[ast.expr]) -> Any:
    if name == "Literal":
        return Literal[tuple(_constant(part) for part in parts)]
    made = [_build(dspy, part) for part in parts]
    name = _TYPING.get(name, name)
    if name == "list" and len(made) == 1:
        return list[made[0]]  # type: ignore[valid-type]  # built at run time
    if name == "set" and len(made) == 1:
        return set[made[0]]  # type: ignore[valid-type]  # built at run time
    if name == "dict" and len(made) == 2:
        return dict[made[0], made[1]]  # type: ignore[valid-type]  # built at run time
    if name == "tuple" and made:
        return tuple[tuple(made)]  # type: ignore[misc]  # built at run time
    if name == "Optional" and len(made) == 1:
        return Optional[made[0]]  # noqa: UP045  # of a value
    if name == "Union" and made:
        return Union[tuple(made)]  # noqa: UP007  # of a list
    raise _UnknownTypeError(name)


def _constant(node: ast.expr) -> Any:
    """Read a choice of a Literal, every one of which counts."""
    try:
        value = ast.literal_eval(node)
    except ValueError as error:
        raise _UnknownTypeError from error
    if not isinstance(value, str | int | float | None):
        raise _UnknownTypeError
    return value


def describe_fields(fields: Mapping[str, Any]) -> list[dict[str, str]]:
    """The fields of a signature for a reply: name, type in words, and description where one was given."""
    described = []
    for name, info in fields.items():
        extra = info.json_schema_extra or {}
        field = {"name": name, "type": getattr(info.annotation, "__name__", None) or str(info.annotation)}
        if getattr(info.annotation, "__args__", None):
            field["type"] = str(info.annotation).replace("typing.", "")
        if extra.get("desc") and extra["desc"] != f"${{{name}}}":
            field["description"] = extra["desc"]
        described.append(field)
    return described

"""Compiled annotations: the functions that check JSON values, each beside the schema that says the same.

A node's `check` takes a decoded JSON value and returns what the handler gets (an enum member, a tuple, ...), or notes
problems and returns something that nobody will use. Two rules keep the hot path fast: `exact` names the Python types
whose values are right as they are, so that most values cost one set look-up and a list of a million numbers one pass
in C; and paths are linked tuples, written out only when something is wrong.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from manybridge.bridge.problems import MAX_PROBLEMS, Path, Problems, report

Schema: TypeAlias = dict[str, Any]
Check: TypeAlias = Callable[[Any, Path, Problems], Any]

JSON_TYPES: Final[frozenset[type]] = frozenset({str, int, float, bool, types.NoneType, list, dict})
NOTHING: Final[frozenset[type]] = frozenset()


class TypeNode(NamedTuple):
    """A compiled annotation."""

    schema: Schema
    check: Check
    expected: str
    """What to tell somebody who sent something else, in the words of JSON."""
    exact: frozenset[type] = NOTHING
    """Types whose values pass `check` unchanged, so that it need not be called."""
    accepts: frozenset[type] = NOTHING
    """JSON types of which some value may pass."""


class UnsupportedAnnotationError(Exception):
    """An annotation that JSON can't carry. Turned into a `BridgeDeclarationError` where the place is known.

    Attributes:
        annotation: the part that is not supported.
        instead: what the author should write.
    """

    def __init__(self, annotation: Any, instead: str) -> None:
        super().__init__(annotation, instead)
        self.annotation = annotation
        self.instead = instead


# ---------------------------------------------------------------- values without parts


def _accept(value: Any, path: Path, problems: Problems) -> Any:  # noqa: ARG001  # the shape of every check
    return value


def check_float(value: Any, path: Path, problems: Problems) -> Any:
    """Take any JSON number, as a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return value  # more than a float holds; Python calculates with the two together, so pass it on
    if isinstance(value, float):
        return value
    return report(problems, path, "number", value)


def check_int(value: Any, path: Path, problems: Problems) -> Any:
    """Take a JSON integer, also one that was written as `3.0`."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return report(problems, path, "integer", value)


def _instance_check(kind: type, expected: str) -> Check:
    def check(value: Any, path: Path, problems: Problems) -> Any:
        return value if isinstance(value, kind) else report(problems, path, expected, value)

    return check


def plain_node(kind: type, name: str) -> TypeNode:
    """Any value of one JSON type."""
    kinds: frozenset[type] = frozenset((kind,))
    return TypeNode({"type": name}, _instance_check(kind, name), name, kinds, kinds)


ANY_NODE: Final = TypeNode({}, _accept, "any value", JSON_TYPES, JSON_TYPES)
ARRAY_NODE: Final = plain_node(list, "array")
OBJECT_NODE: Final = plain_node(dict, "object")


# ---------------------------------------------------------------- a choice of values


def _choice_node(choices: Sequence[tuple[Any, Any]]) -> TypeNode:
    """One of some JSON scalars; each comes with what the handler gets for it."""
    # True equals 1 in Python and not in JSON, so each key says which of the two it is.
    known = {(isinstance(value, bool), value): result for value, result in choices}
    values = [value for value, _ in choices]
    shown = ", ".join("null" if value is None else repr(value) for value in values[:MAX_PROBLEMS])
    expected = f"one of {shown}" if len(values) > 1 else shown

    def check(value: Any, path: Path, problems: Problems) -> Any:
        if value is None or isinstance(value, (str, int, float)):
            key = (isinstance(value, bool), value)
            if key in known:
                return known[key]
        return report(problems, path, expected, value)

    schema: Schema = {"enum": values}
    if all(isinstance(value, str) for value in values):
        schema = {"type": "string", **schema}
    accepts: set[type] = set(map(type, values))
    return TypeNode(schema, check, expected, NOTHING, frozenset(accepts | {int, float} if int in accepts else accepts))


def literal_node(annotation: Any, args: tuple[Any, ...]) -> TypeNode:
    """One of the values of a `Literal`."""
    for value in args:
        if isinstance(value, (bytes, Enum)):
            raise UnsupportedAnnotationError(annotation, "a Literal of strings, numbers, booleans and None")
    return _choice_node([(value, value) for value in args])


def enum_node(cls: type[Enum]) -> TypeNode:
    """A member of an enum, sent as its value."""
    members = list(cls)
    if not members or not all(m.value is None or isinstance(m.value, (str, int, float)) for m in members):
        raise UnsupportedAnnotationError(cls, "an Enum whose values are strings, numbers or booleans")
    return _choice_node([(member.value, member) for member in members])


# ---------------------------------------------------------------- values with parts


def array_node(item: TypeNode) -> TypeNode:
    """A list of any length."""
    if item.check is _accept:
        return ARRAY_NODE
    exact, check_item = item.exact, item.check

    def check(value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, list):
            return report(problems, path, "array", value)
        if exact.issuperset(map(type, value)):
            return value
        items = []
        for index, part in enumerate(value):
            items.append(check_item(part, (path, index), problems))
            if len(problems) >= MAX_PROBLEMS:
                break
        return items

    return TypeNode({"type": "array", "items": item.schema}, check, "array", NOTHING, frozenset({list}))


def tuple_node(array: TypeNode) -> TypeNode:
    """A list of any length, given to the handler as a tuple."""
    check_array = array.check

    def check(value: Any, path: Path, problems: Problems) -> Any:
        items = check_array(value, path, problems)
        return tuple(items) if isinstance(items, list) else items

    return array._replace(check=check, exact=NOTHING)


def fixed_tuple_node(items: Sequence[TypeNode]) -> TypeNode:
    """A list with one item for each node, given to the handler as a tuple."""
    size = len(items)
    expected = f"array of {size} item{'' if size == 1 else 's'}"

    def check(value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, list) or len(value) != size:
            return report(problems, path, expected, value)
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(item.check(part, (path, index), problems) for index, (item, part) in pairs)

    schema: Schema = {"type": "array", "minItems": size, "maxItems": size}
    if items:
        schema["prefixItems"] = [item.schema for item in items]
    return TypeNode(schema, check, expected, NOTHING, frozenset({list}))


def mapping_node(item: TypeNode) -> TypeNode:
    """An object with any keys."""
    if item.check is _accept:
        return OBJECT_NODE
    exact, check_item = item.exact, item.check

    def check(value: Any, path: Path, problems: Problems) -> Any:
        if not isinstance(value, dict):
            return report(problems, path, "object", value)
        if exact.issuperset(map(type, value.values())):
            return value
        items = {}
        for key, part in value.items():
            items[key] = check_item(part, (path, str(key)), problems)
            if len(problems) >= MAX_PROBLEMS:
                break
        return items

    schema = {"type": "object", "additionalProperties": item.schema}
    return TypeNode(schema, check, "object", NOTHING, frozenset({dict}))


def union_node(branches: Sequence[TypeNode]) -> TypeNode:
    """The first branch that takes the value."""
    expected = " or ".join(dict.fromkeys(branch.expected for branch in branches))

    def check(value: Any, path: Path, problems: Problems) -> Any:
        memo = problems.memo
        if memo is None:
            memo = problems.memo = {}
        key = (id(check), id(value))
        outcome = memo.get(key)
        if outcome is None:
            outcome = _first_fit(branches, expected, value, path, memo)
            if isinstance(value, (list, dict)):  # scalars are shared between places, and cheap
                memo[key] = outcome
        result, found = outcome
        problems.extend(found[: MAX_PROBLEMS - len(problems)])
        return result

    exact: set[type] = set()
    earlier: set[type] = set()  # a branch tried before may convert the value, so it decides
    for branch in branches:
        exact |= branch.exact - earlier
        earlier |= branch.accepts
    schema = {"anyOf": [branch.schema for branch in branches]}
    return TypeNode(schema, check, expected, frozenset(exact), frozenset(earlier))


def _first_fit(
    branches: Sequence[TypeNode], expected: str, value: Any, path: Path, memo: dict[Any, Any]
) -> tuple[Any, Problems]:
    """What the first branch that takes the value makes of it, or the problems to report."""
    closest = None
    for branch in branches:
        attempt = Problems()
        attempt.memo = memo
        result = branch.check(value, path, attempt)
        if not attempt:
            return result, attempt
        if value.__class__ in branch.accepts and (closest is None or len(attempt) < len(closest)):
            closest = attempt
    # Where a branch is of the value's kind, what it says about the parts is what the caller wants to know.
    if closest is not None and isinstance(value, (list, dict)):
        return None, closest
    found = Problems()
    report(found, path, expected, value)
    return None, found


def described_node(node: TypeNode, metadata: tuple[Any, ...]) -> TypeNode:
    """Put the first text of an `Annotated` into the schema."""
    text = next((item for item in metadata if isinstance(item, str)), None)
    return node if text is None else node._replace(schema={**node.schema, "description": text})

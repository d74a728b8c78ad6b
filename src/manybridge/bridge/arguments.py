"""From a handler's signature to the schema of its arguments and the function that validates them."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from manybridge.bridge.context import Context
from manybridge.bridge.nodes import Check, Schema, TypeNode, UnsupportedAnnotationError
from manybridge.bridge.problems import Path, Problems, invalid_arguments, note, note_missing, note_unknown, report
from manybridge.bridge.schemas import TypeCompiler, with_default
from manybridge.bridge.signatures import EMPTY, Parameter, Place, Signature, handler_kind, read_signature

Validate: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
Entries: TypeAlias = dict[str, tuple[frozenset[type], Check, Path]]
"""For each argument: the types whose values pass as they are, what checks the others, and where it stands."""
CheckAll: TypeAlias = Callable[[dict[str, Any], Problems], dict[str, Any]]

CONTEXT_NAME: Final = "ctx"
MAX_KNOWN_SHOWN: Final = 50
"""Argument names listed in an error."""


class Arguments(NamedTuple):
    """A handler's arguments, compiled."""

    schema: Schema
    result_schema: Schema | None
    validate: Validate
    wants_context: str | None


# ---------------------------------------------------------------- resolving annotations


class _Holder:
    """An object with annotations, which is what `typing.get_type_hints` takes."""

    def __init__(self, annotation: Any) -> None:
        self.__annotations__ = {"it": annotation}


def _resolve(annotation: Any, signature: Signature, namespace: Mapping[str, Any]) -> Any:
    """Evaluate an annotation.

    Raises:
        NameError: it uses a name that can't be found.
    """
    holder, scope = _Holder(annotation), signature.globals
    try:
        return typing.get_type_hints(holder, scope, {}, include_extras=True)["it"]
    except NameError:
        # Names of the class and function around come second, because a bridge may have a command called `list`.
        local = {**signature.cells, **namespace}
        return typing.get_type_hints(holder, scope, local, include_extras=True)["it"]


def _is_context(annotation: Any) -> bool:
    return annotation is Context or Context in typing.get_args(annotation)


def _names_context(annotation: Any) -> bool:
    """Whether text that can't be evaluated (`Context` imported for type checkers only) means the context."""
    text = getattr(annotation, "__forward_arg__", annotation)
    return isinstance(text, str) and "Context" in re.split(r"\W+", text)


class _Compiled(NamedTuple):
    parameter: Parameter
    node: TypeNode


def _compile_parameter(
    parameter: Parameter, signature: Signature, compiler: TypeCompiler, place: Place
) -> _Compiled | None:
    """Compile one parameter; None if it is the context."""
    name, annotation = parameter.name, parameter.annotation
    try:
        resolved = _resolve(annotation, signature, place.namespace)
    except NameError as error:
        if name == CONTEXT_NAME or _names_context(annotation):
            return None
        raise place.refuse(
            f"parameter {name!r}: {error}; define or import the type at the top of the file, also at run time"
        ) from error
    except Exception as error:
        raise place.refuse(f"parameter {name!r}: the annotation {annotation!r} is not valid: {error}") from error
    if _is_context(resolved) or (name == CONTEXT_NAME and resolved is Any):
        return None
    if name == CONTEXT_NAME:
        raise place.refuse(f"parameter 'ctx' is for the Context, not for {show(resolved)}; give it another name")
    return _Compiled(parameter, compile_annotation(resolved, compiler, place, f"parameter {name!r}"))


def compile_annotation(annotation: Any, compiler: TypeCompiler, place: Place, what: str) -> TypeNode:
    """Compile a resolved annotation, with the place in the error.

    Raises:
        BridgeDeclarationError: it has no JSON form.
    """
    try:
        return compiler.compile(annotation)
    except UnsupportedAnnotationError as error:
        part, whole = show(error.annotation), show(annotation)
        inside = "" if part == whole else f" (inside {whole})"
        raise place.refuse(f"{what}: {part}{inside} is not supported; write {error.instead} instead") from None
    except NameError as error:
        raise place.refuse(f"{what}: {error}; define the type at the top of the file") from error


def show(annotation: Any) -> str:
    """Write an annotation the way its author did."""
    return annotation.__name__ if type(annotation) is type else str(annotation).replace("typing.", "")


# ---------------------------------------------------------------- compiling


def compile_arguments(
    function: Any, place: Place, *, skip_first: bool, whole: str | None = None, any_args: bool = False
) -> Arguments:
    """Compile what a handler takes.

    Args:
        function: the handler.
        place: where it was declared.
        skip_first: whether the first parameter is the instance.
        whole: name of a parameter that, if it is the only one and takes an object, receives all arguments as one
            object (`config` of `create`, `inputs` of `execute`).
        any_args: the author promises to take any argument; there must be a `**kwargs` to take them.

    Raises:
        BridgeDeclarationError: something about the signature can't be exposed.
    """
    signature = read_signature(function, place, skip_first=skip_first)
    if any_args and signature.extra is None:
        raise place.refuse("any_args=True needs a **kwargs parameter that takes the arguments")
    compiler = TypeCompiler({**signature.cells, **place.namespace})
    compiled = {item.name: _compile_parameter(item, signature, compiler, place) for item in signature.parameters}
    contexts = [name for name, item in compiled.items() if item is None]
    if len(contexts) > 1:
        raise place.refuse(f"{' and '.join(contexts)} are both the Context; keep one")
    taken = [item for item in compiled.values() if item is not None]
    extra = None if signature.extra is None else _compile_parameter(signature.extra, signature, compiler, place)
    reserved = signature.reserved.union(contexts)
    if whole is not None and len(taken) == 1 and extra is None and _takes_everything(taken[0], whole):
        schema, validate = _whole_schema(taken[0]), _whole_validator(taken[0], place.command)
    else:
        schema, validate = _object_schema(taken, extra), _validator(taken, extra, reserved, place.command)
    if compiler.definitions:
        schema["$defs"] = compiler.definitions
    return Arguments(schema, _result_schema(function, signature, place), validate, next(iter(contexts), None))


def _takes_everything(item: _Compiled, whole: str) -> bool:
    return item.parameter.name == whole and dict in item.node.accepts


def _object_schema(taken: list[_Compiled], extra: _Compiled | None) -> Schema:
    properties = {
        parameter.name: node.schema if parameter.required else with_default(node.schema, parameter.default)
        for parameter, node in taken
    }
    return {
        "type": "object",
        "properties": properties,
        "required": [item.parameter.name for item in taken if item.parameter.required],
        "additionalProperties": False if extra is None else extra.node.schema or True,
    }


def _whole_schema(item: _Compiled) -> Schema:
    return {"type": "object", **item.node.schema}


def _result_schema(function: Any, signature: Signature, place: Place) -> Schema | None:
    """Compile the return annotation, as far as JSON can say it: a result is never refused for its type."""
    if signature.returns is EMPTY:
        return None
    compiler = TypeCompiler({**signature.cells, **place.namespace})
    try:
        annotation = _resolve(signature.returns, signature, place.namespace)
        kind = handler_kind(function)
        if kind == "generator":  # Generator[yielded, sent, returned]; an Iterator says nothing about the result
            annotation = (*typing.get_args(annotation), Any, Any, Any)[2]
        elif kind == "async_generator":
            return None
        schema = dict(compiler.compile(annotation).schema)
    except Exception:  # noqa: BLE001  # see the docstring
        return None
    if compiler.definitions:
        schema["$defs"] = compiler.definitions
    return schema or None


# ---------------------------------------------------------------- validating


def _whole_validator(item: _Compiled, command: str) -> Validate:
    name, check = item.parameter.name, item.node.check
    known = list(item.node.schema.get("properties", ()))[:MAX_KNOWN_SHOWN]

    def check_all(args: dict[str, Any], problems: Problems) -> dict[str, Any]:
        return {name: check(args, None, problems)}

    return _guarded(check_all, command, known, closed=bool(known))


def _validator(taken: list[_Compiled], extra: _Compiled | None, reserved: frozenset[str], command: str) -> Validate:
    """Build what checks every argument and says what is wrong with which."""
    entries: Entries = {parameter.name: (node.exact, node.check, (None, parameter.name)) for parameter, node in taken}
    needed = {item.parameter.name: item.node.expected for item in taken if item.parameter.required}
    required, known = frozenset(needed), list(entries)[:MAX_KNOWN_SHOWN]

    def check_other(name: str, value: Any, problems: Problems) -> Any:
        if extra is not None and name not in reserved:
            return extra.node.check(value, (None, name), problems)
        return note_unknown(problems, (None, str(name)), entries, value)

    def check_all(args: dict[str, Any], problems: Problems) -> dict[str, Any]:
        values = {}
        for name, value in args.items():
            entry = entries.get(name)
            if entry is None:
                values[name] = check_other(name, value, problems)
            else:
                exact, check, path = entry
                values[name] = value if value.__class__ in exact else check(value, path, problems)
        if not required <= values.keys():
            for name in [name for name in needed if name not in values]:
                note_missing(problems, (None, name), needed[name])
        return values

    return _quickly(entries, required, _guarded(check_all, command, known, closed=extra is None))


def _quickly(entries: Entries, required: frozenset[str], otherwise: Validate) -> Validate:
    """Build the hot path: one dictionary look-up and one set look-up for each argument, while nothing is unusual."""

    def validate(args: dict[str, Any]) -> dict[str, Any]:
        if args.__class__ is dict and required <= args.keys():
            for name, value in args.items():
                entry = entries.get(name)
                if entry is None or value.__class__ not in entry[0]:
                    break
            else:
                return args.copy()
        return otherwise(args)

    return validate


def _guarded(check_all: CheckAll, command: str, known: list[str], *, closed: bool) -> Validate:
    """Turn everything that can be wrong with `args` into one error."""

    def validate(args: dict[str, Any]) -> dict[str, Any]:
        problems = Problems()
        values: dict[str, Any] = {}
        try:
            if isinstance(args, dict):
                values = check_all(args, problems)
            else:
                report(problems, None, "object", args)
        except RecursionError:
            note(problems, None, "an object", "one that is nested too deeply")
        if problems:
            raise invalid_arguments(command, problems, known, closed)
        return values

    return validate

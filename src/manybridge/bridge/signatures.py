"""What a handler takes and how it runs, read from its code.

Reads code objects rather than calling `inspect`: importing that costs a worker a quarter of its start-up budget.
Whatever has no code object (a `functools.partial`, a callable object, a C function) takes the slow road through it.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from manybridge.bridge.errors import BridgeDeclarationError

HandlerKind: TypeAlias = Literal["function", "generator", "coroutine", "async_generator"]

_CO_VARARGS, _CO_VARKEYWORDS, _CO_GENERATOR, _CO_COROUTINE, _CO_ASYNC_GENERATOR = 0x04, 0x08, 0x20, 0x80, 0x200
EMPTY: Final = object()


class Parameter(NamedTuple):
    """One parameter of a handler, not yet compiled."""

    name: str
    annotation: Any
    default: Any = EMPTY

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is EMPTY


class Signature(NamedTuple):
    """What a handler takes, without the instance it is called on."""

    parameters: tuple[Parameter, ...]
    extra: Parameter | None
    """The `**kwargs` parameter."""
    reserved: frozenset[str]
    """Names that a caller can't pass although `**kwargs` would take them: that of the instance."""
    returns: Any
    globals: dict[str, Any]
    cells: Mapping[str, Any]
    """Names of the functions around the handler that it uses itself."""


class Place(NamedTuple):
    """Where a handler was declared, for errors, and the names that its annotations may use."""

    text: str
    command: str
    namespace: Mapping[str, Any] = types.MappingProxyType({})

    def refuse(self, problem: str) -> BridgeDeclarationError:
        """Build the error that says what is wrong here."""
        return BridgeDeclarationError(f"{self.text}: {problem}")


def handler_kind(function: Any) -> HandlerKind:
    """Say how a handler runs, from the code that is really called."""
    while hasattr(function, "func") and not hasattr(function, "__code__"):
        function = function.func  # functools.partial
    code = getattr(function, "__code__", None) or getattr(getattr(function, "__call__", None), "__code__", None)  # noqa: B004  # its code is wanted, not whether it can be called
    flags = 0 if code is None else code.co_flags
    if flags & _CO_ASYNC_GENERATOR:
        return "async_generator"
    if flags & _CO_COROUTINE:
        return "coroutine"
    return "generator" if flags & _CO_GENERATOR else "function"


# ---------------------------------------------------------------- reading


def read_signature(function: Any, place: Place, *, skip_first: bool) -> Signature:
    """Read what a handler takes.

    Args:
        function: the handler.
        place: for errors.
        skip_first: whether the first parameter is the instance, which is not bound yet.

    Raises:
        BridgeDeclarationError: it has `*args` or positional-only parameters, or can't be read.
    """
    if isinstance(function, types.MethodType):
        function, skip_first = function.__func__, True
    inner = function
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    if isinstance(inner, types.FunctionType) and not hasattr(function, "__signature__"):
        return _read_code(inner, place, skip_first)
    return _read_with_inspect(function, place, skip_first)


def _read_code(function: types.FunctionType, place: Place, skip_first: bool) -> Signature:
    code, annotations = function.__code__, _annotations(function)
    positional, names = code.co_argcount, code.co_varnames
    if code.co_flags & _CO_VARARGS:
        raise _no_varargs(place, names[positional + code.co_kwonlyargcount])
    skipped = 1 if skip_first else 0
    if code.co_posonlyargcount > skipped:
        raise _no_positional_only(place, names[code.co_posonlyargcount - 1])
    defaults = function.__defaults__ or ()
    given = dict(zip(names[positional - len(defaults) : positional], defaults, strict=True))
    given.update(function.__kwdefaults__ or {})
    last = positional + code.co_kwonlyargcount
    parameters = tuple(
        Parameter(name, annotations.get(name, Any), given.get(name, EMPTY)) for name in names[skipped:last]
    )
    extra = None
    if code.co_flags & _CO_VARKEYWORDS:
        extra = Parameter(names[last], annotations.get(names[last], Any))
    cells = dict(zip(code.co_freevars, map(_cell_value, function.__closure__ or ()), strict=True))
    returns = annotations.get("return", EMPTY)
    return Signature(parameters, extra, frozenset(names[:skipped]), returns, function.__globals__, cells)


def _cell_value(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _annotations(function: Any) -> dict[str, Any]:
    try:
        return dict(function.__annotations__)
    except NameError:  # Python 3.14 evaluates late, and a name may exist for type checkers alone
        from importlib import import_module

        library: Any = import_module("annotationlib")
        return dict(library.get_annotations(function, format=library.Format.FORWARDREF))


def _read_with_inspect(function: Any, place: Place, skip_first: bool) -> Signature:
    import inspect

    try:
        found = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise place.refuse(f"its parameters can't be read ({error}); wrap it in a Python function") from error
    parameters, extra = [], None
    for entry in list(found.parameters.values())[1 if skip_first else 0 :]:
        default = EMPTY if entry.default is entry.empty else entry.default
        parameter = Parameter(entry.name, Any if entry.annotation is entry.empty else entry.annotation, default)
        if entry.kind is entry.VAR_POSITIONAL:
            raise _no_varargs(place, entry.name)
        if entry.kind is entry.POSITIONAL_ONLY:
            raise _no_positional_only(place, entry.name)
        if entry.kind is entry.VAR_KEYWORD:
            extra = parameter
        else:
            parameters.append(parameter)
    returns = EMPTY if found.return_annotation is found.empty else found.return_annotation
    return Signature(tuple(parameters), extra, frozenset({"self"}), returns, _globals_of(function), {})


def _globals_of(function: Any) -> dict[str, Any]:
    for owner in (function, getattr(function, "func", None), getattr(function, "__call__", None)):  # noqa: B004  # as above
        scope = getattr(owner, "__globals__", None)
        if isinstance(scope, dict):
            return scope
    return {}


def _no_varargs(place: Place, name: str) -> BridgeDeclarationError:
    return place.refuse(f"*{name} can't be called by name; write named parameters, or `{name}: list[...]`")


def _no_positional_only(place: Place, name: str) -> BridgeDeclarationError:
    return place.refuse(f"parameter {name!r} is positional-only, but arguments come by name; remove the `/`")

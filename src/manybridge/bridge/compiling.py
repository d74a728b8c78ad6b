"""From a bridge class to its spec: reads the notes of the decorators, checks every name, compiles every handler."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from manybridge.bridge.arguments import compile_arguments
from manybridge.bridge.declarations import (
    COMMAND_NOTE,
    POLICIES,
    RESOURCE_NOTE,
    CommandNote,
    Policy,
    ResourceNote,
)
from manybridge.bridge.errors import BridgeDeclarationError
from manybridge.bridge.signatures import Place, handler_kind, read_signature
from manybridge.bridge.specs import BridgeSpec, CommandSpec, ResourceSpec

if TYPE_CHECKING:
    from manybridge.bridge.base import Bridge

BRIDGE_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}")
OPERATION_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")
RESERVED_BRIDGE_NAMES: Final = frozenset({"common"})

_COMPILED: Final = "_manybridge_spec"


# ---------------------------------------------------------------- one handler, one resource class


def compile_command(
    note: CommandNote, function: Any, place: Place, *, skip_first: bool, whole: str | None = None
) -> CommandSpec:
    """Compile one handler.

    Raises:
        BridgeDeclarationError: it can't be exposed.
    """
    check_name(note.name, OPERATION_NAME, place)
    if not callable(function):
        raise place.refuse(f"{function!r} can't be called")
    if note.args is not None and note.args.get("type") != "object":
        raise place.refuse('args must be the JSON Schema of an object, with "type": "object"')
    arguments = compile_arguments(function, place, skip_first=skip_first, whole=whole, any_args=note.any_args)
    if note.changes is not None and note.changes not in arguments.schema.get("properties", {}):
        raise place.refuse(f"changes names an argument that it does not have: {note.changes!r}")
    return CommandSpec(
        name=note.name,
        function=function,
        kind=handler_kind(function),
        args_schema=arguments.schema if note.args is None else note.args,
        result_schema=arguments.result_schema,
        description=first_line(function) if note.description is None else note.description,
        wants_context=arguments.wants_context,
        validate=arguments.validate,
        idempotent=note.idempotent,
        session_settings=note.session_settings,
        changes=note.changes,
    )


def compile_resource(note: ResourceNote, cls: type, bridge_name: str, namespace: Mapping[str, Any]) -> ResourceSpec:
    """Compile one resource class.

    Raises:
        BridgeDeclarationError: it can't be exposed.
    """
    place = Place(cls.__qualname__, f"{bridge_name}:{note.type}", namespace)
    check_name(note.type, OPERATION_NAME, place)
    _check_construction(cls, place)
    _check_hooks(cls, ("snapshot", "restore", "close"), place)
    return ResourceSpec(
        type=note.type,
        cls=cls,
        policy=_policy(note, cls, place),
        create=_compile_method(cls, "create", "config", place),
        execute=_compile_method(cls, "execute", "inputs", place),
        description=first_line(cls) if note.description is None else note.description,
    )


def _compile_method(cls: type, name: str, whole: str, place: Place) -> CommandSpec:
    method = getattr(cls, name, None)
    if not isinstance(method, types.FunctionType):
        raise place.refuse(f"a resource needs a method `def {name}(self, ...)`")
    command = f"{name} {place.command}"
    inner = Place(f"{place.text}.{name}", command, {**place.namespace, **class_namespace(cls)})
    return compile_command(CommandNote(name), method, inner, skip_first=True, whole=whole)


def _check_hooks(cls: type, names: tuple[str, ...], place: Place) -> None:
    """Refuse hooks that would be called and not run: nobody awaits or iterates what they return."""
    for name in names:
        if handler_kind(getattr(cls, name, None)) != "function":
            text = f"`{name}` must be a plain function: one with `async` or `yield` would never run"
            raise place.refuse(f"{text}; for a coroutine write asyncio.run(...) in it")


def _check_construction(cls: type, place: Place) -> None:
    init = getattr(cls, "__init__", None)
    if isinstance(init, types.FunctionType):
        required = [p.name for p in read_signature(init, place, skip_first=True).parameters if p.required]
        if required:
            raise place.refuse(f"__init__ is called without arguments; take {', '.join(required)} in `create` instead")


def _policy(note: ResourceNote, cls: type, place: Place) -> Policy:
    has = {name: callable(getattr(cls, name, None)) for name in ("snapshot", "restore")}
    complete = all(has.values())
    if any(has.values()) and not complete:
        present, absent = sorted(has, key=has.__getitem__, reverse=True)
        raise place.refuse(f"it has `{present}` but no `{absent}`; write both, or neither")
    if note.policy is None:
        return "restore" if complete else "recreate"
    if note.policy not in POLICIES:
        raise place.refuse(f"policy {note.policy!r} is not one of {', '.join(POLICIES)}")
    if note.policy == "restore" and not complete:
        raise place.refuse("policy 'restore' needs the methods `snapshot(self)` and `restore(self, state)`")
    return note.policy


def check_name(name: Any, pattern: re.Pattern[str], place: Place) -> None:
    """Refuse a name that can't stand in a command.

    Raises:
        BridgeDeclarationError: with the form that is wanted.
    """
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise place.refuse(f"the name {name!r} is not allowed; it must match {pattern.pattern}")


def first_line(documented: Any) -> str:
    """The first line of a docstring, or an empty string."""
    text = getattr(documented, "__doc__", None) or ""
    return text.strip().partition("\n")[0].strip()


def class_namespace(cls: type) -> dict[str, Any]:
    """Names that a class defines and its annotations may use: types, not methods."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__[:-1]):
        found.update((name, value) for name, value in vars(base).items() if not isinstance(value, _METHODS))
    return found


_METHODS = (types.FunctionType, classmethod, staticmethod, property)


HOOKS: Final = (
    "preload", "setup", "close", "cleanup", "configure_session", "ping_info", "stats", "translate_error", "handle_v1",
)  # fmt: skip
"""Methods that a bridge may override; the worker calls them as they are."""

# ---------------------------------------------------------------- a bridge class


class CompiledBridge(NamedTuple):
    """What is known about a bridge class before there is an object of it."""

    spec: BridgeSpec
    attributes: Mapping[str, str]
    """Operation -> name of the method."""


def compile_bridge(cls: type[Bridge]) -> BridgeSpec:
    """Compile what a bridge class declares. Done once per class; functions in the result are not bound.

    Raises:
        BridgeDeclarationError: something can't be exposed; names class, handler and parameter, and what to write.
    """
    return compiled_bridge(cls).spec


def compiled_bridge(cls: type[Bridge]) -> CompiledBridge:
    """Like `compile_bridge`, with the names of the methods."""
    compiled: CompiledBridge | None = cls.__dict__.get(_COMPILED)
    if compiled is None:
        # Two threads may do this at once; they come to equal results.
        compiled = _compile_class(cls)
        setattr(cls, _COMPILED, compiled)
    return compiled


def _compile_class(cls: type[Bridge]) -> CompiledBridge:
    _check_bridge(cls, Place(cls.__qualname__, ""))
    namespace = class_namespace(cls)
    commands: dict[str, CommandSpec] = {}
    resources: dict[str, ResourceSpec] = {}
    attributes: dict[str, str] = {}
    for attribute, raw, note in declared(cls):
        if isinstance(note, ResourceNote):
            if note.type in resources:
                raise _duplicate(cls, f"resource type {note.type!r}", resources[note.type].cls.__name__, attribute)
            resources[note.type] = compile_resource(note, raw, cls.name, namespace)
            continue
        place = Place(f"{cls.__qualname__}.{attribute}", f"{cls.name}:{note.name}", namespace)
        if note.name in commands:
            raise _duplicate(cls, f"command {note.name!r}", attributes[note.name], attribute)
        static = isinstance(raw, staticmethod)
        commands[note.name] = compile_command(note, getattr(cls, attribute), place, skip_first=not static)
        attributes[note.name] = attribute
    return CompiledBridge(BridgeSpec(cls.name, cls.version, cls.capabilities, commands, resources), attributes)


def _duplicate(cls: type, what: str, first: str, second: str) -> BridgeDeclarationError:
    return BridgeDeclarationError(
        f"{cls.__qualname__}: {first} and {second} both declare the {what}; rename one. To replace what a base class "
        f"declares, override {first} under its own name, or set `{first} = None`"
    )


def declared(cls: type) -> Iterator[tuple[str, Any, CommandNote | ResourceNote]]:
    """Yield what a class and its bases declare: attribute, raw value, note.

    A subclass that overrides a handler need not decorate it again; setting it to None withdraws it.
    """
    found: dict[str, tuple[Any, CommandNote | ResourceNote]] = {}
    for base in reversed(cls.__mro__):
        for attribute, raw in vars(base).items():
            note = vars(raw).get(RESOURCE_NOTE) if isinstance(raw, type) else getattr(raw, COMMAND_NOTE, None)
            if note is None and isinstance(raw, (staticmethod, classmethod)):  # @command stands below it
                note = getattr(raw.__func__, COMMAND_NOTE, None)
            if note is not None:
                found[attribute] = (raw, note)
            elif attribute in found and raw is None:
                del found[attribute]
            elif attribute in found:
                found[attribute] = (raw, found[attribute][1])
    for attribute, (raw, note) in found.items():
        yield attribute, raw, note


def _check_bridge(cls: type[Bridge], place: Place) -> None:
    from manybridge.bridge.base import Bridge

    name = getattr(cls, "name", None)
    if name is None:
        raise place.refuse(f'it has no name; write `name = "{_suggested_name(cls)}"` in the class')
    check_name(name, BRIDGE_NAME, place)
    if name in RESERVED_BRIDGE_NAMES:
        raise place.refuse(f"the name {name!r} is taken by manybridge itself; choose another")
    for attribute in ("capabilities", "required_modules"):
        value = getattr(cls, attribute)
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            raise place.refuse(f'{attribute} must be a tuple of strings, for example ("training",), not {value!r}')
    if not isinstance(cls.version, str):
        raise place.refuse(f"version must be a string, not {cls.version!r}")
    if not isinstance(cls.max_concurrency, int) or isinstance(cls.max_concurrency, bool) or cls.max_concurrency < 1:
        raise place.refuse(f"max_concurrency must be an integer from 1 on, not {cls.max_concurrency!r}")
    if cls.dialect not in {"native", "dspex"}:
        raise place.refuse(f'dialect must be "native" or "dspex", not {cls.dialect!r}')
    _check_hooks(cls, HOOKS, place)
    for attribute, _, _ in declared(cls):
        if attribute in vars(Bridge):
            raise place.refuse(
                f"`{attribute}` is a method of Bridge itself; give the handler another name and write "
                f'@command("{attribute}") above it'
            )


def _suggested_name(cls: type) -> str:
    return cls.__name__.removesuffix("Bridge").lower() or "mine"

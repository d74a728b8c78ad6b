"""A bridge as data: what the runtime runs, and what `common:capabilities` shows.

`compiling` makes a spec of each class once. Each bridge object then has a live copy, bound to it, in which commands and
resource types come and go at run time. Readers take no lock: every change puts a new mapping in the old one's place.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from manybridge.bridge.arguments import Validate
from manybridge.bridge.declarations import Policy
from manybridge.bridge.errors import BridgeDeclarationError
from manybridge.bridge.nodes import Schema
from manybridge.bridge.problems import closest_match
from manybridge.bridge.signatures import HandlerKind

if TYPE_CHECKING:
    from manybridge.bridge.base import Bridge

AnyClass: TypeAlias = type[Any]


class CommandSpec(NamedTuple):
    """One command, or the `create` or `execute` of a resource type."""

    name: str
    """The operation, without the namespace."""
    function: Callable[..., Any]
    """Call it with what `validate` returned, and the context where it is wanted."""
    kind: HandlerKind
    args_schema: Schema
    result_schema: Schema | None
    """None where the annotations say nothing about the result."""
    description: str
    wants_context: str | None
    """Name of the parameter that takes the `Context`, or None."""
    validate: Validate
    """From the decoded `args` to keyword arguments; raises BridgeError `invalid_argument` with every problem found."""
    idempotent: bool = False
    session_settings: bool = False
    """Whether its result has the settings of the caller's session from now on."""
    changes: str | None = None
    """The argument with the id of the resource that it changes."""

    @property
    def streaming(self) -> bool:
        """Whether a call may send events: it yields, or has a context to send them with."""
        return self.kind in {"generator", "async_generator"} or self.wants_context is not None

    def bind(self, instance: object) -> CommandSpec:
        """Return the same command with `function` bound to `instance`, for the methods of a resource."""
        return self._replace(function=types.MethodType(self.function, instance))

    def describe(self) -> dict[str, Any]:
        """The command's entry in `common:capabilities`."""
        return {
            "description": self.description,
            "args": self.args_schema,
            "result": self.result_schema,
            "streaming": self.streaming,
            "idempotent": self.idempotent,
        }


class ResourceSpec(NamedTuple):
    """One resource type."""

    type: str
    cls: AnyClass
    policy: Policy
    create: CommandSpec
    """Not bound: call `create.function(instance, **kwargs)`, or `create.bind(instance)` first."""
    execute: CommandSpec
    """Not bound, as `create`."""
    description: str

    def new(self, bridge: Any, id: str, session_id: str | None = None, config: Mapping[str, Any] | None = None) -> Any:
        """Make an instance on which neither `create` nor `restore` was called yet."""
        make: Any = self.cls
        instance = make.__new__(make)  # __init__ comes after the attributes, because it may use them
        instance.bridge, instance.id, instance.type, instance.session_id = bridge, id, self.type, session_id
        instance.config = dict(config or {})
        instance.__init__()
        return instance

    def describe(self) -> dict[str, Any]:
        """The type's entry in `common:capabilities`."""
        return {
            "description": self.description,
            "config": self.create.args_schema,
            "inputs": self.execute.args_schema,
            "result": self.execute.result_schema,
            "policy": self.policy,
            "streaming": self.execute.streaming,
        }


class BridgeSpec:
    """What a bridge offers. Owner of its two mappings; every method may be called from any thread."""

    __slots__ = ("_commands", "_lock", "_resources", "capabilities", "name", "version")

    def __init__(
        self,
        name: str,
        version: str,
        capabilities: tuple[str, ...],
        commands: Mapping[str, CommandSpec],
        resources: Mapping[str, ResourceSpec],
    ) -> None:
        self.name = name
        self.version = version
        self.capabilities = capabilities
        self._commands: Mapping[str, CommandSpec] = types.MappingProxyType(dict(commands))
        self._resources: Mapping[str, ResourceSpec] = types.MappingProxyType(dict(resources))
        self._lock = Lock()

    @property
    def commands(self) -> Mapping[str, CommandSpec]:
        """Operation -> command, as of now; the mapping itself never changes."""
        return self._commands

    @property
    def resources(self) -> Mapping[str, ResourceSpec]:
        """Type -> resource type, as of now; the mapping itself never changes."""
        return self._resources

    def describe(self, framework: str | None = None) -> dict[str, Any]:
        """Return the result of `common:capabilities`.

        Args:
            framework: the namespace under which the worker serves, if it is not the bridge's own name.
        """
        framework = framework or self.name
        return {
            "framework": framework,
            "version": self.version,
            "capabilities": list(self.capabilities),
            "commands": {f"{framework}:{name}": command.describe() for name, command in self._commands.items()},
            "resources": {name: kind.describe() for name, kind in self._resources.items()},
        }

    def add_command(self, command: CommandSpec, *, replace: bool = False) -> None:
        """Add a command.

        Raises:
            BridgeDeclarationError: the name is taken and `replace` is false.
        """
        with self._lock:
            self._commands = _with(self._commands, command.name, command, replace, f"command {self.name}:")

    def remove_command(self, name: str) -> None:
        """Remove a command; calls of it that run already go on.

        Raises:
            LookupError: there is none of that name.
        """
        with self._lock:
            self._commands = _without(self._commands, name, f"command {self.name}:")

    def add_resource(self, resource: ResourceSpec, *, replace: bool = False) -> None:
        """Add a resource type.

        Raises:
            BridgeDeclarationError: the name is taken and `replace` is false.
        """
        with self._lock:
            self._resources = _with(self._resources, resource.type, resource, replace, "resource type ")

    def remove_resource(self, type_name: str) -> None:
        """Remove a resource type; resources that exist already go on.

        Raises:
            LookupError: there is none of that name.
        """
        with self._lock:
            self._resources = _without(self._resources, type_name, "resource type ")

    def bind(self, bridge: Bridge, attributes: Mapping[str, str]) -> BridgeSpec:
        """Return a live copy whose commands are the methods of `bridge`; `attributes` maps operation -> method."""
        commands = {
            name: command._replace(function=getattr(bridge, attributes[name]))
            for name, command in self._commands.items()
        }
        return BridgeSpec(self.name, self.version, self.capabilities, commands, self._resources)


def _with(entries: Mapping[str, Any], name: str, entry: Any, replace: bool, what: str) -> Mapping[str, Any]:
    if name in entries and not replace:
        raise BridgeDeclarationError(f"{what}{name} exists already; remove it first, or pass replace=True")
    return types.MappingProxyType({**entries, name: entry})


def _without(entries: Mapping[str, Any], name: str, what: str) -> Mapping[str, Any]:
    if name not in entries:
        closest = closest_match(name, entries)
        raise LookupError(f"no {what}{name}" + (f"; did you mean {closest!r}?" if closest else ""))
    return types.MappingProxyType({key: entry for key, entry in entries.items() if key != name})

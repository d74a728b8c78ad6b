"""The decorators of the author API. They only leave a note; `specs` reads it when the bridge is compiled.

Compiling waits because annotations may name types that stand further down in the author's file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar, overload

from manybridge.bridge.errors import BridgeDeclarationError

F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C", bound=type)

Policy: TypeAlias = Literal["recreate", "restore", "pinned"]
POLICIES: Final[tuple[Policy, ...]] = ("recreate", "restore", "pinned")

COMMAND_NOTE: Final = "__manybridge_command__"
RESOURCE_NOTE: Final = "__manybridge_resource__"


class CommandNote(NamedTuple):
    """What `@command` was told."""

    name: str
    description: str | None = None
    args: dict[str, Any] | None = None
    idempotent: bool = False
    any_args: bool = False
    session_settings: bool = False
    changes: str | None = None


class ResourceNote(NamedTuple):
    """What `@resource` was told."""

    type: str
    policy: Policy | None = None
    description: str | None = None


@overload
def command(name: F, /) -> F: ...
@overload
def command(
    name: str | None = None,
    *,
    description: str | None = None,
    args: dict[str, Any] | None = None,
    idempotent: bool = False,
    any_args: bool = False,
    session_settings: bool = False,
    changes: str | None = None,
) -> Callable[[F], F]: ...
def command(
    name: str | F | None = None,
    *,
    description: str | None = None,
    args: dict[str, Any] | None = None,
    idempotent: bool = False,
    any_args: bool = False,
    session_settings: bool = False,
    changes: str | None = None,
) -> F | Callable[[F], F]:
    """Expose a method of a bridge as the command `BRIDGE:name`.

    The method may be a plain function, a generator (each `yield` is a chunk, `return` is the result), a coroutine, or
    an async generator (`yield Result(value)` last for the result). It is left as it is and can be called directly.

    Args:
        name: the command's name; by default the method's.
        description: for `common:capabilities`; by default the first line of the docstring.
        args: a JSON Schema to publish instead of the one that the annotations give. The annotations still validate.
        idempotent: a second run with the same arguments changes nothing more, so the host may repeat it.
        any_args: arguments beyond the named ones go to `**kwargs`; refused at declaration if there is no `**kwargs`.
        session_settings: it configures the caller's session. Its result is an object whose `settings` are what
            `Bridge.configure_session` must be given for the session to be as it is then, with `"***"` for a secret of
            the arguments; the host gives them to every worker that serves the session.
        changes: the argument with the id of the resource that it changes. A host makes the call where that resource
            is, and keeps its state afterwards, as after an execution.
    """
    if name is not None and not isinstance(name, str):
        return command()(name)

    def decorate(function: F) -> F:
        chosen = _name_of(function) if name is None else name
        # Also on a staticmethod or classmethod object, which take attributes since Python 3.10.
        note = CommandNote(chosen, description, args, idempotent, any_args, session_settings, changes)
        setattr(function, COMMAND_NOTE, note)
        return function

    return decorate


def _name_of(function: Any) -> str:
    name: str | None = getattr(function, "__name__", None)
    if name is None:
        raise BridgeDeclarationError(f"@command: {function!r} has no name; write @command('name')")
    return name


def resource(type: str, *, policy: Policy | None = None, description: str | None = None) -> Callable[[C], C]:
    """Expose a class, nested in a bridge or given to `register_resource`, as a resource type.

    The class is made without arguments and has `bridge`, `id`, `type`, `session_id` and `config` (what the caller
    sent) before `__init__` runs. It needs `create(self, ...)` and `execute(self, ...)`, whose parameters are the keys
    of the caller's config and inputs. A single parameter `config: dict` (in `create`) or `inputs: dict` (in `execute`)
    receives all of them instead. Optional: `snapshot(self)` returning JSON, `restore(self, state)`, `close(self)`.

    In another worker `restore` is called *instead of* `create`, so that a model is not trained twice. Where the state
    is not all that it takes, begin with `self.create(**self.config)`.

    Args:
        type: the type's name, for example "model".
        policy: what the host may do when the worker dies: `recreate` it from its config, `restore` it from its last
            snapshot, or nothing (`pinned`). By default `restore` if the class has `snapshot` and `restore`, else
            `recreate`.
        description: by default the first line of the class's docstring.
    """
    if not isinstance(type, str):
        raise BridgeDeclarationError(f"@resource needs a name; write @resource({_suggest(type)!r}) above the class")

    def decorate(cls: C) -> C:
        setattr(cls, RESOURCE_NOTE, ResourceNote(type, policy, description))
        return cls

    return decorate


def _suggest(cls: Any) -> str:
    return str(getattr(cls, "__name__", "model")).lower()

"""What the Python adapters take and return, the same for both of them: references, versions, outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple, Self, TypeAlias

REFERENCE_KEY: Final = "$object"
"""What marks a reference on the wire: `{"$object": id, "type": ..., "expires_at": ...}`."""

STATE: Final = "state"
"""The resource type behind `State`."""

ITERATE: Final = "python:iterate"
EXECUTE: Final = "python:execute"

Path: TypeAlias = str | Sequence[str]
"""Keys from the root of a document, joined by dots or as a list; empty means the whole document."""

OutputStream: TypeAlias = Literal["stdout", "stderr"]
OnOutput: TypeAlias = Callable[[OutputStream, str], object]
"""Called with the stream's name and a piece of text."""

Progress: TypeAlias = Callable[[float, float | None, str], object]
"""Called with (current, total or None, message)."""

CHANGE_ATTEMPTS: Final = 100
"""How often `State.change` tries: with so many losses in a row something else is wrong than bad luck."""


class Reference:
    """An object that lives in a worker. The base of `RemoteObject` and `AsyncRemoteObject`.

    Attributes:
        id: of the object; only its own worker and session know it.
        type: `module.Type` of the object.
        expires_at: epoch seconds; every use of the object puts it off.
    """

    def __init__(self, reference: Mapping[str, Any]) -> None:
        self.id: str = reference[REFERENCE_KEY]
        self.type: str = reference.get("type", "")
        self.expires_at: float | None = reference.get("expires_at")
        self.text: str | None = reference.get("text")

    def __repr__(self) -> str:
        shown = f" {self.text}" if self.text is not None else ""
        return f"{type(self).__name__}({self.id!r}, {self.type}{shown})"

    @property
    def wire(self) -> dict[str, str]:
        """What stands for it in arguments."""
        return {REFERENCE_KEY: self.id}


class Versioned(NamedTuple):
    """A value of a state, and the version of the document that it was read from or written as."""

    value: Any
    version: int


@dataclass(frozen=True, slots=True)
class Execution:
    """What `execute` gave.

    Attributes:
        result: value of the last expression, or of the variable that was asked for.
        stdout: what the code printed, up to the bridge's limit.
        stderr: what it wrote there.
        dropped_bytes: of both, what came after the limit and is in neither.
        seconds: how long the code ran.
    """

    result: Any
    stdout: str = ""
    stderr: str = ""
    dropped_bytes: int = 0
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def read(cls, result: Mapping[str, Any], value: Any) -> Self:
        """Make one of what the bridge returned, and of its result with references resolved."""
        return cls(value, result["stdout"], result["stderr"], result["dropped_bytes"], result["seconds"])


def to_wire(value: Any) -> Any:
    """`value` with every `Reference` in it, at any depth, replaced by what stands for it."""
    if isinstance(value, Reference):
        return value.wire
    if isinstance(value, Mapping):
        return {key: to_wire(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_wire(item) for item in value]
    return value


def from_wire(value: Any, make: Callable[[Mapping[str, Any]], Reference]) -> Any:
    """`value` with every reference in it, at any depth, made into an object."""
    if isinstance(value, dict):
        if REFERENCE_KEY in value:
            return make(value)
        return {key: from_wire(item, make) for key, item in value.items()}
    if isinstance(value, list):
        return [from_wire(item, make) for item in value]
    return value


def call_args(
    args: Sequence[Any], kwargs: Mapping[str, Any], *, store: bool = False, **names: str | Reference
) -> dict[str, Any]:
    """The arguments of `python:call`, `python:method` and `python:iterate`: those that the function gets, and names."""
    asked = {name: to_wire(value) for name, value in names.items()} | {"args": to_wire(args), "kwargs": to_wire(kwargs)}
    return {**asked, "store": True} if store else asked


def keys_of(path: Path) -> str | list[str]:
    """A path as the wire carries it."""
    return path if isinstance(path, str) else list(path)


def report(event: Any, on_output: OnOutput | None, on_progress: Progress | None) -> None:
    """Hand an event of an execution on to whom it concerns."""
    if event.event == "chunk" and on_output is not None:
        on_output(event.data["stream"], event.data["text"])
    elif event.event == "progress" and on_progress is not None:
        on_progress(event.data["current"], event.data["total"], event.data["message"])

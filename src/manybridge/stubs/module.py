"""The text of a client module: header, types, one class for each resource type, and the client."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from manybridge.stubs.names import BUILTINS, Names, class_name, identifier, literal
from manybridge.stubs.types import Direction, TypeWriter, default_text

WIDTH: Final = 110

_IMPORTED: Final = frozenset(
    {"Any", "AsyncMLBridge", "Client", "Literal", "MLBridge", "NotRequired", "Options", "Resource", "Resources",
     "Stream", "TypeAlias", "TypedDict", "UNSET", "annotations", "given"}
)  # fmt: skip
_OPTIONS: Final = {
    "timeout": "float | None",
    "session": "str | None",
    "idempotency_key": "str | None",
}
_PARAMETERS_TAKEN: Final = frozenset({*_OPTIONS, "self", "resource_id", "more", "result_", "sent_", "UNSET"})
_CLIENT_TAKEN: Final = frozenset({*BUILTINS, *_IMPORTED, "resources"})
_OF_A_RESOURCE: Final = ("timeout", "idempotency_key")
"""A resource is used in the session that it was made in."""

_AS_GIVEN: Final = "Options(timeout, session, idempotency_key)"
_IN_ITS_SESSION: Final = "Options(timeout, self.session, idempotency_key)"


class Origin(NamedTuple):
    """Where a module comes from."""

    bridge: str
    """The name that the client asks its host for, where its user names no other."""
    command: str
    """What was typed to make it."""


@dataclass(frozen=True, slots=True)
class _Argument:
    """One argument of a command."""

    wire: str
    parameter: str
    annotation: str
    required: bool
    description: str
    default: str | None


@dataclass(frozen=True, slots=True)
class _Arguments:
    """What a command takes."""

    arguments: list[_Argument] = field(default_factory=list)
    more: str | None = None
    """Annotation of what it takes beyond its arguments; None for nothing."""


@dataclass(frozen=True, slots=True)
class _Method:
    """One method of a class, ready to be written."""

    define: str
    name: str
    arguments: _Arguments
    returns: str
    body: list[str]
    about: str
    notes: list[str] = field(default_factory=list)
    options: Iterable[str] = tuple(_OPTIONS)
    before_options: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Its source."""
        parameters = [
            f"{each.parameter}: {each.annotation}" + ("" if each.required else " = UNSET")
            for each in self.arguments.arguments
        ]
        parameters += [*self.before_options, *(f"{option}: {_OPTIONS[option]} = None" for option in self.options)]
        if self.arguments.more is not None:
            parameters.append(f"**more: {self.arguments.more}")
        notes = ["Args:", *(f"    {note}" for note in self.notes)] if self.notes else []
        return "\n".join(
            [
                f"    {self.define} {self.name}(",
                *(f"        {each}," for each in ("self", "*", *parameters)),
                f"    ) -> {self.returns}:",
                *_docstring(self.about, notes, 2),
                *(f"        {line}" for line in self.body),
            ]
        )


class _Flavour(NamedTuple):
    """The words in which the blocking and the asynchronous client differ."""

    host: str
    module: str
    define: str
    wait: str


_BLOCKING: Final = _Flavour("MLBridge", "client", "def", "")
_ASYNCHRONOUS: Final = _Flavour("AsyncMLBridge", "async_client", "async def", "await ")


def client_module(capabilities: Mapping[str, Any], origin: Origin, *, asynchronous: bool = False) -> str:
    """Write the typed client of a bridge.

    Args:
        capabilities: what `common:capabilities` answers, or `MLBridge.capabilities`.
        origin: for the header, and the client's default.
        asynchronous: for `AsyncMLBridge` instead of `MLBridge`.

    Returns:
        The source of a Python module. The same arguments always give the same text.
    """
    return _Module(capabilities, origin, _ASYNCHRONOUS if asynchronous else _BLOCKING).text()


class _Module:
    """Writes one module. Owner of its names and types."""

    def __init__(self, capabilities: Mapping[str, Any], origin: Origin, flavour: _Flavour) -> None:
        self._capabilities = capabilities
        self._origin = origin
        self._flavour = flavour
        self._names = Names({*_IMPORTED, *BUILTINS})
        self._types = TypeWriter(self._names)

    def text(self) -> str:
        """The whole module."""
        client = self._names.take(class_name(self._origin.bridge, "client"))
        resources = self._names.take(class_name(self._origin.bridge, "resources"))
        kinds = sorted((self._capabilities.get("resources") or {}).items())
        # The names come first, so that the types keep clear of them.
        handles = {name: self._names.take(class_name(name)) for name, _ in kinds}
        groups = {name: self._names.take(class_name(name, "resources")) for name, _ in kinds}
        methods = self._methods()
        classes = [
            block
            for name, kind in kinds
            for block in (self._handle(handles[name], name, kind), self._group(groups[name], handles[name], name, kind))
        ]
        if kinds:
            classes.append(self._all_groups(resources, groups))
        classes.append(self._client(client, resources if kinds else None, methods))
        definitions = self._types.definitions
        return "\n\n\n".join(["\n".join(self._head([*definitions, *classes])), *definitions, *classes]) + "\n"

    # -- the module --------------------------------------------------------------------------------------------------

    def _head(self, blocks: list[str]) -> Iterator[str]:
        facts, origin = self._capabilities, self._origin
        version = f", version {facts['version']}" if facts.get("version") else ""
        yield f'"""Typed client of the manybridge bridge {_doc(origin.bridge)}{version}.'
        yield ""
        yield f"Made by: {_doc(origin.command)}"
        yield "Made again, it is overwritten; with --check, that command says whether it is out of date."
        yield '"""'
        yield ""
        yield "# ruff: noqa"
        yield "from __future__ import annotations"
        yield ""
        text = "\n".join(blocks)
        typing = [name for name in ("Any", "Literal", "NotRequired", "TypeAlias", "TypedDict") if _uses(text, name)]
        yield f"from typing import {', '.join(typing)}"
        yield ""
        yield f"from manybridge import {self._flavour.host}"
        known = ("UNSET", "Client", "Options", "Resource", "Resources", "Stream", "given")
        used = [name for name in known if _uses(text, name)]
        yield f"from manybridge.stubs.{self._flavour.module} import {', '.join(used)}"

    # -- classes -----------------------------------------------------------------------------------------------------

    def _client(self, name: str, resources: str | None, methods: list[str]) -> str:
        about = (
            "A call takes `timeout` (seconds), `session` and `idempotency_key` as `MLBridge.call` does. An argument "
            "that is left out does not travel: the bridge's own default holds."
        )
        lines = [
            f"class {name}(Client):",
            *_docstring(f"The bridge `{self._origin.bridge}`.", [about], 1),
            "",
            f"    def __init__(self, ml: {self._flavour.host}, bridge: str = {literal(self._origin.bridge)}) -> None:",
            "        super().__init__(ml, bridge)",
        ]
        if resources is not None:
            lines.append(f"        self.resources = {resources}(ml, bridge)")
        return "\n\n".join(["\n".join(lines), *methods])

    def _all_groups(self, name: str, groups: Mapping[str, str]) -> str:
        attributes = Names()
        host = self._flavour.host
        return "\n".join(
            [
                f"class {name}:",
                *_docstring("The resource types of the bridge.", [], 1),
                "",
                f"    def __init__(self, ml: {host}, bridge: str) -> None:",
                *(
                    f"        self.{attributes.take(identifier(kind))} = {group}(ml, bridge)"
                    for kind, group in groups.items()
                ),
            ]
        )

    def _group(self, name: str, handle: str, kind: str, facts: Mapping[str, Any]) -> str:
        arguments = self._arguments(facts.get("config"), handle, "config")
        head = "\n".join(
            [
                f"class {name}(Resources[{handle}]):",
                *_docstring(f"All resources of the type `{kind}`.", [], 1),
                "",
                f"    type_name = {literal(kind)}",
                f"    handle = {handle}",
            ]
        )
        create = _Method(
            self._flavour.define,
            "create",
            arguments,
            handle,
            _body(arguments, f"return {self._flavour.wait}self._create(sent_, resource_id, {_AS_GIVEN})"),
            "Make one.",
            [*_argument_notes(arguments), "resource_id: chosen by the host if left out."],
            before_options=["resource_id: str | None = None"],
        )
        return f"{head}\n\n{create.text()}"

    def _handle(self, name: str, kind: str, facts: Mapping[str, Any]) -> str:
        inputs = self._arguments(facts.get("inputs"), name, "inputs")
        result = self._result(facts.get("result"), name, "result")
        about = _plain(facts.get("description")) or f"A `{kind}`."
        head = "\n".join([f"class {name}(Resource):", *_docstring(about, [], 1)])
        notes = _argument_notes(inputs)
        asked = f"{self._flavour.wait}self._execute(sent_, {_IN_ITS_SESSION})"
        body = _body(inputs, f"result_: {result} = {asked}", "return result_")
        about = "Execute it and return the result."
        methods = [_Method(self._flavour.define, "execute", inputs, result, body, about, notes, _OF_A_RESOURCE)]
        if facts.get("streaming"):
            body = _body(inputs, f"return self._stream(sent_, {_IN_ITS_SESSION})")
            about = "Execute it and read its events while it runs."
            methods.append(_Method("def", "stream", inputs, f"Stream[{result}]", body, about, notes, _OF_A_RESOURCE))
        return "\n\n".join([head, *(method.text() for method in methods)])

    # -- methods -----------------------------------------------------------------------------------------------------

    def _methods(self) -> list[str]:
        """The methods of the client, two for a command that may stream."""
        names = Names(_CLIENT_TAKEN)
        commands = sorted((self._capabilities.get("commands") or {}).items())
        plain = {command: names.take(identifier(_operation(command))) for command, _ in commands}
        for name in plain.values():
            self._names.take(name)
        methods = []
        for command, facts in commands:
            streamed = names.take(f"stream_{plain[command]}") if facts.get("streaming") else None
            methods += self._command(command, facts, plain[command], streamed)
        return methods

    def _command(self, command: str, facts: Mapping[str, Any], name: str, streamed: str | None) -> list[str]:
        operation = _operation(command)
        arguments = self._arguments(facts.get("args"), operation, "args")
        result = self._result(facts.get("result"), operation, "result")
        # Without its namespace it is a command of whatever name the bridge is registered under.
        asked = f"{literal(operation)}, sent_, {_AS_GIVEN}"
        body = _body(arguments, f"result_: {result} = {self._flavour.wait}self._call({asked})", "return result_")
        about = _plain(facts.get("description")) or f"The command `{command}`."
        notes = _argument_notes(arguments)
        methods = [_Method(self._flavour.define, name, arguments, result, body, about, notes)]
        if streamed is not None:
            body = _body(arguments, f"return self._stream({asked})")
            about = f"`{name}`, with its events while it runs."
            methods.append(_Method("def", streamed, arguments, f"Stream[{result}]", body, about))
        return [method.text() for method in methods]

    # -- schemas -----------------------------------------------------------------------------------------------------

    def _result(self, schema: Any, *names: str) -> str:
        return "Any" if schema is None else self._types.write(schema, Direction.OUT, *names)

    def _arguments(self, schema: Any, *names: str) -> _Arguments:
        """The arguments of a handler. What is not an object with listed keys takes anything."""
        if not isinstance(schema, Mapping) or not isinstance(schema.get("properties", {}), Mapping):
            return _Arguments(more="Any")
        others = schema.get("additionalProperties", True)
        parameters = Names(_PARAMETERS_TAKEN)
        required = set(schema.get("required") or ())
        # A key's schema stands in the root's place here, so it needs the root's definitions.
        shared = {"$defs": schema["$defs"]} if "$defs" in schema else {}
        found = []
        for wire, part in (schema.get("properties") or {}).items():
            whole = {**part, **shared} if isinstance(part, Mapping) else part
            annotation = self._types.write(whole, Direction.IN, names[0], wire)
            text = part.get("description", "") if isinstance(part, Mapping) else ""
            parameter = parameters.take(identifier(wire))
            found.append(_Argument(wire, parameter, annotation, wire in required, _plain(text), default_text(part)))
        found.sort(key=lambda each: not each.required)
        more = None if others is False else self._types.write(others, Direction.IN, *names, "more")
        return _Arguments(found, more)


# ---------------------------------------------------------------- pieces of text


def _body(arguments: _Arguments, *statements: str) -> list[str]:
    """The lines of a method: what is sent, in `sent_`, and then the statements."""
    pairs = [f"{literal(each.wire)}: {each.parameter}" for each in arguments.arguments]
    more = ", more" if arguments.more is not None else ""
    line = f"sent_ = given({{{', '.join(pairs)}}}{more})"
    if len(line) <= WIDTH:
        return [line, *statements]
    return ["sent_ = given(", "    {", *(f"        {pair}," for pair in pairs), f"    }}{more}", ")", *statements]


def _argument_notes(arguments: _Arguments) -> list[str]:
    """One line for each argument that has something to say."""
    notes = []
    for each in arguments.arguments:
        default = f"default {each.default}." if each.default is not None and not each.required else ""
        sent = f"sent as {literal(each.wire)}." if each.wire != each.parameter else ""
        said = " ".join(part for part in (each.description, sent, default) if part)
        if said:
            notes.append(f"{each.parameter}: {said}")
    return notes


def _docstring(about: str, paragraphs: list[str], depth: int) -> list[str]:
    indent = "    " * depth
    lines = textwrap.wrap(_doc(about), WIDTH - len(indent), break_long_words=False) or [""]
    if not paragraphs and len(lines) == 1:
        return [f'{indent}"""{lines[0]}"""']
    for paragraph in ["", *paragraphs] if paragraphs else []:
        inner = paragraph[: len(paragraph) - len(paragraph.lstrip())]
        wrapped = textwrap.wrap(
            _doc(paragraph.strip()), WIDTH - len(indent) - len(inner), break_long_words=False, subsequent_indent=inner
        )
        lines += [f"{inner}{line}" for line in wrapped or [""]]
    first, *rest = lines
    return [f'{indent}"""{first}', *(f"{indent}{line}".rstrip() for line in rest), f'{indent}"""']


def _doc(text: str) -> str:
    """Text that may stand in a docstring."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text.replace("\\", "\\\\").replace('"""', "'''").removesuffix('"') + ("'" if text.endswith('"') else "")


def _plain(text: Any) -> str:
    return " ".join(str(text or "").split())


def _operation(command: str) -> str:
    return command.partition(":")[2] or command


def _uses(text: str, name: str) -> bool:
    return re.search(rf"\b{name}\b", text) is not None

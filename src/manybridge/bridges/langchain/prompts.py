"""Prompts: read and checked here, formatted by LangChain's templates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import expected, invalid, nothing_odd, only_keys
from manybridge.bridges.langchain.messages import ROLES, check_messages, to_langchain
from manybridge.protocol.errors import ErrorCode

PROMPT_KEYS: Final = ("template", "variables", "partials", "template_format")
FORMATS: Final = ("f-string", "mustache")
"""LangChain's third, jinja2, runs code that the template's author chose."""

INSTRUCTIONS: Final = "format_instructions"
"""A variable that a chain's parser fills by itself."""


@dataclass(frozen=True, slots=True)
class Line:
    """One message of a prompt: a role and a template, or a place for messages that the inputs bring."""

    role: str
    content: str
    placeholder: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class PromptSpec:
    """A prompt as it was described.

    Attributes:
        path: what the caller called it, for errors.
        text: a template of one text; or
        lines: one of messages.
        variables: those that the author declared, or None for whatever the template has.
    """

    path: str
    text: str | None
    lines: tuple[Line, ...] = ()
    variables: tuple[str, ...] | None = None
    partials: Mapping[str, Any] = field(default_factory=dict)
    template_format: str = "f-string"


def read_prompt(given: Any, where: str) -> PromptSpec:
    """Read a prompt: a template text, an array of messages, or `{template, variables, partials, template_format}`.

    Raises:
        BridgeError: `invalid_argument`, naming the place.
    """
    described: Mapping[str, Any] = given if isinstance(given, Mapping) else {"template": given}
    only_keys(described, PROMPT_KEYS, where)
    place = f"{where}.template" if isinstance(given, Mapping) else where
    template = described.get("template")
    variables = described.get("variables")
    if variables is not None and not (isinstance(variables, list) and all(isinstance(v, str) for v in variables)):
        raise expected(f"{where}.variables", "an array of names", variables)
    template_format = described.get("template_format") or "f-string"
    if template_format not in FORMATS:
        raise invalid(f"{where}.template_format", f"expected one of {', '.join(FORMATS)}, found {template_format!r}")
    partials = nothing_odd(described.get("partials") or {}, dict, "an object", f"{where}.partials")
    text, lines = (template, ()) if isinstance(template, str) else (None, _read_lines(template, place))
    return PromptSpec(where, text, lines, None if variables is None else tuple(variables), partials, template_format)


def _read_lines(template: Any, where: str) -> tuple[Line, ...]:
    if not isinstance(template, list) or not template:
        raise invalid(where, "expected a template text, or a non-empty array of {role, content}")
    return tuple(_read_line(each, f"{where}[{number}]") for number, each in enumerate(template))


def _read_line(given: Any, where: str) -> Line:
    if not isinstance(given, Mapping):
        raise expected(where, "an object {role, content} or {placeholder}", given)
    if "placeholder" in given:
        only_keys(given, ("placeholder", "optional"), where)
        name = nothing_odd(given["placeholder"], str, "a variable's name", f"{where}.placeholder")
        optional = nothing_odd(given.get("optional", False), bool, "a boolean", f"{where}.optional")
        return Line("placeholder", name, placeholder=True, optional=optional)
    only_keys(given, ("role", "content"), where)
    role = ROLES.get(str(given.get("role")))
    if role is None or role == "tool":
        roles = ", ".join(name for name in ROLES if name != "tool")
        raise invalid(f"{where}.role", f"expected one of {roles}, found {given.get('role')!r}")
    return Line(role, nothing_odd(given.get("content"), str, "a template text", f"{where}.content"))


class Prompt:
    """A prompt that can be formatted. Immutable.

    Args:
        spec: as described.
        filled: values for variables that nobody has to give, besides the prompt's own partials.

    Raises:
        BridgeError: `invalid_argument`, the template can't be read or its variables are not those declared.
    """

    def __init__(self, spec: PromptSpec, filled: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self._template = _make_template(spec)
        found = set(self._template.input_variables)
        if "" in found:
            raise invalid(
                spec.path, "the template can't be read: '{}' names no variable; write {{}} for braces in text"
            )
        self.placeholders = {line.content for line in spec.lines if line.placeholder}
        self.optional = {line.content for line in spec.lines if line.optional}
        everything = found | self.optional
        if spec.variables is not None and set(spec.variables) != everything:
            raise invalid(
                f"{spec.path}.variables",
                f"the template has {_names(everything)}, and {_names(spec.variables)} were declared",
            )
        unknown = sorted(set(spec.partials) - everything)
        if unknown:
            raise invalid(
                f"{spec.path}.partials.{unknown[0]}", f"the template has no such variable: {_names(everything)}"
            )
        self._given = {**{name: value for name, value in (filled or {}).items() if name in everything}, **spec.partials}
        self.required = sorted(found - self.optional - set(self._given))
        """Variables that each call must give."""

    @property
    def variables(self) -> set[str]:
        """Every variable of the template, filled or not."""
        return set(self._template.input_variables) | self.optional

    def format(self, inputs: Any, *, strict: bool = False) -> Any:
        """Return LangChain's prompt value.

        Args:
            inputs: values of the variables. A prompt with one variable takes any other value than an object for it.
            strict: whether to refuse inputs that the template has not.

        Raises:
            BridgeError: `invalid_argument`, naming every variable that is missing.
        """
        given = self._as_mapping(inputs)
        missing = [name for name in self.required if name not in given]
        unknown = sorted(set(given) - self.variables) if strict else []
        if missing or unknown:
            raise self._wrong_inputs(missing, unknown)
        values: dict[str, Any] = dict(self._given)
        for name in self.variables & set(given):
            value = given[name]
            values[name] = self._as_messages(name, value) if name in self.placeholders else value
        return self._template.invoke(values)

    def _as_messages(self, name: str, value: Any) -> list[Any]:
        if isinstance(value, list) and all(hasattr(each, "response_metadata") for each in value):
            return value  # an earlier step of a chain made them
        return to_langchain(check_messages(value, f"inputs.{name}")) if value else []

    def _as_mapping(self, inputs: Any) -> Mapping[str, Any]:
        if isinstance(inputs, Mapping):
            return inputs
        if len(self.required) == 1:
            return {self.required[0]: inputs}
        raise expected(self.spec.path, f"an object with {_names(self.required)}", inputs)

    def _wrong_inputs(self, missing: list[str], unknown: list[str]) -> BridgeError:
        problems = [f"inputs.{name}: missing" for name in missing] + [f"inputs.{name}: unknown" for name in unknown]
        return BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"{'; '.join(problems)}. The prompt at {self.spec.path} takes {_names(self.variables)}.",
            details={"problems": problems, "missing": missing, "known": sorted(self.variables)},
        )


def _make_template(spec: PromptSpec) -> Any:
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate

    try:
        if spec.text is not None:
            return PromptTemplate.from_template(spec.text, template_format=spec.template_format)
        lines = [
            MessagesPlaceholder(line.content, optional=line.optional) if line.placeholder else (line.role, line.content)
            for line in spec.lines
        ]
        return ChatPromptTemplate.from_messages(lines, template_format=spec.template_format)
    except (ValueError, KeyError, IndexError) as error:
        raise invalid(spec.path, f"the template can't be read: {str(error).splitlines()[0]}") from error


def _names(names: Any) -> str:
    return ", ".join(sorted(names)) or "no variables"

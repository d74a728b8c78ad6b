"""Tools: functions of this environment and functions that live in the client's process, with checked arguments.

LangChain shows a tool's JSON Schema to the model and then passes on whatever the model wrote. Here every call is
checked against the schema first: wrong types, missing and unknown arguments go back to the model as an error that it
can mend, and never reach the function.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import inf
from typing import Any, Final, Literal, TypeAlias

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.common.problems import expected, invalid, nothing_odd, only_keys
from manybridge.bridges.common.references import References
from manybridge.bridges.langchain.calls import current_call
from manybridge.bridges.langchain.messages import check_result
from manybridge.bridges.langchain.schemas import check_object_schema, check_schema, problems_of, with_defaults
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.functions import FunctionEndedError, FunctionThreads, NoThreadError

ErrorsGoTo: TypeAlias = Literal["model", "caller"]

TOOL_KEYS: Final = ("name", "description", "parameters", "returns", "function", "timeout", "errors")
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""What providers take as the name of a tool."""

ALWAYS_TO_CALLER: Final = frozenset({ErrorCode.UNKNOWN_TOOL, ErrorCode.HOST_CLOSED})
"""The client has no such tool, or is gone: an agent would go on, and pay, without it."""

MAX_THREADS: Final = 200
"""Plain functions that run in a worker at the same time; one with more of them that hang is better replaced."""

_threads: Final = FunctionThreads(MAX_THREADS)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool, ready to be called.

    Attributes:
        parameters: JSON Schema of its arguments, enforced.
        returns: JSON Schema of its result, enforced; None takes any JSON value.
        timeout: seconds for one call, besides the deadline of the call that it serves.
        errors: who hears of its failures: the model, as the tool's answer, or the caller, whose call fails.
        function: the Python function, or None for a tool of the client.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    returns: Mapping[str, Any] | None
    timeout: float | None
    errors: ErrorsGoTo
    function: Callable[..., Any] | None = None

    @property
    def where(self) -> str:
        """Where it runs, for people."""
        return "client" if self.function is None else "worker"

    def describe(self) -> dict[str, Any]:
        """The tool as its users see it."""
        return {
            "name": self.name, "description": self.description, "parameters": dict(self.parameters),
            "runs_in": self.where,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ToolDefaults:
    """What holds for tools that do not say it themselves."""

    timeout: float | None = None
    errors: ErrorsGoTo = "model"


# ---------------------------------------------------------------- reading


def read_tools(given: Any, where: str, references: References, defaults: ToolDefaults) -> list[ToolSpec]:
    """Read an array of tools, whose names must differ.

    Raises:
        BridgeError: as `read_tool`.
    """
    if not isinstance(given, list | tuple):
        raise expected(where, "an array of tools", given)
    tools = [read_tool(each, f"{where}[{number}]", references, defaults) for number, each in enumerate(given)]
    names = [tool.name for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise invalid(where, f"two tools have the name {twice[0]!r}")
    return tools


def read_tool(given: Any, where: str, references: References, defaults: ToolDefaults) -> ToolSpec:
    """Read a tool: `"module:function"` of an allowed module, or an object.

    An object without `function` is a tool of the client, `{name, description, parameters}`.

    Raises:
        BridgeError: `invalid_argument`, or `permission_denied` for a module that is not allowed.
    """
    described: Mapping[str, Any] = {"function": given} if isinstance(given, str) else given
    if not isinstance(described, Mapping):
        raise expected(where, "'module:function', or an object {name, description, parameters}", given)
    only_keys(described, TOOL_KEYS, where)
    reference = described.get("function")
    function = None
    if reference is not None:
        reference = nothing_odd(reference, str, "'module:function'", f"{where}.function")
        function = references.function(reference, f"{where}.function" if described is given else where)
    name = described.get("name") or getattr(function, "__name__", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise invalid(f"{where}.name", "expected 1 to 64 letters, digits, '_' and '-', beginning with a letter")
    parameters = described.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}} if function is None else schema_of(function, where)
    check_object_schema(parameters, f"{where}.parameters")
    returns = described.get("returns")
    if returns is not None:
        check_schema(returns, f"{where}.returns")
    told = described.get("description") or inspect.getdoc(function) or f"The caller's tool {name}"
    timeout = _read_timeout(described.get("timeout", defaults.timeout), f"{where}.timeout")
    errors = read_errors(described.get("errors", defaults.errors), f"{where}.errors")
    checked = None if function is None else _typed(function)
    return ToolSpec(name, str(told), parameters, returns, timeout, errors, checked)


def _read_timeout(given: Any, where: str) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 < given < inf:
        raise invalid(where, "expected seconds above 0")
    return float(given)


def read_errors(given: Any, where: str) -> ErrorsGoTo:
    """Read who hears of a tool's failures.

    Raises:
        BridgeError: `invalid_argument`.
    """
    if given == "model":
        return "model"
    if given == "caller":
        return "caller"
    raise invalid(where, f"expected 'model' or 'caller', found {given!r}")


def schema_of(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """The JSON Schema of a function's arguments, from its annotations.

    Raises:
        BridgeError: `invalid_argument`, an annotation has no JSON form.
    """
    from langchain_core.tools import StructuredTool

    try:
        made = StructuredTool.from_function(function, name="tool", description="tool")
        schema: dict[str, Any] = made.get_input_jsonschema()
    except Exception as error:
        raise invalid(where, f"the function's annotations can't be described: {error}") from error
    return {**schema, "additionalProperties": False}


def _typed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with arguments turned into what its annotations say (dates, models, enums)."""
    import pydantic

    try:
        return pydantic.validate_call(function)
    except (TypeError, pydantic.PydanticUserError, pydantic.errors.PydanticSchemaGenerationError):
        return function  # a callable that pydantic can't wrap gets what the schema let through


# ---------------------------------------------------------------- calling


def check_arguments(spec: ToolSpec, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with defaults filled in.

    Raises:
        BridgeError: `invalid_argument`, with every problem and no value.
    """
    problems = problems_of(spec.parameters, dict(arguments))
    if problems:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            f"tool {spec.name!r} was not called: {'; '.join(problems)}",
            details={"tool": spec.name, "problems": problems},
        )
    return with_defaults(spec.parameters, arguments)


async def call_tool(spec: ToolSpec, arguments: Mapping[str, Any], ctx: Context) -> Any:
    """Check the arguments, call the tool, check the result.

    Raises:
        BridgeError: `invalid_argument` (arguments), `timeout`, `unknown_tool`, what a client's tool failed with, or
            `handler_error` (the function raised, or returned what it should not).
    """
    given = check_arguments(spec, arguments)
    if spec.function is None:
        result = await ctx.acall_host(spec.name, given, spec.timeout)
    else:
        result = check_result(spec.name, await _call_function(spec, given))
    problems = [] if spec.returns is None else problems_of(spec.returns, result, "result")
    if problems:
        raise BridgeError(
            ErrorCode.HANDLER_ERROR,
            f"tool {spec.name!r} returned what its `returns` does not allow: {'; '.join(problems)}",
            details={"tool": spec.name, "problems": problems},
            type="WrongResult",
        )
    return result


async def _call_function(spec: ToolSpec, given: Mapping[str, Any]) -> Any:
    assert spec.function is not None
    try:
        async with asyncio.timeout(spec.timeout):
            # A plain function can't be stopped: past its time its result is dropped, and its thread ends when it does.
            return await _threads.call(spec.function, given)
    except TimeoutError as error:
        text = f"tool {spec.name!r} did not answer within {spec.timeout:g} s" if spec.timeout else f"tool: {error}"
        raise BridgeError(ErrorCode.TIMEOUT, text, details={"tool": spec.name}) from error
    except NoThreadError as error:
        raise BridgeError(ErrorCode.OVERLOADED, f"tool {spec.name!r}: {error}", details={"tool": spec.name}) from error
    except BridgeError:
        raise
    except Exception as error:
        kind = error.kind if isinstance(error, FunctionEndedError) else type(error).__name__
        text = f"tool {spec.name!r} failed: {kind}: {error}"
        raise BridgeError(ErrorCode.HANDLER_ERROR, text, details={"tool": spec.name}, type=kind) from error


def as_text(result: Any) -> str:
    """A tool's result as a model reads it."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


# ---------------------------------------------------------------- for LangChain


@cache
def _tool_class() -> Any:
    from langchain_core.tools import BaseTool, ToolException

    class CheckedTool(BaseTool):  # type: ignore[misc]  # an untyped base class
        """A LangChain tool that checks what it is called with."""

        spec: Any = None
        handle_tool_error: bool = True

        def _run(self, **_arguments: Any) -> Any:
            raise BridgeError(ErrorCode.NOT_SUPPORTED, "tools of this bridge run on the event loop")

        # Positional only, so that a tool may have an argument called "self".
        async def _arun(self, /, **arguments: Any) -> Any:
            spec: ToolSpec = self.spec
            try:
                return as_text(await call_tool(spec, arguments, current_call().ctx))
            except BridgeError as error:
                if goes_to_caller(spec, error):
                    raise
                raise ToolException(f"{error.code}: {error.message}") from error

    return CheckedTool


def goes_to_caller(spec: ToolSpec, error: BridgeError) -> bool:
    """Whether a failure ends the call; wrong arguments are the model's own, and always told to it."""
    if error.code in ALWAYS_TO_CALLER:
        return True
    return spec.errors == "caller" and not (error.code is ErrorCode.INVALID_ARGUMENT and "problems" in error.details)


def to_langchain_tools(specs: Sequence[ToolSpec]) -> list[Any]:
    """Make LangChain tools."""
    make = _tool_class()
    return [
        make(name=spec.name, description=spec.description, args_schema=dict(spec.parameters), spec=spec)
        for spec in specs
    ]


class ToolRunner:
    """What the resource type `tool` and a chain's step use: one tool, called by hand."""

    def __init__(self, spec: ToolSpec) -> None:
        self.spec = spec

    async def run(self, arguments: Any, ctx: Context, emit: Callable[[str, Mapping[str, Any]], None]) -> Any:
        """Call the tool, with its events around it.

        Raises:
            BridgeError: as `call_tool`; here nobody but the caller can hear of it.
        """
        if not isinstance(arguments, Mapping):
            raise expected(f"inputs of tool {self.spec.name!r}", "an object of arguments", arguments)
        facts = {"id": None, "name": self.spec.name}
        emit("tool_start", {**facts, "args": dict(arguments)})
        try:
            result = await call_tool(self.spec, arguments, ctx)
        except BridgeError as error:
            emit("tool_end", {**facts, "status": "failed", "output": str(error.code)})
            raise
        emit("tool_end", {**facts, "status": "success", "output": result})
        return result

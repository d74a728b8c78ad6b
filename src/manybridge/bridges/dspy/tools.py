"""Tools for agents: Python functions of this environment, and functions that live in the client's process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.common.problems import expected, invalid
from manybridge.bridges.common.references import References
from manybridge.bridges.dspy.values import promptable
from manybridge.protocol.errors import ErrorCode

CONTEXT_SETTING: Final = "manybridge_context"
"""Where a tool finds the call that it serves. A DSPy setting and not a context variable of our own, because DSPy
carries its settings into the threads that it starts."""


class ToolUnavailable(BaseException):
    """The client has no such tool.

    A `BaseException`, because an agent takes any other for the tool's answer, and goes on, and pays, without it.

    Attributes:
        error: what the call fails with.
    """

    def __init__(self, error: BridgeError) -> None:
        super().__init__(error.message)
        self.error = error


_TOOL_KEYS: Final = frozenset({"name", "description", "parameters"})


def make_tools(dspy: Any, described: list[str | dict[str, Any]], references: References) -> list[Any]:
    """Make DSPy tools.

    Args:
        described: each is `"module:function"` (of an allowed module) or a tool of the client, `{name, description,
            parameters}` with a JSON Schema of an object as `parameters`.

    Raises:
        BridgeError: `invalid_argument`, or `permission_denied` for a module that is not allowed.
    """
    tools = [_make_tool(dspy, one, f"tools[{position}]", references) for position, one in enumerate(described)]
    names = [tool.name for tool in tools]
    twice = sorted({name for name in names if names.count(name) > 1} | ({"finish"} & set(names)))
    if twice:
        raise invalid("tools", f"the name {twice[0]!r} is taken ('finish' is DSPy's own)")
    return tools


def _make_tool(dspy: Any, described: str | dict[str, Any], where: str, references: References) -> Any:
    if isinstance(described, str):
        function = references.load(described, where)
        if not callable(function):
            raise invalid(where, f"{described!r} is not a function")
        tool = dspy.Tool(function)
        tool.func = _answering_promptably(tool.func)
        return tool
    unknown = sorted(set(described) - _TOOL_KEYS)
    name = described.get("name")
    if unknown or not isinstance(name, str) or not name.isidentifier():
        raise invalid(where, "expected {name, description, parameters}, where name is an identifier")
    return _client_tool(dspy, name, described, where)


def _answering_promptably(function: Callable[..., Any]) -> Callable[..., Any]:
    async def later(answer: Awaitable[Any]) -> Any:
        return promptable(await answer)

    def call(**arguments: Any) -> Any:
        answer = function(**arguments)
        return later(answer) if isinstance(answer, Awaitable) else promptable(answer)

    return call


def _client_tool(dspy: Any, name: str, described: Mapping[str, Any], where: str) -> Any:
    from dspy.adapters.types.tool import convert_input_schema_to_tool_args

    schema = described.get("parameters")
    if schema is None:
        schema = {"type": "object", "properties": {}}
    if not _is_object_schema(schema):
        raise invalid(f"{where}.parameters", "expected the JSON Schema of an object")
    try:
        args, arg_types, arg_desc = convert_input_schema_to_tool_args(_without_lists_of_types(schema))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise invalid(f"{where}.parameters", f"expected the JSON Schema of an object: {error}") from error
    function = _call_client(dspy, name, frozenset(schema.get("required", ())))
    description = described.get("description") or f"The caller's tool {name}"
    if not isinstance(description, str):
        raise expected(f"{where}.description", "a text", description)
    return dspy.Tool(function, name=name, desc=description, args=args, arg_types=arg_types, arg_desc=arg_desc)


def _is_object_schema(schema: Any) -> bool:
    if not isinstance(schema, Mapping) or schema.get("type", "object") != "object":
        return False
    properties, required = schema.get("properties", {}), schema.get("required", [])
    return isinstance(properties, Mapping) and all(map(_is_schema, properties.values())) and isinstance(required, list)


def _is_schema(value: Any) -> bool:
    return isinstance(value, Mapping)


def _without_lists_of_types(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Say "or null" in the one way that DSPy understands."""
    properties = {
        name: {**{key: value for key, value in part.items() if key != "type"}, "anyOf": [{"type": t} for t in kinds]}
        if isinstance(kinds := part.get("type"), list)
        else part
        for name, part in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties}


def _call_client(dspy: Any, name: str, required: frozenset[str]) -> Callable[..., Any]:
    """A function that calls the client: awaitable on the event loop, blocking elsewhere."""

    def call(**arguments: Any) -> Any:
        missing = sorted(required - set(arguments))
        if missing:  # DSPy checks the types of what is there, not what is not
            raise ValueError(f"missing arguments: {', '.join(missing)}")
        ctx: Context | None = dspy.settings.get(CONTEXT_SETTING)
        if ctx is None:
            raise RuntimeError(f"tool {name!r} belongs to a call, and there is none")
        return _acall(ctx, name, arguments) if _on_event_loop() else _call(ctx, name, arguments)

    call.__name__ = name
    return call


async def _acall(ctx: Context, name: str, arguments: dict[str, Any]) -> Any:
    try:
        return promptable(await ctx.acall_host(name, arguments))
    except BridgeError as error:
        raise _unavailable(error) from error


def _call(ctx: Context, name: str, arguments: dict[str, Any]) -> Any:
    try:
        return promptable(ctx.call_host(name, arguments))
    except BridgeError as error:
        raise _unavailable(error) from error


def _unavailable(error: BridgeError) -> BaseException:
    return ToolUnavailable(error) if error.code is ErrorCode.UNKNOWN_TOOL else error


def _on_event_loop() -> bool:
    import asyncio  # 20 ms, which the first ping need not wait for

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True

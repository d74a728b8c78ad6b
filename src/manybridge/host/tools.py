"""Tools that the host's program offers to workers: functions that a handler may call while it runs."""

from __future__ import annotations

import asyncio
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from manybridge.errors import CallError, ManybridgeError
from manybridge.host.arguments import checked_args, checked_function, checked_name, checked_text
from manybridge.host.calls import Call
from manybridge.host.sessions import current_session
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.errors import ErrorCode, LocalProtocolError
from manybridge.protocol.functions import FunctionEndedError, FunctionThreads, NoThreadError

MAX_THREADS: Final = 500
"""Calls of plain functions at the same time: enough for any real load, and not enough to fill the memory."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool."""

    name: str
    function: Callable[..., Any]
    description: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    """JSON Schema of its arguments."""

    def describe(self) -> dict[str, Any]:
        """What may be told to others."""
        return {"name": self.name, "description": self.description, "parameters": self.parameters}


class ToolRegistry:
    """Owner of the tools of one host."""

    def __init__(self) -> None:
        self.tools: dict[str, Tool] = {}
        """Changed by `register` and `unregister` only."""
        self._threads = FunctionThreads(MAX_THREADS)

    def register(
        self, name: str, function: Callable[..., Any], description: str | None, parameters: dict[str, Any] | None
    ) -> Tool:
        """Add a tool, or take the place of one with that name.

        Raises:
            InvalidArgumentError: the name is no text or empty, the function is none, or what describes it is mistyped.
        """
        checked_name(name, "name")
        checked_function(function, "function")
        doc = (inspect.getdoc(function) or "").partition("\n")[0]
        told = doc if description is None else checked_text(description, "description")
        schema = schema_of(function) if parameters is None else checked_args(parameters, "parameters")
        self.tools[name] = tool = Tool(name, function, told, schema)
        return tool

    def unregister(self, name: str) -> None:
        """Remove a tool.

        Raises:
            CallError: `unknown_tool`.
            InvalidArgumentError: the name is no text.
        """
        if self.tools.pop(checked_text(name, "name"), None) is None:
            raise self._unknown(name)

    def describe(self) -> list[dict[str, Any]]:
        """Return name, description and parameters of each tool."""
        return [tool.describe() for tool in self.tools.values()]

    async def run(self, name: str, args: dict[str, Any], timeout: float | None) -> Any:
        """Run a tool: a coroutine function on this loop, any other function on a thread.

        Raises:
            CallError: `unknown_tool`, or `overloaded` (hundreds of tools run on threads already).
            TimeoutError: it took longer than `timeout` seconds. A thread can't be stopped; its result is dropped.
            Exception: whatever the tool raises; `FunctionEndedError` for what an event loop can't carry.
        """
        tool = self.tools.get(name)
        if tool is None:
            raise self._unknown(name)
        try:
            async with asyncio.timeout(timeout):
                return await self._threads.call(tool.function, args)
        except NoThreadError as error:
            details = {"tool": name, "running": MAX_THREADS}
            raise CallError(f"tool {name}: {error}", code=ErrorCode.OVERLOADED, details=details) from error

    def _unknown(self, name: str) -> CallError:
        known = ", ".join(sorted(self.tools)) or "none"
        text = f'no tool is registered as "{name}"; known: {known}'
        return CallError(text, code=ErrorCode.UNKNOWN_TOOL, details={"tool": name, "known": sorted(self.tools)})


async def run_tool(worker: WorkerHandle, call: Call, request: dict[str, Any]) -> None:
    """Run the tool that a worker's `call` event asks for, and answer with `common:call_result`."""
    call_id, name = request.get("call_id"), str(request.get("tool"))
    deadline_ms = request.get("deadline_ms")
    answer: dict[str, Any] = {"call_id": call_id}
    try:
        if call.tools is None:
            raise CallError("the caller offers no tools", code=ErrorCode.UNKNOWN_TOOL, details={"tool": name})
        timeout = None if deadline_ms is None else deadline_ms / 1000
        current_session.set(call.session_id)  # this task's own context
        answer["result"] = await call.tools(name, request.get("args") or {}, timeout)
    except Exception as error:  # noqa: BLE001  # a border: whatever the tool raises is the handler's to see
        answer["error"] = _failure(name, error)
    try:
        worker.post("common:call_result", answer)
    except LocalProtocolError as error:
        worker.post("common:call_result", {"call_id": call_id, "error": _unsendable(name, error)})


def _failure(name: str, error: BaseException) -> dict[str, Any]:
    if isinstance(error, (ManybridgeError, LocalProtocolError)):
        return {"code": str(error.code), "message": error.message, "details": error.details}
    kind = error.kind if isinstance(error, FunctionEndedError) else type(error).__name__
    if isinstance(error, TimeoutError):
        return {"code": ErrorCode.TIMEOUT.value, "message": f"tool {name} did not answer in time", "type": kind}
    message = f"tool {name} failed: " + ": ".join(each for each in (kind, _text(error)) if each)
    return {"code": ErrorCode.HANDLER_ERROR.value, "message": message, "type": kind}


def _unsendable(name: str, error: LocalProtocolError) -> dict[str, Any]:
    if error.code is not ErrorCode.INVALID_ARGUMENT:  # too large, which its code says
        return _failure(name, error)
    said = error.message.removeprefix("common:call_result: ")
    message = f"tool {name} returned what can't be sent: {said}"
    return {"code": ErrorCode.HANDLER_ERROR.value, "message": message, "type": "WrongResult"}


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001  # a border: __str__ is the tool's code
        return f"(its text can't be had: {type(failure).__name__})"


_JSON_TYPES: Final[dict[Any, dict[str, Any]]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    tuple: {"type": "array"},
}


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Make the JSON Schema of a function's arguments from its annotations; what has none takes anything."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions of C have none
        return {"type": "object"}
    hints = _hints(function)
    properties: dict[str, Any] = {}
    required: list[str] = []
    open_ended = False
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            open_ended = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            properties[name] = _schema(hints.get(name, Any))
            if parameter.default is parameter.empty:
                required.append(name)
            elif isinstance(parameter.default, (str, int, float, bool)):
                properties[name]["default"] = parameter.default
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": open_ended}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (NameError, TypeError):  # names that only a type checker sees, or a callable object
        return {}


def _schema(hint: Any) -> dict[str, Any]:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(each) for each in arguments]}
    if origin in (list, tuple) and arguments:
        return {"type": "array", "items": _schema(arguments[0])}
    return dict(_JSON_TYPES.get(origin or hint, {}))

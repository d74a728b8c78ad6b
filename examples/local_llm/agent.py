"""Rules for agents: pick a tool and its arguments from what the prompt says about the tools."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .prompts import Task

_TOOL = re.compile(r"\(\d+\) (\w+)(?:, whose description is <desc>(.*?)</desc>)?\.\s+It takes arguments (\{.*\})\.")


def is_agent_step(task: Task) -> bool:
    """Whether DSPy's ReAct asks for its next thought, tool and arguments."""
    return {"next_tool_name", "next_tool_args"} <= {output.name for output in task.outputs}


def next_step(task: Task) -> dict[str, Any]:
    """One tool call, then finish: enough to show the whole loop, and it always ends."""
    tools = {name: (described, ast.literal_eval(args)) for name, described, args in _TOOL.findall(task.instructions)}
    usable = {name: tool for name, tool in tools.items() if name != "finish"}
    if "observation_0" in task.inputs.get("trajectory", "") or not usable:
        return _step("The tool has answered, so this is done.", "finish", {})
    name = best_tool({tool: description for tool, (description, _) in usable.items()}, task.text)
    return _step(f"The tool {name} shares most words with the question.", name, fill_args(usable[name][1], task.text))


def _step(thought: str, name: str, args: dict[str, Any]) -> dict[str, Any]:
    return {"next_thought": thought, "next_tool_name": name, "next_tool_args": args}


def best_tool(described: Mapping[str, str], text: str) -> str:
    """The tool whose name and description share most words with the text; the first one on a tie."""
    words = set(re.findall(r"[a-z]+", text.lower()))

    def shared(name: str) -> int:
        return len(words & set(re.findall(r"[a-z]+", f"{name} {described[name]}".lower().replace("_", " "))))

    return max(described, key=shared)


def fill_args(properties: Mapping[str, Mapping[str, Any]], text: str) -> dict[str, Any]:
    """Arguments from the text: numbers in order, then quoted or capitalised words; defaults stay unset."""
    numbers = iter(re.findall(r"-?\d+(?:\.\d+)?", text))
    names = iter(re.findall(r"[\"'](.+?)[\"']", text) or re.findall(r"(?<!^)(?<![.?!] )\b[A-Z]\w+", text))
    filled: dict[str, Any] = {}
    for name, schema in properties.items():
        if "default" in schema:
            continue
        kind = schema.get("type")
        if kind in {"integer", "number"}:
            number = next(numbers, "0")
            filled[name] = int(float(number)) if kind == "integer" else float(number)
        else:
            filled[name] = next(names, text.strip())
    return filled


def tool_call(tools: Sequence[Mapping[str, Any]], text: str) -> tuple[str, str]:
    """For the provider's own tool calls: the tool's name and its arguments as JSON text."""
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    name = best_tool({key: f.get("description") or "" for key, f in functions.items()}, text)
    properties = (functions[name].get("parameters") or {}).get("properties", {})
    return name, json.dumps(fill_args(properties, text))

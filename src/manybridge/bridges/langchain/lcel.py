"""The declarative form of LangChain's expression language: a JSON tree of steps, read and checked without LangChain.

A node is an array (steps one after the other) or an object with one key, the kind of the step:

    {"prompt": "Tell me about {topic}"}          or [{role, content}...], or {template, variables, partials}
    {"model": "openai:gpt-4o-mini"}              or {model, temperature, ..., tools}, or null for the configured one
    {"parser": "str" | "json" | "list"}          or {"schema": <JSON Schema>}: JSON that must fit
    {"parallel": {"name": node, ...}}            each on the same input; gives an object
    {"assign": {"name": node, ...}}              adds keys to an object
    {"pick": "name" | ["a", "b"]}                one value, or an object with fewer keys
    {"passthrough": true}                        what came in
    {"tool": "module:function" | {...}}          calls a tool with an object of arguments
    {"sequence": [node, ...]}                    the same as the array

Every error names the path of the wrong node, such as `chain[1].parallel.joke[0].prompt`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from manybridge.bridges.common.problems import expected, invalid, nothing_odd, only_keys
from manybridge.bridges.langchain.prompts import PromptSpec, read_prompt
from manybridge.bridges.langchain.schemas import check_schema

MAX_DEPTH: Final = 32
"""Of nesting: deeper trees are a mistake, and they are read recursively."""
MAX_NODES: Final = 500
"""Of one chain, for the same reason."""

PARSERS: Final = ("str", "json", "list")


@dataclass(frozen=True, slots=True)
class PromptNode:
    """Formats a prompt."""

    path: str
    prompt: PromptSpec


@dataclass(frozen=True, slots=True)
class ModelNode:
    """Asks a model; `settings` None takes the one that is configured."""

    path: str
    settings: Mapping[str, Any] | None
    tools: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class ParserNode:
    """Reads a model's answer; `schema` for the kind `schema`."""

    path: str
    kind: str
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SequenceNode:
    """Steps one after the other."""

    path: str
    steps: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class BranchesNode:
    """Branches on the same input; `keep` adds their results to the input instead of replacing it."""

    path: str
    branches: Mapping[str, Node]
    keep: bool


@dataclass(frozen=True, slots=True)
class PickNode:
    """Takes keys out of an object."""

    path: str
    keys: tuple[str, ...]
    single: bool


@dataclass(frozen=True, slots=True)
class PassthroughNode:
    """Hands on what came in."""

    path: str


@dataclass(frozen=True, slots=True)
class ToolNode:
    """Calls a tool with its input as the arguments."""

    path: str
    tool: Any


Node: TypeAlias = (
    PromptNode | ModelNode | ParserNode | SequenceNode | BranchesNode | PickNode | PassthroughNode | ToolNode
)


def read_chain(described: Any, where: str = "chain") -> Node:
    """Read a tree of steps.

    Raises:
        BridgeError: `invalid_argument`, naming the path of the wrong node.
    """
    node = _read(described, where, 0)
    if sum(1 for _ in nodes_of(node)) > MAX_NODES:
        raise invalid(where, f"more than {MAX_NODES} steps")
    return node


def nodes_of(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    yield node
    parts: Any = ()
    if isinstance(node, SequenceNode):
        parts = node.steps
    elif isinstance(node, BranchesNode):
        parts = node.branches.values()
    for part in parts:
        yield from nodes_of(part)


def _read(described: Any, path: str, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise invalid(path, f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(described, list):
        return _read_sequence(described, path, depth)
    if not isinstance(described, Mapping):
        raise expected(path, f"an array of steps, or an object with one of {', '.join(_READERS)}", described)
    if len(described) != 1:
        found = ", ".join(sorted(described)) or "no key"
        raise invalid(path, f"a step is an object with one key, one of {', '.join(_READERS)}; found {found}")
    ((kind, given),) = described.items()
    reader = _READERS.get(kind)
    if reader is None:
        raise invalid(path, f"unknown step {kind!r}; known: {', '.join(_READERS)}")
    return reader(given, f"{path}.{kind}", depth + 1)


def _read_sequence(given: Any, path: str, depth: int) -> Node:
    if not isinstance(given, list) or not given:
        raise invalid(path, "expected a non-empty array of steps")
    return SequenceNode(path, tuple(_read(each, f"{path}[{number}]", depth + 1) for number, each in enumerate(given)))


def _read_prompt(given: Any, path: str, _depth: int) -> Node:
    return PromptNode(path, read_prompt(given, path))


def _read_model(given: Any, path: str, _depth: int) -> Node:
    if given is None or isinstance(given, str):
        return ModelNode(path, None if given is None else {"model": given})
    if not isinstance(given, Mapping):
        raise expected(path, "'provider:model', an object of settings, or null", given)
    tools = [] if given.get("tools") is None else given["tools"]
    if not isinstance(tools, list):
        raise expected(f"{path}.tools", "an array of tools", tools)
    settings = {name: value for name, value in given.items() if name != "tools" and value is not None}
    return ModelNode(path, settings or None, tuple(tools))


def _read_parser(given: Any, path: str, _depth: int) -> Node:
    if isinstance(given, Mapping):
        only_keys(given, ("schema",), path)
        schema = nothing_odd(given.get("schema"), dict, "a JSON Schema", f"{path}.schema")
        check_schema(schema, f"{path}.schema")
        return ParserNode(path, "schema", schema)
    if given not in PARSERS:
        raise invalid(path, f"expected one of {', '.join(PARSERS)}, or an object with a schema; found {given!r}")
    return ParserNode(path, given)


def _read_branches(given: Any, path: str, depth: int, *, keep: bool) -> Node:
    if not isinstance(given, Mapping) or not given:
        raise invalid(path, "expected a non-empty object of name: step")
    return BranchesNode(path, {name: _read(part, f"{path}.{name}", depth + 1) for name, part in given.items()}, keep)


def _read_parallel(given: Any, path: str, depth: int) -> Node:
    return _read_branches(given, path, depth, keep=False)


def _read_assign(given: Any, path: str, depth: int) -> Node:
    return _read_branches(given, path, depth, keep=True)


def _read_pick(given: Any, path: str, _depth: int) -> Node:
    keys = [given] if isinstance(given, str) else given
    if not isinstance(keys, list) or not keys or not all(isinstance(key, str) for key in keys):
        raise invalid(path, "expected a key, or a non-empty array of keys")
    return PickNode(path, tuple(keys), isinstance(given, str))


def _read_passthrough(given: Any, path: str, _depth: int) -> Node:
    if given is not True and given is not None and given != {}:
        raise invalid(path, "takes nothing; write true")
    return PassthroughNode(path)


def _read_tool(given: Any, path: str, _depth: int) -> Node:
    if not isinstance(given, str | Mapping):
        raise expected(path, "'module:function' or a tool's description", given)
    return ToolNode(path, given)


_READERS: Final[dict[str, Callable[[Any, str, int], Node]]] = {
    "prompt": _read_prompt,
    "model": _read_model,
    "parser": _read_parser,
    "parallel": _read_parallel,
    "assign": _read_assign,
    "pick": _read_pick,
    "passthrough": _read_passthrough,
    "tool": _read_tool,
    "sequence": _read_sequence,
}

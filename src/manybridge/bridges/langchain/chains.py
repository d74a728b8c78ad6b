"""Chains: a described tree of steps, built of LangChain's runnables and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import expected, invalid
from manybridge.bridges.langchain.calls import RunningCall, current_call
from manybridge.bridges.langchain.lcel import (
    BranchesNode,
    ModelNode,
    Node,
    ParserNode,
    PassthroughNode,
    PickNode,
    PromptNode,
    SequenceNode,
    ToolNode,
    nodes_of,
    read_chain,
)
from manybridge.bridges.langchain.messages import check_messages, from_langchain, text_of, to_json, to_langchain
from manybridge.bridges.langchain.prompts import INSTRUCTIONS, Prompt
from manybridge.bridges.langchain.schemas import problems_of
from manybridge.bridges.langchain.tools import ToolRunner, ToolSpec, to_langchain_tools
from manybridge.protocol.errors import ErrorCode

ModelFor: TypeAlias = Callable[[Mapping[str, Any] | None, str], Any]
"""From a step's own settings and its path to the chat model that serves it in this call."""


def chain_from_parts(prompt: Any, model: Any, parser: Any, tools: Any) -> Any:
    """The tree of a chain that was given as prompt, model and parser; parts that are None are left out."""
    own = {"model": model} if isinstance(model, str) else dict(model or {})
    steps: list[Any] = [] if prompt is None else [{"prompt": prompt}]
    steps.append({"model": {**own, **({"tools": tools} if tools else {})} or None})
    if parser is not None:
        steps.append({"parser": parser})
    return steps


class Chain:
    """A chain that can be run many times, each time with other models. Immutable; runs at the same time are fine.

    Args:
        described: the tree, see `lcel.py`.
        read_tool: makes a tool of its description and path.
        where: what the caller calls the tree.

    Raises:
        BridgeError: `invalid_argument` with the path of what is wrong, `permission_denied` for a tool's module.
    """

    def __init__(self, described: Any, read_tool: Callable[[Any, str], ToolSpec], where: str = "chain") -> None:
        self.root = read_chain(described, where)
        self._read_tool = read_tool
        self._parsers = {id(node): _make_parser(node) for node in nodes_of(self.root) if isinstance(node, ParserNode)}
        self._prompts = self._make_prompts()
        self._tools = {
            id(node): [read_tool(tool, f"{node.path}.tools[{number}]") for number, tool in enumerate(node.tools)]
            for node in nodes_of(self.root)
            if isinstance(node, ModelNode)
        }
        self._runners = {
            id(node): ToolRunner(read_tool(node.tool, node.path))
            for node in nodes_of(self.root)
            if isinstance(node, ToolNode)
        }

    @property
    def inputs(self) -> list[str]:
        """Variables of the first prompt that each run must give; empty if the chain does not begin with a prompt."""
        first = self.root
        while isinstance(first, SequenceNode):
            first = first.steps[0]
        return self._prompts[id(first)].required if isinstance(first, PromptNode) else []

    def describe(self) -> list[dict[str, str]]:
        """The steps with their paths, in the order of the tree."""
        kinds = {PromptNode: "prompt", ModelNode: "model", ParserNode: "parser", PickNode: "pick", ToolNode: "tool"}
        return [{"path": node.path, "step": kinds[type(node)]} for node in nodes_of(self.root) if type(node) in kinds]

    async def run(self, inputs: Any, call: RunningCall, model_for: ModelFor) -> Any:
        """Run once and return what the last step gave, as JSON.

        Raises:
            BridgeError: what a step refused, or a translated failure.
        """
        runnable = self._build(self.root, model_for)
        return to_json(await runnable.ainvoke(inputs, call.config()))

    # ------------------------------------------------------------------ building

    def _make_prompts(self) -> dict[int, Prompt]:
        """Each prompt knows the format instructions of the parser that follows it, if it asks for them."""
        made: dict[int, Prompt] = {}

        def visit(node: Node, following: ParserNode | None) -> None:
            if isinstance(node, PromptNode):
                parser = None if following is None else self._parsers[id(following)]
                filled = {} if parser is None else {INSTRUCTIONS: parser.instructions}
                made[id(node)] = Prompt(node.prompt, filled)
            elif isinstance(node, SequenceNode):
                for number, step in enumerate(node.steps):
                    parsers = (each for each in node.steps[number + 1 :] if isinstance(each, ParserNode))
                    visit(step, next(parsers, following))
            elif isinstance(node, BranchesNode):
                for part in node.branches.values():
                    visit(part, following)

        visit(self.root, None)
        return made

    def _build(self, node: Node, model_for: ModelFor) -> Any:
        from langchain_core.runnables import RunnableLambda, RunnableParallel, RunnablePassthrough, RunnableSequence

        if isinstance(node, SequenceNode):
            steps = [self._build(step, model_for) for step in node.steps]
            return steps[0] if len(steps) == 1 else RunnableSequence(*steps)
        if isinstance(node, BranchesNode):
            branches = {name: self._build(part, model_for) for name, part in node.branches.items()}
            if not node.keep:
                return RunnableParallel(branches)
            return RunnableLambda(_on_the_loop(_must_be_object(node.path))) | RunnablePassthrough.assign(**branches)
        if isinstance(node, PassthroughNode):
            return RunnablePassthrough()
        return RunnableLambda(self._step(node, model_for), name=node.path)

    def _step(self, node: Node, model_for: ModelFor) -> Callable[..., Any]:
        if isinstance(node, PromptNode):
            return _on_the_loop(self._prompts[id(node)].format)
        if isinstance(node, ParserNode):
            return self._parsers[id(node)].parse
        if isinstance(node, PickNode):
            return _on_the_loop(_picker(node))
        if isinstance(node, ToolNode):
            return _tool_step(self._runners[id(node)])
        assert isinstance(node, ModelNode)
        model = model_for(node.settings, node.path)
        tools = self._tools[id(node)]
        return model_step(model.bind_tools(to_langchain_tools(tools)) if tools else model, node.path)


# ---------------------------------------------------------------- steps


def model_step(model: Any, path: str) -> Callable[..., Any]:
    """A step that asks a model; its text streams as `{"kind": "token", "text", "step"}` where somebody reads it."""

    async def ask(given: Any, config: Any) -> Any:
        call = current_call()
        messages = _as_prompt(given, path)
        if call.ctx.streaming:
            answer = await stream_model(
                model, messages, config, lambda text: call.emit("token", {"text": text, "step": path})
            )
        else:
            answer = await model.ainvoke(messages, config)
        call.emit("update", {"step": path, "messages": [from_langchain(answer)]})
        return answer

    return ask


async def stream_model(model: Any, messages: Any, config: Any, take: Callable[[str], None]) -> Any:
    """Ask a model, hand each piece of text on, and return the whole message.

    Raises:
        BridgeError: `provider_unavailable`, the stream had no end: its connection was closed in the middle.
    """
    whole: Any = None
    async for chunk in model.astream(messages, config):
        whole = chunk if whole is None else whole + chunk
        text = text_of(chunk)
        if text:
            take(text)
    if whole is None:
        raise BridgeError(ErrorCode.PROVIDER_UNAVAILABLE, "the model's stream ended before it began")
    return whole


def _as_prompt(given: Any, path: str) -> Any:
    if hasattr(given, "to_messages"):
        return given
    if isinstance(given, str):
        return given
    if isinstance(given, Mapping) and set(given) == {"messages"}:
        given = given["messages"]
    if isinstance(given, list) and all(hasattr(each, "response_metadata") for each in given):
        return given
    return to_langchain(check_messages(given, f"input of {path}"))


def _on_the_loop(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The function as a coroutine: LangChain runs plain ones on threads, which takes longer than these do."""

    async def step(given: Any) -> Any:
        return function(given)

    return step


def _must_be_object(path: str) -> Callable[[Any], Any]:
    def check(given: Any) -> Any:
        if not isinstance(given, Mapping):
            raise expected(f"input of {path}", "an object", to_json(given))
        return given

    return check


def _picker(node: PickNode) -> Callable[[Any], Any]:
    def pick(given: Any) -> Any:
        if not isinstance(given, Mapping):
            raise expected(f"input of {node.path}", "an object", to_json(given))
        missing = [key for key in node.keys if key not in given]
        if missing:
            raise invalid(
                node.path, f"no key {missing[0]!r} in its input; there are {', '.join(map(str, given)) or 'none'}"
            )
        return given[node.keys[0]] if node.single else {key: given[key] for key in node.keys}

    return pick


def _tool_step(runner: ToolRunner) -> Callable[..., Any]:
    async def run(given: Any) -> Any:
        call = current_call()
        return await runner.run(given, call.ctx, call.emit)

    return run


# ---------------------------------------------------------------- parsers


class Parser:
    """Reads a model's answer.

    Args:
        parser: LangChain's.
        schema: what JSON must fit, or None.
    """

    def __init__(self, parser: Any, schema: Mapping[str, Any] | None, path: str) -> None:
        self._parser = parser
        self._schema = schema
        self._path = path

    @property
    def instructions(self) -> str:
        """What a prompt says about the form of the answer; empty for plain text."""
        if self._schema is not None:
            import json

            return f"Return a JSON object that fits this JSON Schema, and nothing else:\n{json.dumps(self._schema)}"
        try:
            return str(self._parser.get_format_instructions())
        except NotImplementedError:
            return ""

    async def parse(self, answer: Any) -> Any:
        """Read an answer.

        Raises:
            BridgeError: `output_not_parsed`, naming what did not fit and none of the text.
        """
        given = answer if isinstance(answer, str) or hasattr(answer, "response_metadata") else str(to_json(answer))
        value = await self._parser.ainvoke(given)
        problems = [] if self._schema is None else problems_of(self._schema, value, "answer")
        if problems:
            raise BridgeError(
                ErrorCode.OUTPUT_NOT_PARSED,
                f"The model's answer is JSON, but does not fit the schema of {self._path}: {'; '.join(problems)}",
                details={"step": self._path, "problems": problems},
                type="OutputParserException",
            )
        return value


def _make_parser(node: ParserNode) -> Parser:
    from langchain_core.output_parsers import CommaSeparatedListOutputParser, JsonOutputParser, StrOutputParser

    kinds = {"str": StrOutputParser, "json": JsonOutputParser, "list": CommaSeparatedListOutputParser}
    return Parser(kinds.get(node.kind, JsonOutputParser)(), node.schema, node.path)

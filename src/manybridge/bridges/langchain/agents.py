"""Agents: LangChain's `create_agent`, with checked tools, threads that survive, and everything told as it happens."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from manybridge.bridge import BridgeError
from manybridge.bridges.common.problems import invalid
from manybridge.bridges.langchain.calls import RunningCall
from manybridge.bridges.langchain.memory import Threads
from manybridge.bridges.langchain.messages import check_messages, from_langchain, text_of, to_json, to_langchain
from manybridge.bridges.langchain.models import ModelSettings
from manybridge.bridges.langchain.schemas import check_schema, problems_of
from manybridge.bridges.langchain.tools import ToolSpec, to_langchain_tools
from manybridge.protocol.errors import ErrorCode

RECURSION_LIMIT: Final = 25
"""Steps of one run at most, unless it is configured: LangGraph's own figure; a turn with tools takes two."""
MAX_GRAPHS: Final = 4
"""Compiled graphs kept for one agent, one for each model that it was asked to use."""
STRATEGIES: Final = ("auto", "tool", "provider")


class AgentSpec(NamedTuple):
    """What an agent is, apart from its model and its threads."""

    tools: Sequence[ToolSpec]
    system_prompt: str | None
    response_format: Mapping[str, Any] | None
    response_strategy: str
    recursion_limit: int


def check_agent(spec: AgentSpec) -> None:
    """Refuse what LangChain would refuse later or not at all.

    Raises:
        BridgeError: `invalid_argument`.
    """
    if spec.response_strategy not in STRATEGIES:
        raise invalid("response_strategy", f"expected one of {', '.join(STRATEGIES)}, found {spec.response_strategy!r}")
    if spec.recursion_limit < 1:
        raise invalid("recursion_limit", f"expected 1 or more, found {spec.recursion_limit}")
    if spec.response_format is not None:
        check_schema(spec.response_format, "response_format")
        if spec.response_format.get("type", "object") != "object":
            raise invalid("response_format.type", "an answer with a form is an object, so it must be 'object'")


class Agent:
    """An agent that can run many threads at the same time, each with any model.

    Args:
        spec: what it is.
        threads: where its threads are kept, or None for an agent without memory.
    """

    def __init__(self, spec: AgentSpec, threads: Threads | None) -> None:
        check_agent(spec)
        self.spec = spec
        self.threads = threads
        self._graphs: OrderedDict[ModelSettings, Any] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, settings: ModelSettings, model: Any) -> Any:
        """The graph for one model, without threads; made once."""
        with self._lock:
            if settings not in self._graphs:
                self._graphs[settings] = self._make(model)
                if len(self._graphs) > MAX_GRAPHS:
                    self._graphs.popitem(last=False)
            self._graphs.move_to_end(settings)
            return self._graphs[settings]

    def _make(self, model: Any) -> Any:
        from langchain.agents import create_agent

        return create_agent(
            model,
            tools=to_langchain_tools(self.spec.tools),
            system_prompt=self.spec.system_prompt,
            response_format=self._response_format(),
        )

    def _response_format(self) -> Any:
        from langchain.agents.structured_output import ProviderStrategy, ToolStrategy

        if self.spec.response_format is None:
            return None
        # Without a title LangChain calls it by a random name, which the model then sees.
        schema = {"title": "answer", "description": "The final answer", **self.spec.response_format}
        return {"auto": lambda given: given, "tool": ToolStrategy, "provider": ProviderStrategy}[
            self.spec.response_strategy
        ](schema)

    async def run(self, graph: Any, given: Any, thread_id: str | None, call: RunningCall) -> dict[str, Any]:
        """Run one turn: `{output, messages, thread_id, usage, structured?}`.

        Args:
            graph: what `compile` returned.
            given: messages, or the user's text.
            thread_id: the thread that the turn belongs to; None for one that nobody will remember.
            call: the call that it serves.

        Raises:
            BridgeError: `invalid_argument`, `output_not_parsed`, `conflict` (another worker changed the thread), or
                what a tool or a model failed with.
        """
        messages = to_langchain(check_messages(given, "messages"))
        if thread_id is None:
            state = await self._run_graph(graph, messages, {}, call)
            return self._answer(state["messages"][len(messages) :], state, None, call)
        if self.threads is None:
            raise invalid("thread_id", "this agent has no memory; create it with memory='memory' or an SQLite memory")
        async with self.threads.turn(thread_id) as turn:
            remembering = graph.copy({"checkpointer": turn.saver})
            # One write when the turn ends, not one after each of its steps.
            state = await self._run_graph(remembering, messages, {**turn.config, "durability": "exit"}, call)
            return self._answer(state["messages"][len(turn.messages) + len(messages) :], state, thread_id, call)

    async def _run_graph(self, graph: Any, messages: list[Any], config: dict[str, Any], call: RunningCall) -> Any:
        try:
            return await self._run_steps(graph, messages, config, call)
        except Exception as error:
            if self._never_found_the_form(error, call):
                raise BridgeError(
                    ErrorCode.OUTPUT_NOT_PARSED,
                    "The model was asked again and again for an answer that fits response_format, and gave none.",
                    details={"limit": "recursion_limit"},
                    type=type(error).__name__,
                ) from error
            raise

    def _never_found_the_form(self, error: Exception, call: RunningCall) -> bool:
        """Whether the steps ran out on the form of the answer, and not on tools."""
        own = {tool.name for tool in self.spec.tools}
        ran_out = type(error).__name__ == "GraphRecursionError"
        return ran_out and self.spec.response_format is not None and not call.asked_for & own

    async def _run_steps(self, graph: Any, messages: list[Any], config: dict[str, Any], call: RunningCall) -> Any:
        keywords = {"durability": config.pop("durability")} if "durability" in config else {}
        full = call.config(recursion_limit=self.spec.recursion_limit, **config)
        if not call.ctx.streaming:
            return await graph.ainvoke({"messages": messages}, full, **keywords)
        state: Any = None
        modes = ["messages", "updates", "values"]
        async for mode, data in graph.astream({"messages": messages}, full, stream_mode=modes, **keywords):
            if mode == "values":
                state = data
            elif mode == "updates":
                _emit_update(data, call)
            else:
                _emit_token(data, call)
        return state

    def _answer(self, new: list[Any], state: Any, thread_id: str | None, call: RunningCall) -> dict[str, Any]:
        last = next((each for each in reversed(new) if each.type == "ai"), None)
        answer: dict[str, Any] = {
            "output": "" if last is None else text_of(last),
            "messages": [from_langchain(each) for each in new],
            "thread_id": thread_id,
            "usage": call.usage.summary(),
        }
        if self.spec.response_format is not None:
            answer["structured"] = self._structured(state)
        return answer

    def _structured(self, state: Any) -> Any:
        found = to_json(state.get("structured_response"))
        schema = self.spec.response_format
        problems = problems_of(schema, found, "answer") if found is not None else ["answer: missing"]
        if problems:
            raise BridgeError(
                ErrorCode.OUTPUT_NOT_PARSED,
                f"The agent's answer does not fit response_format: {'; '.join(problems)}",
                details={"problems": problems},
                type="StructuredOutputError",
            )
        return found


def _emit_token(data: Any, call: RunningCall) -> None:
    message, facts = data
    if message.type != "AIMessageChunk":
        return
    text = text_of(message)
    if text:
        call.emit("token", {"text": text, "step": facts.get("langgraph_node")})


def _emit_update(data: Mapping[str, Any], call: RunningCall) -> None:
    for step, update in data.items():
        messages = (update or {}).get("messages") if isinstance(update, Mapping) else None
        if messages:
            call.emit("update", {"step": step, "messages": [from_langchain(each) for each in messages]})

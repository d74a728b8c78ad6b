"""The five resource types. Each is made of a recipe that stands alone, so that any worker of a pool can make it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.common.held import Held
from manybridge.bridges.common.problems import invalid
from manybridge.bridges.langchain.agents import Agent, AgentSpec
from manybridge.bridges.langchain.calls import running
from manybridge.bridges.langchain.chains import chain_from_parts
from manybridge.bridges.langchain.memory import Threads, manage, read_memory
from manybridge.bridges.langchain.messages import from_langchain
from manybridge.bridges.langchain.models import check_settings
from manybridge.bridges.langchain.prompts import Prompt, read_prompt
from manybridge.bridges.langchain.tools import ToolDefaults, ToolRunner, read_errors, read_tool, read_tools
from manybridge.protocol.errors import ErrorCode

if TYPE_CHECKING:
    from manybridge.bridges.langchain.bridge import LangChainBridge

Action = Literal["threads", "history", "append", "delete"]


class _Resource(Held):
    bridge: LangChainBridge


class PromptResource(_Resource):
    """A prompt: a template, or messages with templates, that inputs are put into."""

    def create(
        self,
        template: str | list[dict[str, Any]],
        variables: list[str] | None = None,
        partials: dict[str, Any] | None = None,
        template_format: Literal["f-string", "mustache"] = "f-string",
    ) -> None:
        """Make a prompt.

        Args:
            template: a text with {variables}; or messages {role, content}, and {placeholder, optional} for messages
                that the inputs bring.
            variables: those that the template must have; checked if given.
            partials: values of variables that no call has to give.
            template_format: f-string or mustache.
        """
        described = {
            "template": template,
            "variables": variables,
            "partials": partials,
            "template_format": template_format,
        }
        self.prompt = Prompt(read_prompt(described, "prompt"))

    async def execute(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Format the prompt: {text, messages}.

        Args:
            inputs: a value for each variable.
        """
        value = self.prompt.format(inputs, strict=True)
        return {"text": value.to_string(), "messages": [from_langchain(each) for each in value.to_messages()]}


class ChainResource(_Resource):
    """A chain: prompt, model and parser, or any tree of steps."""

    def create(
        self,
        steps: list[Any] | dict[str, Any] | None = None,
        prompt: str | list[dict[str, Any]] | dict[str, Any] | None = None,
        model: str | dict[str, Any] | None = None,
        parser: str | dict[str, Any] | None = None,
        tools: list[str | dict[str, Any]] | None = None,
    ) -> None:
        """Make a chain.

        Args:
            steps: a tree of steps; or, in its place, the parts of a simple chain:
            prompt: a template, messages, or {template, variables, partials}.
            model: provider:model, or settings {model, temperature, ...}; by default the configured one.
            parser: str, json, list, or {schema}.
            tools: what the model may ask for; its tool calls are in its answer.
        """
        self.chain = self.bridge.make_chain(steps, prompt, model, parser, tools)
        self.bridge.chains[self.id] = self

    async def execute(self, inputs: dict[str, Any], *, ctx: Context) -> dict[str, Any]:
        """Run the chain: {output, usage}. Streams tokens and updates.

        Args:
            inputs: a value for each variable of its first prompt.
        """
        return await self.bridge.run_chain(self.chain, inputs, ctx, self.session_id)

    def close(self) -> None:
        """Forget the chain."""
        self.bridge.chains.pop(self.id, None)


class ToolResource(_Resource):
    """A tool with checked arguments: Python of an allowed module, or a function that lives in the client's process."""

    def create(
        self,
        name: str | None = None,
        description: str | None = None,
        parameters: dict[str, Any] | None = None,
        returns: dict[str, Any] | None = None,
        function: str | None = None,
        timeout: float | None = None,
        errors: Literal["model", "caller"] | None = None,
    ) -> None:
        """Make a tool.

        Args:
            name: what models call it; by default the function's.
            description: for models; by default the function's docstring.
            parameters: JSON Schema of its arguments; by default made of the function's annotations.
            returns: JSON Schema of its result; by default anything.
            function: package.module:function of an allowed module; without it the tool is the client's.
            timeout: seconds for one call.
            errors: who hears of its failures when an agent calls it: the model, or the caller.
        """
        given = {
            "name": name, "description": description, "parameters": parameters, "returns": returns,
            "function": function, "timeout": timeout, "errors": errors,
        }  # fmt: skip
        described = {key: value for key, value in given.items() if value is not None}
        self.tool = read_tool(described, "tool", self.bridge.references, self.bridge.tool_defaults)

    async def execute(self, inputs: dict[str, Any], *, ctx: Context) -> dict[str, Any]:
        """Call the tool: {result}.

        Args:
            inputs: its arguments.
        """
        with self.bridge.translating(), running(ctx) as call:
            return {"result": await ToolRunner(self.tool).run(inputs, ctx, call.emit)}


class MemoryResource(_Resource):
    """Threads of messages, in memory or in an SQLite file that agents of every worker share."""

    def create(self, kind: Literal["memory", "sqlite"] = "memory", name: str | None = None) -> None:
        """Make or open a memory.

        Args:
            kind: memory (kept in snapshots) or sqlite (a file in the option memory_folder).
            name: of the file; agents with the same name have the same threads.
        """
        spec = read_memory({"kind": kind, "name": name}, "memory")
        self.threads = Threads(spec, self.session_id, self.bridge.savers)

    async def execute(
        self,
        action: Action,
        thread_id: str | None = None,
        messages: str | list[dict[str, Any]] | None = None,
        limit: int = 100,
    ) -> dict[str, Any]:
        """Work on threads.

        Args:
            action: threads (list them), history (read one), append (messages to one), delete (one).
            thread_id: which one.
            messages: what to append.
            limit: threads, or latest messages, at most.
        """
        with self.bridge.translating():
            return await manage(self.threads, action, thread_id, messages, limit)

    def snapshot(self) -> dict[str, Any]:
        """The threads that are not in a file."""
        return self.threads.snapshot()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a snapshot back, in another worker."""
        if not hasattr(self, "threads"):
            self.create(**self.config)
        self.threads.restore(state)


class AgentResource(_Resource):
    """An agent: a model that calls tools until it has an answer, with threads that survive its worker."""

    def create(
        self,
        model: str | dict[str, Any] | None = None,
        tools: list[str | dict[str, Any]] | None = None,
        system_prompt: str | None = None,
        response_format: dict[str, Any] | None = None,
        response_strategy: Literal["auto", "tool", "provider"] = "auto",
        memory: str | dict[str, Any] | None = "memory",
        recursion_limit: int | None = None,
        tool_errors: Literal["model", "caller"] | None = None,
        tool_timeout: float | None = None,
    ) -> None:
        """Make an agent.

        Args:
            model: provider:model, or settings {model, temperature, ...}; by default the configured one.
            tools: each a module:function, or {name, description, parameters} of the client, see the type tool.
            system_prompt: goes before every thread.
            response_format: JSON Schema of the answer, which is in `structured`.
            response_strategy: how the answer's form is asked for: as a tool, by the provider, or as the model can.
            memory: memory, {kind: sqlite, name}, or null for an agent without threads.
            recursion_limit: steps of one run at most; a turn with tools takes two.
            tool_errors: who hears of tools that fail: model or caller.
            tool_timeout: seconds for one call of a tool.
        """
        bridge = self.bridge
        self.own_model = own_model(model)
        defaults = ToolDefaults(
            bridge.tool_defaults.timeout if tool_timeout is None else tool_timeout,
            bridge.tool_defaults.errors if tool_errors is None else read_errors(tool_errors, "tool_errors"),
        )
        limit = bridge.recursion_limit if recursion_limit is None else recursion_limit
        read = read_tools(tools or [], "tools", bridge.references, defaults)
        spec = AgentSpec(read, system_prompt, response_format, response_strategy, limit)
        threads = None
        if memory is not None:
            where = read_memory(memory, "memory")
            threads = Threads(where, self.session_id, bridge.savers)
        self.agent = Agent(spec, threads)
        if self.own_model or bridge.models.default is not None:
            self._graph(self.session_id, None)  # what is wrong with the model is told now, and the first run is quick

    def _graph(self, session_id: str | None, model: Mapping[str, Any] | None) -> Any:
        models = self.bridge.models
        settings = models.settings_for(session_id, self.own_model, model)
        return self.agent.compile(settings, models.open(settings))

    async def execute(
        self,
        messages: str | list[dict[str, Any]] | None = None,
        thread_id: str | None = None,
        model: str | dict[str, Any] | None = None,
        action: Literal["run", "threads", "history", "append", "delete"] = "run",
        limit: int = 100,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Run one turn: {output, messages, thread_id, usage, structured?}. Streams tokens, updates and tool events.

        Args:
            messages: the user's text, or messages {role, content}.
            thread_id: the thread that this turn belongs to; without it nothing is remembered.
            model: another model for this turn.
            action: run; or look after the agent's own threads: threads, history, append, delete.
            limit: for threads and history.
            ctx: the call.
        """
        with self.bridge.translating(), running(ctx) as call:
            if action != "run":
                if self.agent.threads is None:
                    raise invalid("action", f"this agent has no memory, so {action} is about nothing")
                return await manage(self.agent.threads, action, thread_id, messages, limit)
            if messages is None:
                raise invalid("messages", "missing: what should the agent answer?")
            session = ctx.session_id or self.session_id
            graph = self._graph(session, own_model(model))
            try:
                return await self.agent.run(graph, messages, thread_id, call)
            finally:
                self.bridge.usage_ledger.add(call.usage.summary(), session)

    def snapshot(self) -> dict[str, Any]:
        """The threads that are not in a file."""
        return {"threads": {}} if self.agent.threads is None else self.agent.threads.snapshot()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put a snapshot back, in another worker."""
        if not hasattr(self, "agent"):
            self.create(**self.config)
        if self.agent.threads is not None and state.get("threads"):
            self.agent.threads.restore(state)


def own_model(model: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Read a model of a recipe or a call: `provider:model`, or settings.

    Raises:
        BridgeError: `invalid_argument`; a recipe is stored, so it may not hold a key.
    """
    if model is None:
        return None
    given = check_settings({"model": model} if isinstance(model, str) else model)
    if "api_key" in given:
        raise BridgeError(
            ErrorCode.INVALID_ARGUMENT,
            "model.api_key: a recipe is stored, so it may not hold a key. Name the variable that has it (api_key_env), "
            "or use langchain:configure_model.",
        )
    return given or None


def parts_of_chain(steps: Any, prompt: Any, model: Any, parser: Any, tools: Any) -> Any:
    """The tree of a chain, given as a tree or by its parts.

    Raises:
        BridgeError: `invalid_argument`, both or neither are given.
    """
    parts = {"prompt": prompt, "model": model, "parser": parser, "tools": tools}
    given = [name for name, part in parts.items() if part is not None]
    if steps is not None and given:
        raise invalid(given[0], "a chain has either steps, or prompt, model and parser")
    if steps is None and not given:
        raise invalid("steps", "missing: a chain has steps, or prompt, model and parser")
    return chain_from_parts(prompt, model, parser, tools) if steps is None else steps

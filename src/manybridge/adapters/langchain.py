"""The typed clients for LangChain.

    langchain = ml.get_adapter("langchain")
    chain = langchain.create_chain("Tell me about {topic}", parser="str")
    print(chain.invoke(topic="bears").output)
    agent = langchain.create_agent(tools=[look_up_order], system_prompt="You help customers.")
    print(agent.invoke("Where is order 7?", thread_id="customer-3").output)

`look_up_order` is a function of this process. `AsyncLangChainAdapter` (in `langchain_async`) has the same methods,
awaitable. Neither imports LangChain: it lives in the workers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from manybridge.adapters.base import Caller, GenericAdapter
from manybridge.adapters.handles import Handle, split_options
from manybridge.adapters.langchain_types import (
    AgentAnswer,
    ChainResult,
    ErrorsGoTo,
    FormattedPrompt,
    Message,
    Messages,
    Model,
    ModelAnswer,
    ToolLike,
    batch_calls,
    memory_of,
    plain,
    read_batch,
    recipe,
    tools_of,
)


class LangChainAdapter(GenericAdapter):
    """LangChain on a blocking host. Every method takes `timeout` (seconds) and `session` as further keywords."""

    def __init__(self, ml: Caller, bridge: str = "langchain") -> None:
        super().__init__(ml, bridge, "langchain")

    # ------------------------------------------------------------------ models

    def configure_model(self, model: str, **settings: Any) -> dict[str, Any]:
        """Set the model of a session (`session=...`), or of the worker that answers where there is none.

        Args:
            model: provider:model.
            settings: temperature, max_tokens, api_key_env, api_key, base_url, ... and the call's own options.
        """
        given, options = split_options(settings)
        configured: dict[str, Any] = self.call("configure_model", {"model": model, **given}, **options)
        return configured

    def list_providers(self, **options: Any) -> dict[str, Any]:
        """Name the providers of `provider:model`, their plug-ins, and which are installed."""
        found: dict[str, Any] = self.call("list_providers", **options)
        return found

    def invoke(
        self, messages: Messages, *, model: Model | None = None, tools: Iterable[ToolLike] = (), **options: Any
    ) -> ModelAnswer:
        """Ask a model once. Tools are only offered to it: its tool calls are in the answer."""
        return ModelAnswer.read(self.call("invoke", self._question(messages, model, tools), **options))

    def stream_invoke(
        self, messages: Messages, *, model: Model | None = None, tools: Iterable[ToolLike] = (), **options: Any
    ) -> Iterator[Any]:
        """Ask a model once and yield its events; chunks are `{"kind": "token", "text", "step"}` and updates."""
        return self.stream("invoke", self._question(messages, model, tools), **options)

    def _question(self, messages: Messages, model: Model | None, tools: Iterable[ToolLike]) -> dict[str, Any]:
        return recipe(messages=messages, model=model, tools=tools_of(self._host, tools) or None)

    def embed(self, texts: list[str], *, model: str | None = None, **options: Any) -> list[list[float]]:
        """Turn texts into vectors."""
        found = self.call("embed", recipe(texts=texts, model=model), **options)
        vectors: list[list[float]] = found["embeddings"]
        return vectors

    def usage(self, **options: Any) -> dict[str, Any]:
        """Tokens and requests of the worker that answers, and of the session on it."""
        used: dict[str, Any] = self.call("usage", **options)
        return used

    # ------------------------------------------------------------------ what lives on

    def create_prompt(
        self,
        template: str | list[dict[str, Any]],
        *,
        variables: list[str] | None = None,
        partials: Mapping[str, Any] | None = None,
        template_format: str | None = None,
        **options: Any,
    ) -> Prompt:
        """Make a prompt of a text or of messages with {variables}."""
        config = recipe(template=template, variables=variables, partials=partials, template_format=template_format)
        return Prompt(self, self._make("prompt", config, options), config, options)

    def create_chain(
        self,
        prompt: str | list[dict[str, Any]] | Mapping[str, Any] | Prompt | None = None,
        *,
        model: Model | None = None,
        parser: str | Mapping[str, Any] | None = None,
        tools: Iterable[ToolLike] = (),
        steps: list[Any] | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Chain:
        """Make a chain of prompt, model and parser, or of a tree of `steps`."""
        offered = tools_of(self._host, tools) or None
        config = recipe(prompt=prompt, model=model, parser=parser, tools=offered, steps=steps)
        return Chain(self, self._make("chain", config, options), config, options)

    def create_tool(
        self,
        name: str | None = None,
        *,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        returns: Mapping[str, Any] | None = None,
        function: str | None = None,
        tool_timeout: float | None = None,
        errors: ErrorsGoTo | None = None,
        **options: Any,
    ) -> Tool:
        """Make a tool with checked arguments.

        Args:
            name: by default the function's.
            description: for models.
            parameters: JSON Schema of the arguments.
            returns: JSON Schema of the result.
            function: package.module:function of an allowed module; without it the tool is one registered on the host.
            tool_timeout: seconds for one call of the tool.
            errors: who hears of its failures: model or caller.
            options: timeout, session.
        """
        config = recipe(
            name=name,
            description=description,
            parameters=parameters,
            returns=returns,
            function=function,
            timeout=tool_timeout,
            errors=errors,
        )
        return Tool(self, self._make("tool", config, options), config, options)

    def create_memory(self, kind: str = "memory", name: str | None = None, **options: Any) -> Memory:
        """Make a memory: `memory`, or `sqlite` with the name that agents share it by."""
        config = recipe(kind=kind, name=name)
        return Memory(self, self._make("memory", config, options), config, options)

    def create_agent(
        self,
        model: Model | None = None,
        *,
        tools: Iterable[ToolLike] = (),
        system_prompt: str | None = None,
        response_format: Mapping[str, Any] | None = None,
        response_strategy: str | None = None,
        memory: str | Mapping[str, Any] | Memory | None = "memory",
        recursion_limit: int | None = None,
        tool_errors: ErrorsGoTo | None = None,
        tool_timeout: float | None = None,
        **options: Any,
    ) -> Agent:
        """Make an agent.

        Args:
            model: provider:model or settings; by default the configured one.
            tools: see `ToolLike`; functions of this process are registered on the host.
            system_prompt: goes before every thread.
            response_format: JSON Schema of the answer.
            response_strategy: auto, tool or provider.
            memory: "memory", an SQLite memory, or None for an agent without threads.
            recursion_limit: steps of one turn at most.
            tool_errors: who hears of tools that fail: model or caller.
            tool_timeout: seconds for one call of a tool.
            options: timeout, session.
        """
        config = recipe(
            model=model,
            tools=tools_of(self._host, tools) or None,
            system_prompt=system_prompt,
            response_format=response_format,
            response_strategy=response_strategy,
            recursion_limit=recursion_limit,
            tool_errors=tool_errors,
            tool_timeout=tool_timeout,
        )
        config["memory"] = memory_of(memory)
        return Agent(self, self._make("agent", config, options), config, options)

    @property
    def _host(self) -> Any:
        return self.ml  # a host has more than adapters in general need

    def _make(self, type: str, config: dict[str, Any], options: dict[str, Any]) -> str:
        id: str = self.create(type, config, **options).id
        return id


class Prompt(Handle):
    """A prompt on a host."""

    def format(self, *, timeout: float | None = None, **inputs: Any) -> FormattedPrompt:
        """Put inputs in, one keyword for each variable."""
        found = self._execute(inputs, timeout)
        return FormattedPrompt(found["text"], found["messages"])


class Chain(Handle):
    """A chain on a host."""

    def invoke(self, *, timeout: float | None = None, **inputs: Any) -> ChainResult:
        """Run it, one keyword for each variable of its first prompt."""
        return ChainResult.read(self._execute(inputs, timeout))

    def stream(self, *, timeout: float | None = None, **inputs: Any) -> Iterator[Any]:
        """Run it and yield its events: chunks of the kinds token, update, tool_start, tool_end. `.result` follows."""
        return self._stream(inputs, timeout)

    def batch(
        self, inputs: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[ChainResult | Exception]:
        """Run it on many inputs at the same time, on every worker; errors are in the places of their inputs."""
        ml: Any = self.adapter.ml
        calls = batch_calls(self.id, inputs)
        return read_batch(ml.batch(self.adapter.bridge, calls, **self._call_options(timeout)))


class Tool(Handle):
    """A tool on a host. Its recipe goes into agents."""

    def invoke(self, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Call it, one keyword for each argument."""
        return self._execute(arguments, timeout)["result"]


class _Threads(Handle):
    """What has threads."""

    def threads(self, *, limit: int = 100, timeout: float | None = None) -> list[str]:
        """Name the threads."""
        found: list[str] = self._manage("threads", timeout, limit=limit)["threads"]
        return found

    def history(self, thread_id: str, *, limit: int = 100, timeout: float | None = None) -> list[Message]:
        """Return the latest messages of a thread, oldest first."""
        return self._messages(self._manage("history", timeout, thread_id=thread_id, limit=limit))

    def append(self, thread_id: str, messages: Messages, *, timeout: float | None = None) -> list[Message]:
        """Add messages to a thread and return its latest ones."""
        return self._messages(self._manage("append", timeout, thread_id=thread_id, messages=messages))

    def delete_thread(self, thread_id: str, *, timeout: float | None = None) -> bool:
        """Delete a thread; whether there was one."""
        found = self._manage("delete", timeout, thread_id=thread_id)
        return bool(found["deleted"])

    def _manage(self, action: str, timeout: float | None, **given: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._execute({"action": action, **given}, timeout)
        return found

    @staticmethod
    def _messages(found: dict[str, Any]) -> list[Message]:
        messages: list[Message] = found["messages"]
        return messages


class Memory(_Threads):
    """A memory on a host."""


class Agent(_Threads):
    """An agent on a host. Its threads survive the worker that holds it."""

    def invoke(
        self,
        messages: Messages,
        *,
        thread_id: str | None = None,
        model: Model | None = None,
        timeout: float | None = None,
    ) -> AgentAnswer:
        """Run one turn of a thread; without `thread_id` nothing is remembered."""
        inputs = recipe(messages=messages, thread_id=thread_id, model=plain(model))
        return AgentAnswer.read(self._execute(inputs, timeout))

    def stream(
        self,
        messages: Messages,
        *,
        thread_id: str | None = None,
        model: Model | None = None,
        timeout: float | None = None,
    ) -> Iterator[Any]:
        """Run one turn and yield its events: chunks of the kinds token, update, tool_start, tool_end."""
        return self._stream(recipe(messages=messages, thread_id=thread_id, model=plain(model)), timeout)

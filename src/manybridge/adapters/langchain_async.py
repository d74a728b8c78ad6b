"""`AsyncLangChainAdapter`: the LangChain adapter for `AsyncMLBridge`. The same methods, awaitable; see `langchain`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from manybridge.adapters.base import AsyncCaller, AsyncGenericAdapter
from manybridge.adapters.handles import AsyncHandle, split_options
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


class AsyncLangChainAdapter(AsyncGenericAdapter):
    """LangChain on an asynchronous host. Every method takes `timeout` (seconds) and `session` as further keywords."""

    def __init__(self, ml: AsyncCaller, bridge: str = "langchain") -> None:
        super().__init__(ml, bridge, "langchain")

    # ------------------------------------------------------------------ models

    async def configure_model(self, model: str, **settings: Any) -> dict[str, Any]:
        """Set the model of a session (`session=...`), or of the worker that answers where there is none."""
        given, options = split_options(settings)
        configured: dict[str, Any] = await self.call("configure_model", {"model": model, **given}, **options)
        return configured

    async def list_providers(self, **options: Any) -> dict[str, Any]:
        """Name the providers of `provider:model`, their plug-ins, and which are installed."""
        found: dict[str, Any] = await self.call("list_providers", **options)
        return found

    async def invoke(
        self, messages: Messages, *, model: Model | None = None, tools: Iterable[ToolLike] = (), **options: Any
    ) -> ModelAnswer:
        """Ask a model once. Tools are only offered to it: its tool calls are in the answer."""
        return ModelAnswer.read(await self.call("invoke", self._question(messages, model, tools), **options))

    def stream_invoke(
        self, messages: Messages, *, model: Model | None = None, tools: Iterable[ToolLike] = (), **options: Any
    ) -> AsyncIterator[Any]:
        """Ask a model once and yield its events; chunks are `{"kind": "token", "text", "step"}` and updates."""
        return self.stream("invoke", self._question(messages, model, tools), **options)

    def _question(self, messages: Messages, model: Model | None, tools: Iterable[ToolLike]) -> dict[str, Any]:
        return recipe(messages=messages, model=model, tools=tools_of(self._host, tools) or None)

    async def embed(self, texts: list[str], *, model: str | None = None, **options: Any) -> list[list[float]]:
        """Turn texts into vectors."""
        found = await self.call("embed", recipe(texts=texts, model=model), **options)
        vectors: list[list[float]] = found["embeddings"]
        return vectors

    async def usage(self, **options: Any) -> dict[str, Any]:
        """Tokens and requests of the worker that answers, and of the session on it."""
        used: dict[str, Any] = await self.call("usage", **options)
        return used

    # ------------------------------------------------------------------ what lives on

    async def create_prompt(
        self,
        template: str | list[dict[str, Any]],
        *,
        variables: list[str] | None = None,
        partials: Mapping[str, Any] | None = None,
        template_format: str | None = None,
        **options: Any,
    ) -> AsyncPrompt:
        """Make a prompt of a text or of messages with {variables}."""
        config = recipe(template=template, variables=variables, partials=partials, template_format=template_format)
        return AsyncPrompt(self, await self._make("prompt", config, options), config, options)

    async def create_chain(
        self,
        prompt: str | list[dict[str, Any]] | Mapping[str, Any] | AsyncPrompt | None = None,
        *,
        model: Model | None = None,
        parser: str | Mapping[str, Any] | None = None,
        tools: Iterable[ToolLike] = (),
        steps: list[Any] | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> AsyncChain:
        """Make a chain of prompt, model and parser, or of a tree of `steps`."""
        offered = tools_of(self._host, tools) or None
        config = recipe(prompt=prompt, model=model, parser=parser, tools=offered, steps=steps)
        return AsyncChain(self, await self._make("chain", config, options), config, options)

    async def create_tool(
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
    ) -> AsyncTool:
        """Make a tool with checked arguments."""
        config = recipe(
            name=name,
            description=description,
            parameters=parameters,
            returns=returns,
            function=function,
            timeout=tool_timeout,
            errors=errors,
        )
        return AsyncTool(self, await self._make("tool", config, options), config, options)

    async def create_memory(self, kind: str = "memory", name: str | None = None, **options: Any) -> AsyncMemory:
        """Make a memory: `memory`, or `sqlite` with the name that agents share it by."""
        config = recipe(kind=kind, name=name)
        return AsyncMemory(self, await self._make("memory", config, options), config, options)

    async def create_agent(
        self,
        model: Model | None = None,
        *,
        tools: Iterable[ToolLike] = (),
        system_prompt: str | None = None,
        response_format: Mapping[str, Any] | None = None,
        response_strategy: str | None = None,
        memory: str | Mapping[str, Any] | AsyncMemory | None = "memory",
        recursion_limit: int | None = None,
        tool_errors: ErrorsGoTo | None = None,
        tool_timeout: float | None = None,
        **options: Any,
    ) -> AsyncAgent:
        """Make an agent."""
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
        return AsyncAgent(self, await self._make("agent", config, options), config, options)

    @property
    def _host(self) -> Any:
        return self.ml  # a host has more than adapters in general need

    async def _make(self, type: str, config: dict[str, Any], options: dict[str, Any]) -> str:
        id: str = (await self.create(type, config, **options)).id
        return id


class AsyncPrompt(AsyncHandle):
    """A prompt on a host."""

    async def format(self, *, timeout: float | None = None, **inputs: Any) -> FormattedPrompt:
        """Put inputs in, one keyword for each variable."""
        found = await self._execute(inputs, timeout)
        return FormattedPrompt(found["text"], found["messages"])


class AsyncChain(AsyncHandle):
    """A chain on a host."""

    async def invoke(self, *, timeout: float | None = None, **inputs: Any) -> ChainResult:
        """Run it, one keyword for each variable of its first prompt."""
        return ChainResult.read(await self._execute(inputs, timeout))

    def stream(self, *, timeout: float | None = None, **inputs: Any) -> AsyncIterator[Any]:
        """Run it and yield its events: chunks of the kinds token, update, tool_start, tool_end. `.result` follows."""
        return self._stream(inputs, timeout)

    async def batch(
        self, inputs: Iterable[Mapping[str, Any]], *, timeout: float | None = None
    ) -> list[ChainResult | Exception]:
        """Run it on many inputs at the same time, on every worker; errors are in the places of their inputs."""
        ml: Any = self.adapter.ml
        calls = batch_calls(self.id, inputs)
        return read_batch(await ml.batch(self.adapter.bridge, calls, **self._call_options(timeout)))


class AsyncTool(AsyncHandle):
    """A tool on a host. Its recipe goes into agents."""

    async def invoke(self, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Call it, one keyword for each argument."""
        return (await self._execute(arguments, timeout))["result"]


class _Threads(AsyncHandle):
    """What has threads."""

    async def threads(self, *, limit: int = 100, timeout: float | None = None) -> list[str]:
        """Name the threads."""
        found: list[str] = (await self._manage("threads", timeout, limit=limit))["threads"]
        return found

    async def history(self, thread_id: str, *, limit: int = 100, timeout: float | None = None) -> list[Message]:
        """Return the latest messages of a thread, oldest first."""
        return self._messages(await self._manage("history", timeout, thread_id=thread_id, limit=limit))

    async def append(self, thread_id: str, messages: Messages, *, timeout: float | None = None) -> list[Message]:
        """Add messages to a thread and return its latest ones."""
        return self._messages(await self._manage("append", timeout, thread_id=thread_id, messages=messages))

    async def delete_thread(self, thread_id: str, *, timeout: float | None = None) -> bool:
        """Delete a thread; whether there was one."""
        found = await self._manage("delete", timeout, thread_id=thread_id)
        return bool(found["deleted"])

    async def _manage(self, action: str, timeout: float | None, **given: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self._execute({"action": action, **given}, timeout)
        return found

    @staticmethod
    def _messages(found: dict[str, Any]) -> list[Message]:
        messages: list[Message] = found["messages"]
        return messages


class AsyncMemory(_Threads):
    """A memory on a host."""


class AsyncAgent(_Threads):
    """An agent on a host. Its threads survive the worker that holds it."""

    async def invoke(
        self,
        messages: Messages,
        *,
        thread_id: str | None = None,
        model: Model | None = None,
        timeout: float | None = None,
    ) -> AgentAnswer:
        """Run one turn of a thread; without `thread_id` nothing is remembered."""
        inputs = recipe(messages=messages, thread_id=thread_id, model=plain(model))
        return AgentAnswer.read(await self._execute(inputs, timeout))

    def stream(
        self,
        messages: Messages,
        *,
        thread_id: str | None = None,
        model: Model | None = None,
        timeout: float | None = None,
    ) -> AsyncIterator[Any]:
        """Run one turn and yield its events: chunks of the kinds token, update, tool_start, tool_end."""
        return self._stream(recipe(messages=messages, thread_id=thread_id, model=plain(model)), timeout)

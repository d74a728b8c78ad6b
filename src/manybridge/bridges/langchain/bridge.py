"""`LangChainBridge`: what a client can ask of LangChain.

Theory of operation. Handlers are coroutines, up to `max_concurrency` of them at once on the worker's one event loop,
which LangChain's clients are tied to for their life. Each call has its own model (`models.py`) and finds itself through
a context variable (`calls.py`), so that tools and callbacks that LangChain calls know whom they serve. Recipes stand
alone: they name no other resource, so any worker of a pool can make a chain or an agent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from manybridge.bridge import Bridge, BridgeError, Context, command, resource
from manybridge.bridges.common.keys import Secrets
from manybridge.bridges.common.problems import invalid, only_keys
from manybridge.bridges.common.references import References
from manybridge.bridges.common.sessions import checked_session_settings, configured_session, of_session
from manybridge.bridges.common.usage import UsageLedger
from manybridge.bridges.langchain.calls import running
from manybridge.bridges.langchain.chains import Chain, model_step
from manybridge.bridges.langchain.embeddings import Embedders
from manybridge.bridges.langchain.errors import translate
from manybridge.bridges.langchain.framework import (
    forget_shared_clients,
    import_langchain,
    import_what_calls_use,
    versions,
)
from manybridge.bridges.langchain.lcel import ModelNode, nodes_of
from manybridge.bridges.langchain.messages import check_messages, from_langchain, to_langchain
from manybridge.bridges.langchain.models import Models
from manybridge.bridges.langchain.options import Options, read_options
from manybridge.bridges.langchain.providers import known_providers
from manybridge.bridges.langchain.resources import (
    AgentResource,
    ChainResource,
    MemoryResource,
    PromptResource,
    ToolResource,
    own_model,
    parts_of_chain,
)
from manybridge.bridges.langchain.thread_stores import Savers
from manybridge.bridges.langchain.tools import read_tool, read_tools, to_langchain_tools
from manybridge.bridges.langchain.usage import TOKEN_COUNTS
from manybridge.protocol.errors import ErrorCode

MAX_BATCH = 1000
"""Inputs of one batch: its results come back in one reply."""

CHAIN_KEYS = ("steps", "prompt", "model", "parser", "tools")


class LangChainBridge(Bridge):
    """LangChain 1.x: prompts, chains, agents with tools, memory.

    Options: `model` ("provider:model"), `api_key_env` (or `api_key`), `base_url`, `temperature`, `max_tokens`,
    `timeout` (seconds), `max_retries`, `parameters`; `embedding_model`; `memory_folder` for SQLite memory;
    `recursion_limit`, `tool_timeout`, `tool_errors`; `allow_modules` and `search_path` for a team's own tools.
    """

    name: ClassVar[str] = "langchain"
    capabilities: ClassVar[tuple[str, ...]] = ("text-generation", "chains", "agents", "tools", "memory", "streaming")
    required_modules: ClassVar[tuple[str, ...]] = ("langchain", "langgraph")
    zygote_safe: ClassVar[bool] = True
    max_concurrency: ClassVar[int] = 16

    prompt: ClassVar[type[PromptResource]] = resource("prompt", policy="recreate")(PromptResource)
    chain: ClassVar[type[ChainResource]] = resource("chain", policy="recreate")(ChainResource)
    tool: ClassVar[type[ToolResource]] = resource("tool", policy="recreate")(ToolResource)
    memory: ClassVar[type[MemoryResource]] = resource("memory", policy="restore")(MemoryResource)
    agent: ClassVar[type[AgentResource]] = resource("agent", policy="restore")(AgentResource)

    @classmethod
    def preload(cls) -> None:
        """Import LangChain and what the first call would import. Opens no connection."""
        import_langchain()
        import_what_calls_use()

    def setup(self, options: dict[str, Any]) -> None:
        """Read the options; no model is contacted.

        Raises:
            BridgeError: `config_error` for a wrong option, `missing_variable` for a key that is not there.
        """
        import_langchain()
        forget_shared_clients()
        self.secrets = Secrets()
        self.secrets.add_environment()
        found: Options = read_options(options)
        self.models = Models(self.secrets, found.model)
        self.embedders = Embedders(self.models, found.embedding_model)
        self.references = References(found.allow_modules, found.search_path)
        self.savers = Savers(found.memory_folder)
        self.tool_defaults = found.tools
        self.recursion_limit = found.recursion_limit
        self.usage_ledger = UsageLedger(TOKEN_COUNTS)
        self.chains: dict[str, ChainResource] = {}

    def close(self) -> None:
        """Close files; connections to models end with the process."""
        self.savers.close()
        self.models.close()

    def cleanup(self, session_id: str | None) -> dict[str, Any]:
        """Forget a session's model and usage. Its threads in SQLite stay until they are deleted."""
        if session_id is not None:
            self.models.forget(session_id)
            self.usage_ledger.forget(session_id)
        return {}

    def configure_session(self, session_id: str, settings: Mapping[str, Any]) -> None:
        """Set the model of a session; the settings are the arguments of `langchain:configure_model`.

        Raises:
            BridgeError: as `langchain:configure_model`.
        """
        try:
            given = checked_session_settings(self.spec.commands["configure_model"], settings)
            self.models.configure_session(given, session_id)
        except BridgeError as error:
            raise of_session(error, self.name) from error

    def stats(self) -> dict[str, Any]:
        """Usage since the worker started."""
        return {"usage": self.usage_ledger.total()}

    def translate_error(self, error: BaseException) -> BridgeError | None:
        """See `errors.py`."""
        return translate(error, self.secrets)

    # ------------------------------------------------------------------ models

    @command("configure_model", session_settings=True)
    def configure_model(
        self,
        model: str | None = None,
        api_key: str | None = None,
        api_key_env: str | None = None,
        base_url: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        parameters: dict[str, Any] | None = None,
        session_id: str | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Set the model of a session, or of this worker where there is no session; asks no model.

        Args:
            model: provider:model, for example openai:gpt-4o-mini.
            api_key: the key; better its place, api_key_env.
            api_key_env: name of the environment variable that has the key.
            base_url: address of an endpoint; needs an api_key in the same call.
            temperature: of the sampling.
            max_tokens: of one answer.
            timeout: seconds without an answer.
            max_retries: how often the provider's client repeats a failed request.
            parameters: top_p, seed, stop, ...
            session_id: by default the session of the call.
            ctx: the call.
        """
        session = configured_session(session_id, ctx, self.worker)
        settings = self.models.configure(
            {
                "model": model, "api_key": api_key, "api_key_env": api_key_env, "base_url": base_url,
                "temperature": temperature, "max_tokens": max_tokens, "timeout": timeout, "max_retries": max_retries,
                "parameters": parameters,
            },
            session,
        )  # fmt: skip
        self.models.open(settings)
        return {
            "status": "configured", "session": session, **settings.describe(), "settings": self.models.told(session),
        }  # fmt: skip

    @command("list_providers", idempotent=True)
    def list_providers(self) -> dict[str, Any]:
        """Name the providers of `provider:model`, their plug-ins, and which of them are installed here."""
        told = {
            name: {"package": entry["package"], "installed": entry["installed"]}
            for name, entry in known_providers().items()
        }
        installed = [name for name, entry in told.items() if entry["installed"]]
        return {"providers": told, "installed": installed, "versions": versions()}

    @command("usage", idempotent=True)
    def usage(self, *, ctx: Context) -> dict[str, Any]:
        """Tokens and requests since this worker started, and of the caller's session on it."""
        return self.usage_ledger.told(ctx.session_id)

    @command("invoke")
    async def invoke(
        self,
        messages: str | list[dict[str, Any]],
        model: str | dict[str, Any] | None = None,
        tools: list[str | dict[str, Any]] | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Ask a model once: {message, usage}. Streams tokens.

        Args:
            messages: the user's text, or messages {role, content}.
            model: provider:model, or settings {model, temperature, ...}; by default the configured one.
            tools: what the model may ask for; nothing is called, its tool calls are in the message.
            ctx: the call.
        """
        given = to_langchain(check_messages(messages, "messages"))
        specs = read_tools(tools or [], "tools", self.references, self.tool_defaults)
        with self.translating(), running(ctx) as call:
            session = ctx.session_id
            asked = self.models.open(self.models.settings_for(session, own_model(model)))
            bound = asked.bind_tools(to_langchain_tools(specs)) if specs else asked
            try:
                answer = await model_step(bound, "model")(given, call.config())
            finally:
                self.usage_ledger.add(call.usage.summary(), session)
            return {"message": from_langchain(answer), "usage": call.usage.summary()}

    @command("embed", idempotent=True)
    async def embed(self, texts: list[str], model: str | None = None, *, ctx: Context) -> dict[str, Any]:
        """Turn texts into vectors: {embeddings, dimensions, model}.

        Args:
            texts: what to embed.
            model: provider:model; by default the option embedding_model.
            ctx: the call.
        """
        with self.translating():
            return await self.embedders.embed(texts, model, ctx.session_id)

    # ------------------------------------------------------------------ chains

    @command("execute_chain")
    async def execute_chain(
        self,
        inputs: Any = None,
        id: str | None = None,
        chain: list[Any] | dict[str, Any] | None = None,
        model: str | dict[str, Any] | None = None,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Run a chain: {output, usage}. Streams tokens and updates.

        Args:
            inputs: what its first step takes; for a prompt, an object with its variables.
            id: a chain that this worker holds; with a pool, use common:execute_resource. Or
            chain: a tree of steps, or {prompt, model, parser, tools}, which any worker can take.
            model: settings for every model of the chain that names none, in this run.
            ctx: the call.
        """
        return await self.run_chain(self._chain_of(id, chain, ctx), inputs, ctx, None, own_model(model))

    @command("batch")
    async def batch(
        self,
        inputs: list[Any],
        id: str | None = None,
        chain: list[Any] | dict[str, Any] | None = None,
        model: str | dict[str, Any] | None = None,
        max_concurrency: int = 8,
        *,
        ctx: Context,
    ) -> dict[str, Any]:
        """Run a chain on many inputs: {results, usage}, each {success, output | error}; progress counts them.

        Args:
            inputs: one for each run.
            id: as for execute_chain.
            chain: as for execute_chain.
            model: as for execute_chain.
            max_concurrency: runs at the same time.
            ctx: the call.
        """
        if max_concurrency < 1 or len(inputs) > MAX_BATCH:
            raise invalid("inputs", f"expected at most {MAX_BATCH}, and max_concurrency of 1 or more")
        found, own = self._chain_of(id, chain, ctx), own_model(model)
        gate = asyncio.Semaphore(max_concurrency)
        done = 0
        ctx.progress(done, len(inputs), "runs")  # before LangChain's own events would be told as progress
        with running(_QuietContext.over(ctx)) as call:

            async def one(given: Any) -> dict[str, Any]:
                nonlocal done
                async with gate:
                    try:
                        with self.translating():
                            output = await found.run(given, call, self._model_for(ctx.session_id, own))
                            result: dict[str, Any] = {"success": True, "output": output}
                    except BridgeError as error:
                        told = {"code": str(error.code), "message": error.message, "type": error.type}
                        result = {"success": False, "error": told}
                done += 1
                ctx.progress(done, len(inputs), "runs")
                return result

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(given)) for given in inputs]
            finally:
                self.usage_ledger.add(call.usage.summary(), ctx.session_id)
            return {"results": [task.result() for task in tasks], "usage": call.usage.summary()}

    # ------------------------------------------------------------------ inside

    def make_chain(self, steps: Any, prompt: Any, model: Any, parser: Any, tools: Any) -> Chain:
        """Make a chain of a tree or of its parts.

        Raises:
            BridgeError: `invalid_argument` with the path of what is wrong.
        """
        tree = parts_of_chain(steps, prompt, model, parser, tools)
        made = Chain(tree, lambda given, where: read_tool(given, where, self.references, self.tool_defaults), "steps")
        for node in nodes_of(made.root):
            if isinstance(node, ModelNode):
                own_model(node.settings)
        return made

    async def run_chain(
        self, chain: Chain, inputs: Any, ctx: Context, owner: str | None, model: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run a chain for a call: {output, usage}."""
        session = ctx.session_id or owner
        with self.translating(), running(ctx) as call:
            try:
                output = await chain.run(inputs, call, self._model_for(session, model))
            finally:
                self.usage_ledger.add(call.usage.summary(), session)
            return {"output": output, "usage": call.usage.summary()}

    def _model_for(self, session: str | None, model: Mapping[str, Any] | None) -> Any:
        def find(own: Mapping[str, Any] | None, path: str) -> Any:
            return self.models.open(self.models.settings_for(session, model, own, where=path))

        return find

    def _chain_of(self, id: str | None, described: Any, ctx: Context) -> Chain:
        if (id is None) == (described is None):
            raise invalid("chain", "expected either id, or chain, its recipe")
        if id is None:
            if isinstance(described, Mapping) and set(described) & set(CHAIN_KEYS) and not _is_step(described):
                only_keys(described, CHAIN_KEYS, "chain")
                return self.make_chain(*(described.get(name) for name in CHAIN_KEYS))
            return self.make_chain(described, None, None, None, None)
        held = self.chains.get(id)
        if held is None or held.session_id not in (None, ctx.session_id):
            raise BridgeError(
                ErrorCode.RESOURCE_NOT_FOUND,
                f"Chain not found in this worker: {id}. With a pool, common:execute_resource finds it anywhere.",
                details={"id": id},
            )
        return held.chain

    @contextmanager
    def translating(self) -> Iterator[None]:
        """What LangChain and providers raise leaves as `BridgeError`."""
        try:
            yield
        except BridgeError:
            raise
        except Exception as error:
            translated = translate(error, self.secrets)
            if translated is None:
                raise
            if translated is error:
                raise
            raise translated from error


def _is_step(described: Mapping[str, Any]) -> bool:
    """Whether `{"prompt": ...}` or `{"parser": ...}` alone is meant as a step of a tree."""
    return len(described) == 1 and next(iter(described)) in ("parser", "model")


class _QuietContext(Context):
    """A context for runs whose tokens and steps nobody could tell apart: it emits neither."""

    __slots__ = ()

    @classmethod
    def over(cls, ctx: Context) -> _QuietContext:
        """The same call."""
        return cls(
            ctx._channel,  # a context of the same call
            call_id=ctx.call_id,
            command=ctx.command,
            session_id=ctx.session_id,
            traceparent=ctx.traceparent,
            deadline=ctx.deadline,
            streaming=False,
        )

    def progress(self, current: float, total: float | None = None, message: str = "") -> None:
        """Nothing: the batch counts its runs."""

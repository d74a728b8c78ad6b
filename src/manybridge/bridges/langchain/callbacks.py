"""LangChain's callbacks as events of the call: progress, logs, tool events and usage, without code of the user's."""

from __future__ import annotations

from functools import cache
from typing import Any
from uuid import UUID

from manybridge.bridge import BridgeError
from manybridge.bridges.langchain.calls import RunningCall
from manybridge.bridges.langchain.errors import UnreadableAnswerError, is_unreadable
from manybridge.bridges.langchain.messages import to_json
from manybridge.protocol.errors import ErrorCode


class CallEvents:
    """Tells the caller what runs. Logs and progress name models and tools only: inputs may be private.

    Each method is one of LangChain's callbacks, awaited on the event loop where the work runs.
    """

    raise_error = True  # LangChain swallows what a callback raises, otherwise
    run_inline = True

    def __init__(self, call: RunningCall) -> None:
        self.call = call
        self._models: dict[UUID, str] = {}
        self._tools: dict[UUID, dict[str, Any]] = {}
        self._requests = 0

    async def on_chat_model_start(
        self, _serialized: Any, _messages: Any, *, run_id: UUID, metadata: dict[str, Any] | None = None, **_more: Any
    ) -> None:
        """A request goes to a model, unless the call was cancelled; so no further request is paid for."""
        self.call.ctx.check()
        facts = metadata or {}
        provider, name = facts.get("ls_provider"), facts.get("ls_model_name") or "model"
        self._models[run_id] = f"{provider}:{name}" if provider else str(name)
        self._requests += 1
        said = f"model {self._models[run_id]} asked, request {self._requests}"
        self.call.ctx.log(said)
        self.call.step(said)

    async def on_llm_end(self, response: Any, *, run_id: UUID, **_more: Any) -> None:
        """A model answered."""
        model = self._models.pop(run_id, "model")
        if not all(response.generations):  # LangChain would fail at an index, some steps later
            raise UnreadableAnswerError("it has no choices")
        for generations in response.generations:
            for generation in generations:
                message = getattr(generation, "message", None)
                self.call.asked_for = frozenset(each["name"] for each in getattr(message, "tool_calls", ()))
                self.call.usage.add(model, getattr(message, "usage_metadata", None))
                _check_end(model, message)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """A model failed. What is raised here takes the place of the error."""
        self._models.pop(run_id, None)
        self._warn("model request", error)
        if is_unreadable(error):
            raise UnreadableAnswerError from error

    async def on_tool_start(
        self,
        serialized: dict[str, Any],
        _input_str: str,
        *,
        run_id: UUID,
        inputs: dict[str, Any] | None = None,
        **_more: Any,
    ) -> None:
        """An agent calls a tool."""
        self.call.ctx.check()
        name = serialized.get("name") or "tool"
        facts = {"id": _more.get("tool_call_id"), "name": name}
        self._tools[run_id] = facts
        self.call.emit("tool_start", {**facts, "args": to_json(inputs or {})})
        self.call.step(f"tool {name} called")

    async def on_tool_end(self, output: Any, *, run_id: UUID, **_more: Any) -> None:
        """A tool answered. One whose failure goes to the model has answered too, with the status `error`."""
        facts = self._tools.pop(run_id, {})
        content, status = getattr(output, "content", output), getattr(output, "status", "success")
        self.call.emit("tool_end", {**facts, "status": status, "output": to_json(content)})

    async def on_tool_error(self, error: BaseException, *, run_id: UUID, **_more: Any) -> None:
        """A tool failed, and the call with it."""
        facts = self._tools.pop(run_id, {})
        self.call.emit("tool_end", {**facts, "status": "failed", "output": type(error).__name__})
        self._warn(f"tool {facts.get('name', '')}", error)

    def _warn(self, what: str, error: BaseException) -> None:
        if isinstance(error, Exception):
            self.call.ctx.log(f"{what} failed: {type(error).__name__}", "warning")


def _check_end(model: str, message: Any) -> None:
    """Refuse half an answer: a proxy may end a stream in good order whose provider was cut off.

    OpenAI says in its last event why it ended; other providers may say it otherwise or not at all.
    """
    facts = getattr(message, "response_metadata", {})
    if message is not None and model.startswith("openai:") and not {"finish_reason", "status"} & set(facts):
        raise BridgeError(
            ErrorCode.PROVIDER_UNAVAILABLE, "the model's stream ended before the model said that it was done"
        )


@cache
def _callback_class() -> Any:
    """`CallEvents` as a LangChain callback: its base class exists only once LangChain is imported."""
    from langchain_core.callbacks import AsyncCallbackHandler

    return type("LangChainCallEvents", (CallEvents, AsyncCallbackHandler), {"__module__": __name__})


def make_callbacks(call: RunningCall) -> Any:
    """Return the callbacks of a call."""
    return _callback_class()(call)

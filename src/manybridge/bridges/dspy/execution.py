"""How one call runs a DSPy module: settings for this call alone, streaming, usage, errors translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from manybridge.bridge import BridgeError, Context
from manybridge.bridges.dspy.callbacks import callback_class
from manybridge.bridges.dspy.tools import CONTEXT_SETTING, ToolUnavailable
from manybridge.bridges.dspy.usage import shared_tracker_class, summarize
from manybridge.bridges.dspy.values import read_prediction
from manybridge.protocol.errors import ErrorCode

ADAPTERS: Final = {"chat": "ChatAdapter", "json": "JSONAdapter", "xml": "XMLAdapter"}


class CallSettings(NamedTuple):
    """What a call runs with.

    Attributes:
        lm: an open `dspy.LM`.
        adapter: a key of `ADAPTERS`, or None for DSPy's choice.
    """

    dspy: Any
    lm: Any
    adapter: str | None
    ctx: Context


class RunningCall(NamedTuple):
    """Handles on a call while it runs: `usage()` may be asked at any time, `events` counts and notes errors."""

    tracker: Any
    events: Any

    def usage(self) -> dict[str, Any]:
        """Tokens and requests so far."""
        return summarize(self.tracker)


@contextmanager
def settings_of(call: CallSettings) -> Iterator[RunningCall]:
    """Put DSPy's settings in place for this call, in this task or thread and what it starts. Never global."""
    dspy = call.dspy
    running = RunningCall(shared_tracker_class(dspy)(), callback_class(dspy)(call.ctx))
    overrides = dspy.context(
        lm=call.lm,
        adapter=getattr(dspy, ADAPTERS[call.adapter])() if call.adapter else None,
        track_usage=True,
        usage_tracker=running.tracker,
        callbacks=[running.events],
        # DSPy keeps prompts and answers of ten thousand calls in these, by default. Nothing here reads them.
        disable_history=True,
        trace=[],
        **{CONTEXT_SETTING: call.ctx},
    )
    try:
        with overrides:
            yield running
    except ToolUnavailable as missing:
        raise missing.error from None


async def run(call: CallSettings, module: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run `module` once on the event loop and return `{outputs, usage, trace?}`.

    A cancelled task stops it at its next await, which closes the request to the model. A module without `aforward`
    (a team's own, perhaps) is called in place and blocks: on a thread it would go on after a cancel.
    """
    with settings_of(call) as running:
        if not _is_async(module):
            prediction = module(**inputs)
        elif call.ctx.streaming:
            prediction = await _stream(call, module, inputs)
        else:
            prediction = await module.acall(**inputs)
        return {**read_prediction(prediction), "usage": running.usage()}


def _is_async(module: Any) -> bool:
    return hasattr(module, "aforward") and hasattr(module, "acall")


async def _stream(call: CallSettings, module: Any, inputs: dict[str, Any]) -> Any:
    """Emit `{"field", "chunk"}` for each piece of each text output, and return the prediction."""
    dspy = call.dspy
    stream = dspy.streamify(
        module,
        stream_listeners=_listeners(dspy, module),
        status_message_provider=_silent_status_messages(),
        is_async_program=True,
    )
    prediction: Any = None
    async for value in stream(**inputs):
        if isinstance(value, dspy.streaming.StreamResponse):
            if value.chunk:
                call.ctx.emit({"field": value.signature_field_name, "chunk": value.chunk})
        elif isinstance(value, dspy.Prediction):
            prediction = value
    if prediction is None:
        raise BridgeError(ErrorCode.HANDLER_ERROR, "the program's stream ended without a prediction")
    return prediction


def _listeners(dspy: Any, module: Any) -> list[Any]:
    """One for each text field that exactly one predictor of the module fills, and no agent's inner step."""
    owners: dict[str, list[Any]] = {}
    for name, predictor in module.named_predictors():
        for field, info in predictor.signature.output_fields.items():
            if info.annotation is str:
                owners.setdefault(field, []).append((name, predictor))
    reused = len(module.named_predictors()) > 1  # an agent asks the same predictor again and again
    return [
        dspy.streaming.StreamListener(
            signature_field_name=field, predict=owner[0][1], predict_name=owner[0][0], allow_reuse=reused
        )
        for field, owner in owners.items()
        if len(owner) == 1
    ]


def _silent_status_messages() -> Any:
    """DSPy puts its own status texts into the stream otherwise; ours are log events."""
    from dspy.streaming.messages import StatusMessageProvider

    return StatusMessageProvider()

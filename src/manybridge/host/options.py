"""How one call is made, apart from what it asks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import monotonic

from manybridge.host.calls import Call, ToolRunner
from manybridge.host.session_settings import HandedSettings
from manybridge.host.worker import WorkerHandle
from manybridge.protocol.messages import Event


@dataclass(slots=True)
class CallOptions:
    """The context of one call. Made when the call begins: its deadline counts from there, over all its steps."""

    timeout: float = inf
    """Seconds; inf for no limit."""
    session: str | None = None
    idempotency_key: str | None = None
    traceparent: str | None = None
    on_event: Callable[[Event], None] | None = None
    """Gets chunk, progress and log events."""
    on_call: Callable[[Call], None] | None = None
    """Gets each call to a worker that is made for this one, before it is queued."""
    tools: ToolRunner | None = None
    """Answers tool calls, in the place of the host's own tools."""
    settings: HandedSettings | None = None
    """What its session has to say to the bridge."""
    target: WorkerHandle | None = None
    """The worker that a session wants it to run on."""
    deadline: float = inf
    last_call: Call | None = None
    """The last call to a worker that was made for this one."""

    def __post_init__(self) -> None:
        self.deadline = monotonic() + self.timeout

    def begin(self, call: Call) -> None:
        """Give a call what these options say."""
        call.timeout, call.deadline = self.timeout, self.deadline
        call.session_id, call.traceparent, call.settings = self.session, self.traceparent, self.settings
        call.on_event, call.tools = self.on_event, self.tools
        call.stream = self.on_event is not None or self.tools is not None
        self.last_call = call
        if self.on_call is not None:
            self.on_call(call)

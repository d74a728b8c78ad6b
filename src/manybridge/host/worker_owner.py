"""What a worker tells the pool that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from manybridge.errors import ManybridgeError
from manybridge.host.calls import Call
from manybridge.protocol.messages import ErrorReply, Event, Reply

if TYPE_CHECKING:
    from manybridge.host.worker import WorkerHandle


class WorkerOwner(Protocol):
    """What a worker tells its pool."""

    def call_ended(self, worker: WorkerHandle, call: Call, message: Reply | ErrorReply, now: float) -> None:
        """A reply came for a call."""
        ...

    def call_failed(self, call: Call, error: ManybridgeError) -> None:
        """A call is over although its worker still has it."""
        ...

    def is_stuck(self, worker: WorkerHandle) -> None:
        """Calls wait in the worker behind one that takes longer than those before it."""
        ...

    def has_room(self, worker: WorkerHandle) -> None:
        """Replies came; the worker may take more calls."""
        ...

    def tool_requested(self, worker: WorkerHandle, call: Call, event: Event) -> None:
        """The worker calls a tool of the caller."""
        ...

    def poisoned(self, worker: WorkerHandle) -> None:
        """The worker takes no calls any more and will be killed: start its replacement."""
        ...

    def died(self, worker: WorkerHandle) -> None:
        """The process has ended; `worker.calls` holds what it left."""
        ...

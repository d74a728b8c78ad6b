"""Version 1 as a DSPex application knows it, for bridges of dialect "dspex".

Until the client opts in to version 2, requests are answered strictly one after another, in order, by `handle_v1` of
the bridge, and malformed input ends the process with status 0, as the script that this replaces did. Only while the
framework is being imported is a ping answered out of that import's way: DSPex gives a worker 5 s for its first ping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from manybridge.bridge import BridgeError, V1Context
from manybridge.protocol import codec
from manybridge.protocol.errors import ErrorCode
from manybridge.worker.loader import LoadState

if TYPE_CHECKING:
    from manybridge.worker.calls import WorkerCall
    from manybridge.worker.runtime import Runtime

FRAMEWORK_FREE: Final = ("ping", "get_stats")
"""Commands that the bridge answers without its framework, from any thread."""


class Version1:
    """Serves version 1 commands of one bridge. Owner of the `V1Context` and its counters."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._context = V1Context(mode=runtime.info.mode, worker_id=runtime.info.id, started_at=runtime.info.started_at)

    def may_answer_now(self, command: Any) -> bool:
        """Whether a command need not wait for the import that keeps the main thread busy."""
        runtime = self._runtime
        return (
            type(command) is str
            and command in FRAMEWORK_FREE
            and runtime.loader.state is LoadState.LOADING
            and runtime.is_idle()
        )

    def perform(self, call: WorkerCall) -> dict[str, Any]:
        """Answer one command.

        Raises:
            Exception: whatever the bridge raised; its text is the error on the wire.
        """
        bridge = self._runtime.loader.bridge
        if bridge is None:
            raise self._runtime.loader.failure()
        request = call.request
        self._context.command_count += 1
        try:
            result = bridge.handle_v1(request.command, request.args, self._context)
            if result is None:
                raise BridgeError(ErrorCode.UNKNOWN_COMMAND, f"Unknown command: {request.command}")
            codec.encode_strict(result)  # version 1 knows no markers: what JSON can't carry is an error
        except BaseException:
            self._context.error_count += 1
            raise
        return result

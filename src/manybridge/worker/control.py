"""The `common:*` commands that are answered at once, by whichever thread holds the reader's role.

None of them runs user code except `ping_info` and `stats` of the bridge, which are documented as fast and thread-safe.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from manybridge.bridge import BridgeError
from manybridge.protocol.commands import COMMON_COMMANDS
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import CODECS, FEATURES, PROTOCOL_VERSION, Request, json_type
from manybridge.worker.calls import Stage
from manybridge.worker.loader import LoadState
from manybridge.worker.process import memory, thread_count

if TYPE_CHECKING:
    from manybridge.worker.runtime import Runtime


class ControlCommands:
    """Answers about the worker itself. Reads the runtime's state; changes it only through its methods."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._started = monotonic()
        self._handlers: dict[str, Callable[[Request], Any]] = {
            name: getattr(self, name) for name, command in COMMON_COMMANDS.items() if command.at_once
        }

    def find(self, operation: str) -> Callable[[Request], Any] | None:
        """The handler of an operation that is answered at once, or None."""
        return self._handlers.get(operation)

    def hello(self, request: Request) -> dict[str, Any]:
        """Agree on a version.

        Raises:
            BridgeError: `unsupported_version`, no common version or codec.
        """
        runtime, args = self._runtime, request.args
        version, codec = args.get("protocol", PROTOCOL_VERSION), args.get("codec", CODECS[0])
        if type(version) is not int or version < 1:
            raise BridgeError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"protocol: expected 1 to {PROTOCOL_VERSION}, found "
                f"{version if type(version) is int else json_type(version)}",
                details={"supported": [1, PROTOCOL_VERSION]},
            )
        if codec not in CODECS:
            raise BridgeError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"codec: this worker speaks {', '.join(CODECS)}",
                details={"supported": list(CODECS)},
            )
        agreed = min(version, PROTOCOL_VERSION)
        if agreed == PROTOCOL_VERSION:
            runtime.connection.accept_hello()
        found = runtime.loader.bridge_class
        return {
            "protocol": agreed,
            "codec": codec,
            "features": list(FEATURES) if agreed == PROTOCOL_VERSION else [],
            "worker": {"id": runtime.info.id, "pid": os.getpid(), "generation": runtime.info.generation},
            "framework": runtime.runner.framework,
            "bridge": runtime.runner.bridge_name,
            "capabilities": list(found.capabilities) if found is not None else [],
            "max_frame_bytes": runtime.connection.max_frame_bytes,
        }

    def ping(self, _request: Request) -> dict[str, Any]:
        """Say what the worker does."""
        runtime = self._runtime
        running = runtime.calls.in_stage(Stage.RUNNING)
        begun = min((call.started_at for call in running if call.started_at is not None), default=None)
        return {
            "status": "ok",
            "state": self._state(bool(running)),
            "busy_seconds": 0.0 if begun is None else monotonic() - begun,
            "current_call": running[0].request.id if running else None,
            "queued": runtime.queued_calls(),
            "uptime": monotonic() - self._started,
            "pid": os.getpid(),
            "framework": runtime.runner.framework,
            "bridge": runtime.runner.bridge_name,
            "worker_id": runtime.info.id,
            "generation": runtime.info.generation,
            "mode": runtime.info.mode,
            **runtime.bridge_facts("ping_info"),
        }

    def health(self, _request: Request) -> dict[str, Any]:
        """Say whether calls can be served."""
        loader = self._runtime.loader
        status = {LoadState.READY: "ok", LoadState.FAILED: "failed"}.get(loader.state, "loading")
        reason = loader.failure().message if loader.state is LoadState.FAILED else None
        return {
            "status": status,
            "state": self._state(bool(self._runtime.calls.in_stage(Stage.RUNNING))),
            "reason": reason,
        }

    def get_stats(self, _request: Request) -> dict[str, Any]:
        """Count."""
        runtime = self._runtime
        return {
            "calls": runtime.answers.counters.calls,
            "errors": runtime.answers.counters.errors,
            "deprecated_calls": runtime.answers.counters.deprecated,
            "resources": runtime.runner.resource_count,
            "uptime": monotonic() - self._started,
            "load_seconds": runtime.loader.load_seconds,
            "memory": memory(),
            "threads": thread_count(),
            **runtime.bridge_facts("stats"),
        }

    def cancel(self, request: Request) -> dict[str, Any]:
        """Put a call onto the stop ladder.

        Raises:
            BridgeError: `invalid_argument`, no id.
        """
        if "id" not in request.args:
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, "id: expected the id of the request to stop, found nothing")
        id = request.args["id"]
        if request.args.get("only_waiting") is True:
            return {"id": id, "state": "cancelling" if self._runtime.recall(id) else "begun"}
        known = self._runtime.cancel(id)
        return {"id": id, "state": "cancelling" if known else "unknown"}

    def call_result(self, request: Request) -> dict[str, Any]:
        """Deliver the answer of a host call."""
        return self._runtime.host_calls.receive_result(request.args)

    def configure_session(self, request: Request) -> dict[str, Any]:
        """Keep the settings of a session for its calls.

        Raises:
            BridgeError: `invalid_argument`.
        """
        session, settings = request.args.get("session_id", request.session_id), request.args.get("settings")
        if not isinstance(session, str) or not session:
            text = f"session_id: expected a non-empty string, found {json_type(session)}"
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, text)
        if not isinstance(settings, dict):
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, f"settings: expected an object, found {json_type(settings)}")
        self._runtime.configure_session(session, settings)
        return {"session_id": session, "status": "kept"}

    def shutdown(self, _request: Request) -> dict[str, Any]:
        """Finish and exit."""
        self._runtime.intake.closing = True
        return {"status": "shutting_down"}

    def _state(self, running: bool) -> str:
        state = self._runtime.loader.state
        return "busy" if running and state is LoadState.READY else state.value

"""Finding the code behind a command and running it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from manybridge.bridge import BridgeError, BridgeSpec, Cancelled, CommandSpec
from manybridge.bridge.signatures import HandlerKind
from manybridge.protocol.batch import BatchError, BatchItem, batch_items
from manybridge.protocol.commands import COMMON, COMMON_COMMANDS
from manybridge.protocol.errors import ErrorCode
from manybridge.protocol.messages import Request, json_type
from manybridge.worker.calls import WorkerCall
from manybridge.worker.executor import EventLoop, adrain, drain
from manybridge.worker.failures import describe
from manybridge.worker.interrupt import Terminated
from manybridge.worker.loader import READY, Loader, LoadState
from manybridge.worker.resources import ResourceTable

_COMMON_OPERATIONS: Final = {f"{COMMON}:{name}": name for name in COMMON_COMMANDS} | {
    name: name for name in COMMON_COMMANDS
}

_STILL_TO_RUN: Final[Mapping[type, HandlerKind]] = {
    CoroutineType: "coroutine",
    GeneratorType: "generator",
    AsyncGeneratorType: "async_generator",
}
"""What a plain function may return in the place of a result: a decorator stands between it and the real handler."""

common_operation: Final[Callable[[str], str | None]] = _COMMON_OPERATIONS.get
"""The operation of a `common:*` command, also where a version 1 client left the namespace out; else None."""


class CommandRunner:
    """Runs one command at a time on the calling thread. Owner of the worker's resources and of its event loop.

    Args:
        loader: has the bridge, or the reason why there is none.
        registered_name: the name that the bridge is registered under, or None for its own.
        find_control: finds the handler of a command that is otherwise answered at once, for use inside a batch.
        concurrency: tells how many calls run at a time.
        session_ended: told of a session that is to be forgotten; None: of all.
    """

    def __init__(
        self,
        loader: Loader,
        registered_name: str | None,
        find_control: Callable[[str], Callable[[Request], Any] | None],
        concurrency: Callable[[], int],
        session_ended: Callable[[str | None], None],
    ) -> None:
        self._loader = loader
        self._registered_name = registered_name
        self._find_control = find_control
        self._concurrency = concurrency
        self._session_ended = session_ended
        self._lock = threading.Lock()
        self._resources: ResourceTable | None = None
        self._events = EventLoop()
        self._offer: BridgeSpec | None = None
        self._listed: Mapping[str, CommandSpec] | None = None
        self._by_full_name: dict[str, CommandSpec] = {}
        """The bridge's commands by every name that a client may call them; made anew when it offers others."""

    @property
    def framework(self) -> str:
        """Name of the framework; the bridge's reference while its class is not imported."""
        found = self._loader.bridge_class
        return found.name if found is not None else self._loader.reference

    @property
    def bridge_name(self) -> str:
        """The name that the bridge is registered under."""
        return self._registered_name or self.framework

    @property
    def resource_count(self) -> int:
        """How many resources this worker holds."""
        return 0 if self._resources is None else len(self._resources)

    def close_resources(self) -> None:
        """Delete every resource."""
        if self._resources is not None:
            self._resources.clean_up(None)

    def run(self, call: WorkerCall, command: str, args: dict[str, Any]) -> Any:
        """Run a command on behalf of a call.

        Raises:
            BridgeError: `unknown_command`, `invalid_argument`, or why the bridge can't serve.
            BaseException: whatever its handler raised.
        """
        offer = self._offer
        # Every change at run time puts a new mapping in the old one's place, so identity tells whether it is current.
        if offer is not None and offer.commands is self._listed:
            spec = self._by_full_name.get(command)
            if spec is not None:
                return self._invoke(call, spec, args)
        common = common_operation(command)
        if common is not None:
            return self._run_common(call, common, args)
        bridge = self._loader.bridge
        if bridge is None or self._loader.state is not READY:
            raise self._loader.failure()
        self._learn_names(bridge.spec)
        spec = self._by_full_name.get(command)
        if spec is None:
            raise self._unknown_command(command)
        return self._invoke(call, spec, args)

    def _learn_names(self, offer: BridgeSpec) -> None:
        prefixes = {f"{self.framework}:", f"{self.bridge_name}:", ""}
        names = {f"{prefix}{name}": spec for prefix in prefixes for name, spec in offer.commands.items()}
        self._by_full_name = {name: spec for name, spec in names.items() if common_operation(name) is None}
        self._offer, self._listed = offer, offer.commands

    def _run_common(self, call: WorkerCall, operation: str, args: dict[str, Any]) -> Any:
        at_once = self._find_control(operation)
        if at_once is not None:  # inside a batch
            return at_once(call.request._replace(args=args))
        if operation == "capabilities":
            return self._capabilities()
        bridge = self._loader.bridge
        if bridge is None or self._loader.state is not LoadState.READY:
            raise self._loader.failure()
        if operation == "warm_up":
            commands = bridge.spec.commands.items()
            return {
                "state": self._loader.state.value,
                "load_seconds": self._loader.load_seconds,
                "max_concurrency": self._concurrency(),
                "idempotent": [name for name, spec in commands if spec.idempotent],
                "session_settings": [name for name, spec in commands if spec.session_settings],
                "changes": {name: spec.changes for name, spec in commands if spec.changes is not None},
            }
        if operation == "batch":
            try:
                items = batch_items(args.get("calls"))
            except BatchError as error:
                raise BridgeError(ErrorCode.INVALID_ARGUMENT, str(error)) from None
            return {"results": [self._run_batched(call, item) for item in items]}
        if operation == "cleanup":
            return self._clean_up(call, args)
        return self._run_resource(call, operation, args)

    def _run_resource(self, call: WorkerCall, operation: str, args: dict[str, Any]) -> Any:
        table, session = self._table(), call.request.session_id
        if operation in ("create_resource", "execute_resource"):
            method = table.create if operation == "create_resource" else table.execute
            return method(args, session, lambda spec, given, instance: self._invoke(call, spec, given, instance))
        handler = {
            "get_resource": table.describe,
            "list_resources": table.list,
            "delete_resource": table.delete,
            "snapshot_resource": table.snapshot,
        }[operation]
        return handler(args, session)

    def _run_batched(self, call: WorkerCall, item: BatchItem) -> dict[str, Any]:
        if call.cancelled:
            raise Cancelled(call.stop_reason or "cancelled")
        try:
            return {"success": True, "result": self.run(call, item.command, item.args)}
        except (Cancelled, Terminated):
            raise
        except BaseException as error:  # noqa: BLE001  # one item's failure is its own, `sys.exit` included
            info = describe(error, self._loader.bridge, self.framework)
            return {"success": False, "error": info.message, "error_info": info.to_object()}

    def _invoke(self, call: WorkerCall, spec: CommandSpec, args: dict[str, Any], instance: Any = None) -> Any:
        keywords = spec.validate(args)
        if spec.wants_context is not None:
            keywords[spec.wants_context] = call.context()
        outcome = spec.function(**keywords) if instance is None else spec.function(instance, **keywords)
        kind = spec.kind
        if kind == "function":
            kind = _STILL_TO_RUN.get(type(outcome), kind)
            if kind == "function":
                return outcome
        if kind == "generator":
            return drain(call, outcome)
        work = outcome if kind == "coroutine" else adrain(call, outcome)
        if threading.current_thread() is threading.main_thread():
            return self._events.run(call, work)
        return self._events.run_elsewhere(call, work)

    def _capabilities(self) -> dict[str, Any]:
        bridge = self._loader.bridge
        if bridge is None:
            raise self._loader.failure()
        described: dict[str, Any] = bridge.spec.describe()
        return described

    def _clean_up(self, call: WorkerCall, args: dict[str, Any]) -> dict[str, Any]:
        assert self._loader.bridge is not None
        session = args.get("session_id", call.request.session_id)  # a caller in a session means its own
        if session is not None and not isinstance(session, str):
            text = f"session_id: expected a string, found {json_type(session)}"
            raise BridgeError(ErrorCode.INVALID_ARGUMENT, text)
        removed = self._table().clean_up(session)
        self._session_ended(session)
        return {"status": "cleaned", "resources_removed": removed, **self._loader.bridge.cleanup(session)}

    def _table(self) -> ResourceTable:
        with self._lock:
            if self._resources is None:
                assert self._loader.bridge is not None
                self._resources = ResourceTable(self._loader.bridge, self.bridge_name)
            return self._resources

    def _unknown_command(self, command: str) -> BridgeError:
        from difflib import get_close_matches

        bridge = self._loader.bridge
        own = [] if bridge is None else [f"{self.bridge_name}:{name}" for name in bridge.spec.commands]
        known = sorted(own) + [f"{COMMON}:{name}" for name in COMMON_COMMANDS]
        close = get_close_matches(command, known, n=3)
        return BridgeError(
            ErrorCode.UNKNOWN_COMMAND, f"Unknown command: {command}", details={"close_matches": close, "known": known}
        )

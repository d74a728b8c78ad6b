"""One client of a host, over the same wire that a worker speaks.

Which bridge a request is for:

* `name:operation`: the bridge that is registered as `name`, or else the one whose framework is called that.
* `common:operation`: the bridge that `args.bridge` names, or the default. The host itself answers `common:hello`,
  `common:cancel`, `common:call_result` and `common:shutdown`; everything about jobs, `common:explain` and
  `common:reload_bridge` (`HOST_COMMANDS`); and `common:ping`, `common:health` and `common:get_stats` when they name no
  bridge.
* A command without namespace is version 1: it goes to the default bridge as it is, is counted as deprecated, and always
  reaches the same worker while that lives, one after the other, because a version 1 client believes that it talks to
  one process.

Requests of version 2 run concurrently and are answered as they end.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from itertools import count
from math import inf
from time import monotonic, time
from typing import Any, Final

import manybridge
from manybridge.errors import CallError, InvalidArgumentError, ManybridgeError, RegistryError
from manybridge.gateway.jobs import JobCommands
from manybridge.gateway.supervision import SupervisionCommands
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.calls import Call, CallStage, ToolRunner
from manybridge.host.options import CallOptions
from manybridge.host.pool import Pool
from manybridge.protocol import codec
from manybridge.protocol.batch import BatchError, BatchItem, batch_items
from manybridge.protocol.commands import HOST_COMMANDS
from manybridge.protocol.connection import WorkerConnection
from manybridge.protocol.errors import ErrorCode, LocalProtocolError
from manybridge.protocol.frames import encode_frame
from manybridge.protocol.messages import (
    CODECS,
    EVENT_CALL,
    FEATURES,
    PROTOCOL_VERSION,
    ErrorInfo,
    ErrorReply,
    Event,
    Malformed,
    MessageId,
    Reply,
    Request,
    is_message_id,
    worker_message_to_object,
)

VERSION_1_SESSION: Final = "version-1-client"
"""The session that keeps a version 1 client with one worker."""


class Conversation:
    """The state of one client: what it speaks, its open requests, the tools calls that it has not answered.

    Args:
        ml: the host, started.
        write: sends bytes to the client.
        max_frame_bytes: the largest frame in either direction.
        on_shutdown: called when the client asked the host to end.
    """

    def __init__(
        self,
        ml: AsyncMLBridge,
        write: Callable[[bytes], None],
        *,
        max_frame_bytes: int,
        on_shutdown: Callable[[], None],
    ) -> None:
        self._ml = ml
        self._write = write
        self._on_shutdown = on_shutdown
        self._connection = WorkerConnection(max_frame_bytes)
        self._tasks: dict[MessageId, asyncio.Task[None]] = {}
        self._calls: dict[MessageId, tuple[Pool, Call]] = {}
        """The call to a worker that an open request waits for now."""
        self._tool_calls: dict[str, asyncio.Future[Any]] = {}
        self._numbers = count(1)
        self._started = monotonic()
        self._version_1_made = False
        self._paused = False
        self._jobs = JobCommands(ml, self._pool_of, self._send_event)
        self._supervision = SupervisionCommands(ml, self._call_of)
        self._own: dict[str, Callable[[Request], Any]] = {
            "common:hello": self._hello,
            "common:cancel": self._cancel,
            "common:call_result": self._call_result,
            "common:shutdown": self._shutdown,
        }

    def receive(self, data: bytes) -> None:
        """Take bytes from the client."""
        for message in self._connection.receive_data(data):
            if isinstance(message, Malformed):
                self._answer_malformed(message)
            elif message.command in self._own:
                self._answer_now(message)
            else:
                self._begin(message)

    async def finish(self) -> None:
        """Wait until every open request is answered."""
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))

    async def cancel_all(self) -> None:
        """The client is gone: stop everything that it asked for."""
        for task in self._tasks.values():
            task.cancel()
        await self.finish()

    def pause(self) -> None:
        """The client reads slower than its streams come."""
        self._paused = True
        self._jobs.flowing.clear()
        for _, call in self._calls.values():
            if call.worker is not None:
                call.worker.pause_for(call)

    def resume(self) -> None:
        """The client has caught up."""
        self._paused = False
        self._jobs.flowing.set()
        for _, call in self._calls.values():
            if call.worker is not None:
                call.worker.resume_for(call)

    # ------------------------------------------------------------------ requests

    def _answer_now(self, request: Request) -> None:
        try:
            self._reply(request, self._own[request.command](request))
        except ManybridgeError as error:
            self._fail(request, error)

    def _begin(self, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(request), name=f"request {request.id}")
        self._tasks[request.id] = task
        task.add_done_callback(lambda done: self._ended(request, done))

    def _ended(self, request: Request, task: asyncio.Task[None]) -> None:
        self._tasks.pop(request.id, None)
        if task.cancelled():  # before its first step, by a cancel that came in the same read: nobody has answered yet
            self._fail_cancelled(request)

    async def _serve(self, request: Request) -> None:
        try:
            result = await self._perform(request)
        except ManybridgeError as error:
            self._fail(request, error)
        except asyncio.CancelledError:
            self._fail_cancelled(request)
        else:
            self._reply(request, result)
        finally:
            self._calls.pop(request.id, None)

    async def _perform(self, request: Request) -> Any:
        namespace, _, operation = request.command.rpartition(":")
        if not namespace:
            return await self._perform_version_1(request)
        if namespace != "common":
            pool = self._pool_of(namespace)
            # The worker knows its registered name; a framework's name works for whatever name it is registered under.
            return await self._ml.perform(pool, f"{pool.name}:{operation}", request.args, self._options(pool, request))
        if operation in self._supervision.commands:
            return await self._supervision.perform(operation, request)
        if operation in HOST_COMMANDS:
            return await self._jobs.perform(operation, request)
        args = dict(request.args)
        name = args.pop("bridge", None)
        if name is None and operation in {"ping", "health", "get_stats"}:
            return await self._about_host(operation)
        pool = self._ml.pool(_bridge_name(name))
        if operation == "batch":
            return await self._batch(pool, args, request)
        return await self._ml.perform(pool, request.command, args, self._options(pool, request))

    async def _perform_version_1(self, request: Request) -> Any:
        pool = self._ml.pool(None)
        pool.stats.deprecated += 1
        if request.command == "shutdown":
            self._on_shutdown()
            return {"status": "shutting_down", "worker_id": None, "mode": "host", "sessions_cleaned": 0}
        if not self._version_1_made:
            self._version_1_made = True
            self._ml.make_private_session(self._version_1_session(), affinity="strict_queue")
        options = self._options(pool, request)
        options.session = self._version_1_session()
        return await self._ml.perform(pool, request.command, request.args, options)

    async def _batch(self, pool: Pool, args: dict[str, Any], request: Request) -> dict[str, Any]:
        try:
            items = batch_items(args.get("calls"))
        except BatchError as error:
            raise InvalidArgumentError(str(error)) from None
        deadline = self._options(pool, request).deadline
        # A key is for one call: of each item it is its own, so that the batch can be sent again as a whole.
        key = request.idempotency_key
        keys = [None if key is None else f"{key}[{index}]" for index in range(len(items))]
        work = (
            self._batched(pool, item, request._replace(idempotency_key=each, stream=False), deadline)
            for item, each in zip(items, keys, strict=True)
        )
        if request.session_id is None:
            return {"results": list(await asyncio.gather(*work))}
        return {"results": [await each for each in work]}  # at the same time they would reject, or stop, one another

    async def _batched(self, pool: Pool, item: BatchItem, request: Request, deadline: float) -> dict[str, Any]:
        command = item.command
        try:
            if not command.startswith("common:"):
                # Each item may name another bridge.
                namespace, _, operation = command.rpartition(":")
                pool = self._pool_of(namespace) if namespace else pool
                command = f"{pool.name}:{operation}"
            options = self._options(pool, request)
            options.deadline = deadline
            result = await self._ml.perform(pool, command, item.args, options)
        except ManybridgeError as error:
            return {"success": False, "error": error.message, "error_info": error.to_info().to_object()}
        return {"success": True, "result": result}

    def _options(self, pool: Pool, request: Request) -> CallOptions:
        default = pool.config.default_timeout
        timeout = (inf if default is None else default) if request.deadline_ms is None else request.deadline_ms / 1000
        options = CallOptions(timeout, request.session_id, request.idempotency_key, request.traceparent)
        options.on_call = lambda call: self._made(pool, request, call)
        if request.stream:
            options.on_event = self._event_sender(request)
            options.tools = self._tool_runner(request)
        return options

    def _made(self, pool: Pool, request: Request, call: Call) -> None:
        self._calls[request.id] = (pool, call)
        if self._paused:
            call.on_sent = self.pause

    def _call_of(self, id: Any) -> tuple[Pool, Call] | tuple[None, None] | None:
        if not is_message_id(id) or id not in self._tasks:
            return None
        return self._calls.get(id, (None, None))

    def _pool_of(self, namespace: str) -> Pool:
        try:
            return self._ml.pool(namespace)
        except RegistryError:
            for name, facts in self._ml.bridges().items():
                pool = self._ml.pool(name)
                frameworks = {worker.hello.get("framework") for worker in pool.ready} | {facts["bridge"]}
                if namespace in frameworks:
                    return pool
            raise

    # ------------------------------------------------------------------ what the host answers itself

    def _hello(self, request: Request) -> dict[str, Any]:
        version, codec = request.args.get("protocol", PROTOCOL_VERSION), request.args.get("codec", CODECS[0])
        if type(version) is not int or version < 1 or codec not in CODECS:
            text = f"this host speaks protocol 1 to {PROTOCOL_VERSION} with codec {', '.join(CODECS)}"
            details = {"supported": [1, PROTOCOL_VERSION], "codecs": list(CODECS)}
            raise CallError(text, code=ErrorCode.UNSUPPORTED_VERSION, details=details)
        agreed = min(version, PROTOCOL_VERSION)
        if agreed == PROTOCOL_VERSION:
            self._connection.accept_hello()
        bridges = self._ml.bridges()
        return {
            "protocol": agreed,
            "codec": codec,
            "features": [*FEATURES, "jobs"] if agreed == PROTOCOL_VERSION else [],
            "worker": {"id": "host", "pid": os.getpid(), "generation": 0},
            "framework": "manybridge",
            "version": manybridge.__version__,
            "bridge": next((name for name, facts in bridges.items() if facts["default"]), None),
            "bridges": bridges,
            "capabilities": sorted(bridges),
            "max_frame_bytes": self._connection.max_frame_bytes,
        }

    async def _about_host(self, operation: str) -> dict[str, Any]:
        if operation == "get_stats":
            return await self._ml.stats()
        health = await self._ml.health(probe=operation == "health")
        if operation == "health":
            return health
        return {
            "status": "ok",
            "state": "ready" if health["status"] == "ok" else health["status"],
            "uptime": monotonic() - self._started,
            "pid": os.getpid(),
            "framework": "manybridge",
            "worker_id": "host",
            "bridges": {name: each["state"] for name, each in health["bridges"].items()},
        }

    def _cancel(self, request: Request) -> dict[str, Any]:
        if "id" not in request.args:
            raise InvalidArgumentError("id: expected the id of the request to stop, found nothing")
        id = request.args["id"]
        task = self._tasks.get(id) if is_message_id(id) else None
        pool, call = self._calls.get(id, (None, None)) if task is not None else (None, None)
        if pool is not None and call is not None and call.stage is not CallStage.DONE:
            pool.stop_call(call, "cancelled")  # its error says which rung of the ladder has stopped it
        elif task is not None:
            task.cancel()
        return {"id": id, "state": "unknown" if task is None else "cancelling"}

    def _call_result(self, request: Request) -> dict[str, Any]:
        future = self._tool_calls.get(str(request.args.get("call_id")))
        if future is None or future.done():
            raise InvalidArgumentError("call_id: no tool call of that number waits for a result")
        error = request.args.get("error")
        if error is None:
            future.set_result(request.args.get("result"))
        else:
            future.set_exception(_tool_error(error))
        return {}

    def _shutdown(self, _request: Request) -> dict[str, Any]:
        self._on_shutdown()
        return {"status": "shutting_down"}

    # ------------------------------------------------------------------ events and tools

    def _event_sender(self, request: Request) -> Callable[[Event], None]:
        def send(event: Event) -> None:
            self._send_event(request, event.event, event.data)

        return send

    def _tool_runner(self, request: Request) -> ToolRunner:
        async def run(tool: str, args: dict[str, Any], timeout: float | None) -> Any:
            call_id = f"host-{next(self._numbers)}"
            future = self._tool_calls[call_id] = asyncio.get_running_loop().create_future()
            deadline_ms = None if timeout is None else round(timeout * 1000)
            self._send_event(
                request, EVENT_CALL, {"call_id": call_id, "tool": tool, "args": args, "deadline_ms": deadline_ms}
            )
            try:
                async with asyncio.timeout(timeout):
                    return await future
            finally:
                del self._tool_calls[call_id]

        return run

    def _send_event(self, request: Request, event: str, data: Any) -> None:
        try:
            self._write(self._connection.send(self._connection.event(request.id, event, data)))
        except LocalProtocolError as error:
            message = f"an event was dropped: {error.message}"
            self._write(
                self._connection.send(self._connection.event(request.id, "log", {"level": "error", "message": message}))
            )

    # ------------------------------------------------------------------ answers

    def _reply(self, request: Request, result: Any) -> None:
        if not self._is_extended(request) and type(result) is not dict:
            result = {"value": result}  # a version 1 client takes nothing but objects
        self._send(Reply(request.id, result, time()))

    def _fail(self, request: Request, error: ManybridgeError) -> None:
        info = error.to_info()
        self._send(ErrorReply(request.id, info.message, info if self._is_extended(request) else None, time()))

    def _fail_cancelled(self, request: Request) -> None:
        details = {"command": request.command}
        self._fail(request, CallError(f"{request.command} was cancelled", code=ErrorCode.CANCELLED, details=details))

    def _send(self, message: Reply | ErrorReply) -> None:
        try:
            data = self._connection.send(message)
        except LocalProtocolError as error:
            info = ErrorInfo.of(error.code, f"the result does not fit into a frame: {error.message}", **error.details)
            data = self._connection.send(ErrorReply(message.id, info.message, self._extended_info(info), time()))
        self._write(data)

    def _answer_malformed(self, message: Malformed) -> None:
        """Answer what is no request, and so no call of the connection's, although it may have had an id."""
        details = {name: value for name, value in message.error.details.items() if name != "id"}
        info = ErrorInfo.of(message.error.code, message.error.message, **details)
        reply = ErrorReply(message.id, info.message, info, time())
        self._write(encode_frame(codec.encode(worker_message_to_object(reply))))

    def _is_extended(self, request: Request) -> bool:
        return self._connection.version == PROTOCOL_VERSION or request.is_extended

    def _extended_info(self, info: ErrorInfo) -> ErrorInfo | None:
        return info if self._connection.version == PROTOCOL_VERSION else None

    def _version_1_session(self) -> str:
        return f"{VERSION_1_SESSION}-{id(self):x}"


def _bridge_name(name: Any) -> str | None:
    if name is not None and not isinstance(name, str):
        raise InvalidArgumentError("bridge: expected the name of a bridge")
    return name


def _tool_error(error: Any) -> CallError:
    facts = error if isinstance(error, dict) else {"message": str(error)}
    details = facts.get("details")
    return CallError(
        str(facts.get("message", "the client's tool failed")),
        code=str(facts.get("code", ErrorCode.HANDLER_ERROR)),
        details=details if isinstance(details, dict) else None,
        type=facts.get("type") if isinstance(facts.get("type"), str) else None,
    )

"""Jobs over the wire: `HOST_COMMANDS`, answered for one client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

from manybridge.errors import CallTimeoutError, InvalidArgumentError
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.jobs import AsyncJob
from manybridge.host.pool import Pool
from manybridge.protocol.commands import COMMON, HOST_COMMANDS
from manybridge.protocol.messages import EVENT_CHUNK, Request, json_type

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "string": (str,),
    "object": (dict,),
    "array": (list,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


class JobCommands:
    """Answers what is asked about jobs.

    Args:
        ml: the host.
        pool_of: finds the pool that a namespace means.
        send_event: sends an event of a request.
    """

    def __init__(
        self, ml: AsyncMLBridge, pool_of: Callable[[str], Pool], send_event: Callable[[Request, str, Any], None]
    ) -> None:
        self._ml = ml
        self._pool_of = pool_of
        self._send_event = send_event
        self.flowing = asyncio.Event()
        """Set while the client keeps up. A job does not wait for its watchers: they read what it keeps."""
        self.flowing.set()
        self._commands: dict[str, Callable[[Request, dict[str, Any]], Awaitable[Any]]] = {
            "submit": self._submit,
            "jobs": self._list,
            "job": self._describe,
            "job_result": self._result,
            "job_events": self._events,
            "cancel_job": self._cancel,
            "delete_job": self._delete,
        }

    async def perform(self, operation: str, request: Request) -> Any:
        """Answer a request.

        Raises:
            ManybridgeError: an argument is wrong, there is no such job, or the job's own error.
        """
        return await self._commands[operation](request, checked_host_args(operation, request.args))

    async def _submit(self, request: Request, args: dict[str, Any]) -> dict[str, Any]:
        command = args["command"]
        namespace, _, operation = command.rpartition(":")
        if namespace in {"", COMMON}:
            pool = self._ml.pool(args.get("bridge"))
        else:
            pool = self._pool_of(namespace)
            command = f"{pool.name}:{operation}"
        job = await self._ml.submit(
            pool.name,
            command,
            args.get("args"),
            timeout=args["timeout_ms"] / 1000 if "timeout_ms" in args else inf,
            session=request.session_id,
            idempotency_key=request.idempotency_key,
            id=args.get("id"),
            resume=args.get("resume", False),
        )
        return job.describe()

    async def _list(self, _request: Request, args: dict[str, Any]) -> dict[str, Any]:
        found = await self._ml.jobs(args.get("bridge"), args.get("states"), args.get("limit"))
        return {"jobs": [job.describe() for job in found], "total_count": len(found)}

    async def _describe(self, _request: Request, args: dict[str, Any]) -> dict[str, Any]:
        return (await self._find(args)).describe()

    async def _result(self, request: Request, args: dict[str, Any]) -> Any:
        job = await self._find(args)
        seconds = None if request.deadline_ms is None else request.deadline_ms / 1000
        if not await job.wait(seconds):
            text = f"job {job.id} has not ended within {seconds:g} s; it goes on"
            raise CallTimeoutError(text, details={"job": job.id, "state": str(job.state)})
        return await job.result()

    async def _events(self, request: Request, args: dict[str, Any]) -> dict[str, Any]:
        job, following = await self._find(args), args.get("from_seq", 0)
        listed: list[dict[str, Any]] = []
        while events := await job.take_events(following, wait=request.stream):
            following = events[-1].seq + 1
            described = [{"seq": each.seq, "event": each.event, "data": each.data} for each in events]
            if not request.stream:
                listed = described
                break
            for each in described:
                await self.flowing.wait()
                self._send_event(request, EVENT_CHUNK, each)
        facts = {"id": job.id, "state": str(job.state), "next_seq": following}
        return facts if request.stream else {**facts, "events": listed}

    async def _cancel(self, _request: Request, args: dict[str, Any]) -> dict[str, Any]:
        job = await self._find(args)
        return {"id": job.id, "cancelled": await job.cancel(), "state": str(job.state)}

    async def _delete(self, _request: Request, args: dict[str, Any]) -> dict[str, Any]:
        await self._ml.delete_job(args["id"])
        return {"id": args["id"], "deleted": True}

    async def _find(self, args: dict[str, Any]) -> AsyncJob:
        return await self._ml.get_job(args["id"])


def checked_host_args(operation: str, args: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments without those that are null.

    Raises:
        InvalidArgumentError: one is missing, unknown or of the wrong type; all of them are named.
    """
    command = HOST_COMMANDS[operation]
    given = {name: value for name, value in args.items() if value is not None}
    problems = [
        {"argument": name, "expected": f"a known argument ({', '.join(command.args)})", "found": "an unknown one"}
        for name in given.keys() - command.args.keys()
    ]
    for name, schema in command.args.items():
        if name not in given:
            if name in command.required:
                problems.append({"argument": name, "expected": schema["type"], "found": "nothing"})
        elif "type" in schema and type(given[name]) not in _TYPES[schema["type"]]:
            problems.append({"argument": name, "expected": schema["type"], "found": json_type(given[name])})
    if problems:
        text = "; ".join(f"{each['argument']}: expected {each['expected']}, found {each['found']}" for each in problems)
        raise InvalidArgumentError(text, details={"problems": problems})
    return given

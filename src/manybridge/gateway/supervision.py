"""What a client may ask a host about its own workings, and have it do: `common:explain`, `common:reload_bridge`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manybridge.errors import InvalidArgumentError
from manybridge.gateway.jobs import checked_host_args
from manybridge.host.bridge import AsyncMLBridge
from manybridge.host.calls import Call
from manybridge.host.explain import explain_call
from manybridge.host.pool import Pool
from manybridge.protocol.messages import Request


class SupervisionCommands:
    """Answers one client.

    Args:
        ml: the host.
        call_of: finds the call to a worker that an open request of this client waits for, by the request's id; None
            where there is no such request, a pair of None where it has no call at the moment.
    """

    def __init__(
        self, ml: AsyncMLBridge, call_of: Callable[[Any], tuple[Pool, Call] | tuple[None, None] | None]
    ) -> None:
        self._ml = ml
        self._call_of = call_of
        self.commands = {"explain": self._explain, "reload_bridge": self._reload}

    async def perform(self, operation: str, request: Request) -> Any:
        """Answer a request.

        Raises:
            ManybridgeError: an argument is wrong, or what it names does not exist.
        """
        return await self.commands[operation](checked_host_args(operation, request.args))

    async def _explain(self, args: dict[str, Any]) -> dict[str, Any]:
        if "request" not in args:
            return await self._ml.explain(args.get("id"))
        id = args["request"]
        found = self._call_of(id)
        if found is None:
            raise InvalidArgumentError(f"request: no request {id!r} of this connection is open")
        pool, call = found
        if pool is None or call is None:
            text = "it is between two calls to workers: the host prepares one, or waits before another attempt"
            return {"what": "request", "id": id, "state": "waiting", "waits_for": "host", "reason": text}
        return {"what": "request", "id": id, **explain_call(pool, call)}

    async def _reload(self, args: dict[str, Any]) -> dict[str, Any]:
        return await self._ml.reload_bridge(args.get("bridge"))

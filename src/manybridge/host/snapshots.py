"""Asking a worker in which state a resource is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from manybridge.errors import ManybridgeError
from manybridge.host.calls import Call, loop_future
from manybridge.host.options import CallOptions
from manybridge.host.own_requests import answer_of
from manybridge.host.worker import WorkerHandle


class AskedSnapshot(NamedTuple):
    """A snapshot that a worker was asked for, and which in the order of asking."""

    call: Call
    number: int


_numbers: Final = itertools.count(1)


def ask_snapshot(worker: WorkerHandle, id: str, session: str | None, options: CallOptions) -> AskedSnapshot:
    """Ask a worker for the state of a resource of a session; it answers after what it was sent before."""
    call = Call("common:snapshot_resource", {"id": id}, loop_future(), options.timeout)
    call.session_id = session
    worker.ask(call)
    return AskedSnapshot(call, next(_numbers))


async def told_state(worker: WorkerHandle, asked: AskedSnapshot, options: CallOptions) -> Any:
    """Return the state that a worker was asked for.

    Raises:
        ManybridgeError: it can't tell; the message is its own, `details["while"]` says what it was asked.
    """
    try:
        return (await answer_of(worker, asked.call, options.deadline))["state"]
    except ManybridgeError as error:  # a copy: a worker's death has one error for all that it ends
        raise error.copy(**{"while": f"the state of resource {asked.call.args['id']} was asked for"}) from None


def after_sent(call: Call, action: Callable[[], None]) -> None:
    """Have `action` called when a call was sent to its worker, after what is called then already."""
    before = call.on_sent

    def both() -> None:
        if before is not None:
            before()
        action()

    call.on_sent = both

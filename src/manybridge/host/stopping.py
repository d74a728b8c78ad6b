"""The last rungs of the ladder that stops a call: those that need the power over a process.

The worker climbs the first two by itself, as soon as it is told to cancel or the call's deadline passes: *cooperative*
(the flag) and *exception* (raised in the running code). Where no answer comes in time, it goes on here:

* *sigterm* to the process group, after the threads' stacks were dumped into the log;
* *sigkill* to the process group.

From the first of these on, the worker is poisoned: its replacement starts at once and it gets no further call. Calls
that it had not begun go to other workers. A concurrent worker may have other calls that are worth something: it is
killed when they have ended (*drain*), and the call is answered before that.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from manybridge.host.calls import Call

if TYPE_CHECKING:
    from manybridge.host.worker import WorkerHandle

TRANSIT_SECONDS: Final = 0.1
"""What a worker's own answer may take to arrive before the host climbs on."""

DRAIN_SECONDS: Final = 5.0
"""How long other calls of a poisoned concurrent worker may go on before it is killed."""


class StopLadder:
    """Climbs for one worker. Writes `Call.stopped_by`."""

    def __init__(self, worker: WorkerHandle) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._stuck: Call | None = None
        """The call that poisoned a concurrent worker."""

    def begin(self, call: Call) -> None:
        """The call must stop; `stop_reason` says why. A deadline the worker sees by itself."""
        if call.stop_reason == "cancelled":
            self._worker.post("common:cancel", {"id": call.id})
        self._look_again(call)

    def finish_drain(self) -> None:
        """End the worker if no call is left that is worth something. Its stuck code may have ended meanwhile, too."""
        if self._worker.fatal is None and all(call.stop_reason for call in self._worker.calls.values()):
            self._terminate(self._stuck)

    def _look_again(self, call: Call) -> None:
        self._loop.call_later(self._worker.config.cancel_grace + TRANSIT_SECONDS, self._climb, call)

    def _climb(self, call: Call) -> None:
        worker = self._worker
        if worker.calls.get(call.id) is not call or worker.exit_status is not None:
            return
        if not worker.may_have_begun(call):
            # Its caller need not wait behind somebody else's call. The worker will skip it when its turn comes.
            worker.give_up_on(call)
            self._look_again(call)
            return
        worker.poison()
        if worker.concurrency > 1 and any(other.stop_reason is None for other in worker.calls.values()):
            call.stopped_by, self._stuck = "drain", call
            worker.give_up_on(call)
            self._loop.call_later(DRAIN_SECONDS, self._terminate, call)
            return
        self._terminate(call)

    def _terminate(self, call: Call | None) -> None:
        worker = self._worker
        if call is None or worker.exit_status is not None or call.stopped_by in {"sigterm", "sigkill"}:
            return
        worker.expected_end = True
        call.stopped_by = "sigterm"
        worker.process.dump_stacks()
        worker.process.signal_group(signal.SIGTERM)
        self._loop.call_later(worker.config.term_grace, self._kill, call)

    def _kill(self, call: Call) -> None:
        if self._worker.exit_status is None:
            call.stopped_by = "sigkill"
            self._worker.process.signal_group(signal.SIGKILL)
